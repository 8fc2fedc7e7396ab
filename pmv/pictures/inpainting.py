"""Completing the pseudo-views: the generator's own render fills what the input view does not see.

The seam is treated twice: input texels fade out over a feather inside the visible region (its border texels
are the least certain), and the render's colours are shifted towards the photo's, strongest at the seam, so
that a difference in exposure or skin tone leaves no contour on the face.
"""

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from torch import Tensor

from pmv.pictures.masks import SOLID

_LIMIT = 0.3
"""Largest colour shift (images are in [-1,1]): beyond it the two sides are different materials, not one in
another light."""
_COARSEST = 8
_SWEEPS = 24


def blend(warped: Tensor, render: Tensor, weights: Tensor, shift: Tensor | None = None) -> Tensor:
    """Complete pseudo-views: weights · warped + (1 − weights) · (render + shift), in [-1,1].

    Args:
        warped, render, shift: [P,3,S,S].
        weights: [P,1,S,S] in [0,1]. Where they are 0, `warped` is not looked at, whatever it holds.
    """
    fill = render if shift is None else render + shift
    texels = torch.where(weights > 0, warped, torch.zeros_like(warped))
    return (weights * texels + (1 - weights) * fill).clamp(-1.0, 1.0)


def colour_shift(warped: Tensor, render: Tensor, *, known: Tensor, domain: Tensor, blur: float, reach: float) -> Tensor:
    """Smooth colour offset that joins the render to the photo's texels at the seam and fades away from it.

    Inside the known region the offset is the low-frequency part of `warped − render`. From there it is
    continued by the screened Laplace equation Δu = u / reach² (a membrane tied to a zero plane: it decays
    like exp(−distance / reach)), with no flow across the border of the domain, so that the colour of the hair
    does not leak through the background. Solved by Jacobi sweeps from coarse to fine.

    Args:
        warped, render: [P,3,S,S].
        known: [P,1,S,S], > 0.5 where `warped` holds unedited input texels.
        domain: [P,1,S,S], > 0.5 where the head is.
        blur: Gaussian sigma of the low-pass, fraction of the width, > 0.
        reach: fraction of the width, > 0.

    Returns:
        [P,3,S,S] in ±0.3, 0 outside known and domain.
    """
    if blur <= 0 or reach <= 0:
        raise ValueError(f"blur and reach are positive fractions of the width, got {blur} and {reach}")
    width = warped.shape[-1]
    known = (known > SOLID).to(warped.dtype)
    domain = torch.maximum((domain > SOLID).to(warped.dtype), known)
    difference = torch.where(known > 0, warped - render, torch.zeros_like(warped))
    # ~3 sigma on each side, and never wider than reflection padding allows
    sigma = blur * width
    size = min(2 * int(3 * sigma + 0.5) + 1, 2 * (min(warped.shape[-2:]) // 2) - 1)
    low = gaussian_blur2d(torch.cat([difference, known], 1), (size, size), (sigma, sigma))
    offset = known * low[:, :3] / low[:, 3:].clamp(min=1e-4)
    offset = _LIMIT * torch.tanh(offset / _LIMIT)
    return _membrane(offset, known, domain, 1.0 / (reach * width) ** 2)


def _membrane(value: Tensor, known: Tensor, domain: Tensor, screening: float) -> Tensor:
    """Solves Δu = screening · u on domain − known, u = value on known, zero flow across the domain's border."""
    if min(value.shape[-2:]) // 2 >= _COARSEST:
        half_known = F.avg_pool2d(known, 2)
        half_value = F.avg_pool2d(value * known, 2) / half_known.clamp(min=0.25)
        # only whole blocks: a gap in the domain must not close on a coarse level
        half_domain = (F.avg_pool2d(domain, 2) > 0.99).to(value.dtype)
        coarse = _membrane(half_value, (half_known > 0).to(value.dtype), half_domain, 4 * screening)
        u = F.interpolate(coarse, value.shape[-2:], mode="bilinear", align_corners=False)
    else:
        u = torch.zeros_like(value)
    free = domain * (1 - known)
    diagonal = _neighbours(domain) + screening
    u = known * value + free * u
    for _ in range(_SWEEPS):
        u = known * value + free * _neighbours(u) / diagonal
    return u


def _neighbours(x: Tensor) -> Tensor:
    """Sum of the four neighbours; nothing lies outside the image."""
    padded = F.pad(x, (1, 1, 1, 1))
    return padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:] + padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]
