"""01 seed: a head in one forward pass of encoders, and what of it the later stages start from.

The dual encoder (arXiv:2409.20530; `pmv/encoders`) says at once what the optimisation approaches in hundreds of steps.
Each stage takes what it has use for: `latent` the latent and the camera, `coarse` the surface that the photo shows,
`tune` the planes, `inpaint` how the head looks where the photo cannot show it. Each of these can be left out.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.encoders.dual import DualEncoder, Stitched
from pmv.encoders.shipped import AUTO, files_of, find_encoders, made_encoders, open_encoders
from pmv.errors import InputError
from pmv.files.artifacts import file_hash
from pmv.generators.base import Generator
from pmv.generators.views import render_planes
from pmv.geometry.camera import Camera
from pmv.pictures.images import resize
from pmv.pictures.masks import SOLID, feather
from pmv.pipeline.context import Context
from pmv.pipeline.ranges import Range, Turn, Width
from pmv.stages.coarse import depth_picture

_YAWS = (-60.0, -30.0, 0.0, 30.0, 60.0, 180.0)


@dataclass(frozen=True)
class SeedInputs:
    """original [1,3,S,S] without edits; foreground [1,1,S,S]; initial_camera: batch of 1."""

    original: Tensor
    foreground: Tensor
    initial_camera: Camera


@dataclass(frozen=True)
class SeedConfig:
    """What is encoded, by what, and who takes it.

    Attributes:
        kind: "none" = the optimisation starts from the mean head; "encoder" = from an encoded one; "auto" = from an
            encoded one where pmv has encoders for the generator.
        encoders: file of the encoders (of the published ones, visible_net.pt with the others beside it), or a name of
            pmv fetch; auto = what there is for the generator.
        parts: "both" = the second encoder's head where the photo shows nothing, if the file has a second; "visible",
            "whole" = one encoder's alone.
        start: the latent and the camera are where the stage latent starts, of a head that is turned far enough.
        start_yaw: degrees of yaw that are far enough; 0 = always.
        surface: the surface that the photo shows is blended into the coarse one.
        coarse: the encoded planes are where coarse starts.
        residual: the encoded planes are where tune starts.
        fill: what the photo does not show of a pseudo-view is filled with the encoded head.
        coarse_error: mean error, world units, that is expected of the coarse depth: where the encoder expects as much
            of its own, each counts for half.
        border: width over which the surface fades into the coarse one inside the head's outline, as a fraction of the
            image width.
    """

    kind: Literal["auto", "none", "encoder"] = "auto"
    encoders: str = "auto"
    parts: Literal["both", "visible", "whole"] = "both"
    start: bool = True
    start_yaw: Turn = 30.0
    surface: bool = True
    coarse: bool = False
    residual: bool = False
    fill: bool = False
    coarse_error: Annotated[float, Range(0, 10, above=True)] = 0.012
    border: Width = 0.02


@dataclass(frozen=True)
class SeedOutputs:
    """The encoded head, encoded_w [1,num_ws,w_dim], encoded_planes [1,3,C,H,W], encoded_camera: batch of 1; and what of
    it is handed on: start_w, start_camera; surface_depth [1,1,D,D], z-depth, and surface_trust [1,1,D,D] in [0,1],
    against the coarse one; coarse_planes, residual_planes, fill_planes: the planes. None = it is not."""

    encoded_w: Tensor | None = None
    encoded_planes: Tensor | None = None
    encoded_camera: Camera | None = None
    start_w: Tensor | None = None
    start_camera: Camera | None = None
    surface_depth: Tensor | None = None
    surface_trust: Tensor | None = None
    coarse_planes: Tensor | None = None
    residual_planes: Tensor | None = None
    fill_planes: Tensor | None = None


def check(config: SeedConfig, generator: Generator) -> None:
    """InputError or CheckpointError where the encoders cannot be used."""
    path = encoders_path(config, generator)
    if path is not None:
        chosen_encoders(path, config.parts, generator)


def identity(config: SeedConfig, generator: Generator) -> str:
    """What tells encoders apart: the content of their files."""
    path = encoders_path(config, generator)
    return "" if path is None else " ".join(map(file_hash, files_of(path)))


def encoders_path(config: SeedConfig, generator: Generator) -> Path | None:
    """The encoders' file, or None where nothing is to be encoded. InputError where there is none and must be one."""
    if config.kind == "none" or (config.kind == "auto" and config.encoders == AUTO):
        return made_encoders(generator) if config.kind == "auto" else None
    return find_encoders(config.encoders, generator)


def chosen_encoders(path: Path, parts: str, generator: Generator) -> DualEncoder:
    """The encoders of a file, or one of them, see `SeedConfig.parts`.

    Raises:
        InputError: there is no such file, or it has one encoder alone and the other is asked for.
        CheckpointError: it is damaged, or made for another generator.
    """
    encoders = open_encoders(path, generator)
    if parts == "both":
        return encoders
    if getattr(encoders, parts) is None:
        raise InputError(f"{path}: holds one encoder, the visible; leave seed.parts at both")
    return encoders.only(parts)


def surface_trust(scale: Tensor, foreground: Tensor, coarse_error: float, border: float) -> Tensor:
    """How far a surface is believed against the coarse one: both depths weighted by the inverse of their variances.

    Args:
        scale: [N,1,D,D] world units, the mean error that the encoder expects of its depth.
        foreground: [N,1,S,S] in [0,1]; beside it nothing is known.
        coarse_error: the same of the coarse depth.
        border: width inside its outline over which trust falls to 0, as a fraction of the image width.

    Returns: [N,1,D,D] in [0,1].
    """
    trust = coarse_error**2 / (coarse_error**2 + scale.square())
    inside = feather((foreground > SOLID).float(), border)
    return trust * F.interpolate(inside, scale.shape[-2:], mode="area")


@torch.no_grad()
def run(inputs: SeedInputs, config: SeedConfig, context: Context) -> SeedOutputs:
    """See the dataclasses for shapes and units."""
    generator = context.generator
    path = encoders_path(config, generator)
    if path is None:
        return SeedOutputs()
    encoders = chosen_encoders(path, config.parts, generator)
    head = encoders(generator, inputs.original, inputs.foreground, inputs.initial_camera)
    given: dict[str, Any] = {"encoded_w": head.w, "encoded_planes": head.planes, "encoded_camera": head.camera}
    yaw = head.camera.yaw_pitch(generator.spec.pivot)[0].abs().item()
    if config.start and yaw >= math.radians(config.start_yaw):
        given |= {"start_w": head.w, "start_camera": head.camera}
    trust = surface_trust(head.visible.scale, inputs.foreground, config.coarse_error, config.border)
    if config.surface:
        given |= {"surface_depth": head.visible.depth, "surface_trust": trust}
    takers = {"coarse_planes": config.coarse, "residual_planes": config.residual, "fill_planes": config.fill}
    given |= {name: head.planes for name, takes in takers.items() if takes}
    _show(head, trust, inputs, context)
    return SeedOutputs(**given)


def _show(head: Stitched, trust: Tensor, inputs: SeedInputs, context: Context) -> None:
    """The head from the photo's side and from others, and the surface with its doubt."""
    generator, size = context.generator, inputs.original.shape[-1]
    around = [generator.spec.orbit(math.radians(yaw), 0.0).to(head.w.device) for yaw in _YAWS]
    drawn = render_planes(generator, head.planes, head.w, Camera.cat([head.camera, *around]))
    context.preview("input_view", resize(drawn.image[:1], size))
    context.preview("views", resize(drawn.image[1:], size))
    solid = F.interpolate(inputs.foreground, head.visible.depth.shape[-2:], mode="area")
    context.preview("surface", depth_picture(head.visible.depth, solid))
    context.preview("surface_trust", trust)
    if head.whole is not None:
        context.preview("seen_texels", head.seen[0].flatten(0, -3)[:, None])
