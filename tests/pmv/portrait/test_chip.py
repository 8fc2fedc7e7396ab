"""Crops of faces from five points: where things land, and how points come from a camera."""

import pytest
import torch

from pmv.geometry.camera import Camera
from pmv.portrait.chip import CHIP, FIVE, anchor_points, camera_points, face_chips, mesh_points, similarity
from pmv.training.objective import FEATURE_PLACES

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


def test_mesh_points_are_parts_of_the_picture():
    landmarks = torch.arange(468.0)[None, :, None].expand(1, -1, 2)
    points = mesh_points(landmarks, 200, 400)
    assert points[0, :, 0].tolist() == pytest.approx([i / 200 for i in FIVE])
    assert points[0, :, 1].tolist() == pytest.approx([i / 400 for i in FIVE])


def test_anchors_are_the_generators_own_eyes():
    heads = anchor_points("heads")
    assert torch.allclose(heads[2:4] * torch.tensor([-1.0, 1.0, 1.0]), heads[:2], atol=1e-4)
    for eye, corners in zip(FEATURE_PLACES[:2], (heads[:2], heads[2:4])):
        assert (corners.mean(0) - torch.tensor(eye)).norm() < 0.02
    wide = anchor_points("eg3d")
    assert (wide[0] - wide[2]).norm() == pytest.approx(1.089 * (heads[0] - heads[2]).norm().item(), rel=1e-3)


def test_camera_moves_the_points_with_the_head_and_passes_gradients():
    pitch = torch.zeros(2, requires_grad=True)
    camera = Camera.orbit(torch.tensor([0.0, 0.4]), pitch)
    points = camera_points(camera, anchor_points("heads"))
    assert points.shape == (2, 5, 2)
    # the subject's left is the picture's right; a camera towards +x sees the face turned to the picture's left
    assert points[0, 0, 0] > points[0, 1, 0] > 0.5 > points[0, 3, 0] > points[0, 2, 0]
    assert points[1, 4, 0] < points[0, 4, 0]
    chips = face_chips(ramp(64, 64).expand(2, -1, -1, -1), points)
    chips[:, 1].mean().backward()
    assert pitch.grad is not None and (pitch.grad != 0).all()
