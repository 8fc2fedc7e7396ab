"""08 tune: a fresh generator tuned to the input view and the pseudo-views at once, around the fixed pivot, all without
edits, which `retune` adds.

Pivotal tuning (Roich et al. 2021, arXiv:2106.05744) made multi-view (HFGI3D §3.3). Several views a step come from one
pass of the backbone. Visible and occluded parts of a pseudo-view carry separate weights (HFGI3D eq. 7), scaled by its
confidence. The geometry is held to the coarse geometry, because overfitting one view damages geometry.
"""

import copy
from dataclasses import dataclass, fields
from typing import Annotated

import torch
from torch import Tensor

from pmv.fitting.losses import alpha_hold, depth_hold, masked_l2
from pmv.fitting.optimise import Drawn, Ramp, optimise
from pmv.fitting.perceptual import Perceptual
from pmv.fitting.tuning import RandomOrder, check_groups, snapshot, start_from_planes, tuned_groups
from pmv.generators.base import Generator, GeneratorSpec, Render
from pmv.generators.views import render_views
from pmv.geometry.camera import Camera
from pmv.pictures.images import resize
from pmv.pipeline.context import Context
from pmv.pipeline.ranges import LearningRate, Length, Part, Range, Steps, Weight


@dataclass(frozen=True)
class TuneInputs:
    """original [1,3,S,S]; foreground [1,1,S,S]; camera: batch of 1; pivot_w [1,num_ws,w_dim]; noise;
    pseudo_cameras: batch of P; pseudo_views [P,3,S,S]; blend_masks [P,1,S,S], 1 = the photo's own texel; view_depths,
    view_alphas [P,1,D,D], input_depth, input_alpha [1,1,D,D] of the coarse geometry; confidences [P] in [0,1]; valid
    [1,1,S,S], 0 in the photo's mirrored border, None = there is none. From the seed, None = nothing: depth_trusts
    [1+P,1,D,D] in [0,1], how sure the depths are; filled_depths, filled_alphas [P,1,D,D], the geometry of the
    pseudo-views where it is not the coarse one; residual_planes, in which tuning starts."""

    original: Tensor
    foreground: Tensor
    camera: Camera
    pivot_w: Tensor
    noise: dict[str, Tensor]
    pseudo_cameras: Camera
    pseudo_views: Tensor
    blend_masks: Tensor
    view_alphas: Tensor
    view_depths: Tensor
    input_depth: Tensor
    input_alpha: Tensor
    confidences: Tensor
    valid: Tensor | None = None
    depth_trusts: Tensor | None = None
    filled_depths: Tensor | None = None
    filled_alphas: Tensor | None = None
    residual_planes: Tensor | None = None


@dataclass(frozen=True)
class TuneConfig:
    """Knobs of the multi-view tuning.

    Attributes:
        steps: Adam steps.
        learning_rate: Adam's learning rate, for all tuned weights.
        ramp_up, ramp_down: parts of the steps over which the rate rises linearly and falls as a half cosine; 0 =
            constant.
        groups: parameter groups that are tuned: "mapping", "backbone", "decoder", "superresolution", or "all" but the
            mapping; see `Generator.tunable_parameters`.
        residual_rate: learning rate of a residual of the tri-planes themselves, in units of their standard deviation;
            0 = no residual (HFGI3D).
        views_per_step: pseudo-views beside the input view in every step; they share one backbone pass.
        l2_weight, perceptual_weight: weights of squared and perceptual difference, in the input view and the
            pseudo-views.
        foreground_weight: how much a foreground pixel of the input view counts against a background pixel in the L2.
        view_weight: weight of all pseudo-views against the input view.
        visible_weight, occluded_weight: weights of L2 where a pseudo-view shows the photo's texels, and where it is
            filled in.
        hold_weight: weight of depth and alpha held to the coarse geometry, in the input view alpha to the photo's
            foreground; 0 = off (HFGI3D).
        hold_trusted: weight of depth held once more where the seed is sure of it.
        hold_scale: depth difference, world units, from which the hold is linear.
    """

    steps: Steps = 500
    learning_rate: LearningRate = 3e-4
    ramp_up: Part = 0.02
    ramp_down: Part = 0.25
    groups: tuple[str, ...] = ("all",)
    residual_rate: LearningRate = 0.01
    views_per_step: Annotated[int, Range(0, 1000)] = 2
    l2_weight: Weight = 10.0
    perceptual_weight: Weight = 1.0
    foreground_weight: Weight = 4.0
    view_weight: Weight = 1.0
    visible_weight: Weight = 1.0
    occluded_weight: Weight = 0.5
    hold_weight: Weight = 1.0
    hold_trusted: Weight = 1.0
    hold_scale: Length = 0.01


@dataclass(frozen=True)
class TuneOutputs:
    """unedited_state: tuned weights by state-dict name."""

    unedited_state: dict[str, Tensor]


@dataclass(frozen=True)
class TuneTargets:
    """What is asked for from N cameras, of which the first is the input view's.

    Attributes:
        pictures: [N,3,S,S]; weights: [N,1,S,S] of their squared difference.
        confidences: [N] in [0,1]; of the input view, which is always trusted, it is not asked.
        depths, alphas: [N,1,r,r] of the coarse geometry at the rays' resolution; outlines: alpha that is held to.
        trusts: [N,1,r,r] in [0,1], how sure the seed is of the depths; None = there is no seed.
    """

    cameras: Camera
    pictures: Tensor
    weights: Tensor
    confidences: Tensor
    depths: Tensor
    alphas: Tensor
    outlines: Tensor
    trusts: Tensor | None = None

    def __getitem__(self, which: Tensor) -> "TuneTargets":
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return TuneTargets(**{name: value[which] for name, value in given.items() if value is not None})


def tune_targets(inputs: TuneInputs, config: TuneConfig, spec: GeneratorSpec) -> TuneTargets:
    """The input view and the P pseudo-views, in this order, with weight, trust and geometry for each."""
    view_depths = inputs.view_depths if inputs.filled_depths is None else inputs.filled_depths
    view_alphas = inputs.view_alphas if inputs.filled_alphas is None else inputs.filled_alphas
    depths = torch.cat([inputs.input_depth, view_depths])
    alphas = torch.cat([inputs.input_alpha, view_alphas])
    resolution = spec.neural_resolution
    depths, alphas = _downsized(depths, alphas, resolution)
    trusts = inputs.depth_trusts
    if trusts is not None:
        trusts = torch.nn.functional.adaptive_avg_pool2d(trusts, resolution)
    outlines = alphas
    if spec.has_alpha:
        # the photo knows its own outline better than the coarse geometry does: long hair, a beard, a hat
        foreground = torch.nn.functional.interpolate(inputs.foreground, (resolution, resolution), mode="area")
        if inputs.valid is not None:
            known = torch.nn.functional.interpolate(inputs.valid, (resolution, resolution), mode="area")
            foreground = torch.lerp(alphas[:1], foreground, known)
        outlines = torch.cat([foreground, alphas[1:]])
    input_weight = 1.0 + (config.foreground_weight - 1.0) * inputs.foreground
    if inputs.valid is not None:
        input_weight = input_weight * inputs.valid
    view_weight = config.occluded_weight + (config.visible_weight - config.occluded_weight) * inputs.blend_masks
    return TuneTargets(
        Camera.cat([inputs.camera, inputs.pseudo_cameras]),
        torch.cat([inputs.original, inputs.pseudo_views]),
        torch.cat([input_weight, view_weight]),
        torch.cat([inputs.confidences.new_ones(1), inputs.confidences]),
        depths,
        alphas,
        outlines,
        trusts,
    )


def tune_losses(
    out: Render, asked: TuneTargets, valid: Tensor | None, config: TuneConfig, perceptual: Perceptual
) -> dict[str, Tensor]:
    """The weighted terms of one step (HFGI3D eq. 7, and the hold of the geometry), scalars.

    Args:
        out: N views of the generator, the first from the input camera.
        asked: what they should be.
        valid: [1,1,S,S] of the input view, None = it is valid everywhere.
    """
    views = resize(out.image, asked.pictures.shape[-1])
    first, rest = asked.pictures[:1], asked.pictures[1:]
    losses = {
        "l2": config.l2_weight * masked_l2(views[:1], first, asked.weights[:1]).mean(),
        "perceptual": config.perceptual_weight * perceptual(views[:1], first, valid).mean(),
    }
    if len(rest):
        distance = config.l2_weight * masked_l2(views[1:], rest, asked.weights[1:])
        distance = distance + config.perceptual_weight * perceptual(views[1:], rest)
        losses["views"] = config.view_weight * (asked.confidences[1:] * distance).mean()
    if config.hold_weight:
        hold = depth_hold(out.depth, asked.depths, (asked.alphas > 0.9).float(), config.hold_scale)
        losses["hold"] = config.hold_weight * (hold + alpha_hold(out.alpha, asked.outlines)).mean()
    if asked.trusts is not None and config.hold_trusted:
        sure = depth_hold(out.depth, asked.depths, asked.trusts, config.hold_scale)
        losses["trusted"] = config.hold_trusted * sure.mean()
    return losses


def check(config: TuneConfig, generator: Generator) -> None:
    """InputError where the generator does not have the parameter groups."""
    check_groups(generator, config.groups, "tune.groups")


def run(inputs: TuneInputs, config: TuneConfig, context: Context) -> TuneOutputs:
    """Tunes a fresh copy of the generator; the pivot, the noise and the cameras stay as they are."""
    generator = copy.deepcopy(context.generator)
    w, noise = inputs.pivot_w, inputs.noise
    fixed = {}
    if inputs.residual_planes is not None:
        fixed = start_from_planes(generator, inputs.residual_planes, w, noise)
    parameters, groups = tuned_groups(generator, w, noise, config.groups, config.learning_rate, config.residual_rate)
    targets = tune_targets(inputs, config, generator.spec)
    input_view = torch.zeros(1, dtype=torch.long)
    order = RandomOrder(torch.arange(1, len(targets.cameras)), context.rng)

    seen: dict[str, Tensor] = {}

    def chosen(step: int) -> tuple[Tensor]:
        return (torch.cat([input_view, order.next(config.views_per_step)]),)

    def terms(which: Tensor) -> dict[str, Tensor]:
        asked = targets[which]
        out = generator.render(generator.planes(w, noise), w, asked.cameras)
        seen["view"] = out.image.detach()
        return tune_losses(out, asked, inputs.valid, config, context.perceptual)

    ramp = Ramp(config.ramp_up, config.ramp_down)
    with context.following(config.steps, "tune") as callback:
        optimise(
            groups,
            Drawn(chosen, terms),
            config.steps,
            ramp=ramp,
            after=lambda step: context.glimpse(seen["view"]),
            callback=callback,
            stop=context.stop,
            recorded=context.recorded,
        )
    generator.requires_grad_(False)
    views = resize(render_views(generator, w, noise, targets.cameras).image, inputs.original.shape[-1])
    context.preview("input_view", views[:1])
    context.preview("views", views[1:])
    return TuneOutputs(snapshot({**fixed, **parameters}))


def _downsized(depths: Tensor, alphas: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Depth [N,1,D,D] averaged with alpha as weight, and alpha, at the rays' resolution: empty pixels must not pull
    depth."""
    if depths.shape[-1] == resolution:
        return depths, alphas
    small = torch.nn.functional.adaptive_avg_pool2d(alphas, resolution)
    weighted = torch.nn.functional.adaptive_avg_pool2d(depths * alphas, resolution)
    return weighted / small.clamp_min(1e-6), small
