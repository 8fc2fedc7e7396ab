"""`pmv edit`: an inversion edited, edited again, taken back, and all that can be in the way."""

import logging
from pathlib import Path

import pytest
import torch

from pmv.apps.attributes import INVERSION, RECORD, SHEET, edit_run
from pmv.apps.render import write_sheet
from pmv.errors import InputError
from pmv.files.artifacts import read_header, read_json, tensors_hash
from pmv.generators import EG3DGenerator, save_generator
from pmv.generators.directions import FILE_NAME, Direction, Directions, save_directions
from pmv.inversion import load_inversion, save_inversion
from pmv.pictures.images import read_image
from pmv.pipeline.packing import load_fields


@pytest.fixture
def run(tmp_path: Path, tiny_generator: EG3DGenerator) -> Path:
    """A finished inversion of a generator with two directions: its decoder and its planes are tuned."""
    generator = tiny_generator
    folder = tmp_path / "run"
    folder.mkdir()
    save_generator(generator, tmp_path / "tiny.safetensors")
    rng = torch.Generator().manual_seed(0)
    about = (
        Direction("smile", "a broader smile", "share", 0.3, 3.0),
        Direction("age", "older", "share", 0.35, 5.0),
        Direction("skin", "darker", "share", 0.2, 4.0, shape=False),
    )
    directions = torch.randn(3, generator.spec.w_dim, generator=rng)
    digest = tensors_hash(generator.state_dict())
    save_directions(tmp_path / FILE_NAME, Directions(directions, about, digest), {})
    tuned = {name: p.detach() + 0.01 for name, p in generator.tunable_parameters("decoder").items()}
    tuned["plane_residual"] = 0.1 * torch.randn(1, *generator.config.plane_shape, generator=rng)
    noise = {k: torch.randn(v.shape, generator=rng) for k, v in generator.noise_buffers().items()}
    header = {"generator": str(tmp_path / "tiny.safetensors"), "generator_hash": digest, "seed": 7}
    camera = generator.spec.orbit(0.1, 0.0)
    save_inversion(folder / INVERSION, tuned, generator.mean_w(8), noise, camera, header)
    return folder


def directions_of(run: Path) -> torch.Tensor:
    return load_fields(run.parent / FILE_NAME, ["w"])["w"]


def picture(folder: Path) -> torch.Tensor:
    generator, w, noise, camera = load_inversion(folder)
    return generator.render(generator.planes(w, noise), w, camera).image


def test_the_directions_are_added_to_the_pivot_and_the_rest_stays(run: Path):
    smile, age, _ = directions_of(run)
    before = load_inversion(run)
    folder = edit_run(run, ["smile=+2", "age=-1"], None)
    assert folder == run.with_name("run-smile+2-age-1")
    after = load_inversion(folder)
    assert torch.allclose(after.w, before.w + 2 * smile - age, atol=1e-6)
    moved = after.generator.state_dict().pop("plane_residual")
    assert (moved - before.generator.plane_residual).abs().max() > 1e-3  # the head has another shape
    for name, value in before.generator.state_dict().items():
        assert name == "plane_residual" or torch.equal(after.generator.state_dict()[name], value), name
    assert tensors_hash(after.noise) == tensors_hash(before.noise)
    assert torch.equal(after.camera.cam2world, before.camera.cam2world)
    assert (picture(folder) - picture(run)).abs().max() > 0.01
    assert read_header(folder / INVERSION)["seed"] == 7


def test_where_only_colours_change_the_residual_stays(run: Path):
    folder = edit_run(run, ["skin=+2"], None)
    before, after = (load_inversion(path).generator for path in (run, folder))
    assert tensors_hash(after.state_dict()) == tensors_hash(before.state_dict())


def test_a_head_tuned_without_a_residual_can_be_edited(run: Path):
    path = run / INVERSION
    header = read_header(path)
    values = load_fields(path, ["tuned_state", "pivot_w", "noise", "camera"])
    values["tuned_state"].pop("plane_residual")
    del header["kinds"]
    save_inversion(path, values["tuned_state"], values["pivot_w"], values["noise"], values["camera"], header)
    folder = edit_run(run, ["smile=2"], None)
    assert load_inversion(folder).generator.plane_residual is None
    assert (picture(folder) - picture(run)).abs().max() > 0.01


def test_the_folder_is_complete_and_can_be_rendered(run: Path, tmp_path: Path):
    folder = edit_run(run, ["smile=1"], tmp_path / "deep" / "out")
    assert {path.name for path in folder.iterdir()} == {INVERSION, SHEET, RECORD}
    assert read_json(folder / RECORD) == {"run": str(run), "attributes": {"smile": 1.0}}
    size = load_inversion(run).generator.spec.resolution
    sheet, _ = read_image(folder / SHEET)
    assert sheet.shape[-1] > 3 * size and sheet.shape[-2] > 2 * size
    write_sheet(folder, tmp_path / "views.png", [0.0, 20.0], 0.0)
    assert read_image(tmp_path / "views.png")[0].shape[-1] > 2 * size


def test_edits_of_edits_add_up_and_can_be_taken_back(run: Path, tmp_path: Path):
    once = edit_run(run, ["smile=+2"], tmp_path / "once")
    twice = edit_run(once, ["smile=+0.5", "age=1"], tmp_path / "twice")
    assert read_json(twice / RECORD) == {"run": str(run), "attributes": {"smile": 2.5, "age": 1.0}}
    at_once = edit_run(run, ["smile=2.5", "age=1"], tmp_path / "at_once")
    assert torch.equal(load_inversion(twice).w, load_inversion(at_once).w)
    assert torch.equal(picture(twice), picture(at_once))
    back = edit_run(twice, ["smile=-2.5", "age=-1"], tmp_path / "back")
    assert read_json(back / RECORD)["attributes"] == {}
    assert torch.equal(picture(edit_run(back, ["smile=2.5", "age=1"], tmp_path / "again")), picture(at_once))
    assert torch.equal(load_inversion(back).w, load_inversion(run).w) and torch.equal(picture(back), picture(run))


def test_an_edit_can_be_made_anew_in_its_own_folder(run: Path):
    first = edit_run(run, ["smile=1"], run.parent / "edited")
    assert edit_run(first, ["smile=1"], first) == first
    assert read_json(first / RECORD)["attributes"] == {"smile": 2.0}


def test_what_no_head_has_is_warned_of_and_sums_are_judged_too(run: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        folder = edit_run(run, ["smile=4"], run.parent / "far")
    assert "smile" in caplog.text
    with pytest.raises(InputError, match=r"smile=\+8: too much"):
        edit_run(folder, ["smile=4"], run.parent / "further")
    assert not (run.parent / "further").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], r"nothing to change.*smile \(a broader smile\), age \(older\)"),
        (["wings=1"], r"wings: no such attribute; there are smile, age, skin"),
        (["smile=very"], r"'very' is not a number"),
        (["smile=100"], r"too much"),
    ],
)
def test_requests_that_cannot_be_met(run: Path, told_before, settings: list[str], message: str):
    with pytest.raises(InputError, match=message) as caught:
        edit_run(run, settings, None)
    told_before(str(caught.value), " ".join(settings) or "nothing")
    assert sorted(path.name for path in run.parent.iterdir()) == sorted(
        ["run", "tiny.safetensors", "tiny.json", FILE_NAME]
    )


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path):
    (tmp_path / "begun").mkdir()
    with pytest.raises(InputError, match=r"no finished inversion.*--resume"):
        edit_run(tmp_path / "begun", ["smile=1"], None)


def test_a_generator_without_directions_is_refused(run: Path):
    (run.parent / FILE_NAME).unlink()
    with pytest.raises(InputError, match="has no attribute directions"):
        edit_run(run, ["smile=1"], None)


def test_other_peoples_folders_are_left_alone(run: Path):
    for out in (run, run.parent / "tiny.json"):
        if out == run:
            (run / "notes.txt").write_text("mine")
        with pytest.raises(InputError, match=r"give a folder|give another --out"):
            edit_run(run, ["smile=1"], out)
    assert (run / "notes.txt").read_text() == "mine"
