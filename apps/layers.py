"""One view of a finished head as layers: its picture, straight alpha, depth and normals."""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from pmv.apps.camera_paths import reshaped
from pmv.errors import InputError
from pmv.generators.base import GeneratorSpec, Render
from pmv.geometry.camera import Camera
from pmv.geometry.scene import SeenFrom, resize_depth, surface_points
from pmv.inversion import Inversion
from pmv.pictures.images import resize, to_uint8, without_ground
from pmv.pictures.masks import SOLID

DEPTH_UNIT = 1e-4
"""World units in a step of 16-bit depth maps: 6.5 units fit."""
DEPTH_RAYS = 128
"""Rays a side that depth and normals are taken from."""
IMAGE = "image"
LAYERS = (IMAGE, "depth", "normals")
TRANSPARENT = "transparent"
SMALLEST, LARGEST = 16, 8192
"""Pixels a side of a rendered picture."""


@dataclass(frozen=True)
class Look:
    """How pictures are written.

    Attributes:
        size: (width, height); None = the generator's.
        ground: what stands behind the head: None = what the generator draws; "transparent"; or red, green, blue in
            0…255.
    """

    size: tuple[int, int] | None = None
    ground: str | tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        """InputError for a size that no picture is rendered at."""
        if self.size is not None and not all(SMALLEST <= side <= LARGEST for side in self.size):
            width, height = self.size
            raise InputError(
                f"pictures of {width}×{height} pixels are not rendered, only {SMALLEST} to {LARGEST} a side"
            )

    def framed(self, cameras: Camera) -> Camera:
        """Cameras of the generator's square as those of pictures of `size`, the square in their middle."""
        return cameras if self.size is None else reshaped(cameras, *self.size)

    def check(self, spec: GeneratorSpec) -> None:
        """InputError where the generator cannot be put before another ground."""
        if self.ground is not None and not spec.has_alpha:
            raise InputError(
                "its generator's surroundings are part of the volume and cannot be taken away; leave --background out"
            )

    def pixels(self, render: Render, spec: GeneratorSpec) -> np.ndarray:
        """uint8 [H,W,3] of the first of the views, or [H,W,4] before a transparent ground."""
        width, height = self.size or (render.image.shape[-1], render.image.shape[-2])
        size = (height, width)
        image = resize(render.image, size).clamp(-1, 1)
        if self.ground is None:
            return to_uint8(image)[0]
        colours, alpha = straight(render, spec, size)
        if self.ground == TRANSPARENT:
            return np.concatenate([to_uint8(colours)[0], to_uint8(alpha)[0][..., :1]], -1)
        ground = colours.new_tensor(self.ground).reshape(1, 3, 1, 1) / 127.5 - 1
        return to_uint8(alpha * colours + (1 - alpha) * ground)[0]


PLAIN = Look()


def straight(render: Render, spec: GeneratorSpec, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Colours [N,3,H,W] without the ground that shines through, and alpha [N,1,H,W], of size (H, W)."""
    colours = resize(render.image, size).clamp(-1, 1)
    alpha = resize(render.alpha, size).clamp(0, 1)
    if spec.background is not None:
        colours = without_ground(colours, alpha, spec.background)
    return colours, alpha


class Shape(NamedTuple):
    """What one camera sees of a head's shape.

    Attributes:
        render: as the generator draws it; more rays than it knows would make its picture softer.
        points: [S,S,3] in the world, S the longer side of the picture; surface: bool [S,S], where they mean something.
        depth: float32 [H,W], z-depth in world units, 0 = nothing.
        normals: float32 [H,W,3], unit, world axes, 0 = nothing.
    """

    render: Render
    points: Tensor
    surface: Tensor
    depth: np.ndarray
    normals: np.ndarray


@torch.no_grad()
def shape_from(inversion: Inversion, planes: Tensor, camera: Camera, size: tuple[int, int]) -> Shape:
    """What one camera sees of a head's shape.

    Args:
        planes: of the inversion's generator.
        size: (width, height).
    """
    generator, w = inversion.generator, inversion.w
    fine = generator.render(planes, w, camera, DEPTH_RAYS)
    seen = SeenFrom(camera, fine.depth, fine.alpha > SOLID)
    side = max(size)
    z, valid = resize_depth(seen.depth, seen.valid, (side, side), seen.edge)
    points, direction, surface = surface_points(seen.depth, seen.valid, camera, side)
    depth = torch.where(valid, z, torch.zeros_like(z))[0, 0].float().cpu().numpy()
    normals = direction[0].permute(1, 2, 0).float().cpu().numpy()
    if size != (side, side):
        # depths of two surfaces must not be mixed
        depth, normals = (cv2.resize(layer, size, interpolation=cv2.INTER_NEAREST) for layer in (depth, normals))
    return Shape(generator.render(planes, w, camera), points[0], surface[0, 0], depth, normals)
