"""The prepare stage: foreground and camera of an aligned photo."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pmv.errors import InputError
from pmv.generators import EG3DGenerator
from pmv.geometry.camera import Camera
from pmv.pictures.images import read_image, resize, to_uint8
from pmv.pipeline.context import Context
from pmv.portrait.matte import clean_mask, find_matte
from pmv.stages.camera_search import find_camera, view_score
from pmv.stages.prepare import PrepareConfig, PrepareInputs, PrepareOutputs, run
from tests.conftest import SHARED

CONFIG = PrepareConfig(search_yaw_steps=7, refine_steps=12)


@pytest.fixture
def context(tiny_generator: EG3DGenerator) -> Context:
    return Context(tiny_generator, torch.device("cpu"), torch.Generator().manual_seed(0), lambda a, b, mask=None: a)


def drawn(size: int = 128) -> tuple[Tensor, Tensor]:
    """A head with shoulders before a wall with a gradient, and its mask."""
    y, x = torch.meshgrid(*(torch.linspace(0, 1, size),) * 2, indexing="ij")
    head = ((x - 0.5) / 0.27) ** 2 + ((y - 0.48) / 0.36) ** 2 < 1
    body = (y > 0.8) & ((x - 0.5).abs() < 0.34)
    mask = (head | body).float()[None, None]
    noise = 0.04 * torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    skin = torch.tensor([0.6, 0.1, -0.1])[:, None, None] - 0.3 * y
    wall = torch.stack([-0.5 + 0.3 * x, -0.1 + 0.3 * y, 0.4 + 0 * x])
    return torch.lerp(wall, skin, mask) + noise, mask


def prepare(context: Context, config: PrepareConfig = CONFIG, **given: Any) -> PrepareOutputs:
    photo, mask = drawn()
    values = {"photo": photo, "photo_mask": mask, "photo_camera": Camera.orbit(0.1, 0.0)}
    return run(PrepareInputs(**{**values, **given}), config, context)


def grabcut(photo: Tensor) -> Tensor:
    return torch.from_numpy(find_matte(to_uint8(photo)[0], "grabcut"))[None, None]


def iou(a: Tensor, b: Tensor) -> float:
    a, b = a > 0.5, b > 0.5
    return float((a & b).sum() / (a | b).sum())


def test_shapes_ranges_and_background(context: Context):
    out = prepare(context)
    size = context.generator.spec.resolution
    assert out.original.shape == (1, 3, size, size)
    assert out.foreground.shape == (1, 1, size, size)
    outside = (out.foreground == 0).expand_as(out.original)
    assert outside.any() and bool((out.original[outside] == context.generator.spec.background).all())
    assert torch.equal(out.initial_camera.labels(), Camera.orbit(0.1, 0.0).labels())
    kept = prepare(context, dataclasses.replace(CONFIG, composite="never"))
    assert torch.equal(kept.original, resize(drawn()[0], size))
    assert prepare(context, dataclasses.replace(CONFIG, resolution=48)).original.shape[-1] == 48


@pytest.mark.parametrize("size", [96, 700])
def test_foreground_is_found_and_the_same_every_time(size: int):
    photo, mask = drawn(size)
    found = grabcut(photo)
    assert found.shape == mask.shape and found.min() >= 0 and found.max() <= 1
    assert iou(found, mask) > 0.96
    assert torch.equal(found, grabcut(photo))


def test_cleaned_masks_are_one_piece_without_holes():
    mask = np.zeros((170, 170), bool)
    mask[40:120, 40:120] = True
    mask[60:70, 60:70] = False  # a hole
    mask[5:15, 5:15] = True  # a second piece
    mask[80, 120:160] = True  # a hair
    expected = np.zeros_like(mask)
    expected[40:120, 40:120] = True
    cleaned = clean_mask(mask)
    assert (cleaned != expected).sum() <= 8  # an opening rounds the corners and leaves the root of the hair
    assert not clean_mask(np.zeros((9, 9), bool)).any()


@pytest.mark.parametrize(
    "given, message",
    [
        ({"photo": torch.zeros(1, 3, 40, 60)}, "60×40"),
        ({"photo_mask": torch.ones(1, 1, 60, 40)}, "mask is 40×60"),
        ({"photo_mask": torch.zeros(1, 1, 128, 128)}, "leaves the middle of the picture out"),
    ],
)
def test_what_cannot_be_used_is_refused(context: Context, given: dict, message: str):
    with pytest.raises(InputError) as caught:
        prepare(context, **given)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("yaw, pitch", [(0.0, 0.0), (0.5, -0.15), (-0.62, 0.2)])
def test_the_camera_of_a_rendered_view_is_found(context: Context, yaw: float, pitch: float):
    generator = context.generator
    w = generator.mean_w()
    truth = generator.spec.orbit(yaw, pitch)
    out = generator.render(generator.planes(w), w, truth)
    image = out.image.clamp(-1, 1) * 0.7 + 0.1  # other light than the mean head's
    # a ball has no face to recognise, so neither shifts nor the expectation of a frontal one may take part
    config = dataclasses.replace(CONFIG, prior_weight=0.0, shift=0.0)
    camera = find_camera(image, resize(out.alpha, image.shape[-1]).clamp(0, 1), config, context)
    assert math.degrees(float(camera.angle_to(truth))) < 6


def test_the_prior_decides_where_the_photo_says_nothing(context: Context):
    size = context.generator.spec.resolution
    config = dataclasses.replace(CONFIG, silhouette_weight=0.0)
    camera = find_camera(torch.zeros(1, 3, size, size), torch.ones(1, 1, size, size), config, context)
    assert math.degrees(float(camera.angle_to(context.generator.spec.canonical_camera))) < 1


def test_a_shifted_face_is_as_likely(tiny_generator: EG3DGenerator):
    w = tiny_generator.mean_w()
    view = tiny_generator.render(tiny_generator.planes(w), w, tiny_generator.spec.orbit(0.3, 0.0)).image
    view = view + 0.5 * torch.rand(view.shape, generator=torch.Generator().manual_seed(0))
    config = dataclasses.replace(CONFIG, shift=2 / view.shape[-1])
    mask = torch.ones_like(view[:, :1])
    assert float(view_score(view, None, view.roll((2, -1), (2, 3)), mask, config)) < 0.05
    assert float(view_score(view, None, view.roll((4, -1), (2, 3)), mask, config)) > 0.15


def test_the_score_is_zero_for_equal_views_and_differentiable(tiny_generator: EG3DGenerator):
    w = tiny_generator.mean_w()
    out = tiny_generator.render(tiny_generator.planes(w), w, tiny_generator.spec.orbit(0.3, 0.0))
    assert float(view_score(out.raw, out.alpha, out.raw, out.alpha, CONFIG)) == pytest.approx(0, abs=1e-6)
    yaw = torch.tensor([0.45], requires_grad=True)
    other = tiny_generator.render(tiny_generator.planes(w), w, tiny_generator.spec.orbit(yaw, 0.0))
    value = view_score(other.raw, other.alpha, out.raw, out.alpha, CONFIG)
    value.sum().backward()
    assert value.item() > 0.01 and yaw.grad is not None and yaw.grad.abs().item() > 1e-3


@pytest.mark.parametrize("name", ["frontal_studio.png", "smile_makeup.png"])
def test_real_portraits_have_a_plausible_foreground(name: str):
    path = SHARED / "portraits" / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    found = grabcut(read_image(path)[0])
    assert 0.25 < float(found.mean()) < 0.85
    assert found[..., 200:312, 200:312].min() > 0.99  # the face
    assert found[..., 20:60, 200:256].min() > 0.9  # the hair, which reaches the upper border
    assert max(found[..., :200, :24].max(), found[..., :200, -24:].max()) < 0.02
