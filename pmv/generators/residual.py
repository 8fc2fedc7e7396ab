"""What one photo added to the tri-planes, carried along when the head below it is edited.

Tuning leaves a residual on the planes: texels that the backbone cannot draw, at the places where the unedited head has
them. An edit in w moves the backbone's planes only. So the motion between the backbone's planes before and after is
found, and the residual moved by it.
"""

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from torch import Tensor

_SIGMA = 4.0
"""Of the window in which one motion is sought, texels of a plane of 128²; scales with the plane."""
_STIFFNESS = 0.05
"""Pull towards no motion, against the planes' mean squared gradient."""
_FARTHEST = 6.0
"""Largest motion, texels of a plane of 128²: a linear step cannot know more."""


def plane_motion(before: Tensor, after: Tensor) -> Tensor:
    """How the content of feature planes moved: one step of Lucas and Kanade (1981) over all channels together, with a
    Gaussian window and a pull towards zero.

    Args:
        before, after: [P,C,H,H].

    Returns: [P,2,H,H], motion in texels along columns (x) and rows (y). What appears or changes its colour is not
        told from motion where it has an edge.
    """
    scale = before.shape[-1] / 128
    middle, change = (before + after) / 2, after - before
    padded = F.pad(middle, (1, 1, 1, 1), mode="replicate")
    x = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    y = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    sigma = _SIGMA * scale
    kernel = 2 * min(max(1, round(3 * sigma)), before.shape[-1] - 1) + 1

    def window(product: Tensor) -> Tensor:
        return gaussian_blur2d(product.sum(1, keepdim=True), (kernel, kernel), (sigma, sigma))

    xx, xy, yy = window(x * x), window(x * y), window(y * y)
    xt, yt = -window(x * change), -window(y * change)
    pull = _STIFFNESS * (xx + yy).mean().clamp_min(1e-12)
    xx, yy = xx + pull, yy + pull
    motion = torch.cat([yy * xt - xy * yt, xx * yt - xy * xt], 1) / (xx * yy - xy * xy)
    length = motion.norm(dim=1, keepdim=True)
    farthest = _FARTHEST * scale
    return motion * (farthest / length.clamp_min(farthest))


def moved(residual: Tensor, motion: Tensor) -> Tensor:
    """Planes [P,C,H,H] moved by a motion [P,2,H,H] in texels, bilinear; beyond the border its value goes on."""
    side = residual.shape[-1]
    steps = torch.arange(side, device=residual.device, dtype=residual.dtype)
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    source = torch.stack([columns - motion[:, 0], rows - motion[:, 1]], -1)
    return F.grid_sample(residual, (source + 0.5) / side * 2 - 1, align_corners=False, padding_mode="border")


def follow(residual: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """A residual moved as the planes below it moved.

    Args:
        residual: of the shape of one latent's planes, [1,3,C,H,H] or, with the layers of a tri-grid, [1,3,C,D,H,H].
        before, after: the planes without it, of the same shape.
    """
    flat = [planes[0].flatten(1, -3) for planes in (residual, before, after)]
    return moved(flat[0], plane_motion(flat[1], flat[2])).reshape(residual.shape)
