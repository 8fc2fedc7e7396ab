"""03 coarse: the generator tuned a little to the input view, and what it then says of geometry and of every
pseudo-view.

Coarse tuning (HFGI3D §3.2) closes most of the gap that the latent leaves. Fitting one view bends the geometry behind
it, so alpha and depth of other views are held to the pivot's while tuning; HFGI3D instead stops early. Both are here.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from pmv.errors import InputError
from pmv.fitting.losses import alpha_hold, depth_hold, masked_l2
from pmv.fitting.optimise import Drawn, Group, never_enough, optimise
from pmv.fitting.perceptual import Perceptual
from pmv.fitting.tuning import check_groups, snapshot, start_from_planes, trainable
from pmv.generators.base import Generator, GeneratorSpec, Render
from pmv.generators.views import render_views
from pmv.geometry.blend import blend_surface, carry_surface, carry_trust
from pmv.geometry.camera import Camera
from pmv.geometry.scene import SeenFrom, edge_step
from pmv.pictures.images import resize
from pmv.pictures.masks import SOLID
from pmv.pipeline.context import Context
from pmv.pipeline.ranges import LearningRate, Length, Range, Steps, Tilt, Turn, Weight

_ONE_SURFACE = 0.02
"""Part of the box by which the depths of one surface in two views may differ."""


@dataclass(frozen=True)
class CoarseInputs:
    """original [1,3,S,S]; foreground, difference_mask [1,1,S,S]; pivot_w [1,num_ws,w_dim]; noise; camera: one; valid
    [1,1,S,S], 0 in the photo's mirrored border, None = there is none. From the seed, None = nothing: coarse_planes, in
    which tuning starts; surface_depth [1,1,E,E], z-depth that the photo shows, and surface_trust [1,1,E,E] in [0,1]."""

    original: Tensor
    foreground: Tensor
    difference_mask: Tensor
    pivot_w: Tensor
    noise: dict[str, Tensor]
    camera: Camera
    valid: Tensor | None = None
    coarse_planes: Tensor | None = None
    surface_depth: Tensor | None = None
    surface_trust: Tensor | None = None


@dataclass(frozen=True)
class CoarseConfig:
    """Knobs of coarse tuning and of the pseudo-views' cameras.

    Attributes:
        steps: Adam steps at most.
        learning_rate: Adam's learning rate, for all tuned weights.
        groups: parameter groups that are tuned: "mapping", "backbone", "decoder", "superresolution", or "all" but the
            mapping; see `Generator.tunable_parameters`.
        l2_weight, perceptual_weight: weights of squared and perceptual difference on the input view.
        stop_at: tuning ends when the perceptual distance falls to this; 0 = never.
        hold_weight: weight of depth and alpha held to the pivot's from one random pseudo-view a step; 0 = off (HFGI3D).
        hold_scale: depth difference, world units, from which the hold is linear.
        views: pseudo-views.
        rings: ellipses that they are spread over, evenly growing up to the outermost.
        yaw: degrees, half-width of the outermost ellipse.
        pitch_up, pitch_down: degrees, its extent above and below.
        centre: what the ellipses lie around: "input", the input camera, or "front", the front of the face.
        around: further pseudo-views all around the head, for generators of full heads; they hold what no pixel of the
            photo shows.
        depth_resolution: rays a side of the depth maps.
    """

    steps: Steps = 200
    learning_rate: LearningRate = 3e-4
    groups: tuple[str, ...] = ("all",)
    l2_weight: Weight = 1.0
    perceptual_weight: Weight = 1.0
    stop_at: Annotated[float, Range(0, 1000)] = 0.0
    hold_weight: Weight = 1.0
    hold_scale: Length = 0.01
    views: Annotated[int, Range(0, 1000)] = 24
    rings: Annotated[int, Range(1, 100)] = 2
    yaw: Turn = 40.0
    pitch_up: Tilt = 15.0
    pitch_down: Tilt = 15.0
    centre: Literal["input", "front"] = "input"
    around: Annotated[int, Range(0, 1000)] = 6
    depth_resolution: Annotated[int, Range(8, 2048)] = 128


@dataclass(frozen=True)
class CoarseOutputs:
    """coarse_state: tuned weights by name; pseudo_cameras: batch of P; depths and alphas at D² for the input view
    [1,1,D,D] and the pseudo-views [P,1,D,D]; view_renders [P,3,S,S] and input_render [1,3,S,S] of the coarse
    generator; depth_trusts [1+P,1,D,D] in [0,1], how sure the seed is of the depths, None = there is none."""

    coarse_state: dict[str, Tensor]
    pseudo_cameras: Camera
    input_depth: Tensor
    input_alpha: Tensor
    view_depths: Tensor
    view_alphas: Tensor
    view_renders: Tensor
    input_render: Tensor
    depth_trusts: Tensor | None = None


def pseudo_cameras(spec: GeneratorSpec, camera: Camera, config: CoarseConfig) -> Camera:
    """Cameras on ellipses in (yaw, pitch) around the input view or the front, and all around full heads.

    They keep the input camera's radius and intrinsics, so that a texel has the same size in all of them.
    """
    yaw0, pitch0 = (a.item() for a in camera.yaw_pitch(spec.pivot))
    radius = (camera.position - camera.position.new_tensor(spec.pivot)).norm(dim=1).item()
    if config.centre == "front":
        yaw0 = pitch0 = 0.0
    angles = []
    for ring in range(config.rings):
        count = config.views // config.rings + (ring < config.views % config.rings)
        for i in range(count):
            # every other ring is turned by half a step, so that views do not line up
            phase = 2 * math.pi * (i + 0.5 * (ring % 2)) / count
            scale = (ring + 1) / config.rings
            vertical = config.pitch_up if math.sin(phase) > 0 else config.pitch_down
            angles.append((config.yaw * math.cos(phase) * scale, vertical * math.sin(phase) * scale))
    if spec.full_head:
        first = config.yaw + (360 - 2 * config.yaw) / (2 * max(config.around, 1))
        angles += [
            (first + i * (360 - 2 * config.yaw) / config.around, -math.degrees(pitch0)) for i in range(config.around)
        ]
    yaw, pitch = torch.tensor(angles, dtype=torch.float32).reshape(-1, 2).deg2rad().unbind(1)
    # near the poles a camera has no up direction
    pitch = (pitch + pitch0).clamp(-1.2, 1.2)
    orbit = Camera.orbit(yaw + yaw0, pitch, radius, spec.pivot, spec.focal).to(camera.cam2world.device)
    return Camera(orbit.cam2world, camera.intrinsics.expand(len(orbit), 3, 3))


def coarse_losses(
    out: Render,
    original: Tensor,
    keep: Tensor,
    held: tuple[Tensor, Tensor] | None,
    config: CoarseConfig,
    perceptual: Perceptual,
) -> dict[str, Tensor]:
    """The weighted terms of one step, scalars.

    Args:
        out: the input view of the generator and, where anything is held, one more view.
        original: [1,3,S,S]; keep: [1,1,S,S], 1 where it is to be met.
        held: depth and alpha [1,1,r,r] of the pivot in that second view, None = nothing is held.
    """
    view = resize(out.image[:1], original.shape[-1])
    losses = {
        "l2": config.l2_weight * masked_l2(view, original, keep).mean(),
        "perceptual": config.perceptual_weight * perceptual(view, original, keep).mean(),
    }
    if held is not None:
        depth, alpha = held
        hold = depth_hold(out.depth[1:], depth, (alpha > 0.9).float(), config.hold_scale)
        losses["hold"] = config.hold_weight * (hold + alpha_hold(out.alpha[1:], alpha)).mean()
    return losses


def check(config: CoarseConfig, generator: Generator) -> None:
    """InputError where the generator does not have the parameter groups, or no pseudo-view is asked for."""
    check_groups(generator, config.groups, "coarse.groups")
    if not config.views + (config.around if generator.spec.full_head else 0):
        raise InputError("coarse.views and coarse.around are 0: without pseudo-views there is nothing to tune to")


def run(inputs: CoarseInputs, config: CoarseConfig, context: Context) -> CoarseOutputs:
    """Tunes a copy of the generator to the input view and renders the pseudo-views' images, depths and alphas."""
    size = inputs.original.shape[-1]
    generator = copy.deepcopy(context.generator)
    parameters = trainable(generator, config.groups)
    views = pseudo_cameras(generator.spec, inputs.camera, config)
    w, noise = inputs.pivot_w, inputs.noise
    fixed = {}
    if inputs.coarse_planes is not None:
        fixed = start_from_planes(generator, inputs.coarse_planes, w, noise)
    reference = render_views(generator, w, noise, views) if config.hold_weight and config.steps else None
    keep = 1.0 - inputs.difference_mask
    if inputs.valid is not None:
        keep = keep * inputs.valid

    seen: dict[str, Tensor] = {}

    def chosen(step: int) -> tuple[Tensor]:
        return (torch.randint(len(views), (1,), generator=context.rng),)

    def terms(which: Tensor) -> dict[str, Tensor]:
        cameras, held = inputs.camera, None
        if reference is not None:
            cameras = Camera.cat([cameras, views[which]])
            held = reference.depth[which], reference.alpha[which]
        out = generator.render(generator.planes(w, noise), w, cameras, pictures=1)
        seen["view"] = out.image.detach()
        return coarse_losses(out, inputs.original, keep, held, config, context.perceptual)

    def near_enough(values: Mapping[str, float]) -> bool:
        return values["perceptual"] <= config.stop_at * config.perceptual_weight

    # who is asked in every step keeps recorded steps waiting
    enough = near_enough if config.stop_at > 0 else never_enough
    groups = [Group(list(parameters.values()), config.learning_rate)]
    with context.following(config.steps, "coarse") as callback:
        optimise(
            groups,
            Drawn(chosen, terms),
            config.steps,
            enough=enough,
            after=lambda step: context.glimpse(seen["view"]),
            callback=callback,
            stop=context.stop,
            recorded=context.recorded,
        )
    state = snapshot({**parameters, **fixed})
    fine = render_views(generator, w, noise, Camera.cat([inputs.camera, views]), config.depth_resolution)
    images = render_views(generator, w, noise, Camera.cat([inputs.camera, views])).image
    images = resize(images, size)
    context.preview("input_render", images[:1])
    context.preview("views", images[1:])
    depths, trusts = fine.depth, None
    if inputs.surface_depth is not None and inputs.surface_trust is not None:
        cameras = Camera.cat([inputs.camera, views])
        depths, trusts = with_surface(
            fine.depth, fine.alpha, cameras, inputs.surface_depth, inputs.surface_trust, generator.spec.box
        )
    context.preview("input_depth", depth_picture(depths[:1], fine.alpha[:1]))
    return CoarseOutputs(
        state, views, depths[:1], fine.alpha[:1], depths[1:], fine.alpha[1:], images[1:], images[:1], trusts
    )


def with_surface(
    depths: Tensor, alphas: Tensor, cameras: Camera, surface: Tensor, trust: Tensor, box: float
) -> tuple[Tensor, Tensor]:
    """Depth maps of one head after a better surface was blended into what the first of its views sees.

    Args:
        depths, alphas: [V,1,D,D]; cameras: V, the first is the photo's.
        surface: [1,1,E,E] z-depth in the photo's view. trust: [1,1,E,E] in [0,1], against the depths that there are.
        box: side of the generator's box, world units.

    Returns: depths [V,1,D,D], and how sure each is, [V,1,D,D] in [0,1].
    """
    size = depths.shape[-1]
    surface, trust = (torch.nn.functional.interpolate(x, (size, size), mode="bilinear") for x in (surface, trust))
    edge = edge_step(cameras[0], size)
    front, solid = blend_surface(depths[:1], alphas[:1], surface, trust, edge), alphas[:1] > SOLID
    rest = carry_surface(front, (trust > 0) & solid, cameras[0], cameras[1:], depths[1:], alphas[1:], edge)
    source = SeenFrom(cameras[0], front, solid)
    trusts = carry_trust(trust, source, cameras[1:], rest, alphas[1:], _ONE_SURFACE * box)
    return torch.cat([front, rest]), torch.cat([trust * solid, trusts])


def depth_picture(depth: Tensor, alpha: Tensor) -> Tensor:
    """z-depth [N,1,D,D] as a mask-like picture in [0,1]: near is bright, empty is black."""
    solid = alpha > 0.5
    if not solid.any():
        return torch.zeros_like(depth)
    near, far = depth[solid].min(), depth[solid].max()
    return torch.where(solid, 1.0 - 0.9 * (depth - near) / (far - near).clamp_min(1e-6), torch.zeros_like(depth))
