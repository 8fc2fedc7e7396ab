"""The five points that a face is cut out by: from landmarks, and from a camera alone."""

import pytest
import torch

from pmv.geometry.camera import Camera
from pmv.pictures.chips import face_chips
from pmv.portrait.five_points import FIVE, anchor_points, camera_points, mesh_points
from pmv.training.objective import FEATURE_PLACES


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
    picture = torch.linspace(-1, 1, 64)[:, None].expand(2, 3, -1, 64)
    chips = face_chips(picture, points)
    chips[:, 1].mean().backward()
    assert pitch.grad is not None and (pitch.grad != 0).all()
