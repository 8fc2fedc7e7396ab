"""Surfaces that are unrolled without stretching."""

import pytest
import torch
from torch import Tensor

from pmv.errors import InputError
from pmv.geometry.camera import Camera
from pmv.geometry.scene import surface_points
from pmv.geometry.unroll import unrolled
from tests.scenes import sphere_view

SIZE = 96
WIDTH = 0.2
CAMERA = Camera.orbit(0.3, 0.1)


def cylinder_depth(radius: float, size: int) -> tuple[Tensor, Tensor, Camera]:
    """An upright cylinder around the y axis seen from the front: depth, valid, camera."""
    camera = Camera.orbit(0.0, 0.0)
    origin, direction = camera.rays(size)
    a = direction[..., [0, 2]].square().sum(-1)
    b = (direction * origin)[..., [0, 2]].sum(-1)
    root = b**2 - a * (origin[..., [0, 2]].square().sum(-1) - radius**2)
    distance = (-b - root.clamp(min=0).sqrt()) / a
    shape = (1, 1, size, size)
    return distance.reshape(shape), (root > 0).reshape(shape), camera


def test_a_cylinder_is_unrolled_exactly():
    radius, at = 0.2, (0.62, 0.5)
    depth, valid, camera = cylinder_depth(radius, SIZE)
    flat, known = unrolled(depth, valid, camera, at=at, width=WIDTH, aspect=1.0, side=SIZE)
    points = surface_points(depth, valid, camera, SIZE)[0][0]
    turn = torch.atan2(points[..., 0], points[..., 2])
    row, column = SIZE // 2, int(at[0] * SIZE)
    width = (2.7 - points[row, column, 2]) / camera.intrinsics[0, 0, 0]
    arc = radius * (turn - turn[row, column]) / width
    height = -(points[..., 1] - points[row, column, 1]) / width
    inside = known & (flat.abs() < 0.1).all(-1)
    assert inside.sum() > 150
    assert ((flat[..., 0] - flat[row, column, 0]) - arc)[inside].abs().max() < 0.01 * WIDTH
    assert ((flat[..., 1] - flat[row, column, 1]) - height)[inside].abs().max() < 0.01 * WIDTH


@pytest.mark.parametrize("at", [(0.5, 0.5), (0.64, 0.45)])
def test_a_sphere_is_unrolled_almost_isometrically(at: tuple[float, float]):
    _, depth, alpha = sphere_view(CAMERA, 64)
    flat, known = unrolled(depth, alpha > 0.5, CAMERA, at=at, width=WIDTH, aspect=1.0, side=SIZE)
    points = surface_points(depth, alpha > 0.5, CAMERA, SIZE)[0][0]
    z = CAMERA.project(points.reshape(1, -1, 3))[1].reshape(SIZE, SIZE)
    row, column = (int(c * SIZE) for c in at[::-1])
    width = z[row, column] / CAMERA.intrinsics[0, 0, 0]
    inside = known & (flat.abs() < 0.1).all(-1)
    for axis in (0, 1):
        pair = inside.narrow(axis, 1, SIZE - 1) & inside.narrow(axis, 0, SIZE - 1)
        true = (points.narrow(axis, 1, SIZE - 1) - points.narrow(axis, 0, SIZE - 1)).norm(dim=-1)[pair] / width
        drawn = (flat.narrow(axis, 1, SIZE - 1) - flat.narrow(axis, 0, SIZE - 1)).norm(dim=-1)[pair]
        assert (drawn / true - 1).abs().max() < 0.06 and (drawn / true).mean().item() == pytest.approx(1, abs=0.015)
    # a projection along the anchor's normal is off by 1/cos 24° = 1.09 at the rim


def test_there_must_be_a_surface_at_the_anchor():
    _, depth, alpha = sphere_view(CAMERA, 32)
    with pytest.raises(InputError, match="does not lie on the head"):
        unrolled(depth, alpha > 0.5, CAMERA, at=(0.02, 0.5), width=WIDTH, aspect=1.0, side=SIZE)
