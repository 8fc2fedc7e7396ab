"""08 tune: a fresh generator tuned to the input view and the pseudo-views at once, around the fixed pivot, all without
edits, which `retune` adds.

Pivotal tuning (Roich et al. 2021, arXiv:2106.05744) made multi-view (HFGI3D §3.3). Several views a step come from one
pass of the backbone. Visible and occluded parts of a pseudo-view carry separate weights (HFGI3D eq. 7), scaled by its
confidence. The geometry is held to the coarse geometry, because overfitting one view damages geometry.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from pmv.fitting.losses import alpha_hold, depth_hold, masked_l2
from pmv.fitting.optimise import ramped_rate, render_views, set_rate, snapshot, tuner
from pmv.geometry.camera import Camera
from pmv.pictures.images import resize
from pmv.pipeline.context import Context


@dataclass(frozen=True)
class TuneInputs:
    """original [1,3,S,S]; foreground [1,1,S,S]; camera: batch of 1; pivot_w [1,num_ws,w_dim]; noise;
    pseudo_cameras: batch of P; pseudo_views [P,3,S,S]; blend_masks [P,1,S,S], 1 = the photo's own texel; view_depths,
    view_alphas [P,1,D,D], input_depth, input_alpha [1,1,D,D] of the coarse geometry; confidences [P] in [0,1]; valid
    [1,1,S,S], 0 in the photo's mirrored border, None = there is none."""

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


@dataclass(frozen=True)
class TuneConfig:
    """Knobs of the multi-view tuning.

    Attributes:
        steps: Adam steps.
        learning_rate: of all tuned weights.
        ramp_up, ramp_down: parts of the steps over which the rate rises linearly and falls as a half cosine; 0 =
            constant.
        groups: parameter groups that are tuned; see `EG3DGenerator.tunable_parameters`.
        residual_rate: learning rate of a residual of the tri-planes themselves, in units of their standard deviation;
            0 = no residual (HFGI3D).
        views_per_step: pseudo-views beside the input view in every step; they share one backbone pass.
        l2_weight, perceptual_weight: on the input view.
        foreground_weight: how much a foreground pixel of the input view counts against a background pixel in the L2.
        view_weight: of all pseudo-views against the input view.
        visible_weight, occluded_weight: of L2 where a pseudo-view shows the photo's texels, and where it is filled in.
        hold_weight: of depth and alpha held to the coarse geometry, in the input view alpha to the photo's foreground;
            0 = off (HFGI3D).
        hold_scale: depth difference, world units, from which the hold is linear.
    """

    steps: int = 500
    learning_rate: float = 3e-4
    ramp_up: float = 0.02
    ramp_down: float = 0.25
    groups: tuple[str, ...] = ("all",)
    residual_rate: float = 0.01
    views_per_step: int = 2
    l2_weight: float = 10.0
    perceptual_weight: float = 1.0
    foreground_weight: float = 4.0
    view_weight: float = 1.0
    visible_weight: float = 1.0
    occluded_weight: float = 0.5
    hold_weight: float = 1.0
    hold_scale: float = 0.01


@dataclass(frozen=True)
class TuneOutputs:
    """unedited_state: tuned weights by state-dict name."""

    unedited_state: dict[str, Tensor]


def run(inputs: TuneInputs, config: TuneConfig, context: Context) -> TuneOutputs:
    """Tunes a fresh copy of the generator; the pivot, the noise and the cameras stay as they are."""
    size, count = inputs.original.shape[-1], len(inputs.pseudo_cameras)
    generator = copy.deepcopy(context.generator)
    w, noise = inputs.pivot_w, inputs.noise
    parameters, optimizer = tuner(generator, w, noise, config.groups, config.learning_rate, config.residual_rate)
    resolution = generator.spec.neural_resolution
    depths = torch.cat([inputs.input_depth, inputs.view_depths])
    alphas = torch.cat([inputs.input_alpha, inputs.view_alphas])
    depths, alphas = _downsized(depths, alphas, resolution)
    outlines = alphas
    if generator.spec.has_alpha:
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
    order = torch.empty(0, dtype=torch.long)
    with context.progress(config.steps, "tune") as bar:
        for step in range(config.steps):
            set_rate(optimizer, ramped_rate(step, config.steps, config.ramp_up, config.ramp_down))
            if len(order) < config.views_per_step:  # every view once before any twice
                order = torch.cat([order, torch.randperm(count, generator=context.rng)])
            chosen, order = order[: config.views_per_step], order[config.views_per_step :]
            cameras = Camera.cat([inputs.camera, inputs.pseudo_cameras[chosen]])
            out = generator.render(generator.planes(w, noise), w, cameras)
            views = resize(out.image, size)
            losses = {
                "l2": config.l2_weight * masked_l2(views[:1], inputs.original, input_weight).mean(),
                "perceptual": config.perceptual_weight
                * context.perceptual(views[:1], inputs.original, inputs.valid).mean(),
            }
            if len(chosen):
                target, confidence = inputs.pseudo_views[chosen], inputs.confidences[chosen]
                distance = config.l2_weight * masked_l2(views[1:], target, view_weight[chosen])
                distance = distance + config.perceptual_weight * context.perceptual(views[1:], target)
                losses["views"] = config.view_weight * (confidence * distance).mean()
            if config.hold_weight:
                which = torch.cat([torch.zeros(1, dtype=torch.long), chosen + 1])
                hold = depth_hold(out.depth, depths[which], (alphas[which] > 0.9).float(), config.hold_scale)
                losses["hold"] = config.hold_weight * (hold + alpha_hold(out.alpha, outlines[which])).mean()
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
            values = {name: value.item() for name, value in losses.items()}
            context.record(step=step, **values)
            bar.set_postfix(**{name: f"{value:.3f}" for name, value in values.items()})
            bar.update(1)
    generator.requires_grad_(False)
    views = render_views(generator, w, noise, Camera.cat([inputs.camera, inputs.pseudo_cameras])).image
    context.preview("input_view", resize(views[:1], size))
    context.preview("views", resize(views[1:], size))
    return TuneOutputs(snapshot(parameters))


def _downsized(depths: Tensor, alphas: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Depth [N,1,D,D] averaged with alpha as weight, and alpha, at the rays' resolution: empty pixels must not pull
    depth."""
    if depths.shape[-1] == resolution:
        return depths, alphas
    small = torch.nn.functional.adaptive_avg_pool2d(alphas, resolution)
    weighted = torch.nn.functional.adaptive_avg_pool2d(depths * alphas, resolution)
    return weighted / small.clamp_min(1e-6), small
