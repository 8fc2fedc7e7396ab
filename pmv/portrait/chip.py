"""Crops of faces as dlib cuts them for its networks ("chips"), from five points: corners of the eyes, base of the nose.
Differentiable.

Landmarks of a photo give the five points (`mesh_points`). Where a face lies in a render follows from the camera
(`anchor_points`, `camera_points`), so renders need no detector.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.geometry.camera import Camera
from pmv.portrait.crop import FRAMINGS, Framing
from pmv.portrait.face_model import FaceModel

CHIP = 150
"""Pixels a side."""
FIVE = (263, 362, 33, 133, 2)
"""Face Mesh's landmarks for the five points: the subject's left eye's outer and inner corner, its right eye's outer and
inner corner, the base of the nose."""
_TEMPLATE = (
    (0.8595674595992, 0.2134981538014),
    (0.6460604764104, 0.2289674387677),
    (0.1205750620789, 0.2137274526848),
    (0.3340850613712, 0.2290642403242),
    (0.4901123135679, 0.6277975316475),
)  # dlib's mean face, on the unit square
_PADDING = 0.25  # of that square's side, on every side of it
_MOST_SAMPLES = 8  # along each axis of a chip's pixel


def similarity(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The rotation, scale and shift that bring points nearest to others, without reflection (Umeyama 1991, in the
    plane).

    Args:
        source, target: [N,P,2].

    Returns:
        matrix [N,2,2] and shift [N,2] of the least Σ |matrix · source + shift − target|².
    """
    from_middle, to_middle = source.mean(1, keepdim=True), target.mean(1, keepdim=True)
    s, t = source - from_middle, target - to_middle
    size = s.square().sum((1, 2)).clamp_min(1e-12)
    cosine = (s * t).sum((1, 2)) / size
    sine = (s[..., 0] * t[..., 1] - s[..., 1] * t[..., 0]).sum(1) / size
    matrix = torch.stack([cosine, -sine, sine, cosine], -1).reshape(-1, 2, 2)
    return matrix, (to_middle - from_middle @ matrix.transpose(1, 2))[:, 0]


def face_chips(
    image: Tensor, points: Tensor, moved: tuple[Tensor, Tensor] | None = None, samples: int | None = None
) -> Tensor:
    """Aligned faces, cut with dlib's framing. Differentiable in the image and in the points.

    Args:
        image: [N,3,H,W] in [-1,1].
        points: [N,5,2] the points of `FIVE` in parts of the picture's width and height, (0,0) the top left corner.
        moved: matrices [N,2,2] about the chip's middle and shifts [N,2] (parts of its side) by which the crop is
            moved, see `pmv.fitting.identity.Jitter`; None = the exact crop.
        samples: bilinear samples along each axis of a chip's pixel, averaged; None = as many as the largest face has
            pixels there (at most 8), which reads a number back from the device.

    Returns:
        [N,3,150,150], black outside the picture.
    """
    n, _, height, width = image.shape
    template = (points.new_tensor(_TEMPLATE) + _PADDING) / (1 + 2 * _PADDING)
    place = points * points.new_tensor([width, height])
    matrix, shift = similarity(template.expand(n, -1, -1), place)  # the chip's unit square → pixels
    if samples is None:
        pixels = matrix.detach()[:, :, 0].norm(dim=1).max().item() / CHIP
        samples = min(max(int(np.ceil(pixels)), 1), _MOST_SAMPLES)
    line = (torch.arange(CHIP * samples, device=image.device, dtype=points.dtype) + 0.5) / (CHIP * samples)
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(1, -1, 2)
    if moved is not None:
        grid = (grid - 0.5) @ moved[0].transpose(1, 2) + 0.5 + moved[1][:, None]
    grid = (grid @ matrix.transpose(1, 2) + shift[:, None]) / points.new_tensor([width, height]) * 2 - 1
    grid = grid.reshape(n, CHIP * samples, CHIP * samples, 2).to(image.dtype)
    # grid_sample's zeros are mid grey in [-1,1]
    chips = F.grid_sample(image + 1, grid, mode="bilinear", padding_mode="zeros", align_corners=False) - 1
    return F.avg_pool2d(chips, samples) if samples > 1 else chips


def mesh_points(landmarks: Tensor, width: int, height: int) -> Tensor:
    """Face Mesh's landmarks [N,468,2] in pixels of a picture → the five points [N,5,2] that `face_chips` takes."""
    return landmarks[:, list(FIVE)] / landmarks.new_tensor([width, height])


def anchor_points(framing: Framing | str) -> Tensor:
    """[5,3] where the five points of a mean face lie in the world of a generator, by its framing (`FRAMINGS`).

    Accurate to some 5 % of the distance between the eyes, which a recognition network hardly minds.
    """
    if isinstance(framing, str):
        framing = FRAMINGS[framing]
    five = torch.from_numpy(FaceModel.load().points[list(FIVE)]).float()
    if framing.middle is None:
        return five
    turn = torch.tensor(np.radians(framing.turn), dtype=torch.float32)
    zero, one = torch.zeros(()), torch.ones(())
    rotation = torch.stack([one, zero, zero, zero, turn.cos(), -turn.sin(), zero, turn.sin(), turn.cos()]).reshape(3, 3)
    return (five - torch.tensor(framing.middle)) @ rotation.T / framing.width


def camera_points(camera: Camera, anchors: Tensor) -> Tensor:
    """Where anchors [5,3] appear in the pictures of N cameras: [N,5,2], as `face_chips` takes them."""
    points, _ = camera.project(anchors.to(camera.cam2world).expand(len(camera), -1, -1))
    return points
