"""`pmv edit --reference`: a part of one head on another, and all that can be in the way."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pmv.apps.attributes import INVERSION, RECORD, SHEET
from pmv.apps.cli.edit import edit
from pmv.apps.export import export_run
from pmv.apps.head_model import ModelSettings
from pmv.apps.reference import take_part
from pmv.apps.render import write_sheet
from pmv.errors import InputError
from pmv.files.artifacts import read_json, tensors_hash
from pmv.generators import EG3DGenerator, PanoHeadGenerator, save_generator
from pmv.generators.base import Generator
from pmv.inversion import load_inversion, save_inversion

STEPS = 12


def finished(folder: Path, generator: Generator, path: Path, change: float, seed: int) -> Path:
    """A finished inversion: decoder and planes are tuned."""
    rng = torch.Generator().manual_seed(seed)
    folder.mkdir(parents=True)
    digest = tensors_hash(generator.state_dict())
    w = generator.mean_w(8)
    planes = generator.planes(w)
    tuned = {name: p.detach() + 0.01 * change for name, p in generator.tunable_parameters("decoder").items()}
    tuned["plane_residual"] = change * planes.std() * torch.randn(planes.shape, generator=rng)
    header = {"generator": str(path), "generator_hash": digest, "config": {"generator": {}}}
    save_inversion(folder / INVERSION, tuned, w, {}, generator.spec.orbit(0.0, 0.0), header)
    return folder


@pytest.fixture
def heads(tmp_path: Path, tiny_generator: EG3DGenerator) -> tuple[Path, Path]:
    path = tmp_path / "tiny.safetensors"
    save_generator(tiny_generator, path)
    mine = finished(tmp_path / "mine", tiny_generator, path, 0.1, 0)
    return mine, finished(tmp_path / "theirs", tiny_generator, path, 0.4, 1)


def colours(folder: Path, points: Tensor) -> Tensor:
    generator, w, noise, _ = load_inversion(folder)
    with torch.no_grad():
        return generator.density(points[None], generator.planes(w, noise))[1][0]


def test_the_crown_becomes_the_others_and_the_face_stays(heads: tuple[Path, Path]):
    mine, theirs = heads
    folder = take_part(mine, theirs, "hair", None, steps=4 * STEPS)
    assert folder == mine.with_name("mine-hair-of-theirs")
    assert {path.name for path in folder.iterdir()} == {INVERSION, SHEET, RECORD}
    record = read_json(folder / RECORD)
    assert record.pop("kept_psnr") > 20
    assert record == {"run": str(mine), "reference": str(theirs), "part": "hair"}
    crown, chin = torch.tensor([[0.0, 0.17, -0.1], [0.0, 0.19, -0.05]]), torch.tensor([[0.0, -0.14, 0.14]])
    for place, like, unlike in ((crown, theirs, mine), (chin, mine, theirs)):
        found = colours(folder, place)
        assert (found - colours(like, place)).norm() < (found - colours(unlike, place)).norm()
    before, after = (load_inversion(path) for path in (mine, folder))
    for name, value in before.generator.state_dict().items():
        same = torch.equal(after.generator.state_dict()[name], value)
        assert same == (name != "plane_residual"), f"{name}: the weights are the first head's"
    assert torch.equal(after.w, before.w) and torch.equal(after.camera.cam2world, before.camera.cam2world)


def test_a_part_of_the_face_leaves_the_other_texels_to_the_bit(heads: tuple[Path, Path], tmp_path: Path):
    mine, theirs = heads
    folder = take_part(mine, theirs, "mouth", tmp_path / "out", steps=STEPS)
    before, after = (load_inversion(path).generator.plane_residual for path in (mine, folder))
    assert before is not None and after is not None
    changed = (before != after).any(2)[0]  # [3,H,W]
    assert changed.any() and not changed[0, 8:].any(), "XY: nothing above the middle"
    write_sheet(folder, tmp_path / "views.png", [0.0], 0.0)
    assert export_run(folder, "ply", tmp_path / "head.ply", ModelSettings(grid=24)).is_file()
    again = take_part(folder, theirs, "nose", tmp_path / "again", steps=1)
    assert read_json(again / RECORD)["run"] == str(mine)


def test_requests_that_cannot_be_met(
    heads: tuple[Path, Path], tmp_path: Path, tiny_panohead: PanoHeadGenerator, told_before
):
    mine, theirs = heads
    path = tmp_path / "pano.safetensors"
    save_generator(tiny_panohead, path)
    other = finished(tmp_path / "other", tiny_panohead, path, 0.1, 0)
    (tmp_path / "begun").mkdir()
    out = tmp_path / "out"
    for name, lender, part, message in (
        ("no such part", theirs, "wings", r"--part wings: no such part; there are hair, face, eyes, nose, mouth"),
        ("another generator", other, "hair", r"made with another generator"),
        ("not finished", tmp_path / "begun", "hair", r"no finished inversion"),
        ("nothing there", tmp_path / "nowhere", "hair", r"nowhere"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            take_part(mine, lender, part, out)
        told_before(str(caught.value), name)
        assert not out.exists()
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="give another --out"):
        take_part(mine, theirs, "hair", mine)


def test_a_head_without_hair_lends_none(heads: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, told_before):
    monkeypatch.setattr("pmv.portrait.head_parts._TELL", 1000.0)
    with pytest.raises(InputError, match="no hair was found") as caught:
        take_part(*heads, "hair", None)
    told_before(str(caught.value), "bald")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--part", "hair"], "go together"),
        (["--reference", "theirs"], "go together"),
        (["--reference", "theirs", "--part", "hair", "--set", "smile=1"], "are two edits"),
    ],
)
def test_options_that_do_not_go_together(told_before, words: list[str], message: str):
    with pytest.raises(InputError, match=message) as caught:
        edit.main(["mine", *words], standalone_mode=False)
    told_before(str(caught.value), " ".join(words))
