"""What is corrected, painted and placed by hand."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pmv.apps.prepare_folder import PrepareRequest, prepare
from pmv.apps.studio.correction import Nudge, Square, corrected, rolled, write
from pmv.apps.studio.layers import Sent, layers_of
from pmv.apps.studio.painting import Edits, merged, read_layer, with_strokes
from pmv.errors import InputError
from pmv.generators import EG3DGenerator
from pmv.geometry.camera import Camera
from pmv.pictures.overlay import Placement
from pmv.stages.prepared import Prepared, read_prepared
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, tiny_generator: EG3DGenerator) -> Path:
    folder = tmp_path_factory.mktemp("found")
    photo = ROOT / "assets" / "portraits" / "plain.png"
    return prepare(PrepareRequest(settings=["prepare.resolution=64"]), photo, folder / "found", tiny_generator)


def same(a: Prepared, b: Prepared) -> bool:
    ours, theirs = a.tensors(), b.tensors()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("square", [Square(0.4, 0.55, 0.7), Square(0.5, 0.5, 1.2, 30.0), Square(0.1, 0.9, 0.3, -170.0)])
def test_a_square_and_its_matrix(square: Square):
    matrix = square.matrix(64, 400, 300)
    again = Square.of(matrix, 64, 400, 300)
    assert np.allclose([again.x, again.y, again.side, again.turn], [square.x, square.y, square.side, square.turn])
    assert np.allclose(matrix @ [square.x * 400, square.y * 300, 1], [32, 32]), "its middle is the picture's"
    assert math.isclose(np.linalg.det(matrix[:, :2]), (64 / (square.side * 400)) ** 2)


@pytest.mark.parametrize(
    "square",
    [Square(math.nan, 0.5, 1), Square(0.5, 0.5, 0.01), Square(0.5, 0.5, -1), Square(0.5, 0.5, 1e9), Square(2, 0.5, 1)],
)
def test_squares_that_are_none(square: Square):
    with pytest.raises(InputError):
        square.matrix(64, 400, 300)


def test_nothing_corrected_is_what_was_found(found: Path):
    assert same(corrected(found, None, Nudge(), (0, 0, 0)), read_prepared(found))


def test_a_moved_crop_shows_the_photo_elsewhere(found: Path, tmp_path: Path):
    before = read_prepared(found)
    square = Square.of(before.crop.double().numpy(), 64, 512, 512)
    moved = corrected(found, Square(square.x + square.side * 16 / 64, square.y, square.side), Nudge(), (0, 0, 0))
    assert (moved.picture[..., :48] - before.picture[..., 16:]).abs().mean() < 0.02, "by a quarter of its side"
    assert torch.equal(moved.camera.labels(), before.camera.labels()), "and the camera looks where it looked"
    write(moved, found, tmp_path / "draft")
    assert torch.equal(read_prepared(tmp_path / "draft").picture, moved.picture), "a run takes it"


def test_a_turned_crop_turns_the_camera_along(found: Path):
    before = read_prepared(found)
    square = Square.of(before.crop.double().numpy(), 64, 512, 512)
    turned = corrected(found, Square(square.x, square.y, square.side, square.turn + 90), Nudge(), (0, 0, 0))
    difference = (torch.rot90(before.picture, 1, (2, 3)) - turned.picture).abs()
    assert difference[..., 8:-8, 8:-8].mean() < 0.05, "what is turned clockwise in the photo: counter-clockwise here"
    point = torch.tensor([[[0.05, 0.02, 0.1]]])
    (x, y), (u, v) = (camera.project(point)[0][0, 0].tolist() for camera in (before.camera, turned.camera))
    assert (u, v) == pytest.approx((y, 1 - x), abs=1e-4), "the head in the world turns with the picture"


def test_a_nudged_camera():
    camera = Camera.orbit(0.1, 0.05)
    yaw, pitch = rolled(camera, 10).yaw_pitch()
    assert (yaw.item(), pitch.item()) == pytest.approx((0.1, 0.05), abs=1e-5)
    assert torch.allclose(
        rolled(camera, 10).cam2world, Camera.orbit(0.1, 0.05, roll=math.radians(10)).cam2world, atol=1e-6
    )


def layer(side: int = 64) -> np.ndarray:
    pixels = np.zeros((side, side, 4), np.uint8)
    pixels[side // 4 : side // 2, side // 4 : side // 2] = (0, 0, 255, 255)
    return pixels


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_layers_become_one():
    red = np.zeros((128, 128, 4), np.uint8)
    red[:, :40] = (255, 0, 0, 128)
    one = merged([layer(), red], 32)
    assert one[2, 2].tolist() == [255, 0, 0, 128] and one[12, 12].tolist() == [0, 0, 255, 255] and one[30, 30, 3] == 0
    assert one[9, 9, 3] == 255 and one[9, 9, 0] > 100 < one[9, 9, 2], "half of one over the other"
    with pytest.raises(InputError, match="nothing is painted"):
        merged([np.zeros((8, 8, 4), np.uint8)], 8)


def test_what_a_browser_sends_is_read_by_our_own_decoder():
    class Editor:
        blob_storage = Sent()

    class Blobs:
        layers = (png(layer()), None)

    Editor.blob_storage["key"] = Blobs()
    (one,) = layers_of({"id": "key"}, Editor)
    assert np.array_equal(one, layer()) and not Editor.blob_storage, "and not kept"
    assert layers_of({"id": "key"}, Editor) == []
    for sent in (b"no picture", png(layer())[:60], b"%PDF-1.4", b""):
        with pytest.raises(InputError, match="cannot be read") as told:
            read_layer(sent)
        assert "/" not in str(told.value), "no place on this machine is told"
    for i in range(1000):
        Editor.blob_storage[str(i)] = Blobs()
    assert len(Editor.blob_storage) <= 40
    with pytest.raises(InputError, match="nothing is painted"):
        layers_of(None, Editor)


def test_strokes_on_a_matte():
    strokes = np.zeros((4, 4, 4), np.uint8)
    strokes[0], strokes[1], strokes[2] = (0, 200, 83, 255), (213, 0, 0, 255), (0, 200, 83, 128)
    found = with_strokes(np.full((4, 4), 0.5, np.float32), strokes)
    assert found[:, 0].tolist() == pytest.approx([1, 0, 0.75, 0.5], abs=0.01)


def test_edits_are_kept_and_taken_by_a_run(tmp_path: Path):
    edits = Edits(tmp_path / "edits")
    assert edits.given() == []
    edits.paint(merged([layer(32)], 32))
    logo = tmp_path / "logo.png"
    Image.fromarray(layer()).save(logo)
    edits.place(logo, "a <b> logo.png", Placement((0.7, 0.5), 0.3, follow_surface=True))
    painted, placed = Edits(tmp_path / "edits").given()
    assert painted.mask is not None and placed.placement == Placement((0.7, 0.5), 0.3, follow_surface=True)
    assert [edit.read().name for edit in (painted, placed)] == ["painted", "a <b> logo.png"]
    seen = edits.on(torch.zeros(1, 3, 32, 32))
    assert seen[0, :, 10, 10].tolist() == [-1, -1, 1] and seen[0, :, 30, 2].tolist() == [0, 0, 0]

    edits.paint(merged([layer(32)[::-1]], 32))
    assert len(edits.given()) == 2, "painted anew, in the place of what was painted"
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"GIF89a nothing")
    with pytest.raises(InputError, match=r"^bad\.png: "):
        edits.place(bad, "bad.png", Placement((0.5, 0.5), 0.3))
    assert edits.drop_painting() and not edits.drop_painting() and edits.labels() == ["a <b> logo.png"]
    edits.clear()
    assert edits.given() == []
