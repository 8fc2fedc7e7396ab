"""A residual that follows its planes."""

import math

import pytest
import torch

from pmv.generators.residual import follow, moved, plane_motion


def blobs(side: int, x: float, y: float) -> torch.Tensor:
    """[1,3,4,side,side]: smooth content, moved by (x, y) texels."""
    steps = torch.arange(side).float()
    rows, columns = torch.meshgrid(steps - y, steps - x, indexing="ij")
    waves = [
        torch.sin(columns * a + b) * torch.cos(rows * c + b)
        for a, b, c in ((0.21, 0.3, 0.17), (0.13, 1.1, 0.29), (0.33, 2.0, 0.11), (0.17, 0.7, 0.23))
    ]
    return torch.stack(waves)[None, None].expand(1, 3, -1, -1, -1).contiguous()


@pytest.mark.parametrize("x, y", [(1.0, 0.0), (0.0, -0.8), (0.6, 0.7)])
def test_a_shift_is_found_and_followed(x: float, y: float):
    before, after = blobs(128, 0, 0), blobs(128, x, y)
    motion = plane_motion(before[0], after[0])[..., 16:-16, 16:-16]
    assert motion.mean((0, 2, 3)).tolist() == pytest.approx([x, y], abs=0.12)
    rng = torch.Generator().manual_seed(0)
    mark = torch.zeros(1, 3, 4, 128, 128)
    mark[..., 60:68, 50:58] = torch.rand(1, 3, 4, 1, 1, generator=rng)
    carried = follow(mark, before, after)
    weight = carried[0, 0, 0] / carried[0, 0, 0].sum()
    steps = torch.arange(128).float()
    centre = float((weight.sum(0) * steps).sum()), float((weight.sum(1) * steps).sum())
    assert centre == pytest.approx((53.5 + x, 63.5 + y), abs=0.15)


def test_what_does_not_move_keeps_its_residual_to_the_bit_almost():
    planes, residual = blobs(32, 0, 0), torch.randn(1, 3, 4, 32, 32)
    assert torch.allclose(follow(residual, planes, planes), residual, atol=1e-5)
    flat = torch.zeros_like(planes)
    assert torch.allclose(follow(residual, flat, flat), residual, atol=1e-5)  # nothing to see anything by


def test_no_motion_is_farther_than_a_linear_step_can_know():
    motion = plane_motion(blobs(64, 0, 0)[0], 9 * torch.randn(3, 4, 64, 64))
    assert motion.isfinite().all() and motion.norm(dim=1).max() <= 3.0 + 1e-4


def test_the_motion_does_not_depend_on_the_planes_scale():
    before, after = blobs(64, 0, 0)[0], blobs(64, 0.5, 0)[0]
    assert torch.allclose(plane_motion(before, after), plane_motion(30 * before, 30 * after), atol=1e-4)


def test_layers_of_a_tri_grid_keep_their_shape():
    before, after = (blobs(32, x, 0)[:, :, :, None].expand(-1, -1, -1, 2, -1, -1) for x in (0, 0.5))
    residual = torch.randn(1, 3, 4, 2, 32, 32)
    assert follow(residual, before, after).shape == residual.shape


def test_a_whole_texel_moves_what_is_there():
    planes = torch.arange(16.0).reshape(1, 1, 4, 4)
    motion = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 4, 4)
    expected = planes[..., [0, 0, 1, 2]]
    assert torch.allclose(moved(planes, motion), expected) and math.isclose(float(planes.sum()), 120)
