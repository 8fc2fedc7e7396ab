"""Overlays: blend modes and placement, flat and on a surface."""

import math

import pytest
import torch
from torch import Tensor

from pmv.errors import InputError
from pmv.geometry.camera import Camera
from pmv.geometry.scene import surface_points
from pmv.geometry.unroll import unrolled
from pmv.pictures.overlay import BLENDS, Blend, Placement, blend_colours, draw_overlay
from tests.scenes import sphere_view

SIZE = 96
CAMERA = Camera.orbit(0.3, 0.1)


def on_image(image: Tensor, picture: Tensor, placement: Placement, alpha: Tensor | None = None):
    return draw_overlay(image, picture, alpha, placement)


def cover_on_ball(placement: Placement, depth: Tensor, valid: Tensor, camera: Camera, size: int = SIZE) -> Tensor:
    """Coverage [1,1,S,S] of a square decal that follows the surface of a depth map."""
    image = torch.zeros(1, 3, size, size)
    surface = unrolled(depth, valid, camera, at=placement.at, width=placement.size, aspect=1.0, side=size)
    return draw_overlay(image, image, None, placement, surface)[1]


@pytest.mark.parametrize(
    "mode, expected",
    [("normal", [0.5, 0.5]), ("multiply", [0.1, 0.4]), ("screen", [0.6, 0.9]), ("overlay", [0.2, 0.8])],
)
def test_blends_are_the_standard_ones(mode: Blend, expected: list[float]):
    backdrop = torch.tensor([0.2, 0.8])
    torch.testing.assert_close(blend_colours(backdrop, torch.tensor([0.5, 0.5]), mode), torch.tensor(expected))


@pytest.mark.parametrize("mode", BLENDS)
def test_alpha_and_opacity_fade_every_blend(mode: Blend):
    image, picture = torch.full((1, 3, 32, 32), 0.4), torch.full((1, 3, 4, 4), -0.6)
    full, cover = on_image(image, picture, Placement((0.5, 0.5), 0.5, blend=mode))
    assert cover[0, 0, 16, 16] == 1 and cover[0, 0, 4, 4] == 0
    blended = blend_colours(torch.tensor(0.7), torch.tensor(0.2), mode) * 2 - 1
    assert full[0, 0, 16, 16].item() == pytest.approx(blended.item(), abs=1e-5)
    half, cover = on_image(image, picture, Placement((0.5, 0.5), 0.5, blend=mode, opacity=0.5))
    faint, _ = on_image(image, picture, Placement((0.5, 0.5), 0.5, blend=mode), torch.full((1, 1, 4, 4), 0.5))
    torch.testing.assert_close(half, faint)
    torch.testing.assert_close(half, (image + full) / 2, atol=1e-5, rtol=0)


def test_an_overlay_lies_where_it_is_put_upright_or_turned_clockwise():
    image = torch.zeros(1, 3, 100, 100)
    picture = torch.ones(1, 3, 10, 20)
    picture[..., 10:] = -1  # bright left, dark right; twice as wide as high
    flat, cover = on_image(image, picture, Placement((0.3, 0.6), 0.4))
    rows, columns = (cover[0, 0] > 0.5).nonzero().unbind(1)
    assert [rows.min(), rows.max(), columns.min(), columns.max()] == [50, 69, 10, 49]
    assert flat[0, 0, 60, 20] == 1 and flat[0, 0, 60, 40] == -1
    turned, cover = on_image(image, picture, Placement((0.3, 0.6), 0.4, rotate=90))
    rows, columns = (cover[0, 0] > 0.5).nonzero().unbind(1)
    assert [rows.min(), rows.max(), columns.min(), columns.max()] == [40, 79, 20, 39]
    assert turned[0, 0, 45, 30] == 1 and turned[0, 0, 75, 30] == -1  # what was left is above
    assert torch.equal(turned[..., 60:], image[..., 60:])


def test_fine_patterns_are_averaged_and_clear_pixels_lend_no_colour():
    image = torch.zeros(1, 3, 64, 64)
    stripes = torch.ones(1, 3, 512, 512)
    stripes[..., ::2] = -1
    out, _ = on_image(image, stripes, Placement((0.5, 0.5), 0.25))
    assert out[..., 26:38, 26:38].abs().max() < 0.02
    alpha = torch.zeros(1, 1, 512, 512)
    alpha[..., 1::2] = 1  # the dark stripes are clear
    out, cover = on_image(image, stripes, Placement((0.5, 0.5), 0.25), alpha)
    assert (out[..., 26:38, 26:38] - 0.5).abs().max() < 0.02 and (cover[..., 26:38, 26:38] - 0.5).abs().max() < 0.02


def test_a_decal_keeps_its_size_where_the_surface_turns_away():
    """On a slope the picture of the decal is foreshortened; its area on the surface is not."""
    _, depth, alpha = sphere_view(CAMERA, 64)
    points = surface_points(depth, alpha > 0.5, CAMERA, SIZE)[0][0]
    across, down = points[:-1, 1:] - points[:-1, :-1], points[1:, :-1] - points[:-1, :-1]
    area = torch.linalg.cross(across, down).norm(dim=-1)
    areas, pixels = [], []
    for x in (0.5, 0.68):
        placement = Placement((x, 0.5), 0.12, follow_surface=True)
        cover = cover_on_ball(placement, depth, alpha > 0.5, CAMERA)
        areas.append((cover[0, 0, :-1, :-1] * area).sum().item())
        pixels.append(cover.sum().item())
    assert pixels[1] < 0.9 * pixels[0]
    assert areas[1] == pytest.approx(areas[0], rel=0.06)


def test_a_decal_does_not_jump_over_a_gap():
    _, depth, alpha = sphere_view(Camera.orbit(0.0, 0.0), 64)
    depth, camera = depth.clone(), Camera.orbit(0.0, 0.0)
    depth[..., 36:] += 0.1  # a step of half the ball's radius
    placement = Placement((0.5, 0.5), 0.3, follow_surface=True)
    cover = cover_on_ball(placement, depth, alpha > 0.5, camera, 64)
    assert cover[..., 30, 24:35].min() > 0.99 and cover[..., 37:].max() == 0


def test_what_cannot_be_placed_is_refused():
    for values in (
        {"at": (1.2, 0.5)},
        {"size": 0.0},
        {"size": math.inf},
        {"opacity": 0.0},
        {"rotate": math.nan},
        {"blend": "burn"},
    ):
        with pytest.raises(InputError):
            Placement(**{"at": (0.5, 0.5), "size": 0.2, **values})
    image = torch.zeros(1, 3, 8, 8)
    for placement, surface in (
        (Placement((0.5, 0.5), 0.2, follow_surface=True), None),
        (Placement((0.5, 0.5), 0.2), (torch.zeros(8, 8, 2), torch.ones(8, 8) > 0)),
    ):
        with pytest.raises(ValueError, match="follows"):
            draw_overlay(image, image, None, placement, surface)
