"""Installed is installed: a wheel, without the checkout beside it, holds all that it needs and no name but its own."""

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT

LEAST = (
    "prepare.resolution=64",
    "prepare.search_yaw_steps=1",
    "prepare.search_pitch_steps=1",
    "prepare.search_keep=1",
    "prepare.refine_steps=0",
    "latent.steps=1",
    "latent.mean_samples=4",
    "coarse.steps=1",
    "coarse.views=1",
    "coarse.around=0",
    "coarse.depth_resolution=16",
    "tune.steps=1",
    "tune.views_per_step=1",
    "evaluate.frames=0",
    "evaluate.mesh_resolution=0",
    "run.device=cpu",
)
"""Every stage of a run, once."""


def build(kind: str, source: Path, folder: Path) -> Path:
    """Build a "wheel" or "sdist" of a source tree; its path."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", folder], cwd=source, check=True)
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel in a folder of its own, to be put before everything else on Python's path."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--no-index", "--target", folder, wheel], check=True)
    return folder


@pytest.fixture
def pmv(installed: Path, tmp_path: Path) -> Callable[..., str]:
    """Run the installed `pmv` in a folder far from the checkout; returns what it printed."""

    def execute(*arguments: str | Path) -> str:
        done = subprocess.run(
            [sys.executable, installed / "bin" / "pmv", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return execute


def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return sorted(archive.namelist())


def test_a_wheel_has_one_name_and_everything_under_it(wheel: Path):
    files = names(wheel)
    tops = {name.split("/")[0] for name in files}
    assert {"pmv"} == {top for top in tops if not top.endswith(".dist-info")} and len(tops) == 2
    for folder in ("pmv", "apps", "stages", "training", "configs", "assets"):
        inside = [path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file()]
        # links are not followed by rglob, so pmv/ gives the rooms alone
        wanted = {str(Path("pmv", path)) if folder != "pmv" else str(path) for path in inside if tracked(path)}
        assert wanted <= set(files), sorted(wanted - set(files))[:5]
    assert {
        "pmv/portrait/face_model.npz",
        "pmv/assets/landmarks/mesh.safetensors",
        "pmv/assets/landmarks/NOTICE",
    } <= set(files)
    strangers = {"runs", "tests", "benchmarks", "examples", "docs", "__pycache__"}
    assert not [name for name in files if strangers & set(Path(name).parts)]
    assert not [name for name in files if name.startswith("pmv/training/state/")]


def tracked(path: Path) -> bool:
    """Whether a wheel should hold a file of the checkout."""
    if path.is_relative_to("training/state"):
        return False
    return "__pycache__" not in path.parts and path.suffix not in (".pyc", ".part") and not path.name.startswith(".")


def test_a_wheel_by_way_of_the_sdist_is_the_same(wheel: Path, tmp_path: Path):
    sdist = build("sdist", ROOT, tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        members = archive.getnames()
        assert len(members) == len(set(members)), "each file once"
        archive.extractall(tmp_path, filter="data")
    (source,) = (path for path in tmp_path.iterdir() if path.name != "sdist")
    assert names(build("wheel", source, tmp_path / "wheel")) == names(wheel)


def test_the_installed_command_inverts_a_photo_from_another_folder(pmv: Callable[..., str], installed, tmp_path: Path):
    code = "import pmv, pmv.stages.table; print(pmv.__file__, pmv.stages.table.__file__)"
    where = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(Path(path).is_relative_to(installed) for path in where.stdout.split())
    photo = Image.new("RGB", (900, 700), (90, 90, 90))  # no square, no face in the middle: all networks are needed
    photo.paste(Image.open(ROOT / "assets" / "portraits" / "plain.png"), (300, 120))
    photo.save(tmp_path / "photo.jpg")
    settings = [argument for value in LEAST for argument in ("--set", value)]
    pmv("invert", tmp_path / "photo.jpg", "--out", tmp_path / "run", *settings)
    assert (tmp_path / "run" / "inversion.safetensors").is_file() and (tmp_path / "run" / "report.html").is_file()
    pmv("edit", tmp_path / "run", "--set", "smile=+1", "--out", tmp_path / "smiling", "--device", "cpu")
    assert (tmp_path / "smiling" / "inversion.safetensors").is_file()
    assert "MakeHuman" in pmv("heads", "--help")
