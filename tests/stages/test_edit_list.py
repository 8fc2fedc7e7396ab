"""The edits of a run: into the run's folder and back."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pmv.errors import InputError
from pmv.pictures.overlay import Placement
from pmv.pipeline.folder import RunFolder
from pmv.stages.edit_list import Edit, load_edits, save_edits
from pmv.stages.sources import PhotoSources, changed_edits, run_sources, write_sources
from tests.pmv.pipeline import fakes


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., Path]:
    """Writes a picture of one colour."""

    def write(name: str, colour: str = "red", size: tuple[int, int] = (8, 8)) -> Path:
        Image.new("RGB", size, colour).save(tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def run(tmp_path: Path, picture: Callable[..., Path]) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    folder = RunFolder(path, fakes.TABLE)
    folder.write_config(fakes.config().as_yaml())
    write_sources(folder, PhotoSources(picture("photo.png", "grey")))
    return path


def test_edits_are_kept_with_copies_of_their_pictures(tmp_path: Path, picture: Callable[..., Path]):
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    placement = Placement((0.25, 0.5), 0.2, 10.0, "screen", 0.7, True)
    edits = [
        Edit(picture("logo.png"), None, placement, "logo.png"),
        Edit(picture("face.jpg"), tmp_path / "m.png", None, "face.jpg"),
    ]
    (tmp_path / "kept").mkdir()
    save_edits(edits, tmp_path / "kept")
    for name in ("logo.png", "face.jpg", "m.png"):
        (tmp_path / name).unlink()
    loaded = load_edits(tmp_path / "kept")
    assert [edit.name for edit in loaded] == ["logo.png", "face.jpg"] and loaded[0].placement == placement
    logo, face = (edit.read() for edit in loaded)
    assert logo.picture[0, :, 0, 0].tolist() == [1, -1, -1] and logo.mask is None
    assert face.mask is not None and face.mask.mean() == 0.25
    (tmp_path / "kept" / "edit-02-mask.png").unlink()
    with pytest.raises(InputError, match=r"edit-02-mask\.png: is gone.*--clear-edits"):
        load_edits(tmp_path / "kept")
    for text in (
        "[",
        "3",
        "- edit",
        "- {edit: face.png, at: 3}",
        "- {overlay: overlay-01.png, at: [1, 2, 3], size: 1}",
    ):
        (tmp_path / "kept" / "edits.yaml").write_text(text)
        with pytest.raises(InputError, match=r"edits\.yaml"):
            load_edits(tmp_path / "kept")


def test_an_invisible_overlay_is_refused(tmp_path: Path):
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    with pytest.raises(InputError, match=r"clear\.png: is transparent everywhere"):
        Edit(tmp_path / "clear.png", placement=Placement((0.5, 0.5), 0.2)).read()


def test_later_edits_lie_on_top_until_they_are_taken_back(run: Path, picture: Callable[..., Path]):
    folder = RunFolder(run, fakes.TABLE)
    assert fakes.run(run) == ["draw", "fit", "tune", "judge"]
    plain = folder.sources().hashes()
    red, white = Edit(picture("red.png", "red")), Edit(picture("white.png", "white"))
    for edit in (red, white):
        with changed_edits(folder, [edit]):
            assert fakes.run(run) == ["draw", "tune", "judge"]
    assert [edit.read().name for edit in run_sources(folder).edits] == ["red.png", "white.png"]
    assert fakes.run(run) == []
    with changed_edits(folder, [red], clear=True):
        assert fakes.run(run) == ["draw", "tune", "judge"]
    assert [edit.name for edit in run_sources(folder).edits] == ["red.png"]
    dropped = run / "00_draw" / "edit.png"
    dropped.write_bytes(white.picture.read_bytes())
    assert [edit.picture.name for edit in run_sources(folder).edits] == ["edit-01.png", "edit.png"]
    with changed_edits(folder, [], clear=True):
        assert folder.sources().hashes() == plain
    assert not dropped.exists() and dropped.with_name("edit.png.cleared").exists(), "a user's picture is never deleted"


def test_a_failing_edit_leaves_the_run_as_it_was(run: Path, picture: Callable[..., Path]):
    folder = RunFolder(run, fakes.TABLE)
    with changed_edits(folder, [Edit(picture("red.png"))]):
        pass
    dropped = run / "00_draw" / "edit.png"
    dropped.parent.mkdir()
    dropped.write_bytes((run / "source" / "edit-01.png").read_bytes())
    before = {path: path.read_bytes() for path in run.glob("*/*")}
    for clear in (False, True):
        with pytest.raises(InputError, match="no such head"), changed_edits(folder, [Edit(picture("b.png"))], clear):
            raise InputError("no such head")
        assert {path: path.read_bytes() for path in run.glob("*/*")} == before


def test_one_dropped_edit_and_its_mask(run: Path, picture: Callable[..., Path]):
    folder, place = RunFolder(run, fakes.TABLE), run / "00_draw"
    fakes.run(run)
    picture("x.png").rename(place / "paint_mask.png")
    with pytest.raises(InputError, match=r"paint_mask\.png: lies there without an edit"):
        folder.sources()
    picture("x.png").rename(place / "edit.png")
    (edit,) = run_sources(folder).edits
    assert (edit.picture, edit.mask) == (place / "edit.png", place / "paint_mask.png")
    picture("x.jpg").rename(place / "edit.jpg")
    with pytest.raises(InputError, match="only one"):
        folder.sources()


def test_edits_move_to_a_device(picture: Callable[..., Path]):
    loaded = Edit(picture("a.png"), placement=Placement((0.5, 0.5), 0.2)).read().to(torch.device("meta"))
    assert loaded.picture.device.type == "meta" and loaded.placement == Placement((0.5, 0.5), 0.2)
