"""Regions of a photo, resampled."""

import numpy as np
import pytest
import torch

from pmv.pictures.images import resize
from pmv.portrait.photo import Photo, crop_tensor, from_tensor, sample


def ramp(height: int, width: int) -> np.ndarray:
    """Brightness that says where a pixel's centre lies: x in the first channel, y in the second."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    return np.stack([x, y, 0 * x], -1).astype(np.float32)


@pytest.mark.parametrize("zoom", [0.11, 0.4, 1.0, 2.5])
@pytest.mark.parametrize("degrees", [0, 33, -120])
def test_pixels_come_from_where_the_matrix_says(zoom: float, degrees: float):
    size, angle = 32, np.radians(degrees)
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.concatenate([turn, (size / 2 - turn @ [300, 250])[:, None]], 1)
    found = sample(ramp(500, 600), matrix, size)[..., :2]
    y, x = np.mgrid[0:size, 0:size] + 0.5
    there = (np.stack([x, y], -1) - matrix[:, 2]) @ np.linalg.inv(turn).T
    inside = (np.abs(there - [300, 250]) < [240, 190]).all(-1)
    assert inside.sum() > 500
    assert np.abs(found - there)[inside].max() < max(0.06, 0.06 / zoom)


def test_fine_patterns_do_not_alias():
    checks = (np.indices((900, 900)).sum(0) % 2 * 255).astype(np.uint8)
    matrix = np.array([[0.071, 0, 0], [0, 0.071, 0]])
    found = sample(checks, matrix, 60)[4:-4, 4:-4]
    assert found.min() > 110 and found.max() < 145


def test_what_lies_outside_is_zero_and_a_miss_is_empty():
    white = np.full((50, 50), 255, np.uint8)
    assert sample(white, np.array([[1.0, 0, 25], [0, 1, 0]]), 50)[:, :23].max() == 0
    assert sample(white, np.array([[1.0, 0, 900], [0, 1, 0]]), 50).max() == 0


def test_a_photo_is_reduced_only_where_it_is_larger():
    photo = from_tensor(torch.randint(0, 256, (1, 3, 40, 80), dtype=torch.uint8))
    small, scale = photo.reduced(20)
    assert small.shape == (10, 20, 3) and scale == 0.25
    assert photo.reduced(80)[0] is photo.pixels


def test_tensors_follow_the_crop():
    image = torch.rand(1, 3, 30, 30) * 2 - 1
    assert torch.equal(crop_tensor(image, None, 20), resize(image, 20))
    plain = torch.tensor([[20 / 30, 0, 0], [0, 20 / 30, 0]])
    assert torch.equal(crop_tensor(image, plain, 20), resize(image, 20))
    shifted = crop_tensor(image, torch.tensor([[1.0, 0, -5], [0, 1, -3]]), 20)
    assert torch.allclose(shifted, image[:, :, 3:23, 5:25], atol=1e-5)
    mask = (torch.rand(1, 1, 30, 30) > 0.5).to(torch.uint8) * 255
    assert set(crop_tensor(mask, torch.tensor([[1.0, 0, -5], [0, 1, -3]]), 20).unique().tolist()) == {0.0, 1.0}


def test_photo_keeps_bytes_where_it_can():
    pixels = np.zeros((9, 8, 3), np.uint8)
    assert np.shares_memory(from_tensor(torch.from_numpy(pixels).permute(2, 0, 1)[None]).pixels, pixels)
    assert Photo(pixels).width == 8 and Photo(pixels).height == 9
