"""Visibility: scenes where it is known who sees what."""

import math

import pytest
import torch

from pmv.geometry.camera import Camera
from pmv.geometry.scene import SeenFrom, edge_step, surface_points
from pmv.geometry.visibility import (
    Cuts,
    depth_agreement,
    facing,
    marked_surface,
    mutual_depth,
    trusted_texels,
    view_confidence,
    visibility_confidence,
)
from tests.scenes import sphere_view, steps_view

INPUT = Camera.orbit(0.0, 0.0)
VIEWS = Camera.orbit(torch.tensor([-0.5, 0.4]), torch.tensor([0.0, 0.2]))
SIZE = 96


def confidence_of(scene, tolerance=0.01, max_degrees=70.0, view_max_degrees=80.0, size=SIZE):
    _, depth, alpha = scene(INPUT, size)
    _, view_depth, view_alpha = scene(VIEWS, size)
    points, normals, surface = surface_points(view_depth, view_alpha > 0, VIEWS, size)
    source, cuts = SeenFrom(INPUT, depth, alpha > 0), Cuts(tolerance, max_degrees, view_max_degrees)
    confidence = visibility_confidence(points, normals, views=VIEWS, source=source, cuts=cuts)
    return confidence * surface, points, surface


def test_depth_agreement_is_one_half_at_the_tolerance():
    difference = torch.tensor([0.0, 0.005, 0.01, 0.015, -0.01, 1.0])
    assert torch.allclose(depth_agreement(difference, 0.01), torch.tensor([1, 1, 0.5, 0, 0.5, 0]), atol=1e-6)


def test_facing_follows_the_angle():
    angles = torch.deg2rad(torch.tensor([0.0, 50.0, 60.0, 70.0, 180.0]))
    normals = torch.stack([angles.sin(), torch.zeros(5), angles.cos()])[None, :, None]
    result = facing(torch.zeros(1, 1, 5, 3), normals, torch.tensor([[0.0, 0.0, 2.7]]), 60.0)
    assert result.shape == (1, 1, 1, 5)
    assert result[0, 0, 0].tolist() == pytest.approx([1, 1, 0.5, 0, 0], abs=0.03)
    unknown = facing(torch.zeros(1, 1, 5, 3), torch.zeros(1, 3, 1, 5), torch.tensor([[0.0, 0.0, 2.7]]), 90.0)
    assert not unknown.any()


def test_visible_part_of_a_sphere_is_the_cap_that_faces_the_input():
    """On a sphere the angle between normal and ray says all: visible where it is below the cut in both views."""
    confidence, points, surface = confidence_of(sphere_view)
    normal = torch.nn.functional.normalize(points, dim=-1)

    def degrees(position):
        return torch.rad2deg(torch.acos((torch.nn.functional.normalize(position - points, dim=-1) * normal).sum(-1)))[
            :, None
        ]

    expected = (degrees(INPUT.position[:, None, None]) < 70) & (degrees(VIEWS.position[:, None, None]) < 80) & surface
    visible = confidence > 0.5
    assert expected.float().mean() > 0.1
    assert (visible & ~expected).sum() < 0.02 * expected.sum()
    assert (expected & ~visible).sum() < 0.05 * expected.sum()


def test_what_the_square_hides_from_the_input_stays_unmarked():
    confidence, points, _ = confidence_of(steps_view)
    # the shadow of the square, cast by the input camera onto the plane at z = -0.1
    shadow = 0.06 * 2.8 / 2.6
    on_plane = points[..., 2] < 0
    inside = points[..., :2].abs().amax(-1)
    pixel = 2.8 / (4.2647 * SIZE)
    margin = 2.5 * pixel
    hidden = (on_plane & (inside < shadow - pixel))[:, None]
    clear = (on_plane & (inside > shadow + margin) | ~on_plane & (inside < 0.06 - margin))[:, None]
    uv, _ = INPUT.project(points.reshape(1, -1, 3))
    clear &= ((uv > 0.02) & (uv < 0.98)).all(-1).reshape(clear.shape)
    assert hidden.sum() > 30  # the pseudo-views do look behind the square
    assert (confidence[hidden] > 0.5).float().mean() < 0.02
    assert (confidence[clear] > 0.5).float().mean() > 0.98


def test_tolerance_decides_how_wrong_the_geometry_may_be():
    _, depth, alpha = sphere_view(INPUT, SIZE)
    points, normals, surface = surface_points(*(lambda d, a: (d, a > 0))(*sphere_view(INPUT, SIZE)[1:]), INPUT, SIZE)
    moved = SeenFrom(INPUT, depth + 0.02, alpha > 0)
    for tolerance, expected in ((0.01, False), (0.05, True)):
        cuts = Cuts(tolerance, 60.0, 60.0)
        confidence = visibility_confidence(points, normals, views=INPUT, source=moved, cuts=cuts)
        assert bool((confidence > 0.5).any()) is expected
    assert surface.any()


def test_mutual_depth_is_the_input_surface_seen_from_the_view():
    _, depth, alpha = sphere_view(INPUT, SIZE)
    seen, hit = mutual_depth(SeenFrom(INPUT, depth, alpha > 0), VIEWS, SIZE)
    _, truth, _ = sphere_view(VIEWS, SIZE)
    points = VIEWS.unproject(truth)
    frontal = hit & (points[..., 2] > 0.15)[:, None]  # the cap that the input surely sees
    assert frontal.any()
    assert (seen - truth)[frontal].abs().max() < 2e-3
    assert not (hit & (points[..., 2] < -0.02)[:, None] & (truth > 0) & ((seen - truth).abs() < 5e-3)).any()


def test_trusted_texels_keep_away_from_outlines_and_steps():
    _, depth, alpha = steps_view(INPUT, 64)
    foreground = torch.ones(1, 1, 128, 128)
    foreground[..., :32] = 0
    source = SeenFrom(INPUT, depth, alpha > 0)
    trusted = trusted_texels(source, foreground, silhouette_erode=0.05, edge_erode=0.03)
    assert trusted.shape == foreground.shape
    row = trusted[0, 0, 64]
    assert not row[: 32 + 6].any() and row[32 + 7]
    assert row[-1]  # the image border is no outline
    half = 0.06 / 2.6 * 4.2647 * 128  # of the square, in pixels
    for border in (64 - half, 64 + half):
        assert not row[int(border) - 3 : int(border) + 4].any()
    assert row[64] and row[64 + int(half) + 8]
    without = trusted_texels(source, foreground, silhouette_erode=0.05, edge_erode=0.0)
    assert without[0, 0, 64, 40:].all()


def test_view_confidence_falls_with_the_angle():
    views = Camera.orbit(torch.deg2rad(torch.tensor([0.0, 20.0, 40.0, -40.0, 120.0])), 0.0)
    confidence = view_confidence(INPUT, views, 40.0, 0.0)
    assert confidence[0].item() == pytest.approx(1, abs=1e-3)
    assert (confidence[:3].diff() < 0).all()
    assert confidence[2].item() == pytest.approx(math.exp(-0.5), abs=1e-4)
    assert confidence[2].item() == pytest.approx(confidence[3].item(), abs=1e-5)
    assert 0 < confidence[4] < 0.02
    assert view_confidence(INPUT, views, 40.0, 0.3).min().item() == pytest.approx(0.3, abs=0.02)


def test_gradcheck():
    """Confidence is smooth in the pseudo-view's depth and in the input's, away from the steps between surfaces."""
    camera = Camera.orbit(0.1, 0.05).to(torch.float64)
    view = Camera.orbit(0.25, 0.1).to(torch.float64)
    _, depth, alpha = sphere_view(camera, 6, radius=0.42)
    _, view_depth, view_alpha = sphere_view(view, 4, radius=0.42)
    cuts = Cuts(0.05, 60.0, 60.0)

    def confidence(d, v):
        points = view.unproject(v)
        normals = torch.nn.functional.normalize(points, dim=-1).permute(0, 3, 1, 2)
        source = SeenFrom(camera, d, alpha > 0)
        return visibility_confidence(points, normals, views=view, source=source, cuts=cuts)

    # off by part of the tolerance, where the confidence has a slope
    inputs = (depth.requires_grad_(), (view_depth + 0.04).requires_grad_())
    value = confidence(*inputs)
    assert ((value > 0.01) & (value < 0.99)).any()
    assert view_alpha.all()
    assert torch.autograd.gradcheck(confidence, inputs)


def test_a_marked_surface_is_found_from_any_side_and_nothing_behind_it():
    """A cap of a sphere: seen from beside also at grazing angles, from behind nowhere, and not on a ball behind it."""
    views = Camera.orbit(torch.tensor([0.0, 0.9, math.pi]), 0.0)
    _, depth, alpha = sphere_view(INPUT, SIZE)
    cap = (INPUT.unproject(depth)[..., 2] > 0.1)[:, None] & (alpha > 0)
    _, depths, alphas = sphere_view(views, SIZE)
    source, others = SeenFrom(INPUT, depth, alpha > 0), SeenFrom(views, depths, alphas > 0)
    seen = marked_surface(cap.float(), source=source, views=others, tolerance=0.05)
    truth = ((views.unproject(depths)[..., 2] > 0.1)[:, None] & (alphas > 0)).float()
    assert seen.shape == truth.shape and (seen - truth).abs().mean() < 0.01
    assert truth[1].sum() > 200 and not seen[2].any()


def test_gradcheck_of_the_depth_test_and_of_the_angle():
    """Up to the points where the step begins and ends: it is flat on both sides of them."""
    difference = torch.tensor([0.0, 0.004, 0.0051, 0.01, -0.0149, 0.02], dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda d: depth_agreement(d, 0.01), difference)
    angles = torch.deg2rad(torch.tensor([60.0, 77.0, 79.0, 81.0, 84.0, 100.0], dtype=torch.float64))
    normals = torch.stack([angles.sin(), 0 * angles, angles.cos()])[None, :, None]
    points = torch.zeros(1, 1, 6, 3, dtype=torch.float64).requires_grad_()
    position = torch.tensor([[0.0, 0.0, 2.7]], dtype=torch.float64).requires_grad_()
    inputs = (points, normals.requires_grad_(), position)
    assert ((facing(*inputs, 80.0) > 0.01) & (facing(*inputs, 80.0) < 0.99)).any()
    assert torch.autograd.gradcheck(lambda *values: facing(*values, 80.0), inputs)


def test_all_texels_are_trusted_where_nothing_else_is_said(dtype: torch.dtype, device: torch.device):
    camera = INPUT.to(device, dtype)
    _, depth, alpha = sphere_view(camera, 24)
    points, normals, _ = surface_points(depth, alpha > 0, camera, 24)
    values = []
    for trusted in (None, torch.ones(1, 1, 48, 48), torch.zeros(1, 1, 48, 48)):
        source = SeenFrom(camera, depth, alpha > 0, None if trusted is None else trusted.to(device))
        values.append(visibility_confidence(points, normals, views=camera, source=source, cuts=Cuts(0.01, 70.0, 70.0)))
    assert values[0].dtype == dtype and values[0].max() > 0.99
    torch.testing.assert_close(values[0], values[1])
    assert not values[2].any()


def test_what_is_seen_is_checked_at_the_door():
    _, depth, alpha = sphere_view(VIEWS, 8)
    seen = SeenFrom(VIEWS, depth, alpha > 0, torch.rand(2, 1, 16, 16))
    one = seen[1]
    assert len(seen) == 2 and len(one) == len(one.camera) == 1
    assert one.trusted is not None and seen.trusted is not None
    assert torch.equal(one.depth, depth[1:]) and torch.equal(one.trusted, seen.trusted[1:])
    assert seen.edge == edge_step(VIEWS, 8)
    with pytest.raises(ValueError, match="1 cameras"):
        SeenFrom(INPUT, depth, alpha > 0)
    with pytest.raises(ValueError, match="bool"):
        SeenFrom(VIEWS, depth, alpha)
