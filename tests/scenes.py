"""Analytic scenes with known pictures, depth and visibility, for tests of geometry, visibility and warping."""

import torch
from torch import Tensor

from pmv.geometry.camera import Camera


def texture(points: Tensor) -> Tensor:
    """Smooth colours in [-1,1] of world points [...,3], all different on a head-sized object."""
    x, y, z = points.unbind(-1)
    return torch.stack([torch.sin(23 * x + 5 * z), torch.sin(19 * y - 7 * x), torch.cos(17 * z + 11 * y)], -1) * 0.8


def sphere_view(
    camera: Camera, size: int, radius: float = 0.2, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> tuple[Tensor, Tensor, Tensor]:
    """A textured sphere before grey: image [N,3,S,S], z-depth [N,1,S,S] (0 where empty), alpha [N,1,S,S] 0 or
    1."""
    origins, directions = camera.rays(size)
    offset = origins - origins.new_tensor(centre)
    a, b = (directions**2).sum(-1), (directions * offset).sum(-1)
    discriminant = b**2 - a * ((offset**2).sum(-1) - radius**2)
    hit = discriminant > 0
    depth = torch.where(hit, (-b - discriminant.clamp(min=0).sqrt()) / a, torch.zeros_like(a))
    return _view(origins + depth[..., None] * directions, depth, hit, size)


def steps_view(camera: Camera, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """A small square (|x|, |y| < 0.06 at z = 0.1) before a large plane (z = -0.1) that fills the picture; as
    `sphere_view`."""
    origins, directions = camera.rays(size)
    near = (0.1 - origins[..., 2]) / directions[..., 2]
    on_square = (origins + near[..., None] * directions)[..., :2].abs().amax(-1) < 0.06
    depth = torch.where(on_square, near, (-0.1 - origins[..., 2]) / directions[..., 2])
    return _view(origins + depth[..., None] * directions, depth, torch.ones_like(on_square), size)


def _view(points: Tensor, depth: Tensor, hit: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    n = len(depth)
    image = torch.where(hit[..., None], texture(points), torch.zeros_like(points))
    return (
        image.reshape(n, size, size, 3).permute(0, 3, 1, 2),
        depth.reshape(n, 1, size, size),
        hit.to(depth.dtype).reshape(n, 1, size, size),
    )
