"""Masks: distances, erosion and feathers, checked on discs and half planes."""

import pytest
import torch

from pmv.pictures.masks import dilate, erode, feather, inside_distance, smoothstep, without_specks


def disc(size: int, radius: float) -> torch.Tensor:
    axis = torch.arange(size) + 0.5 - size / 2
    return (axis[:, None] ** 2 + axis**2 < (radius * size) ** 2).float()[None, None]


def test_distance_of_a_half_plane_counts_pixels():
    mask = torch.zeros(2, 1, 8, 8)
    mask[0, ..., 3:] = 1
    mask[1] = 1
    distance = inside_distance(mask)
    assert distance.shape == mask.shape
    assert torch.equal(distance[0, 0, 0], torch.tensor([0.0, 0, 0, 1, 2, 3, 4, 5]))
    assert (distance[1] == 16).all()  # nothing is outside, and the border is no outline


@pytest.mark.parametrize("size", [64, 256])
def test_erosion_and_dilation_scale_with_resolution(size):
    mask = disc(size, 0.3)
    for changed, radius in ((erode(mask, 0.05), 0.25), (dilate(mask, 0.05), 0.35)):
        area = changed.mean().sqrt().item() / torch.pi**0.5
        assert area == pytest.approx(radius, abs=1.5 / size)
    assert torch.equal(erode(mask, 0), mask)
    assert torch.equal(dilate(mask, 0), mask)


def test_feather_lies_inside_and_rises_to_one():
    mask = disc(64, 0.3)
    weights = feather(mask, 0.1)
    assert (weights[mask == 0] == 0).all()
    assert (weights[erode(mask, 0.11) == 1] == 1).all()
    row = weights[0, 0, 32, 32:]
    assert (row.diff() <= 0).all()
    assert 0 < row[mask[0, 0, 32, 32:] == 1].min() < 0.2
    assert torch.equal(feather(mask, 0), mask)


def test_specks_go_and_pinholes_close():
    mask = disc(64, 0.3)
    dirty = mask.clone()
    dirty[..., 2:4, 2:4] = 1
    dirty[..., 30:32, 30:32] = 0
    assert torch.equal(without_specks(dirty, 5 / 64**2), mask)
    assert torch.equal(without_specks(dirty, 4 / 64**2), dirty)
    assert torch.equal(without_specks(dirty, 0), dirty)


def test_an_empty_mask_stays_empty():
    empty = torch.zeros(1, 1, 8, 8)
    assert not erode(empty, 0.1).any()
    assert not feather(empty, 0.1).any()
    assert not dilate(empty, 0.1).any()
    assert not without_specks(empty, 0.1).any()


def test_smoothstep_rises_and_falls():
    x = torch.tensor([0.0, 1.0, 1.5, 2.0, 3.0])
    assert torch.allclose(smoothstep(x, 1, 2), torch.tensor([0, 0, 0.5, 1, 1]))
    assert torch.allclose(smoothstep(x, 2, 1), torch.tensor([1, 1, 0.5, 0, 0]))
    assert torch.autograd.gradcheck(lambda v: smoothstep(v, 1.0, 2.0), (x.double() + 0.1).requires_grad_())


@pytest.mark.parametrize("function", [lambda m: erode(m, 0.1), lambda m: erode(m, 0), lambda m: feather(m, 0)])
def test_a_mask_without_channel_is_refused(function):
    with pytest.raises(ValueError, match=r"\[N,1,H,W\]"):
        function(torch.ones(2, 8, 8))
