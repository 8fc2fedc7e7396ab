"""What a camera's numbers alone tell of its being none: a message that says what they look like."""

import torch
from torch import Tensor

_ROUNDED = 1e-2
"""How far a rotation that was written with few digits may lie from one."""
_WIDEST = 100.0
"""Focal lengths in picture widths beyond this are in pixels: they would see less than 0.6°."""
_SQUARE = 0.05
"""Part by which fx and fy of a square picture may differ."""
_SKEW = 0.01
"""Part of the focal length that the axes of the pixels may be skewed by."""


def camera_doubt(cam2world: Tensor, intrinsics: Tensor) -> str | None:
    """Why these matrices cannot be those of a camera of a square picture, or None.

    Args:
        cam2world: [N,4,4], expected OpenCV axes; intrinsics: [N,3,3], expected normalised by the picture's width.
    """
    if not (torch.isfinite(cam2world).all() and torch.isfinite(intrinsics).all()):
        return "the camera contains NaN or infinity; write 16 finite cam2world numbers and 9 intrinsics"
    return _pose_doubt(cam2world.double()) or _intrinsics_doubt(intrinsics.double())


def _pose_doubt(pose: Tensor) -> str | None:
    last = pose.new_tensor([0.0, 0.0, 0.0, 1.0])
    if (pose[:, 3] - last).abs().max() > _ROUNDED:
        if (pose[:, :, 3] - last).abs().max() <= _ROUNDED:
            return "cam2world is transposed (its last column is 0 0 0 1); write it row by row"
        return "cam2world ends in another row than 0 0 0 1; write it row by row"
    rotation = pose[:, :3, :3]
    square = rotation.transpose(1, 2) @ rotation
    scale = square.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-300).sqrt()
    identity = torch.eye(3, dtype=torch.float64, device=pose.device)
    if (square / scale.square()[:, None, None] - identity).abs().max() > 2 * _ROUNDED:
        return "cam2world has no proper rotation; it must be OpenCV camera-to-world, row by row"
    if (scale - 1).abs().max() > _ROUNDED:
        worst = scale[(scale - 1).abs().argmax()].item()
        return f"the rotation of cam2world is scaled by {worst:.4g}; divide its 3×3 numbers by that"
    if (torch.linalg.det(rotation) < 0).any():
        return "cam2world is mirrored (left-handed axes); turn round one of its first three columns"
    return None


def _intrinsics_doubt(k: Tensor) -> str | None:
    fx, fy, cx, cy = k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2]
    if (k[:, 2] - k.new_tensor([0.0, 0.0, 1.0])).abs().max() > _ROUNDED:
        if (k[:, :, 2] - k.new_tensor([0.0, 0.0, 1.0])).abs().max() <= _ROUNDED:
            return "the intrinsics are transposed (their last column is 0 0 1); write them row by row"
        return "the intrinsics end in another row than 0 0 1; write fx 0 cx, 0 fy cy, 0 0 1"
    if (fx <= 0).any() or (fy <= 0).any():
        return "the focal length must be positive, in image widths (EG3D FFHQ: 4.2647)"
    if (fx > _WIDEST).any() or (fy > _WIDEST).any() or (torch.stack([cx, cy]).abs() > 2).any():
        return (
            f"a focal length of {fx.max():.6g} and a principal point of {cx.abs().max():.4g}, {cy.abs().max():.4g} "
            "look like pixels; divide them by the picture's width (EG3D FFHQ: 4.2647 and 0.5)"
        )
    if (k[:, 1, 0].abs() > _SKEW * fy).any() or (k[:, 0, 1].abs() > _SKEW * fx).any():
        return "the intrinsics are skewed; write fx 0 cx, 0 fy cy, 0 0 1"
    if ((torch.stack([cx, cy]) < 0) | (torch.stack([cx, cy]) > 1)).any():
        return (
            f"the principal point {cx[0]:.4g}, {cy[0]:.4g} lies outside the picture; it is in image widths from the "
            "top left corner (EG3D FFHQ: 0.5)"
        )
    if ((fx / fy - 1).abs() > _SQUARE).any():
        return (
            f"fx : fy is {(fx / fy)[((fx / fy) - 1).abs().argmax()]:.3f}, as of a picture that was not square or was "
            "stretched; give the camera of the square picture, fx = fy"
        )
    return None
