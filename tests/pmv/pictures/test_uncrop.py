"""Renders back into the photo."""

import numpy as np
import pytest
import torch

from pmv.pictures.uncrop import paste, soft_cover
from pmv.portrait.crop import cut
from pmv.portrait.photo import Photo


def photo(height: int = 240, width: int = 320) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return (
        np.stack([120 + 80 * np.sin(x / 19), 120 + 80 * np.cos(y / 23), 0.4 * x + 0 * y], -1).round().astype(np.uint8)
    )


@pytest.mark.parametrize("degrees, zoom", [(0, 1.0), (0, 0.5), (30, 0.9), (180, 1.6)])
def test_a_crop_that_is_pasted_back_changes_nothing(degrees: float, zoom: float):
    pixels, angle = photo(), np.radians(degrees)
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.concatenate([turn, (64 - turn @ [150, 120])[:, None]], 1)
    picture, _ = cut(Photo(pixels), matrix, 128)
    tensor = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
    back = paste(pixels, tensor, torch.ones(1, 1, 128, 128), matrix)
    assert back.shape == pixels.shape and np.abs(back.astype(int) - pixels).max() <= (3 if zoom >= 0.9 else 12)
    green = torch.tensor([-1.0, 1.0, -1.0])[None, :, None, None].expand(1, 3, 128, 128)
    changed = paste(pixels, green, torch.ones(1, 1, 128, 128), matrix)
    assert changed[120, 150].tolist() == [0, 255, 0]
    there = np.stack(np.meshgrid(np.arange(320) + 0.5, np.arange(240) + 0.5), -1) @ turn.T + matrix[:, 2]
    outside = ((there < -2) | (there > 130)).any(-1)
    assert np.array_equal(changed[outside], pixels[outside]), "the photo's own bytes"
    untouched = paste(pixels, green, torch.zeros(1, 1, 128, 128), matrix)
    assert np.array_equal(untouched, pixels)


def test_the_cover_fades_at_the_border_of_what_is_known():
    valid = torch.ones(1, 1, 200, 200)
    valid[..., :50, :] = 0
    cover = soft_cover(torch.ones(1, 1, 200, 200), valid)[0, 0]
    assert cover[:50].max() == 0 and cover[60:150, 10:190].min() == 1
    assert 0 < cover[50, 100] < 1 and 0 < cover[100, 0] < 1 and 0 < cover[199, 100] < 1
