"""Laying a picture (a logo, a tattoo) on a portrait: flat on the image, or on the surface that the image shows.

Colours are blended as image editors do it: on sRGB values, by the formulas of *Compositing and Blending Level 1* (W3C).

An overlay that follows a surface is drawn in coordinates of the surface itself, which `pmv.geometry.unroll` finds.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.errors import InputError, quoted
from pmv.pictures.images import pixel_grid, resize

Blend = Literal["normal", "multiply", "screen", "overlay"]
BLENDS: tuple[str, ...] = get_args(Blend)

_SUPERSAMPLE = 4


_WIDEST = 10.0
"""Widths of an overlay beyond this many picture widths are a slip."""


@dataclass(frozen=True)
class Placement:
    """Where and how an overlay is laid on the aligned picture.

    Attributes:
        at: its middle, (x, y) in fractions of the picture's width and height from the top left corner.
        size: its width as a fraction of the picture's width, above 0, at most 10; its height follows from its shape. On
            the surface it is as wide as this where the surface faces the camera at the anchor's depth.
        rotate: degrees, clockwise, as image editors count.
        blend: how its colours meet the picture's.
        opacity: in (0, 1].
        follow_surface: drawn on the surface that the picture shows, instead of flat on the picture.
    """

    at: tuple[float, float]
    size: float
    rotate: float = 0.0
    blend: Blend = "normal"
    opacity: float = 1.0
    follow_surface: bool = False

    def __post_init__(self) -> None:
        x, y = self.at
        if not (0.0 <= x <= 1.0 and 0.0 <= y <= 1.0):
            raise InputError(
                f"the overlay's middle {x:g},{y:g} lies outside the picture; give fractions of its width and height "
                "from the top left, such as 0.64,0.6"
            )
        if not 0.0 < self.size <= _WIDEST:
            raise InputError(
                f"the overlay's size is {self.size:g}; give its width as a fraction of the picture's, such as 0.2"
            )
        if not 0.0 < self.opacity <= 1.0:
            raise InputError(f"the overlay's opacity is {self.opacity:g}; give a number above 0 and up to 1")
        if not math.isfinite(self.rotate):
            raise InputError(f"the overlay's rotation is {self.rotate:g}; give degrees, clockwise")
        if self.blend not in BLENDS:
            raise InputError(f"no blend is called {quoted(self.blend)}; there are {', '.join(BLENDS)}")


def blend_colours(backdrop: Tensor, source: Tensor, mode: Blend) -> Tensor:
    """B(Cb, Cs) of *Compositing and Blending Level 1* §10: colours in [0,1], sRGB-encoded, element-wise.

    Args:
        backdrop, source: of one shape.
        mode: "overlay" multiplies where the backdrop is dark and screens where it is light.
    """
    if mode == "multiply":
        return backdrop * source
    if mode == "screen":
        return backdrop + source - backdrop * source
    if mode == "overlay":
        dark, light = 2 * backdrop * source, 1 - 2 * (1 - backdrop) * (1 - source)
        return torch.where(backdrop <= 0.5, dark, light)
    return source


def draw_overlay(
    image: Tensor,
    picture: Tensor,
    alpha: Tensor | None,
    placement: Placement,
    surface: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """An image with a picture laid on it.

    Args:
        image: [1,3,S,S] in [-1,1].
        picture: [1,3,h,w] in [-1,1], not premultiplied; alpha: [1,1,h,w] in [0,1], None = opaque.
        placement: where and how.
        surface: coordinates [S,S,2] of every pixel as seen from the overlay's middle, in widths of the image, and where
            they are known, bool [S,S], for `placement.follow_surface`; see `pmv.geometry.unroll`. None = flat.

    Returns:
        the image [1,3,S,S], and the overlay's coverage times opacity [1,1,S,S] in [0,1].

    Raises:
        ValueError: a placement follows the surface, and there is none; or the other way round.
    """
    size = image.shape[-1]
    if placement.follow_surface != (surface is not None):
        raise ValueError("the coordinates of a surface go with a placement that follows it, and with no other")
    if surface is not None:
        position, known = surface[0].to(image), surface[1]
    else:
        position = pixel_grid(size, size, image)[0] - image.new_tensor(placement.at)
        known = torch.ones(size, size, dtype=torch.bool, device=image.device)
    colour, cover = _sample(picture, alpha, position / placement.size, known, placement)
    backdrop = (image + 1) / 2
    # the source's colours where it covers nothing are arbitrary
    mixed = torch.lerp(backdrop, blend_colours(backdrop, colour, placement.blend), cover)
    return torch.where(cover > 0, mixed * 2 - 1, image).clamp(-1, 1), cover


def _sample(
    picture: Tensor, alpha: Tensor | None, position: Tensor, known: Tensor, placement: Placement
) -> tuple[Tensor, Tensor]:
    """An overlay's colours [1,3,S,S] in [0,1] and coverage times opacity [1,1,S,S] at every pixel, antialiased.

    Args:
        picture, alpha: as of `draw_overlay`.
        position: [S,S,2], offsets from the overlay's middle in widths of the overlay, x right and y down.
        known: bool [S,S], where a position means anything.
    """
    size = position.shape[0]
    turn = math.radians(placement.rotate)
    right = position.new_tensor([math.cos(turn), math.sin(turn)])
    down = position.new_tensor([-math.sin(turn), math.cos(turn)])
    aspect = picture.shape[-2] / picture.shape[-1]
    uv = torch.stack([position @ right, position @ down / aspect], -1) + 0.5
    colour, cover = position.new_zeros(1, 3, size, size), position.new_zeros(1, 1, size, size)
    border = 2.0 / (placement.size * size)  # two pixels, in widths of the overlay
    near = known & ((uv - 0.5).abs() < 0.5 + uv.new_tensor([border, border / aspect])).all(-1)
    if not near.any():
        return colour, cover
    rows, columns = near.any(1).nonzero()[:, 0], near.any(0).nonzero()[:, 0]
    part = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    fine = F.interpolate(
        uv[part].permute(2, 0, 1)[None], scale_factor=_SUPERSAMPLE, mode="bilinear", align_corners=False
    )
    visible = F.interpolate(near[part].to(uv)[None, None], scale_factor=_SUPERSAMPLE, mode="nearest")
    if alpha is None:
        alpha = torch.ones_like(picture[:, :1])
    layers = torch.cat([(picture + 1) / 2 * alpha, alpha], 1)  # premultiplied: clear pixels lend no colour
    # more texels than samples would alias
    width = max(1, math.ceil(placement.size * size * _SUPERSAMPLE))
    if width < layers.shape[-1]:
        layers = resize(layers, (max(1, round(width * aspect)), width))
    grid = 2 * fine.permute(0, 2, 3, 1) - 1
    sampled = F.grid_sample(layers, grid, mode="bilinear", padding_mode="border", align_corners=False)
    inside = ((fine >= 0) & (fine <= 1)).all(1, keepdim=True)
    sampled = F.avg_pool2d(sampled * inside * visible, _SUPERSAMPLE).clamp(0, 1)
    colour[(..., *part)] = (sampled[:, :3] / sampled[:, 3:].clamp_min(1e-6)).clamp(0, 1)
    cover[(..., *part)] = sampled[:, 3:] * placement.opacity
    return colour, cover
