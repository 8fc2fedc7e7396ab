"""Inverse warping: the input photo's own texels, seen from a pseudo-view.

Each pseudo-view pixel is unprojected with the pseudo-view's depth, projected into the input view, and takes
the photo's colour there (HFGI3D splats points forward instead, which leaves holes and blurs). The geometry
may be coarser than the photo: depth is first made as fine as the image, so that texels are sampled at full
resolution.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.geometry.camera import Camera
from pmv.geometry.scene import SeenFrom, resize_depth
from pmv.pictures.masks import smoothstep


def sample_image(image: Tensor, uv: Tensor) -> Tensor:
    """Bicubic colours of an image at uv; differentiable in both.

    Args:
        image: [1,C,h,w] for all, or [N,C,h,w].
        uv: [N,H,W,2], (0,0) top left corner, (1,1) bottom right corner of the image.

    Returns:
        [N,C,H,W]; outside the image the border's colour. Bicubic overshoot is not clamped.
    """
    if image.ndim != 4 or uv.ndim != 4 or uv.shape[-1] != 2:
        raise ValueError(f"an image is [N,C,h,w] and uv [N,H,W,2], got {tuple(image.shape)} and {tuple(uv.shape)}")
    grid = (2 * uv - 1).clamp(-2.0, 2.0)  # points behind the camera may be anywhere; the caller masks them
    if len(image) == len(uv):
        return F.grid_sample(image, grid, mode="bicubic", padding_mode="border", align_corners=False)
    # one image for all views: stack the views along the rows instead of copying the image
    n, height, width, _ = uv.shape
    tall = F.grid_sample(
        image,
        grid.reshape(1, n * height, width, 2),
        mode="bicubic",
        padding_mode="border",
        align_corners=False,
    )
    return tall.reshape(-1, n, height, width).transpose(0, 1)


def inverse_warp(image: Tensor, camera: Camera, views: SeenFrom, antialias: bool = True) -> tuple[Tensor, Tensor]:
    """Paints an image onto the surfaces that other views see.

    Nothing is hidden here: a pixel whose surface the input view does not see gets the colour of what stands
    in front of it. Multiply by a visible mask (`pmv.geometry.visibility`). Differentiable in `image` and the
    views' depth.

    Args:
        image: [1,C,S,S]; the views' depth is resampled to its size.
        camera: of the image.
        views: what P other cameras see.
        antialias: average 2×2 samples where a pixel covers more than one texel (surfaces that turn away from
            the view but face the input), and a plain bicubic sample, which is sharper, everywhere else.

    Returns:
        colours [P,C,S,S] (0 where there is no surface) and surface, bool [P,1,S,S].
    """
    height, width = image.shape[-2:]
    edge = views.edge

    def look_up(scale: int) -> tuple[Tensor, Tensor]:
        depth, valid = resize_depth(views.depth, views.valid, (height * scale, width * scale), edge)
        points = views.camera.unproject(torch.where(valid, depth, torch.ones_like(depth)))
        uv, z = camera.project(points.reshape(1, -1, 3))
        return uv.reshape(*points.shape[:-1], 2), valid & (z > 0).reshape(valid.shape)

    uv, valid = look_up(1)
    colours = sample_image(image, uv)
    if antialias:
        fine_uv, fine_valid = look_up(2)
        smooth = F.avg_pool2d(sample_image(image, fine_uv), 2)
        complete = F.avg_pool2d(fine_valid.to(image.dtype), 2) > 0.99
        weight = smoothstep(texels_per_pixel(uv, height, width), 1.0, 1.6) * complete
        colours = torch.lerp(colours, smooth, weight)
    return colours * valid, valid


def texels_per_pixel(uv: Tensor, height: int, width: int) -> Tensor:
    """The longer side of each pixel's footprint in an image of height × width texels: uv [N,H,W,2] →
    [N,1,H,W]."""
    position = (uv * uv.new_tensor([width, height])).permute(0, 3, 1, 2)
    dx = F.pad(position[..., 1:] - position[..., :-1], (0, 1, 0, 0), mode="replicate")
    dy = F.pad(position[..., 1:, :] - position[..., :-1, :], (0, 0, 0, 1), mode="replicate")
    # the tiny constant keeps the square root differentiable
    return torch.maximum((dx**2).sum(1), (dy**2).sum(1)).add(1e-12).sqrt()[:, None]
