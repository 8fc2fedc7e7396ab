"""Figures of a surface against the true one: z-depth, normals, alpha, in views of the same camera."""

import torch
from torch import Tensor

from pmv.geometry.camera import Camera
from pmv.geometry.scene import surface_points


def depth_errors(depth: Tensor, truth: Tensor, mask: Tensor) -> dict[str, float]:
    """Mean absolute z-depth error in world units where a mask is: as it is; with its median taken out (a head that is
    drawn nearer, one number of one photo, is no wrong shape); with scale and shift taken out in the least squares'
    sense.

    Args:
        depth, truth: [1,1,S,S]. mask: bool [1,1,S,S], where both have a surface; empty: no figures.
    """
    d, z = depth[mask].double(), truth[mask].double()
    if len(d) < 16:
        return {}
    error = d - z
    centred = d - d.mean()
    scale = (centred * (z - z.mean())).sum() / centred.square().sum().clamp_min(1e-12)
    fitted = scale * centred + z.mean()
    return {
        "depth": float(error.abs().mean()),
        "depth_median_out": float((error - error.median()).abs().mean()),
        "depth_affine_out": float((fitted - z).abs().mean()),
    }


def normals_of(depth: Tensor, solid: Tensor, camera: Camera) -> Tensor:
    """Unit normals [1,3,S,S] in the camera's frame, a little smoothed, 0 where unknown; see
    `pmv.geometry.scene.surface_points`."""
    _, normals, _ = surface_points(depth, solid, camera, depth.shape[-1])
    return torch.einsum("nji,njhw->nihw", camera.cam2world[:, :3, :3], normals)


def normal_error(normals: Tensor, truth: Tensor, mask: Tensor) -> float | None:
    """Mean angle in degrees between unit normals [1,3,S,S] where a bool mask [1,1,S,S] is and both are known."""
    known = mask & (normals.norm(dim=1, keepdim=True) > 0.5) & (truth.norm(dim=1, keepdim=True) > 0.5)
    if not known.any():
        return None
    cosine = (normals * truth).sum(1, keepdim=True)[known].clamp(-1, 1)
    return float(torch.acos(cosine).rad2deg().mean())


def iou(alpha: Tensor, truth: Tensor) -> float:
    """Overlap of two silhouettes [1,1,S,S], cut at one half."""
    a, b = alpha > 0.5, truth > 0.5
    return float((a & b).sum() / (a | b).sum().clamp_min(1))
