"""Views of one latent from many cameras."""

import torch
from torch import Tensor

from pmv.generators.base import Generator, Render
from pmv.geometry.camera import Camera


@torch.no_grad()
def render_views(
    generator: Generator,
    w: Tensor,
    noise: dict[str, Tensor],
    cameras: Camera,
    resolution: int | None = None,
    batch: int = 4,
) -> Render:
    """Views of one latent from many cameras without gradients, a few at a time so that memory stays flat.

    Args:
        w: [1,num_ws,w_dim].
        cameras: batch of V.
        resolution: rays a side, None = the generator's own.

    Returns: `Render` of batch V.
    """
    return render_planes(generator, generator.planes(w, noise), w, cameras, resolution, batch)


@torch.no_grad()
def render_planes(
    generator: Generator, planes: Tensor, w: Tensor, cameras: Camera, resolution: int | None = None, batch: int = 4
) -> Render:
    """`render_views` of planes that are there.

    Args:
        planes: of `Generator.planes`, one latent's.
    """
    parts = [generator.render(planes, w, cameras[i : i + batch], resolution) for i in range(0, len(cameras), batch)]
    return Render(*(torch.cat([getattr(p, name) for p in parts]) for name in ("image", "raw", "depth", "alpha")))
