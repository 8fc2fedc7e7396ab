"""The notebook: its cells run one after another, as a reader would run them, without a network."""

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pmv
from pmv.errors import InputError
from pmv.files.artifacts import tensors_hash
from pmv.generators import EG3DGenerator, load_generator, save_generator
from pmv.generators.directions import FILE_NAME, Direction, Directions, save_directions
from tests.apps.test_cli import SMALL
from tests.conftest import ROOT

NOTEBOOK = ROOT / "examples" / "notebook.ipynb"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, tiny_generator: EG3DGenerator) -> Path:
    """A checkpoint of a tiny generator that knows one attribute."""
    path = tmp_path_factory.mktemp("notebook") / "tiny.safetensors"
    save_generator(tiny_generator, path)
    digest = tensors_hash(load_generator(path).state_dict())
    about = (Direction("smile", "a broader smile", "share", 0.3, 3.0),)
    save_directions(path.with_name(FILE_NAME), Directions(torch.ones(1, tiny_generator.spec.w_dim), about, digest), {})
    return path


def run_cells(replaced: dict[str, str]) -> dict[str, Any]:
    """The names that the notebook's code leaves."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        assert not cell.get("outputs"), "it is kept without outputs"
        if cell["cell_type"] == "code":
            code = "".join(cell["source"])
            for old, new in replaced.items():
                code = code.replace(old, new)
            exec(compile(code, str(NOTEBOOK), "exec"), names)
    return names


def judge(names: dict[str, Any]) -> None:
    head = names["head"]
    assert names["picture"].dtype == np.uint8 and names["picture"].std() > 5
    assert (names["OUT"] / "head.ply").stat().st_size > 1000 and (head.path / "inversion.safetensors").is_file()
    assert (names["portrait"].path / "camera.json").is_file()


def test_its_cells_run_on_a_tiny_generator(tiny: Path):
    judge(run_cells({'GENERATOR = "heads"': f"GENERATOR = {str(tiny)!r}"}))


@pytest.mark.slow
def test_its_cells_run_as_they_stand():
    judge(run_cells({}))


def test_five_lines(tiny: Path, tmp_path: Path):
    photo = tmp_path / "photo.png"
    Image.open(ROOT / "assets" / "portraits" / "plain.png").save(photo)
    portrait = pmv.load(photo, settings=[*SMALL, f"run.generator={tiny}"])
    assert portrait.picture.shape == (512, 512, 3)
    portrait = portrait.prepare(tmp_path / "portrait")
    head = portrait.invert(tmp_path / "run")
    assert portrait.picture.shape == head.render(yaw=30).shape == (32, 32, 3)
    assert head.export(tmp_path / "head.npz").is_file()

    assert head.attributes() == {"smile": ("a broader smile", 3.0)}
    seen = head.changed({"smile": 2.0})
    kept = head.edit(tmp_path / "smiling", smile=2)
    assert np.array_equal(seen.render(20), kept.render(20)) and not np.array_equal(seen.render(20), head.render(20))
    assert np.array_equal(head.render(0), pmv.Head(tmp_path / "run").render(0)), "looking changes nothing"

    assert head.render(0, rays=8).shape == (32, 32, 3)
    for mistake, told in (
        (lambda: head.export(tmp_path / "head.xyz"), "says no format"),
        (lambda: head.render(float("nan")), "finite degrees"),
        (lambda: head.changed({"hat": 1.0}), "no such attribute"),
        (lambda: pmv.load(tmp_path / "nobody.png"), "no such image"),
    ):
        with pytest.raises(InputError, match=told):
            mistake()
