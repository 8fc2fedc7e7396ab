"""A finished head as 3D Gaussians: a disc for each of many points of its surface, and how well they show the volume."""

import math

import torch
from torch import Tensor

from pmv.apps.head_model import Surface
from pmv.fitting.metrics import psnr
from pmv.geometry.atlas import spread_texels
from pmv.geometry.camera import Camera
from pmv.geometry.splats import Splats, flat_splats, render_splats

SPLATS = 200_000
"""As many as a head has pixels all around at some 300² a view; each takes 68 bytes of a PLY."""
_OPACITY, _WIDTH, _THICKNESS = 0.95, 0.65, 0.1
"""Of each disc, the last two in distances between neighbours: narrower ones let what lies behind shine through."""
_SHOWN_DEGREES = (0, 20, 30, 40, 90, 180)
"""Yaws to either side, of those at which the volume was rendered, from which both are compared."""


@torch.no_grad()
def gaussians(surface: Surface, count: int, seed: int = 0) -> Splats:
    """About `count` flat Gaussians on a surface, in world units; each has the surface's colour at its mean."""
    places = spread_texels(surface.vertices, surface.faces, surface.normals, count, seed)
    return flat_splats(places.points, places.normals, surface.colours(places), _OPACITY, _WIDTH, _THICKNESS)


@torch.no_grad()
def splat_agreement(splats: Splats, surface: Surface) -> dict[str, float]:
    """PSNR in dB of splats against the volume's own pictures: from the photo's view, "photo", and by yaw in degrees at
    the height of the head, "-90" to "180"; what stands beside the head is the same in both."""
    front = surface.front
    found = {"photo": _compared(splats, front.camera, front.image, front.ground)}
    # the first of the fills is the photo's view
    for fill in surface.fills[1:]:
        yaw, pitch = _degrees(fill.seen.camera)
        if pitch == 0 and abs(yaw) in _SHOWN_DEGREES:
            found[str(yaw)] = _compared(splats, fill.seen.camera, fill.picture, front.ground)
    return found


def splat_view(splats: Splats, camera: Camera, picture: Tensor, ground: float | None) -> Tensor:
    """Splats from a camera as the volume's picture [1,3,R,R] from there is: before the same plain ground in [-1,1], or,
    where that is None, before the picture itself."""
    colours, alpha = render_splats(splats, camera, picture.shape[-1])
    behind = picture if ground is None else torch.full_like(picture, ground)
    return colours + (1 - alpha) * behind


def _degrees(camera: Camera) -> tuple[int, int]:
    """Yaw in (-180,180] and pitch of the side from which a camera looks, in whole degrees."""
    x, y, z = (-camera.forward[0]).tolist()
    yaw = round(math.degrees(math.atan2(x, z)))
    return 180 if yaw == -180 else yaw, round(math.degrees(math.asin(max(-1.0, min(1.0, y)))))


def _compared(splats: Splats, camera: Camera, picture: Tensor, ground: float | None) -> float:
    return psnr(splat_view(splats, camera, picture, ground).clamp(-1, 1), picture).item()
