"""Crops of faces as dlib cuts them for its networks ("chips"), from five points: corners of the eyes, base of the nose.
Differentiable. `pmv/portrait/five_points.py` finds the points.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

CHIP = 150
"""Pixels a side."""
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
        points: [N,5,2] outer and inner corner of the subject's left eye, of its right eye, base of the nose; in parts
            of the picture's width and height, (0,0) its top left corner.
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
        samples = min(max(math.ceil(pixels), 1), _MOST_SAMPLES)
    line = (torch.arange(CHIP * samples, device=image.device, dtype=points.dtype) + 0.5) / (CHIP * samples)
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(1, -1, 2)
    if moved is not None:
        grid = (grid - 0.5) @ moved[0].transpose(1, 2) + 0.5 + moved[1][:, None]
    grid = (grid @ matrix.transpose(1, 2) + shift[:, None]) / points.new_tensor([width, height]) * 2 - 1
    grid = grid.reshape(n, CHIP * samples, CHIP * samples, 2).to(image.dtype)
    # grid_sample's zeros are mid grey in [-1,1]
    chips = F.grid_sample(image + 1, grid, mode="bilinear", padding_mode="zeros", align_corners=False) - 1
    return F.avg_pool2d(chips, samples) if samples > 1 else chips
