"""An open studio: what it hands to whom, and what it refuses."""

import io
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from pmv.apps.studio.jobs import read_job
from pmv.apps.studio.opened import Studio
from pmv.apps.studio.painting import Edits
from pmv.errors import InputError
from tests.apps.studio.conftest import Opened, Told, Visitor
from tests.conftest import ROOT

PORTRAIT = (ROOT / "assets" / "portraits" / "plain.png").read_bytes()


@pytest.fixture(scope="module")
def studio(open_studio: Opened, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return open_studio(tmp_path_factory.mktemp("open") / "studio", most_upload_mb=1)


@pytest.fixture(scope="module")
def guarded(open_studio: Opened, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    folder = tmp_path_factory.mktemp("guarded")
    accounts = folder / "accounts"
    accounts.write_text("ada:correct horse\nbob:battery staple\n")
    accounts.chmod(0o600)
    return open_studio(folder / "studio", auth=accounts)


def visitor(studio: Studio) -> Visitor:
    found = Visitor(studio.address)
    found.generator = studio.settings.generators[0]
    found.arrive()
    return found


@pytest.fixture(scope="module")
def ada(studio: Studio) -> Iterator[tuple[Visitor, str]]:
    """Somebody with a head."""
    someone = visitor(studio)
    yield someone, someone.begin("portrait.png", PORTRAIT)


def test_a_head_is_its_owner_s_alone(studio: Studio, ada: tuple[Visitor, str]):
    owner, name = ada
    address = f"/studio/files/{name}/photo.jpg"
    assert Image.open(io.BytesIO(owner.get(address).content)).format == "JPEG"
    other = visitor(studio)
    assert other.get(address).status_code == 404
    for event, values in (
        ("choose", [name]),
        ("as_found", [name]),
        ("run", [name, studio.settings.presets[0], "only what has changed", ""]),
        ("stop", [name]),
    ):
        with pytest.raises(Told, match="no such head"):
            other.call(event, *values)
    assert name not in str(other.call("arrive")), "nor is it listed"
    assert name in str(owner.call("arrive"))


def test_no_path_of_gradio_leads_into_a_workspace(studio: Studio, ada: tuple[Visitor, str]):
    owner, name = ada
    head = next(studio.people.folder.glob(f"*/{name}"))
    for path in (head / "about.json", head / "photo.jpg", studio.people.folder / "key", Path("/etc/passwd")):
        for way in ("/gradio_api/file=", "/file=", "/gradio_api/file/"):
            for escaped in (str(path), str(path).replace("/", "%2F"), f"{studio.settings.root}/cache/../{path}"):
                assert owner.get(way + escaped).status_code in (403, 404), way + escaped
    for traversal in ("..%2Fabout.json", "about.json", "%2e%2e/about.json", "draft/camera.json"):
        assert owner.get(f"/studio/files/{name}/{traversal}").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=http://example.org/",
        "/gradio_api/file=http://example.org/",
        "/gradio_api/deep_link?session_hash=x",
        "/monitoring",
        "/gradio_api/run-history/records",
        "/gradio_api/openapi.json",
        "/gradio_api/dev/reload",
        "/docs",
    ],
)
def test_what_the_page_does_not_need_is_not_there(studio: Studio, path: str):
    assert visitor(studio).get(path).status_code == 404


def test_pages_of_others_are_refused(studio: Studio, ada: tuple[Visitor, str]):
    owner, name = ada
    asked = {"data": [name], "fn_index": 2, "session_hash": "x"}
    address = f"{owner.address}/gradio_api/queue/join"
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}):
        assert owner.http.post(address, json=asked, headers=headers, timeout=60).status_code == 403
    cookie = next(iter(owner.http.cookies))
    assert cookie.has_nonstandard_attr("HttpOnly") and cookie.get_nonstandard_attr("SameSite") == "Strict"
    policy = owner.get("/").headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy


def test_without_a_cookie_nobody_has_heads(studio: Studio):
    nobody = Visitor(studio.address)
    with pytest.raises(Told, match="cookies"):
        nobody.call("arrive")


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("photo.png", b"GIF89a, or so it says", r"^[0-9a-z]*/?photo\.png: cannot be read as an image|photo\.png: "),
        ("photo.svg", b"<svg onload='alert(1)'/>", "an SVG drawing"),
        ("photo.png", PORTRAIT[:5000], r"photo\.png: "),
        ("tiny.png", None, "only 1×1 pixels"),
        ("flat.png", "flat", "no face was found"),
    ],
)
def test_hostile_uploads_are_refused_in_one_line(studio: Studio, name: str, content: Any, told: str):
    someone = visitor(studio)
    if not isinstance(content, bytes):
        file = io.BytesIO()
        size = (1, 1) if content is None else (400, 300)
        Image.new("RGB", size, "teal").save(file, "PNG")
        content = file.getvalue()
    with pytest.raises(Told, match=told) as refused:
        someone.begin(name, content)
    line = str(refused.value)
    assert "\n" not in line and str(studio.settings.root) not in line and "/tmp" not in line
    assert not any(True for _ in studio.people.workspace("x").heads())
    assert "no head" not in line and someone.call("arrive")[0] == "", "nothing is left of it"


def test_uploads_are_bounded(studio: Studio):
    someone = visitor(studio)
    assert someone.upload("large.png", bytes(1_100_000)).status_code == 413
    long = someone.http.post(
        f"{someone.address}/gradio_api/queue/join",
        data=b"x" * (2 << 20),
        timeout=60,
        headers={"content-type": "application/json"},
    )
    assert long.status_code == 413


def test_settings_of_the_machine_are_refused(ada: tuple[Visitor, str], studio: Studio):
    owner, name = ada
    preset = studio.settings.presets[0]
    for settings, told in (
        ("run.generator=/etc/passwd", "chosen by whoever opened the studio"),
        ("generator.radius=1", "chosen by whoever opened the studio"),
        ("tune.steps=many", "tune.steps"),
    ):
        with pytest.raises(Told, match=told):
            owner.call("run", name, preset, "only what has changed", settings)
    with pytest.raises(Told):
        owner.call("run", name, "/etc/passwd", "only what has changed", "")


def test_what_is_corrected_by_hand_is_kept(ada: tuple[Visitor, str], studio: Studio):
    owner, name = ada
    draft = next(studio.people.folder.glob(f"*/{name}")) / "draft"
    found = (draft / "image.png").read_bytes(), (draft / "camera.json").read_bytes()
    owner.call("crop", name, data={"x": 0.45, "y": 0.5, "side": 0.9})
    assert (draft / "image.png").read_bytes() != found[0] and (draft / "camera.json").read_bytes() == found[1]
    owner.call("numbers", name, 0.45, 0.5, 0.9, 0, 5, -3, 2)
    assert (draft / "camera.json").read_bytes() != found[1]
    with pytest.raises(Told, match="crop"):
        owner.call("crop", name, data={"x": "here", "y": None})
    owner.call("as_found", name)
    assert ((draft / "image.png").read_bytes(), (draft / "camera.json").read_bytes()) == found


def layers(owner: Visitor, colour: tuple[int, int, int, int]) -> dict[str, Any]:
    """What an editor sends whose only layer has a square of a colour."""
    file = io.BytesIO()
    layer = Image.new("RGBA", (64, 64))
    layer.paste(colour, (0, 0, 20, 64))
    layer.save(file, "PNG")
    (path,) = owner.upload("layer.png", file.getvalue()).json()
    return {"background": None, "composite": None, "layers": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}


def test_a_matte_and_edits_are_painted_and_placed(ada: tuple[Visitor, str], studio: Studio):
    owner, name = ada
    head = next(studio.people.folder.glob(f"*/{name}"))
    owner.call("take", name, layers(owner, (213, 0, 0, 255)))
    assert np.array(Image.open(head / "draft" / "mask.png"))[:, :8].max() == 0, "red belongs to the background"
    owner.call("take", name, layers(owner, (0, 200, 83, 255)))
    assert np.array(Image.open(head / "draft" / "mask.png"))[:, :8].min() == 255

    owner.call("take_1", name, layers(owner, (10, 20, 200, 255)))
    (path,) = owner.upload("logo.png", PORTRAIT).json()
    logo = {"path": path, "orig_name": "logo.png", "meta": {"_type": "gradio.FileData"}}
    assert "logo.png" in owner.call("lay", name, logo, 0.6, 0.5, 0.3, 10, 0.5, "multiply", True)[0]
    assert [edit.name for edit in Edits(head / "edits").given()] == ["painted", "logo.png"]
    assert owner.call("point", data={"x": 0.25, "y": 2}) == [0.25, 1]
    sent = layers(owner, (0, 0, 0, 255))
    sent["layers"][0]["path"] = "/etc/passwd"
    with pytest.raises(Told):
        owner.call("take_1", name, sent)
    owner.call("clear", name)
    assert Edits(head / "edits").given() == []


def test_one_studio_a_folder_and_a_port(studio: Studio, tmp_path: Path):
    from pmv.apps.studio.server import serve

    with pytest.raises(InputError, match="another studio works in this folder"):
        serve(studio.settings, lambda: None)
    port = urlsplit(studio.address).port
    with pytest.raises(InputError, match=f"--port {port}: cannot be listened on"):
        serve(replace(studio.settings, root=tmp_path / "other", port=port), lambda: None)


def test_wrong_passwords_are_refused(guarded: Studio):
    stranger = Visitor(guarded.address)
    for path in ("/config", "/gradio_api/info", "/gradio_api/file=/etc/passwd", "/studio/files/0123456789abcdef/x"):
        assert stranger.get(path).status_code in (401, 404), path
    assert stranger.upload("a.png", PORTRAIT).status_code == 401
    assert stranger.log_in("ada", "battery staple").status_code == 400
    assert stranger.get("/config").status_code == 401
    assert stranger.log_in("ada", "correct horse").status_code == 200
    assert stranger.get("/config").status_code == 200


def test_accounts_have_heads_of_their_own(guarded: Studio):
    def enter(name: str, password: str) -> Visitor:
        someone = visitor(guarded)
        assert someone.log_in(name, password).ok
        return someone

    first, again, bob = enter("ada", "correct horse"), enter("ada", "correct horse"), enter("bob", "battery staple")
    name = first.begin("portrait.png", PORTRAIT)
    address = f"/studio/files/{name}/photo.jpg"
    assert again.get(address).ok, "from another browser as well"
    assert bob.get(address).status_code == visitor(guarded).get(address).status_code == 404


def test_nothing_is_asked_of_the_network(open_studio: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def connected(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            asked.append(address)
        connect(self, address)

    def resolved(host: Any, *rest: Any, **more: Any) -> Any:
        if host not in (None, "", "127.0.0.1", "::1", "localhost"):
            asked.append(host)
        return resolve(host, *rest, **more)

    monkeypatch.setattr(socket.socket, "connect", connected)
    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    someone = visitor(open_studio(tmp_path / "studio"))
    page = someone.get("/").text
    assert "fonts.googleapis" not in page and "cdn" not in page.lower()
    someone.call("arrive")
    time.sleep(0.5)
    assert asked == []


@pytest.mark.slow
def test_a_run_is_made_exported_and_taken_away(studio: Studio, ada: tuple[Visitor, str]):
    owner, name = ada
    folder = next(studio.people.folder.glob(f"*/{name}"))

    def done(kind: str) -> str:
        end = time.monotonic() + 240
        while (job := read_job(folder)) is None or job.kind != kind or job.state in ("waiting", "running"):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert job.state == "done", job.message
        return job.message

    owner.call("run", name, studio.settings.presets[0], "only what has changed", "")
    with pytest.raises(Told, match="being worked on"):
        owner.call("as_found", name)
    assert done("run") == "finished"
    assert "The run is done" in str(owner.call("look", name, ""))
    report = owner.get(f"/studio/files/{name}/report.html")
    assert "<canvas" in report.text and report.headers["content-security-policy"].startswith("sandbox allow-scripts")
    assert "data:image/jpeg" in owner.call("draw", name, "run", 20, 0, *[0] * 16)[0]
    full, key, _ = owner.call("finish", name, "run", 20, 0, *[0] * 16, "", repr((name, "run", 20, 0, [0] * 16)))
    assert "data:image/jpeg" in full and key
    owner.call("export", name, "run", "npz")
    assert done("export") == "head.npz is ready"
    file = owner.get(f"/studio/files/{name}/head.npz")
    assert file.content[:2] == b"PK" and "portrait-head.npz" in file.headers["content-disposition"]
    other = visitor(studio)
    assert other.get(f"/studio/files/{name}/report.html").status_code == 404
    owner.call("take_away", name)
    assert not folder.exists() and owner.get(f"/studio/files/{name}/head.npz").status_code == 404
