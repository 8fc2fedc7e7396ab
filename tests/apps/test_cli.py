"""The command line from outside: exit codes, messages, and the real pipeline on a tiny generator."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from pmv.apps import cli
from pmv.files.artifacts import file_hash, tensors_hash
from pmv.generators import EG3DGenerator, load_generator, save_generator
from pmv.generators.directions import FILE_NAME, Direction, Directions, save_directions
from pmv.inversion import load_inversion
from pmv.pictures.images import read_image, write_png
from pmv.stages.table import TABLE
from tests.conftest import ROOT

Pmv = Callable[..., tuple[int, str, str]]
"""Words of the command line → exit code, stdout, stderr."""

SMALL = [
    "prepare.search_yaw_steps=3",
    "prepare.search_pitch_steps=1",
    "prepare.search_keep=1",
    "prepare.refine_steps=2",
    "latent.steps=3",
    "latent.mean_samples=8",
    "coarse.steps=2",
    "coarse.views=2",
    "coarse.around=1",
    "coarse.depth_resolution=16",
    "tune.steps=3",
    "retune.steps=2",
    "retune.held_views=1",
    "evaluate.frames=2",
    "evaluate.mesh_resolution=16",
    "run.perceptual=lpips-random-squeeze",
    "run.device=cpu",
]


def start(arguments: Sequence[str | Path], cwd: Path, module: bool = False) -> subprocess.Popen:
    """A process of the command line, `pmv …` or `python run_inversion.py …`."""
    script = ["-c", "from pmv.apps.cli import main; main()"] if module else [str(ROOT / "run_inversion.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *script, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def call(arguments: Sequence[str | Path], cwd: Path, module: bool = False) -> tuple[int, str, str]:
    process = start(arguments, cwd, module)
    out, error = process.communicate(timeout=300)
    return process.returncode, out, error


@pytest.fixture
def pmv(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Pmv:
    """Run the command line in this process, in the folder `work`; returns exit code, stdout, stderr."""

    def execute(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(work)
        monkeypatch.setattr(sys, "argv", ["pmv", *arguments])
        monkeypatch.setattr(logging.getLogger("pmv"), "handlers", [])
        handler = signal.getsignal(signal.SIGTERM)
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        signal.signal(signal.SIGTERM, handler)
        assert isinstance(caught.value.code, int)
        return caught.value.code, *capsys.readouterr()

    return execute


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tiny_generator: EG3DGenerator) -> Path:
    """A folder with a tiny generator's checkpoint and a portrait of its mean head."""
    folder = tmp_path_factory.mktemp("work")
    save_generator(tiny_generator, folder / "tiny.safetensors")
    w = tiny_generator.mean_w(16)
    out = tiny_generator.render(tiny_generator.planes(w), w, tiny_generator.spec.orbit(0.2, 0.0))
    write_png(folder / "head.png", out.image.clamp(-1, 1))
    write_png(folder / "mask.png", torch.nn.functional.interpolate(out.alpha, 32).clamp(0, 1))
    return folder


def invert(work: Path, out: str, *more: str) -> list[str]:
    settings = [part for value in SMALL for part in ("--set", value)]
    given = ["head.png", "--mask", "mask.png", "--generator", "tiny.safetensors", "--out", out]
    return [*given, *settings, *more]


def hashes(run: Path) -> dict[str, str]:
    found = [*run.glob("*/outputs.safetensors"), *run.glob("inversion.safetensors")]
    return {str(path.relative_to(run)): file_hash(path) for path in found}


def kill_in(process: subprocess.Popen, folder: Path, number: int, code: int) -> None:
    """Wait until the process works in `folder`, then send the signal; it has to end with that exit code."""
    end = time.monotonic() + 240
    while not folder.exists():
        assert process.poll() is None and time.monotonic() < end, f"{folder.name} never appeared"
        time.sleep(0.002)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code, error


def test_a_portrait_becomes_a_head_and_survives_signals(work: Path, pmv: Pmv):
    """The whole pipeline: complete; ended by SIGTERM in latent and SIGKILL in tune, then resumed to the same bytes."""
    reference = start(invert(work, "reference"), work)
    process = start(["invert", *invert(work, "killed", "--set", "tune.steps=40")], work, module=True)
    kill_in(process, work / "killed" / ".tmp-02_latent", signal.SIGTERM, 143)
    assert "--resume killed" in (work / "killed" / "log.txt").read_text()
    process = start(["invert", "--resume", "killed"], work, module=True)
    kill_in(process, work / "killed" / ".tmp-08_tune", signal.SIGKILL, -signal.SIGKILL)
    assert not (work / "killed" / "08_tune").exists() and not (work / "killed" / "inversion.safetensors").exists()
    # another folder, after two deaths, with the number of steps that the reference has
    code, out, _ = call(["--resume", work / "killed", "--set", "tune.steps=3"], work.parent)
    assert code == 0 and out.strip() == str(work / "killed")
    printed, error = reference.communicate(timeout=300)
    assert reference.returncode == 0, error
    assert printed == "reference\n" and "10_evaluate" in error
    assert hashes(work / "killed") == hashes(work / "reference")

    run = work / "reference"
    assert sorted(path.name for path in run.glob("[0-9]*")) == [stage.folder for stage in TABLE]
    about = json.loads((run / "run.json").read_text())
    assert about["complete"] and list(about["stages"]) == [stage.name for stage in TABLE]
    metrics = json.loads((run / "10_evaluate" / "stage.json").read_text())["numbers"]["metrics"]
    assert metrics and all(np.isfinite(list(metrics.values())))
    generator, w, noise, camera = load_inversion(run)
    image = generator.render(generator.planes(w, noise), w, camera).image
    assert image.shape == (1, 3, 32, 32)

    code, out, error = pmv("render", "reference", "--yaw=-30", "--yaw=30", "--out", "views.png")
    assert (code, out) == (0, "views.png\n"), error
    assert read_image(work / "views.png")[0].shape == (1, 3, 32, 68)
    code, _, error = pmv("render", "reference", "--frames", "3", "--out", "turn.mp4")
    assert code == 0 and (work / "turn.mp4").stat().st_size > 500, error

    code, out, error = pmv("render", "reference", "--uncrop", "--out", "back.png")
    assert (code, out) == (0, "back.png\n"), error
    back, photo = (np.array(Image.open(work / name)).astype(int) for name in ("back.png", "head.png"))
    outside = np.array(Image.open(work / "mask.png").convert("L")) == 0
    assert back.shape == photo.shape and np.array_equal(back[outside], photo[outside]), "the photo's own bytes"
    assert (back != photo).any(), "the head is the run's"
    assert pmv("render", "reference", "--uncrop", "--out", "back.mp4")[0] == 2

    before = hashes(run)
    code, _, error = pmv("edit", "reference", "--set", "smile=+1")
    assert code == 2 and "tiny.safetensors: has no attribute directions" in error
    about = (Direction("smile", "a broader smile", "share", 0.3, 3.0),)
    digest = tensors_hash(load_generator(work / "tiny.safetensors").state_dict())
    save_directions(work / FILE_NAME, Directions(torch.ones(1, generator.spec.w_dim), about, digest), {})
    code, out, error = pmv("edit", "reference", "--set", "smile=+2", "--set", "smile=-1", "--out", "smiling")
    assert (code, out) == (0, "smiling\n"), error
    assert torch.allclose(load_inversion(work / "smiling").w, w + 1)
    assert pmv("render", "smiling", "--out", "smiling.png")[0] == 0
    code, _, error = pmv("edit", "reference", "--set", "frown=1", "--out", "frowning")
    assert code == 2 and "there are smile" in error and not (work / "frowning").exists()
    assert hashes(run) == before

    # the same command again has nothing to do; another photo is refused
    assert pmv("invert", *invert(work, "reference"))[0] == 0 and hashes(run) == before
    write_png(work / "other.png", np.zeros((32, 32, 3), np.uint8))
    code, _, error = pmv("invert", "other.png", *invert(work, "reference")[1:])
    assert code == 2 and "another photo" in error and hashes(run) == before


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["missing.png"], "missing.png: no such image"),
        (["head.png", "--generator", "nobody"], "nobody: neither a generator's name"),
        (["head.png", "--generator", "tiny.safetensors", "--set", "tune.stepz=1"], "did you mean tune.steps?"),
        (["head.png", "--generator", "tiny.safetensors", "--preset", "quick"], "demo, fidelity, hfgi3d"),
        (["head.png", "--generator", "tiny.safetensors", "--camera", "no.json"], "no.json"),
        (["head.png", "--generator", "tiny.safetensors", "--from", "wrap"], "the stages are prepare"),
        (["head.png", "--generator", "tiny.safetensors", "--out", "."], "something else than a run"),
        (["wide.png", "--generator", "tiny.safetensors", "--out", "wide"], "40×30"),
        (["--resume", "missing"], "missing: no such run folder"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(
    work: Path,
    pmv: Pmv,
    told_before: Callable[..., None],
    arguments: list[str],
    message: str,
):
    Image.new("RGB", (40, 30)).save(work / "wide.png")
    before = sorted(work.iterdir())
    code, out, error = pmv("invert", *arguments)
    told = [line for line in error.splitlines() if line.startswith("pmv: error: ")]
    assert (code, out, len(told)) == (2, "", 1) and message in told[0] and "Traceback" not in error
    told_before(told[0], " ".join(arguments))
    assert sorted(work.iterdir()) == before, "nothing half-written is left"


LOGO = ("--overlay", "logo.png")
PLACED = (*LOGO, "--at", "0.5,0.5", "--size", "0.3")


def ran(run: Path) -> list[str]:
    stages = json.loads((run / "run.json").read_text())["stages"]
    return [name for name, stage in stages.items() if stage["ran"]]


def test_edits_on_a_finished_run_keep_pivot_and_geometry(work: Path, pmv: Pmv):
    Image.new("RGBA", (20, 10), (255, 0, 0, 200)).save(work / "logo.png")
    run, after = work / "mine", ["edit", "visibility", "warp", "inpaint", "retune", "evaluate"]
    code, _, error = pmv("invert", *invert(work, "mine"))
    assert code == 0, error
    plain = hashes(run)

    code, _, error = pmv("invert", "--resume", "mine", *PLACED, "--rotate", "30", "--blend", "multiply")
    assert code == 0 and ran(run) == after, error
    assert not read_image(run / "04_edit" / "image.png")[0].equal(read_image(run / "00_prepare" / "original.png")[0])
    once = hashes(run)
    changed = {Path(name).parts[0][3:] for name in plain if once[name] != plain[name]}
    assert changed >= {"edit", "retune"} and not changed & {"prepare", "latent", "coarse", "tune"}

    # what does not lie on the head is told, and the run stays as it was
    files = {path: path.read_bytes() for path in (run / "source").iterdir()}
    bad = (*LOGO, "--at", "0.02,0.02", "--size", "0.1", "--follow-surface")
    code, _, error = pmv("invert", "--resume", "mine", *bad)
    assert code == 2 and "pmv: error: the overlay logo.png: the overlay's middle 0.02,0.02 does not lie on" in error
    assert hashes(run) == once and {path: path.read_bytes() for path in (run / "source").iterdir()} == files

    # a second one goes on top, and a retouched picture that was dropped into the folder
    code, _, error = pmv("invert", "--resume", "mine", *PLACED, "--follow-surface")
    assert code == 0 and ran(run) == after, error
    retouched = np.array(Image.open(run / "00_prepare" / "original.png"))
    retouched[10:20, 8:12] = 255
    write_png(run / "00_prepare" / "edit.png", retouched)
    code, _, error = pmv("invert", "--resume", "mine", "--until", "edit")
    assert code == 0 and ran(run) == ["edit"], error
    assert len(yaml.safe_load((run / "source" / "edits.yaml").read_text())) == 2
    both = np.array(Image.open(run / "04_edit" / "edit_mask.png"))
    assert (both[11:19, 9:11] == 255).all() and (both[14:18, 12:20] == 255).all()

    code, _, error = pmv("invert", "--resume", "mine", "--clear-edits")
    assert code == 0 and hashes(run) == plain and not {"tune", "coarse"} & set(ran(run)), error

    # the same edits from the start give the same bytes
    code, _, error = pmv("invert", *invert(work, "fresh", *PLACED, "--rotate", "30", "--blend", "multiply"))
    assert code == 0 and hashes(work / "fresh") == once, error


def test_what_is_out_of_distribution_can_be_overruled(work: Path, pmv: Pmv):
    mask = np.zeros((32, 32, 3), np.uint8)
    mask[10:20, 10:20] = 255
    write_png(work / "strange.png", mask)
    code, _, error = pmv("invert", *invert(work, "strange", "--ood-mask", "strange.png", "--until", "latent"))
    assert code == 0, error
    found = np.array(Image.open(work / "strange" / "02_latent" / "difference_mask.png"))
    assert np.array_equal(found, mask)
    page = (work / "strange" / "report.html").read_text()
    assert "out_of_distribution.png" in page and "<td>out_of_distribution</td>" in page


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((*LOGO, "--at", "0.5", "--size", "0.2"), "--overlay logo.png: at is '0.5'; give two numbers"),
        ((*LOGO, "--at", "16,16", "--size", "0.2"), "logo.png: the overlay's middle 16,16 lies outside the picture"),
        ((*LOGO, "--at", "0.5,0.5", "--size", "0"), "logo.png: the overlay's size is 0"),
        ((*LOGO, "--size", "0.2"), "logo.png: lacks at"),
        ((*LOGO, "--at", "0.02,0.02", "--size", "0.02"), "logo.png at 0.02,0.02 does not touch the head; move it"),
        ((*PLACED, "--blend", "burn"), "there are normal, multiply, screen, overlay"),
        ((*PLACED, "--paint-mask", "mask.png"), "--paint-mask belongs to an --edit; write it after"),
        (("--at", "0.5,0.5"), "--at belongs to an --overlay"),
        (("--overlay", "broken.png", *PLACED[2:]), "broken.png: cannot be read as an image"),
        (("--overlay", "nowhere.png", *PLACED[2:]), "nowhere.png: no such image"),
        (("--overlay", "clear.png", *PLACED[2:]), "clear.png: is transparent everywhere"),
        (("--edit", "broken.png"), "broken.png: cannot be read as an image"),
        (("--edit", "small.png"), "the edit small.png is 20×20 pixels; make it 32×32"),
        (("--edit", "head.png", "--paint-mask", "small.png"), "paint mask of the edit head.png is 20×20"),
        (("--edit", "head.png", "--paint-mask", "black.png"), "black.png: the mask is empty; paint"),
        (("--ood-mask", "small.png"), "--ood-mask is 20×20 pixels; make it 32×32"),
        (("--ood-mask", "white.png"), "--ood-mask covers the whole picture"),
    ],
)
def test_edits_that_cannot_be_used_are_told_in_one_line(
    work: Path, pmv: Pmv, told_before: Callable[..., None], arguments: tuple[str, ...], message: str
):
    Image.new("RGBA", (20, 10), (255, 0, 0, 200)).save(work / "logo.png")
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(work / "clear.png")
    (work / "broken.png").write_bytes((work / "logo.png").read_bytes()[:40])
    Image.fromarray(np.eye(20, dtype=np.uint8) * 255).save(work / "small.png")
    Image.new("L", (32, 32), 0).save(work / "black.png")
    Image.new("L", (32, 32), 255).save(work / "white.png")
    before = sorted(work.iterdir())
    code, out, error = pmv("invert", *invert(work, "never", *arguments))
    told = [line for line in error.splitlines() if line.startswith("pmv: error: ")]
    assert (code, out, len(told)) == (2, "", 1) and message in told[0] and "Traceback" not in error
    told_before(told[0], " ".join(arguments))
    if (work / "never").exists():  # an overlay meets the head only once there is one: finished stages are kept
        assert "does not touch" in message and not (work / "never" / "04_edit").exists()
        shutil.rmtree(work / "never")
    assert sorted(work.iterdir()) == before, "nothing half-written is left"


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """A command and all below it, each with the words that call it."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from walk(child, (*path, name))


def test_every_command_explains_itself():
    for path, command in walk(cli.cli):
        assert command.help, path
        assert all(p.help for p in command.params if isinstance(p, click.Option)), path


SLOW_TO_IMPORT = {"torch", "numpy", "PIL", "cv2", "scipy", "requests"}
LIMIT = 0.5
"""Seconds of the processor, not of the clock, which depends on what else the machine does."""


def cost(code: str) -> tuple[float, set[str]]:
    """Processor seconds of a fresh Python that runs `code`, and what it has imported of `SLOW_TO_IMPORT`."""
    code += f"\nimport sys, time\nprint('\\n', time.process_time(), *(sys.modules.keys() & {SLOW_TO_IMPORT!r}))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    seconds, *imported = done.stdout.splitlines()[-1].split()
    return float(seconds), set(imported)


def test_importing_pmv_is_quick():
    seconds, imported = cost("import pmv; assert 'load_inversion' in dir(pmv); pmv.__version__")
    assert not imported and seconds < LIMIT


def test_help_of_every_command_is_quick():
    """All in one process, so each of them for itself is quicker still."""
    paths = [[*path, "--help"] for path, _ in walk(cli.cli)]
    seconds, imported = cost(
        f"from pmv.apps.cli import cli\nfor words in {paths}: cli.main(words, prog_name='pmv', standalone_mode=False)"
    )
    assert len(paths) > 10 and not imported and seconds < LIMIT


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["invert"], "give either an IMAGE or --resume RUN"),
        (["invert", "head.png", "--resume", "run"], "give either an IMAGE or --resume RUN"),
        (["invert", "--resume", "run", "--out", "other"], "--out names a new run"),
        (["invert", "head.png", "--clear-edits"], "--clear-edits takes back the edits of a run"),
        (["render", "run", "--out", "views.gif"], "--out ends in .png or .mp4"),
        (["render", "run", "--out", "turn.mp4", "--yaw", "1", "--yaw", "2"], "an MP4 takes one --yaw"),
        (["render", "run", "--out", "turn.mp4", "--uncrop"], "--uncrop writes one view"),
        (["render", "run", "--out", "a.png", "--uncrop", "--yaw", "1", "--yaw", "2"], "--uncrop writes one view"),
        (["fetch", "--from", "x.pkl"], "these need a NAME"),
        (["fetch", "--list", "x"], "--list takes neither NAME nor --from"),
        (["heads", "sheet", "--makehuman", ".", "--out", "s.png", "--seeds", "a"], "'a' is not a list such as 0,1,2"),
    ],
)
def test_options_that_do_not_go_together(
    pmv: Pmv, told_before: Callable[..., None], arguments: list[str], message: str
):
    code, out, error = pmv(*arguments)
    told = error.splitlines()[-1]
    assert (code, out) == (2, "") and message in told and error.startswith("Usage: ")
    told_before(told, " ".join(arguments))


def test_readme_begins_with_the_two_commands_and_ci_finds_one_of_them():
    text = (ROOT / "README.md").read_text()
    commands = re.findall(r"^```sh\n(python3 -m venv [^\n]*)\n```$", text, re.M)[:2]
    assert len(commands) == 2
    assert text.index(commands[1]) < text.index("## "), "both stand at the top"
    portrait = re.search(r"run_inversion\.py (\S+) --camera (\S+) --preset demo", commands[0])
    assert portrait is not None and all((ROOT / path).is_file() for path in portrait.groups())
    pattern = re.search(r"grep -E '([^']+)'", (ROOT / ".ci" / "run").read_text())
    assert pattern is not None
    assert re.findall(pattern[1], text, re.M) == [commands[1]]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
