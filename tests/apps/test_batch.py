"""Many photos: names, shares, one bad photo among good ones, a batch that is repeated, and the same on Ray."""

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from pmv.apps import batch
from pmv.apps.batch import DONE, FAILED, Outcome, Photo, find_photos, run_here, run_on_ray, settled, shard
from pmv.apps.batch_summary import write_summary
from pmv.apps.cli import cli
from pmv.apps.invert import Request
from pmv.errors import InputError, PmvError, Stopped
from pmv.files.artifacts import file_hash
from pmv.generators import EG3DGenerator, save_generator
from pmv.pictures.images import to_uint8, write_png
from tests.conftest import ROOT

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='needs Ray: pip install "pmv[batch]"')
UNTIL = "prepare"
SMALL = [
    "prepare.search_yaw_steps=3",
    "prepare.search_pitch_steps=1",
    "prepare.search_keep=1",
    "prepare.refine_steps=0",
    "prepare.matte=grabcut",
    "prepare.align=never",
    "latent.steps=3",
    "latent.mean_samples=8",
    "coarse.steps=2",
    "coarse.views=2",
    "coarse.around=1",
    "coarse.depth_resolution=16",
    "retune.steps=2",
    "retune.held_views=1",
    "evaluate.frames=0",
    "evaluate.mesh_resolution=0",
    "run.perceptual=lpips-random-squeeze",
    "run.device=cpu",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, tiny_generator: EG3DGenerator) -> Path:
    """A folder with four portraits (RGBA), something that is none, and the generator that drew them."""
    folder = tmp_path_factory.mktemp("photos")
    save_generator(tiny_generator, folder / "tiny.safetensors")
    w = tiny_generator.mean_w(16)
    for i in range(4):
        out = tiny_generator.render(tiny_generator.planes(w), w, tiny_generator.spec.orbit(0.2 * i - 0.3, 0.0))
        alpha = torch.nn.functional.interpolate(out.alpha, 32).clamp(0, 1)
        pixels = np.concatenate([to_uint8(out.image)[0], to_uint8(alpha)[0][..., :1]], 2)
        Image.fromarray(pixels).save(folder / f"head{i}.png")
    (folder / "broken.jpg").write_bytes(b"no picture at all")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.md").write_text("not a photo")
    return folder


def request(photos: Path, *more: str, until: str | None = UNTIL) -> Request:
    return settled(Request(settings=(*SMALL, f"run.generator={photos / 'tiny.safetensors'}", *more), until=until))


def test_photos_of_files_folders_and_lists(photos: Path, tmp_path: Path):
    names = [photo.name for photo in find_photos([photos])]
    assert names == ["broken", "head0", "head1", "head2", "head3"]
    other = tmp_path / "other"
    other.mkdir()
    for name in ("head0.png", "head0.jpg", "Head1.png"):
        Image.new("RGB", (4, 4)).save(other / name)
    (other / "some.txt").write_text("# mine\nhead0.png\n\n../other/head0.jpg\n", encoding="utf-8-sig")
    listed = find_photos([other / "some.txt"])
    assert [photo.name for photo in listed] == ["head0.png", "head0.jpg"]
    assert all(photo.path.is_absolute() and photo.path.exists() for photo in listed)
    both = find_photos([photos / "head0.png", photos / "head1.png", other, other / "head0.png"])
    assert len({photo.name.lower() for photo in both}) == len(both) == 5, "no two runs share a folder"
    for given, message in ((other / "none.png", "no such photo"), (other / "none.txt", "none.txt: no such file")):
        with pytest.raises(InputError, match=message):
            find_photos([given])
    (other / "wrong.txt").write_text("gone.png\n")
    with pytest.raises(InputError, match=r"wrong\.txt: names gone\.png, which is not there"):
        find_photos([other / "wrong.txt"])
    os.mkfifo(other / "pipe.txt")
    (other / "binary.txt").write_bytes(b"\xff\xfe\x00head0.png")
    with open(other / "huge.txt", "wb") as file:
        file.truncate(1 << 40)  # a hole of a terabyte
    for name, message in (
        ("pipe.txt", "no file but a pipe"),
        ("binary.txt", "is no text in UTF-8"),
        ("huge.txt", "such a file has at most"),
    ):
        with pytest.raises(InputError, match=message):
            find_photos([other / name])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no photo"):
        find_photos([tmp_path / "empty"])


def test_shards_are_disjoint_and_all():
    photos = [Photo(str(i), Path(f"/{i}.png")) for i in range(10)]
    parts = [shard(photos, i, 3) for i in (1, 2, 3)]
    assert sorted(photo.name for part in parts for photo in part) == [photo.name for photo in photos]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for index in (0, 4):
        with pytest.raises(InputError, match="there are shards 1/3 to 3/3"):
            shard(photos, index, 3)


def test_a_bad_photo_stops_no_other_and_a_batch_can_be_repeated(photos: Path, tmp_path: Path):
    chosen = find_photos([photos / "head0.png", photos / "broken.jpg", photos / "head1.png"])
    told: list[Outcome] = []
    outcomes = run_here(chosen, tmp_path, request(photos), told.append)
    assert [outcome.status for outcome in outcomes] == [DONE, FAILED, DONE] and told == outcomes
    assert "broken.jpg" in outcomes[1].message and "\n" not in outcomes[1].message
    assert not (tmp_path / "broken").exists()
    files = sorted(tmp_path.rglob("outputs.safetensors"))
    before = {path: (file_hash(path), path.stat().st_mtime_ns) for path in files}
    assert len(files) == 2
    run_here(chosen, tmp_path, request(photos), told.append)
    assert {path: (file_hash(path), path.stat().st_mtime_ns) for path in files} == before, "nothing was made twice"


def test_a_bug_in_one_run_stops_no_other(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def breaks(*_: object, **__: object) -> None:
        raise ZeroDivisionError("in\nsome stage")

    monkeypatch.setattr(batch, "invert", breaks)
    (outcome,) = run_here(find_photos([photos / "head0.png"]), tmp_path, request(photos), lambda _: None)
    assert outcome.status == FAILED and "a bug: ZeroDivisionError: in some stage; see" in outcome.message


def test_a_batch_that_is_told_to_stop_begins_no_other_photo(photos: Path, tmp_path: Path):
    told: list[Outcome] = []
    with pytest.raises(Stopped):
        run_here(find_photos([photos]), tmp_path, request(photos), told.append, stop=lambda: True)
    # the broken one is refused before anything could be stopped
    assert [outcome.photo.name for outcome in told] == ["broken"]
    assert not list(tmp_path.glob("*/00_prepare"))


def test_a_folder_that_another_process_holds_is_waited_for(photos: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(batch, "PATIENCE", 30.0)
    chosen = find_photos([photos / "head0.png"])
    run_here(chosen, tmp_path, request(photos), lambda _: None)
    hold = "import fcntl, sys, time; f = open(sys.argv[1], 'a+'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True)"
    hold += "; time.sleep(2)"
    process = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path / "head0" / ".lock")], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    (outcome,) = run_here(chosen, tmp_path, request(photos), lambda _: None)
    assert outcome.status == DONE and outcome.seconds > 1
    process.wait()


def test_what_no_photo_could_be_inverted_with_is_told_at_once(photos: Path, tmp_path: Path):
    for settings, until, message in (
        (("tune.stepz=1",), None, "did you mean tune.steps"),
        (("run.generator=nobody",), None, "nobody: neither a generator's name"),
        ((), "wrap", "the stages are prepare"),
    ):
        with pytest.raises(PmvError, match=message):
            settled(Request(settings=settings, until=until))


def test_the_summary_is_safe_and_complete(tmp_path: Path):
    evil = Photo("<b>a", tmp_path / '=cmd|"x".png')
    outcomes = [
        Outcome(evil, FAILED, "=1+1 <script>alert(1)</script>", 1.0),
        Outcome(Photo("good one", tmp_path / "good one.png"), DONE, "", 2.5, {"tuned_psnr": 31.234}),
    ]
    (tmp_path / "good one" / "00_prepare").mkdir(parents=True)
    write_png(tmp_path / "good one" / "00_prepare" / "original.png", np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "good one" / "report.html").write_text("")
    write_summary(tmp_path, outcomes)
    page = (tmp_path / "summary.html").read_text()
    assert "<script>" not in page and "<b>a" not in page and "1 of 2 photos" in page
    assert 'src="good%20one/00_prepare/original.png"' in page and 'href="good%20one/report.html"' in page
    assert "contact_sheet" not in page, "no picture that is not there"
    rows = list(csv.DictReader((tmp_path / "summary.csv").open()))
    assert [row["name"] for row in rows] == ["good one", "<b>a"]
    assert rows[0]["tuned_psnr"] == "31.2340" and rows[1]["message"].startswith("'=1+1")


def command(photos: Path, out: Path, *more: str, until: str | None = UNTIL) -> subprocess.Popen:
    words = ["batch", "--out", str(out), "--generator", "tiny.safetensors"]
    words += ["--until", until] if until else []
    words += [part for value in SMALL for part in ("--set", value)]
    return subprocess.Popen(
        [sys.executable, "-c", "from pmv.apps.cli import main; main()", *words, *more],
        cwd=photos,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    out, error = process.communicate(timeout=240)
    return process.returncode, out, error


def test_the_command(photos: Path, tmp_path: Path):
    code, out, error = ended(command(photos, tmp_path / "out", "head0.png", "broken.jpg", "--workers", "0"))
    assert code == 2 and out.strip() == str(tmp_path / "out"), error
    assert "pmv: broken: " in error and "Traceback" not in error
    rows = list(csv.DictReader((tmp_path / "out" / "summary.csv").open()))
    assert {row["name"]: row["status"] for row in rows} == {"head0": DONE, "broken": FAILED}
    code, _, error = ended(command(photos, tmp_path / "half", "head0.png", "head1.png", "--shard", "2/2"))
    assert code == 0 and sorted(p.name for p in (tmp_path / "half").iterdir()) == ["head1"], error


def test_options_that_do_not_go_together(photos: Path, tmp_path: Path):
    out, photo = str(tmp_path / "no"), str(photos / "head0.png")
    for wrong in (
        ["--gpus", "nan"],
        ["--shard", "2"],
        ["--shard", "1/2", "--workers", "2"],
        ["--ray", "auto", "--workers", "2"],
    ):
        result = CliRunner().invoke(cli, ["batch", photo, "--out", out, *wrong])
        assert result.exit_code == 2 and not Path(out).exists(), result.output
    (tmp_path / "file").touch()
    result = CliRunner().invoke(cli, ["batch", photo, "--out", str(tmp_path / "file"), "--workers", "0"])
    assert isinstance(result.exception, InputError) and "is a file; give a folder as --out" in str(result.exception)


def test_a_name_that_a_terminal_would_obey_is_shown_and_no_more(photos: Path, tmp_path: Path):
    evil = tmp_path / "a\x1b[31m\nb.png"
    evil.write_bytes(b"no picture")
    code, _, error = ended(command(photos, tmp_path / "out", str(evil), "--workers", "0"))
    assert code == 2 and "\x1b" not in error and "pmv: a?[31m?b: " in error


@needs_ray
@pytest.mark.slow
def test_side_by_side_on_this_machine(photos: Path, tmp_path: Path):
    process = command(photos, tmp_path / "out", "head0.png", "broken.jpg", "head1.png", "--workers", "2")
    code, out, error = ended(process)
    assert code == 2 and out.strip() == str(tmp_path / "out") and "broken" in error, error
    records = [json.loads((tmp_path / "out" / name / "run.json").read_text()) for name in ("head0", "head1")]
    assert all(record["stages"]["prepare"]["ran"] for record in records)
    assert len(list(csv.DictReader((tmp_path / "out" / "summary.csv").open()))) == 3


@needs_ray
@pytest.mark.slow
def test_a_lost_machine_loses_no_photo(photos: Path, tmp_path: Path):
    """Three nodes, of which one is killed while it works; then the same bytes as without."""
    from ray.cluster_utils import Cluster

    chosen = find_photos([photos])
    reference, whole = tmp_path / "reference", request(photos, "tune.steps=60", until=None)
    run_here(chosen, reference, whole, lambda _: None)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    lost = [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)][0]
    killed: list[float] = []

    def kill() -> None:
        if not killed and any(batch.stage_of(tmp_path / "out" / photo.name) == "tune" for photo in chosen):
            killed.append(time.monotonic())
            cluster.remove_node(lost, allow_graceful=False)

    told: list[Outcome] = []
    try:
        outcomes = run_on_ray(
            chosen, tmp_path / "out", whole, told.append, batch.Shares(), cluster.address, waiting=kill
        )
    finally:
        cluster.shutdown()
    assert killed, "the node was killed in the middle"
    assert sorted(o.photo.name for o in outcomes) == [photo.name for photo in chosen], "nothing twice, nothing lost"
    assert {o.photo.name for o in outcomes if o.status == FAILED} == {"broken"}
    for path in reference.rglob("*.safetensors"):
        assert file_hash(tmp_path / "out" / path.relative_to(reference)) == file_hash(path), path


@needs_ray
@pytest.mark.slow
def test_ctrl_c_and_the_same_command_again(photos: Path, tmp_path: Path):
    names = ("head0.png", "head1.png", "head2.png")
    process = command(photos, tmp_path, *names, "--workers", "2", "--set", "tune.steps=60", until=None)
    end = time.monotonic() + 200
    while not list(tmp_path.glob("*/.tmp-08_tune")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    code, _, error = ended(process)
    assert code == 130, error
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/03_coarse/outputs.safetensors")}
    assert finished
    code, _, error = ended(command(photos, tmp_path, *names, "--workers", "2", "--set", "tune.steps=60", until=None))
    assert code == 0, error
    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "finished stages were kept"
    assert all(json.loads((tmp_path / Path(n).stem / "run.json").read_text())["complete"] for n in names)
