"""The examples are run as scripts, on a tiny generator and in their order, and judged by what they leave."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from pmv.files.artifacts import tensors_hash
from pmv.generators import EG3DGenerator, load_generator, save_generator
from pmv.generators.directions import FILE_NAME, Direction, Directions, save_directions
from pmv.inversion import load_inversion
from pmv.pictures.images import read_image
from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"
NUMBERED = sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tiny_generator: EG3DGenerator) -> Path:
    """A folder with a tiny generator that knows one attribute, and a preset of few steps without a network to load."""
    folder = tmp_path_factory.mktemp("examples")
    save_generator(tiny_generator, folder / "tiny.safetensors")
    digest = tensors_hash(load_generator(folder / "tiny.safetensors").state_dict())
    about = (Direction("smile", "a broader smile", "share", 0.3, 3.0),)
    save_directions(folder / FILE_NAME, Directions(torch.ones(1, tiny_generator.spec.w_dim), about, digest), {})
    return folder


def run(number: int, work: Path, *arguments: str) -> str:
    """Run the example of this number in the folder; returns what it prints."""
    script = next(name for name in NUMBERED if name.startswith(f"{number:02d}_"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{script}: {done.stderr}"
    return done.stdout


def picture(path: Path) -> torch.Tensor:
    """A picture that shows something."""
    image = read_image(path)[0]
    assert image.std() > 0.05, path
    return image


def test_a_head_is_made_looked_at_edited_and_shown(work: Path):
    made = run(1, work, "--generator", "tiny.safetensors", "--preset", str(EXAMPLES / "quick.yaml"))
    out = work / "runs" / "examples"
    head = out / "head"
    assert str(head.relative_to(work)) in made and load_inversion(head).w.shape[0] == 1
    assert picture(out / "01_three_sides.png").shape[-1] > 3 * 32

    told = run(2, work)
    assert "10_evaluate: " in told and "ran again: inpaint\n" in told
    assert len(re.findall(r"pseudo-view \d: \d+% of its pixels", told)) == 4
    picture(out / "02_seams.png")
    assert yaml.safe_load((head / "config.yaml").read_text())["inpaint"]["feather"] == 0.02, "as it was"

    before = load_inversion(head).generator.state_dict()
    run(3, work)
    after = load_inversion(head).generator.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before), "the logo is in the tuned head"
    picture(out / "03_edited.png")

    run(4, work, "--frames", "3")
    assert (out / "04_turn.mp4").stat().st_size > 500
    assert torch.allclose(load_inversion(out / "04_smiling").w, load_inversion(head).w + 2)
    assert picture(out / "04_views.png").shape[-1] > 5 * 32 and picture(out / "04_smiling.png").shape[-1] > 3 * 32
    assert picture(out / "04_in_the_photo.png").shape == (1, 3, 512, 512), "the photo's size"


def test_a_generator_alone(work: Path):
    told = run(5, work, "--generator", "tiny.safetensors", "--out", "alone")
    assert "32² pixels" in told and "density along z" in told
    picture(work / "alone" / "05_heads.png")
    assert (work / "alone" / "05_cameras.json").is_file()


def test_a_loop_of_ones_own(work: Path):
    told = run(6, work, "--generator", "tiny.safetensors", "--out", "own", "--steps", "30")
    start, end = map(float, re.findall(r"([\d.]+) dB", told))
    assert end > start + 1 and "step 20: l2" in told
    picture(work / "own" / "06_fit.png")


def test_every_example_is_run_and_listed():
    assert [int(name[:2]) for name in NUMBERED] == [1, 2, 3, 4, 5, 6]
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"python examples/{name}" in listed for name in NUMBERED)
