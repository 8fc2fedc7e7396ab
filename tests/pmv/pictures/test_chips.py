"""Crops of faces from five points: what lands where."""

import pytest
import torch

from pmv.pictures.chips import CHIP, face_chips, similarity

UNIT = torch.tensor([[[0.86, 0.2135], [0.646, 0.229], [0.1206, 0.2137], [0.334, 0.229], [0.49, 0.628]]])
"""The template on its unit square, to four digits."""


def ramp(width: int, height: int) -> torch.Tensor:
    """A picture whose first two channels say where a pixel lies, in [0,1]."""
    x = ((torch.arange(width) + 0.5) / width).expand(height, -1)
    y = ((torch.arange(height) + 0.5) / height)[:, None].expand(-1, width)
    return torch.stack([x, y, torch.zeros_like(x)])[None]


def test_similarity_finds_turn_scale_and_shift():
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(2, 5, 2, generator=generator)
    angle = torch.tensor([0.3, -2.0])
    matrix = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).reshape(2, 2, 2)
    matrix = matrix * torch.tensor([0.5, 3.0])[:, None, None]
    shift = torch.tensor([[1.0, -2.0], [0.0, 4.0]])
    found, moved = similarity(source, source @ matrix.transpose(1, 2) + shift[:, None])
    assert torch.allclose(found, matrix, atol=1e-5) and torch.allclose(moved, shift, atol=1e-5)


def test_points_land_where_dlib_puts_them():
    # the template, 60 pixels wide, in a picture of 300 by 200 with its corner at (100, 40)
    width, height, side = 300, 200, 60
    pixels = UNIT * side + torch.tensor([100.0, 40.0])
    chip = face_chips(ramp(width, height), pixels / torch.tensor([float(width), float(height)]))
    assert chip.shape == (1, 3, CHIP, CHIP)
    # a chip's pixel (i, j) shows the template's ((i + 0.5) / 100 − 0.25)
    for i, j in ((40, 50), (110, 90)):
        x = ((i + 0.5) / 100 - 0.25) * side + 100
        y = ((j + 0.5) / 100 - 0.25) * side + 40
        assert chip[0, 0, j, i].item() == pytest.approx(x / width, abs=1e-3)
        assert chip[0, 1, j, i].item() == pytest.approx(y / height, abs=1e-3)


def test_outside_is_black_and_large_faces_are_averaged():
    chip = face_chips(torch.ones(1, 3, 64, 64), UNIT * 0.5 - 0.2)
    assert chip.min().item() == -1 and chip.max().item() == pytest.approx(1)
    stripes = (torch.arange(900) % 2).float().expand(1, 3, 900, -1) * 2 - 1
    assert face_chips(stripes, UNIT * 0.5 + 0.2)[..., 20:-20, 20:-20].abs().max() < 0.35
    assert face_chips(stripes, UNIT * 0.5 + 0.2, samples=1).abs().max() > 0.9
