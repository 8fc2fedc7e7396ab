"""`pmv fetch` against a server of our own: resuming, checksums, licences, and everything that goes wrong."""

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

import pmv.files.fetch
import pmv.files.manifest
from pmv.apps.cli import cli
from pmv.errors import AssetsError, InputError, PmvError
from pmv.files.artifacts import file_hash
from pmv.files.fetch import fetch
from pmv.files.manifest import Entry, cached, manifest, pin_path

NAME = "weights"
CHUNK = pmv.files.fetch._CHUNK
BODY = os.urandom(18 * CHUNK + 5)
HALF = 6 * CHUNK
"""What arrives of a cut connection is kept in whole chunks."""


class Server(ThreadingHTTPServer):
    """Serves `body` at every address; what it does wrong is set by its attributes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = BODY
        self.etag: str | None = '"1"'
        self.knows_ranges = True
        self.drop_after: list[int] = []  # bytes sent before the connection is cut, request by request
        self.status: list[int] = []  # answered instead, request by request
        self.on_drop: Callable[[], object] = lambda: None
        self.page: bytes | None = None
        self.seen: list[tuple[str, str | None, int]] = []  # path, Range, status

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/files/weights.pkl"

    @property
    def ranges(self) -> list[str | None]:
        return [asked for _, asked, _ in self.seen]


class Handler(BaseHTTPRequestHandler):
    server: Server  # type: ignore[assignment]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        body, start, status = server.body, 0, 200
        match = re.fullmatch(r"bytes=(\d+)-", asked or "")
        fresh = self.headers.get("If-Range") in (None, server.etag)
        if server.status:
            status, body = server.status.pop(0), b""
        elif server.page is not None and "confirm=t" not in self.path:
            body = server.page
        elif match and server.knows_ranges and fresh:
            start = int(match[1])
            status = 206 if start < len(body) else 416
        server.seen.append((self.path, asked, status))
        total, body = len(body), body[start:]
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        elif status == 416:
            self.send_header("Content-Range", f"bytes */{total}")
        if server.etag:
            self.send_header("ETag", server.etag)
        is_page = server.page is not None and body == server.page
        self.send_header("Content-Type", "text/html; charset=utf-8" if is_page else "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.drop_after and not is_page:
            self.wfile.write(body[: server.drop_after.pop(0)])
            self.wfile.flush()
            server.on_drop()
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.wfile.write(body)


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(pmv.files.manifest.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def use(server, monkeypatch) -> Callable[..., Entry]:
    """Puts one row, with changes, in the place of the manifest."""
    template = manifest()["ffhqrebalanced512-128"]

    def use(**changes) -> Entry:
        values = {"name": NAME, "file": "weights.pkl", "url": server.url, "licence": "CC0", **changes}
        entry = replace(template, **values)
        monkeypatch.setattr(pmv.files.manifest, "manifest", lambda: {NAME: entry})
        return entry

    use()
    return use


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_download_is_pinned_and_not_repeated(server, use, cache):
    path = fetch(NAME)
    assert path.read_bytes() == BODY and path == cached(NAME)
    assert fetch(NAME) == path and len(server.seen) == 1
    assert files(cache) == ["weights.pin.json", "weights.pkl"]


def test_a_cut_connection_goes_on_by_itself(server, use, cache):
    server.drop_after = [HALF + 7, CHUNK]
    assert fetch(NAME).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={HALF}-", f"bytes={HALF + CHUNK}-"]


@pytest.mark.parametrize("etag", ['"1"', None, 'W/"1"'])
def test_a_second_run_asks_only_for_the_rest(server, use, cache, etag):
    server.etag, server.drop_after, server.status = etag, [HALF], []
    server.on_drop = lambda: server.status.append(503)
    with pytest.raises(AssetsError, match=r"503.* after 0\.1 MB; run the command again"):
        fetch(NAME)
    assert files(cache) == ["weights.pkl.part", "weights.pkl.part.json"] and cached(NAME) is None
    assert fetch(NAME).read_bytes() == BODY
    assert server.seen[-1][1:] == (f"bytes={HALF}-", 206)
    assert files(cache) == ["weights.pin.json", "weights.pkl"]


def test_a_server_that_ignores_ranges_starts_over(server, use, cache):
    server.knows_ranges, server.drop_after = False, [HALF]
    assert fetch(NAME).read_bytes() == BODY
    assert server.seen[-1][1:] == (f"bytes={HALF}-", 200)


def test_a_file_that_changed_between_two_runs_is_not_patched_together(server, use, cache):
    server.drop_after, server.on_drop = [HALF], lambda: server.status.append(500)
    with pytest.raises(AssetsError):
        fetch(NAME)
    server.body, server.etag = os.urandom(16 * CHUNK), '"2"'
    assert fetch(NAME).read_bytes() == server.body


def test_a_shorter_file_without_validator_is_not_patched_together(server, use, cache):
    server.etag = None
    server.drop_after, server.on_drop = [HALF], lambda: server.status.append(500)
    with pytest.raises(AssetsError):
        fetch(NAME)
    server.body = os.urandom(HALF - 9)
    assert fetch(NAME).read_bytes() == server.body


def test_a_part_that_is_already_complete(server, use, cache):
    server.drop_after, server.on_drop = [len(BODY)], lambda: None
    cache.mkdir()
    (cache / "weights.pkl.part").write_bytes(BODY)
    (cache / "weights.pkl.part.json").write_text(json.dumps({"validator": '"1"', "total": len(BODY)}))
    assert fetch(NAME).read_bytes() == BODY
    assert server.seen[-1][2] == 416


def test_a_part_of_unknown_origin_is_fetched_anew(server, use, cache):
    cache.mkdir()
    (cache / "weights.pkl.part").write_bytes(b"something else")
    assert fetch(NAME).read_bytes() == BODY


def test_a_wrong_checksum_is_refused_and_removed(server, use, cache):
    use(sha256="0" * 64)
    with pytest.raises(AssetsError, match="the published one is 0000"):
        fetch(NAME)
    assert files(cache) == []


def test_the_right_checksum_passes(server, use, cache, tmp_path):
    (tmp_path / "body").write_bytes(BODY)
    use(sha256=file_hash(tmp_path / "body"))
    assert fetch(NAME).read_bytes() == BODY


def test_content_that_changed_after_pinning_is_refused(server, use, cache):
    path = fetch(NAME)
    path.unlink()
    server.body = os.urandom(1000)
    with pytest.raises(AssetsError, match="was pinned when it was first fetched from http"):
        fetch(NAME)
    assert files(cache) == ["weights.pin.json"]
    pin_path(pmv.files.manifest.find_entry(NAME), cache).unlink()
    assert fetch(NAME).read_bytes() == server.body


def test_ctrl_c_leaves_a_part_that_goes_on(server, use, cache, request):
    part, held = cache / "weights.pkl.part", threading.Event()

    def press() -> None:
        until = time.monotonic() + 5
        while part.stat().st_size < HALF and time.monotonic() < until:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)
        held.wait(5)

    server.drop_after, server.on_drop = [HALF], press
    # a shell starts what runs in its background deaf to Ctrl-C, tests too
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with pytest.raises(KeyboardInterrupt):
        fetch(NAME)
    held.set()
    assert files(cache) == ["weights.pkl.part", "weights.pkl.part.json"] and part.stat().st_size == HALF
    assert fetch(NAME).read_bytes() == BODY
    assert server.ranges[-1] == f"bytes={HALF}-"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/weights.pkl", "http://nothing.invalid/weights.pkl"], ids=["refused", "unknown host"]
)
def test_offline_says_how_to_do_it_by_hand(use, cache, url):
    entry = use(url=url)
    result = CliRunner().invoke(cli, ["fetch", NAME])
    assert isinstance(result.exception, PmvError)  # which `execute` makes one line and exit code 2
    message = str(result.exception)
    assert "cannot be reached" in message and entry.page in message
    assert f"pmv fetch {NAME} --from weights.pkl" in message and "\n" not in message
    assert files(cache) == []


def test_what_has_no_address_says_how_to_do_it_by_hand(use, cache):
    use(url=None, hint="a folder; take one file")
    with pytest.raises(AssetsError, match=r"publish no address .* \(a folder; take one file\), then run: pmv fetch"):
        fetch(NAME)


@pytest.mark.parametrize("status", [401, 404])
def test_an_address_that_moved(server, use, cache, status):
    server.status = [status]
    with pytest.raises(AssetsError, match=rf"answers {status} .* --from weights.pkl"):
        fetch(NAME)


@pytest.mark.parametrize("licence", ["non-commercial", "unstated"])
def test_without_acceptance_nothing_is_downloaded(server, use, cache, licence):
    use(licence=licence)
    with pytest.raises(InputError, match="was not accepted and nothing was downloaded"):
        fetch(NAME)
    for answer in ("n\n", ""):
        result = CliRunner().invoke(cli, ["fetch", NAME], input=answer)
        assert f"licence {licence}" in result.stderr and "Do you accept" in result.stderr
        assert isinstance(result.exception, InputError)
    assert server.seen == [] and files(cache) == []


@pytest.mark.parametrize(("options", "answer"), [((), "y\n"), (("--accept-licence",), "")])
def test_with_acceptance_it_is_downloaded(server, use, cache, options, answer):
    use(licence="non-commercial")
    result = CliRunner().invoke(cli, ["fetch", NAME, *options], input=answer)
    assert "licence non-commercial" in result.stderr
    assert result.stdout == f"{cache / 'weights.pkl'}\n" and result.exit_code == 0
    assert "licence" not in CliRunner().invoke(cli, ["fetch", NAME]).stderr  # it is here already


def test_a_page_instead_of_a_file(server, use, cache):
    server.page = b"<html><body>Too many users have downloaded this file</body></html>"
    with pytest.raises(AssetsError, match="shows a page instead of the file"):
        fetch(NAME)
    assert cached(NAME) is None


def test_google_drives_question_is_answered_and_the_answer_resumes(server, use, cache):
    server.page = (
        b'<html><form id="download-form" action="/download" method="get"><input type="submit" value="Download anyway">'
        b'<input type="hidden" name="id" value="abc"><input type="hidden" name="confirm" value="t"></form></html>'
    )
    server.drop_after = [HALF]
    assert fetch(NAME).read_bytes() == BODY
    assert [path for path, _, _ in server.seen] == ["/files/weights.pkl", "/download?id=abc&confirm=t"] * 2
    assert server.ranges[-1] == f"bytes={HALF}-"


def test_google_drives_page_of_a_file_becomes_its_download_address():
    page = manifest()["ffhq-fixed-triplane512-128"].url
    assert page and "/file/d/1MkcgSnyIJHLYb-xjNg2dkLkQZ8k3mK3Z/" in page
    assert pmv.files.fetch._direct(page) == (
        "https://drive.google.com/uc?export=download&id=1MkcgSnyIJHLYb-xjNg2dkLkQZ8k3mK3Z"
    )


def test_a_cache_that_cannot_be_written(server, use, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AssetsError, match=r"cannot be written .* --cache or PMV_CACHE"):
        fetch(NAME, cache=tmp_path / "file" / "cache")
    assert server.seen == []


def test_a_full_disk(server, use, cache, monkeypatch):
    monkeypatch.setattr(pmv.files.fetch.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(AssetsError, match="the disk is full"):
        fetch(NAME)


def test_two_at_once(server, use, cache):
    held, started = threading.Event(), threading.Event()
    server.drop_after, server.on_drop = [HALF], lambda: (started.set(), held.wait(5))
    first = threading.Thread(target=lambda: fetch(NAME))
    first.start()
    started.wait(5)
    with pytest.raises(AssetsError, match="another process is fetching"):
        fetch(NAME)
    held.set()
    first.join()
    assert cached(NAME) is not None


def test_the_command_lists_places_and_refuses(server, use, cache, tmp_path):
    listing = CliRunner().invoke(cli, ["fetch"])
    assert listing.exit_code == 0 and re.search(r"(?m)^weights +- +CC0 ", listing.stdout)
    assert str(cache) in listing.stderr
    (tmp_path / "mine.pkl").write_bytes(b"mine")
    placed = CliRunner().invoke(cli, ["fetch", NAME, "--from", str(tmp_path / "mine.pkl")])
    assert placed.stdout == f"{cache / 'weights.pkl'}\n"
    assert re.search(r"(?m)^weights +here +CC0 ", CliRunner().invoke(cli, ["fetch", "--list"]).stdout)
    other = CliRunner().invoke(cli, ["fetch", NAME, "--cache", str(tmp_path / "other")])
    assert other.stdout == f"{tmp_path / 'other' / 'weights.pkl'}\n"
    assert CliRunner().invoke(cli, ["fetch", "--from", "x"]).exit_code == 2
    assert isinstance(CliRunner().invoke(cli, ["fetch", "nothing"]).exception, InputError)
