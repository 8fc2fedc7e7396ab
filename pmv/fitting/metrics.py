"""Image metrics. Images are [N,3,H,W] in [-1,1], masks [N,1,H,W] in [0,1]; every metric gives one number an
image."""

import torch
from kornia.metrics import ssim as ssim_map
from torch import Tensor

from pmv.fitting.losses import masked_l2, masked_mean
from pmv.geometry.camera import Camera
from pmv.geometry.scene import edge_step, surface_points
from pmv.geometry.visibility import visibility_confidence
from pmv.geometry.warping import inverse_warp
from pmv.pictures.masks import SOLID

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
    image: Tensor,
    depth: Tensor,
    alpha: Tensor,
    camera: Camera,
    views: Tensor,
    view_depths: Tensor,
    view_alphas: Tensor,
    view_cameras: Camera,
    tolerance: float,
) -> tuple[Tensor, Tensor]:
    """Does one view, painted onto the geometry, look like the other views? PSNR in the co-visible region.

    Args:
        image: [1,3,S,S] of one view; depth, alpha: [1,1,D,D]; camera: its camera.
        views: [N,3,S,S]; view_depths, view_alphas: [N,1,D,D]; view_cameras: N cameras.
        tolerance: of the depth test, world units.

    Returns:
        PSNR in dB [N] (NaN where nothing is co-visible) and the co-visible fraction of each view's surface
        [N].
    """
    size = image.shape[-1]
    valid, view_valid = alpha > SOLID, view_alphas > SOLID
    points, normals, surface = surface_points(view_depths, view_valid, view_cameras, size)
    everywhere = torch.ones_like(image[:, :1])
    edge = edge_step(camera, depth.shape[-1])
    confidence = visibility_confidence(
        points,
        normals,
        view_cameras,
        camera,
        depth,
        valid,
        everywhere,
        edge,
        tolerance,
        _MAX_DEGREES,
        _MAX_DEGREES,
    )
    mask = ((confidence > 0.5) & surface).to(image.dtype)
    warped, _ = inverse_warp(image, camera, view_cameras, view_depths, view_valid)
    fraction = mask.sum((1, 2, 3)) / surface.sum((1, 2, 3)).clamp(min=1)
    return psnr(warped.clamp(-1, 1), views, mask), fraction


def _without_empty(value: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return value
    return torch.where(mask.sum((1, 2, 3)) > 0, value, torch.full_like(value, float("nan")))
