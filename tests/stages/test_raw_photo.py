"""A raw photo through the prepare stage: crop, padding, camera, choice of a face. The face networks are stood in for by
landmarks that are known, so that these tests run without them.
"""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pmv.portrait.align
import pmv.stages.prepare
from pmv.apps.prepare_folder import PrepareRequest
from pmv.apps.prepare_folder import prepare as prepare_folder
from pmv.errors import AssetsError, InputError, PhotoError
from pmv.generators import EG3DGenerator, PanoHeadGenerator
from pmv.geometry.camera import Camera
from pmv.pictures.images import read_image, read_mask, write_png
from pmv.pipeline.context import Context
from pmv.portrait.align import shipped_model
from pmv.portrait.crop import MESH_SPAN, apply, five_points, spanning
from pmv.portrait.face_model import project
from pmv.portrait.landmarks import Face, Landmarks
from pmv.stages.prepare import PrepareConfig, PrepareInputs, PrepareOutputs, run
from pmv.stages.sources import PhotoSources

TRUTH = Camera.orbit(0.2, -0.1, pivot=(0, 0, 0.15))
CONFIG = PrepareConfig(crop="eg3d", matte="grabcut", composite="never")


def seen(left: float, top: float, side: float) -> np.ndarray:
    """[468,2] landmarks of the mean face where a crop of it lies at (left, top), `side` pixels wide."""
    pose = TRUTH.cam2world[0].double().numpy()
    return project(shipped_model().points, pose[:3, :3], pose[:3, 3]) * side + [left, top]


def photo(height: int, width: int) -> Tensor:
    """uint8 [1,3,H,W] whose red says x; the others are noise, without which it would count as blurred."""
    x = np.broadcast_to(np.arange(width), (height, width))
    noise = np.random.default_rng(0).integers(60, 180, (height, width))
    pixels = np.stack([200 * x / width + 50, noise, noise], -1).astype(np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


class Crowd:
    """Stands in for the networks: faces at known places, the largest first."""

    def __init__(self) -> None:
        self.places: list[np.ndarray] = []
        self.spread = 0.004

    def faces(self, _: Any) -> list[Face]:
        return [
            Face(np.concatenate([p.min(0), p.max(0)]), 0.9, np.concatenate([five_points(p), p[:1]]))
            for p in self.places
        ]

    def landmarks(self, _: Any, face: Face, *__: Any) -> Landmarks:
        (points,) = (p for p in self.places if np.array_equal(p.min(0), face.box[:2]))
        return Landmarks(points, spanning(five_points(points), MESH_SPAN), 1.0, self.spread)


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> Crowd:
    crowd = Crowd()
    monkeypatch.setattr(pmv.stages.prepare.landmarks, "is_available", lambda: True)
    monkeypatch.setattr(pmv.stages.prepare, "find_faces", crowd.faces)
    monkeypatch.setattr(pmv.portrait.align, "find_landmarks", crowd.landmarks)
    return crowd


@pytest.fixture
def previews() -> dict[str, Tensor]:
    return {}


@pytest.fixture
def context(tiny_generator: EG3DGenerator, previews: dict[str, Tensor]) -> Context:
    rng = torch.Generator().manual_seed(0)
    return Context(tiny_generator, torch.device("cpu"), rng, lambda a, b, mask=None: a, preview=previews.__setitem__)


def prepare(
    context: Context, picture: Tensor, config: PrepareConfig = CONFIG, cut: int = 0, **given: Any
) -> PrepareOutputs:
    """Run the stage at 64 pixels with a mask that is black in the first `cut` columns."""
    mask = torch.full_like(picture[:, :1], 255)
    mask[..., :cut] = 0
    values = {"photo": picture, "photo_mask": mask, "photo_camera": None}
    return run(PrepareInputs(**{**values, **given}), replace(config, resolution=64), context)


def test_a_face_in_a_large_photo_is_cropped_with_its_mask_and_camera(context: Context, crowd: Crowd):
    crowd.places = [seen(400, 150, 320)]
    out = prepare(context, photo(700, 1120), cut=560)
    matrix = out.crop.double().numpy()
    corner = apply(np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2], np.array([[0.0, 0], [64, 64]]))
    # the five-point rule knows nothing of the camera: a few percent of the width beside the true crop
    assert np.abs(corner - [[400, 150], [720, 470]]).max() < 0.06 * 320
    assert out.original.shape == (1, 3, 64, 64) and out.valid is None
    # the picture holds what lies there, and so does the mask: white from x = 560
    left = (out.original[0, 0, 32, 1] + 1) * 127.5
    assert abs(float(left) - (200 * (corner[0, 0] + 1.5 * (corner[1, 0] - corner[0, 0]) / 64) / 1120 + 50)) < 2
    border = apply(matrix, np.array([560.0, 300.0]))[0]
    assert abs(float((1 - out.foreground[0, 0, 32]).sum()) - border) < 1
    assert out.initial_camera.angle_to(TRUTH).rad2deg() < 2 and out.camera_confidence > 0.7


def test_beyond_the_border_the_photo_is_mirrored_and_told(context: Context, crowd: Crowd, previews: dict[str, Tensor]):
    crowd.places = [seen(-60, -10, 320)]
    out = prepare(context, photo(400, 500))
    assert out.valid is not None and set(out.valid.unique().tolist()) == {0.0, 1.0}
    columns = out.valid[0, 0, 32]
    assert columns[:9].max() == 0 and columns[16:].min() == 1
    assert out.original.min() > -0.75, "no black edge"
    assert torch.equal(previews["valid"], out.valid)


def test_the_largest_face_or_the_one_of_a_number(context: Context, crowd: Crowd, previews: dict[str, Tensor]):
    crowd.places = [seen(50, 100, 400), seen(700, 300, 200)]
    picture = photo(600, 1000)
    assert apply(prepare(context, picture).crop.numpy(), np.array([250.0, 300])) == pytest.approx([32, 32], abs=5)
    assert previews["faces"].shape == (1, 3, 600, 1000)
    second = prepare(context, picture, replace(CONFIG, face=2))
    assert apply(second.crop.numpy(), np.array([800.0, 400])) == pytest.approx([32, 32], abs=5)
    with pytest.raises(PhotoError, match="there is no face 3; it shows 2"):
        prepare(context, picture, replace(CONFIG, face=3))


def test_an_aligned_square_is_taken_as_it_is(context: Context, crowd: Crowd):
    crowd.places = [seen(0, 0, 256)]
    out = prepare(context, photo(256, 256))
    torch.testing.assert_close(out.crop, torch.tensor([[0.25, 0, 0], [0, 0.25, 0]]))
    assert out.valid is None and out.initial_camera.angle_to(TRUTH).rad2deg() < 2
    cropped = prepare(context, photo(256, 256), replace(CONFIG, align="always"))
    assert not torch.equal(cropped.crop, out.crop)


def test_a_low_confidence_is_said(context: Context, crowd: Crowd, caplog: pytest.LogCaptureFixture):
    crowd.places = [seen(400, 150, 320)]
    crowd.spread = 0.03
    with caplog.at_level(logging.WARNING, logger="pmv"):
        logging.getLogger("pmv").propagate = True
        out = prepare(context, photo(700, 1120))
    assert out.camera_confidence < 0.5 and "the camera is uncertain (confidence 0." in caplog.text


@pytest.mark.parametrize(
    "size, settings, camera, message",
    [
        ((300, 400), {}, True, "belongs to a square, aligned one; leave it out"),
        ((300, 300), {"align": "always"}, True, "belongs to a photo that is aligned already"),
        ((300, 400), {"align": "never"}, False, "crop it to a square"),
        ((300, 400), {}, False, "no face was found in its 400×300 pixels"),
    ],
)
def test_what_contradicts_itself_is_refused(
    context: Context, crowd: Crowd, size: tuple[int, int], settings: dict[str, Any], camera: bool, message: str
):
    with pytest.raises(InputError, match=message):
        prepare(context, photo(*size), replace(CONFIG, **settings), photo_camera=TRUTH if camera else None)


def test_without_networks_a_photo_that_must_be_cropped_says_how_to_get_them(
    context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("PMV_MEDIAPIPE", str(tmp_path))
    with pytest.raises(AssetsError, match=r"400×300 pixels and must be cropped .* pip install --no-deps mediapipe"):
        prepare(context, photo(300, 400))


def test_a_camera_is_told_as_a_label_and_as_the_generator_stands(
    context: Context, tiny_panohead: PanoHeadGenerator, crowd: Crowd
):
    """PanoHead stands where it has learned to; a camera that `pmv prepare` wrote must not be moved once more."""
    crowd.places = [seen(400, 150, 320)]
    out = prepare(replace(context, generator=tiny_panohead), photo(700, 1120))
    moved = tiny_panohead.photo_camera(out.label_camera)
    torch.testing.assert_close(out.initial_camera.labels(), moved.labels())
    assert not torch.equal(out.label_camera.labels(), moved.labels())


def test_prepare_leaves_a_folder_that_invert_takes(tiny_generator: EG3DGenerator, crowd: Crowd, tmp_path: Path):
    crowd.places = [seen(-40, 60, 320)]
    write_png(tmp_path / "me.png", photo(480, 640)[0].permute(1, 2, 0).numpy())
    mask = np.zeros((480, 640, 3), np.uint8)
    mask[100:, 20:280] = 255
    write_png(tmp_path / "white.png", mask)
    settings = ("prepare.resolution=64", "prepare.crop=eg3d", "run.device=cpu")
    request = PrepareRequest(settings=settings, mask=tmp_path / "white.png")
    out = prepare_folder(request, tmp_path / "me.png", tmp_path / "new" / "me", tiny_generator)
    names = ["camera.json", "camera_mean_head.png", "crop.json", "image.png", "mask.png", "valid.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    crop = json.loads((out / "crop.json").read_text())
    assert (crop["width"], crop["height"], np.shape(crop["matrix"])) == (640, 480, (2, 3))
    camera = json.loads((out / "camera.json").read_text())
    assert len(camera["label"]) == 25 and camera["confidence"] > 0.7
    image, valid = read_image(out / "image.png")[0], read_mask(out / "valid.png")
    assert image.shape == (1, 3, 64, 64) and valid[..., 0].max() == 0 and valid[..., 40].min() == 1
    # the crop says where a pixel of the picture lies in the photo, whose red tells x
    there = (40.5 - crop["matrix"][0][2]) / crop["matrix"][0][0]
    assert (image[0, 0, 20, 40] + 1) * 127.5 == pytest.approx(200 * there / 640 + 50, abs=2)
    taken = PhotoSources(out / "image.png", out / "mask.png", out / "camera.json").read()
    torch.testing.assert_close(taken["photo_camera"].labels()[0], torch.tensor(camera["label"]))
    again = run(
        PrepareInputs(taken["photo"], taken["photo_mask"], taken["photo_camera"]),
        CONFIG,
        Context(tiny_generator, torch.device("cpu"), torch.Generator(), lambda a, b, mask=None: a),
    )
    assert again.valid is None and again.camera_confidence < 1, "the ball of this generator is not on the photo"
    # once more into the same folder: what is no longer made is gone
    crowd.places = [seen(200, 60, 320)]
    prepare_folder(request, tmp_path / "me.png", out, tiny_generator)
    assert sorted(path.name for path in out.iterdir()) == names[:-1]
    assert [path.name for path in out.parent.iterdir()] == ["me"], "nothing else is left"
