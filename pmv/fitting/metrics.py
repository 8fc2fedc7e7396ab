"""Image metrics. Images are [N,3,H,W] in [-1,1], masks [N,1,H,W] in [0,1]; every metric gives one number an
image."""

from dataclasses import replace

import torch
from kornia.metrics import ssim as ssim_map
from torch import Tensor

from pmv.fitting.losses import masked_l2, masked_mean
from pmv.geometry.scene import SeenFrom, surface_points
from pmv.geometry.visibility import Cuts, visibility_confidence
from pmv.geometry.warping import inverse_warp

_WINDOW = 11
"""Side of SSIM's Gaussian window in pixels (Wang et al. 2004)."""
_MAX_DEGREES = 70.0
"""Surfaces seen more obliquely are not compared between views: their texels are too stretched."""


def psnr(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB: 10 log₁₀(2² / masked mean squared error), capped at 100 dB: [N].

    NaN where the mask is empty.
    """
    value = 10.0 * torch.log10(4.0 / masked_l2(a, b, mask).clamp(min=4e-10))
    return _without_empty(value, mask)


def ssim(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    """Structural similarity (Wang et al. 2004; Gaussian window of 11 pixels, σ 1.5) averaged inside the mask:
    [N].

    NaN where the mask is empty.
    """
    value = ssim_map((a + 1) / 2, (b + 1) / 2, _WINDOW, max_val=1.0)
    return _without_empty(masked_mean(value, mask), mask)


def cross_view_consistency(
    image: Tensor, seen: SeenFrom, others: Tensor, seen_in_others: SeenFrom, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Does one view, painted onto the geometry, look like the other views? PSNR in the co-visible region.

    Args:
        image: [1,3,S,S] of one view; seen: its surface.
        others: [N,3,S,S] of the other views; seen_in_others: their surfaces.
        tolerance: of the depth test, world units.

    Returns:
        PSNR in dB [N] (NaN where nothing is co-visible) and the co-visible fraction of each view's surface
        [N].
    """
    views = seen_in_others
    points, normals, surface = surface_points(views.depth, views.valid, views.camera, image.shape[-1])
    # the outermost half pixel of the picture is no texel that one could compare
    seen = replace(seen, trusted=torch.ones_like(image[:, :1]))
    cuts = Cuts(tolerance, _MAX_DEGREES, _MAX_DEGREES)
    confidence = visibility_confidence(points, normals, views=views.camera, source=seen, cuts=cuts)
    mask = ((confidence > 0.5) & surface).to(image.dtype)
    warped, _ = inverse_warp(image, seen.camera, views)
    fraction = mask.sum((1, 2, 3)) / surface.sum((1, 2, 3)).clamp(min=1)
    return psnr(warped.clamp(-1, 1), others, mask), fraction


def _without_empty(value: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return value
    return torch.where(mask.sum((1, 2, 3)) > 0, value, torch.full_like(value, float("nan")))
