"""09 retune: the edits put into the tuned generator, and everything else held where it is.

Two tunings that differ in an edit alone differ everywhere a little, and where no view sees well they differ visibly:
each takes its own path. So an edit never takes part in `tune`. Its tuning starts from the weights that `tune` found
without it, asks for the edit where the input view and the pseudo-views show it, and for the unedited head's own renders
everywhere else, also from sides between and behind the pseudo-views. A run's result so depends on its edits alone, not
on whether they came with the photo or later.
"""

import copy
import math
from dataclasses import dataclass, fields
from typing import Annotated

import torch
from torch import Tensor

from pmv.fitting.losses import alpha_hold, depth_hold, masked_mean
from pmv.fitting.optimise import Drawn, Ramp, optimise
from pmv.fitting.perceptual import Perceptual
from pmv.fitting.tuning import RandomOrder, check_groups, snapshot, tuned_groups
from pmv.generators.base import Generator, GeneratorSpec, Render
from pmv.generators.views import render_views
from pmv.geometry.camera import Camera
from pmv.geometry.scene import SeenFrom
from pmv.geometry.visibility import marked_surface
from pmv.pictures.images import resize
from pmv.pictures.masks import SOLID
from pmv.pipeline.context import Context
from pmv.pipeline.ranges import LearningRate, Length, Part, Range, Steps, Weight


@dataclass(frozen=True)
class RetuneInputs:
    """image [1,3,S,S] with edits; edit_mask [1,1,S,S]; camera: batch of 1; pivot_w [1,num_ws,w_dim]; noise;
    pseudo_cameras: batch of P; edited_views [P,3,S,S], None = there is no edit; warped_edit_masks [P,1,S,S];
    confidences [P] in [0,1]; unedited_state: tuned weights by name; valid [1,1,S,S], 0 in the photo's mirrored border,
    None = there is none."""

    image: Tensor
    edit_mask: Tensor
    camera: Camera
    pivot_w: Tensor
    noise: dict[str, Tensor]
    pseudo_cameras: Camera
    edited_views: Tensor | None
    warped_edit_masks: Tensor
    confidences: Tensor
    unedited_state: dict[str, Tensor]
    valid: Tensor | None = None


@dataclass(frozen=True)
class RetuneConfig:
    """Knobs of the tuning to edits.

    Attributes:
        steps: Adam steps that put the edits into the tuned generator; without edits there are none.
        learning_rate: Adam's learning rate, for all tuned weights.
        ramp_up, ramp_down: parts of the steps over which the rate rises linearly and falls as a half cosine; 0 =
            constant.
        groups: parameter groups that are tuned: "mapping", "backbone", "decoder", "superresolution", or "all" but the
            mapping; see `Generator.tunable_parameters`.
        residual_rate: learning rate of the residual of the tri-planes, in units of their standard deviation; 0 = it
            stays as it is.
        views_per_step: pseudo-views that show the edit, beside the input view in every step.
        held_views: views at random between the pseudo-views in which the unedited head is held, as it is in the
            pseudo-views that do not show the edit.
        held_per_step: of these, in every step.
        l2_weight, perceptual_weight: weights of squared and perceptual difference, in every view.
        edit_weight: added to the L2 weight of edited pixels.
        hold_weight: weight of depth and alpha held to the unedited head's; 0 = off.
        hold_scale: depth difference, world units, from which the hold is linear.
        tolerance: how far behind the edited surface, as a fraction of the generator's box, something is still taken for
            it, so that nothing holds it as it was where a pseudo-view does not show the edit.
    """

    steps: Steps = 250
    learning_rate: LearningRate = 3e-4
    ramp_up: Part = 0.1
    ramp_down: Part = 0.5
    groups: tuple[str, ...] = ("decoder", "superresolution")
    residual_rate: LearningRate = 0.01
    views_per_step: Annotated[int, Range(0, 1000)] = 2
    held_views: Annotated[int, Range(0, 1000)] = 12
    held_per_step: Annotated[int, Range(0, 1000)] = 1
    l2_weight: Weight = 10.0
    perceptual_weight: Weight = 1.0
    edit_weight: Weight = 4.0
    hold_weight: Weight = 1.0
    hold_scale: Length = 0.01
    tolerance: Part = 0.04


@dataclass(frozen=True)
class RetuneOutputs:
    """tuned_state: tuned weights by state-dict name, with the edits."""

    tuned_state: dict[str, Tensor]


@dataclass(frozen=True)
class RetuneTargets:
    """What is asked for from N cameras.

    Attributes:
        targets: [N,3,S,S].
        edits: [N,1,S,S] in [0,1], where a view shows the edit; rests: [N,1,S,S], what must stay.
        show: bool [N], which views show the edit; weights: [N], how far each is trusted.
        depths, alphas: [N,1,D,D] of the unedited head.
    """

    cameras: Camera
    targets: Tensor
    edits: Tensor
    rests: Tensor
    show: Tensor
    weights: Tensor
    depths: Tensor
    alphas: Tensor

    def __getitem__(self, which: Tensor) -> "RetuneTargets":
        return RetuneTargets(*(getattr(self, field.name)[which] for field in fields(self)))


def retune_losses(out: Render, asked: RetuneTargets, config: RetuneConfig, perceptual: Perceptual) -> dict[str, Tensor]:
    """The weighted terms of one step, scalars.

    Args:
        out: N views of the generator.
        asked: what they should be.
    """
    seen = resize(out.image, asked.targets.shape[-1])
    # means over the picture, so that a small edit keeps the balance of colour and perceptual distance
    difference = config.l2_weight * (seen - asked.targets) ** 2
    edit = asked.weights * masked_mean(difference * (1 + config.edit_weight) * asked.edits)
    known = torch.maximum(asked.edits, asked.rests)
    losses = {
        "edit": edit.mean(),
        "rest": masked_mean(difference * asked.rests).mean(),
        "perceptual": config.perceptual_weight * (asked.weights * perceptual(seen, asked.targets, known)).mean(),
    }
    if config.hold_weight:
        hold = depth_hold(out.depth, asked.depths, (asked.alphas > 0.9).float(), config.hold_scale)
        losses["hold"] = config.hold_weight * (hold + alpha_hold(out.alpha, asked.alphas)).mean()
    return losses


def check(config: RetuneConfig, generator: Generator) -> None:
    """InputError where the generator does not have the parameter groups."""
    check_groups(generator, config.groups, "retune.groups")


def run(inputs: RetuneInputs, config: RetuneConfig, context: Context) -> RetuneOutputs:
    """Tunes the tuned generator on; without edits its weights are returned as they are."""
    if inputs.edited_views is None:
        return RetuneOutputs(dict(inputs.unedited_state))
    size = inputs.image.shape[-1]
    generator = copy.deepcopy(context.generator)
    generator.load_tuned(inputs.unedited_state)
    w, noise = inputs.pivot_w, inputs.noise
    targets = _targets(generator, inputs, config, context)
    input_view, shows = torch.zeros(1, dtype=torch.long), targets.show[1:].cpu()
    showing = RandomOrder(shows.nonzero().flatten() + 1, context.rng)
    held = RandomOrder((~shows).nonzero().flatten() + 1, context.rng)
    parameters, groups = tuned_groups(generator, w, noise, config.groups, config.learning_rate, config.residual_rate)

    seen: dict[str, Tensor] = {}

    def chosen(step: int) -> tuple[Tensor]:
        return (torch.cat([input_view, showing.next(config.views_per_step), held.next(config.held_per_step)]),)

    def terms(which: Tensor) -> dict[str, Tensor]:
        asked = targets[which]
        out = generator.render(generator.planes(w, noise), w, asked.cameras)
        seen["view"] = out.image.detach()
        return retune_losses(out, asked, config, context.perceptual)

    ramp = Ramp(config.ramp_up, config.ramp_down)
    with context.following(config.steps, "retune") as callback:
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
    after = resize(render_views(generator, w, noise, targets.cameras).image, size)
    count = 1 + len(inputs.pseudo_cameras)
    context.preview("input_view", after[:1])
    context.preview("views", after[1:count])
    if len(after) > count:
        context.preview("held_views", after[count:])
    return RetuneOutputs({**inputs.unedited_state, **snapshot(parameters)})


def held_cameras(spec: GeneratorSpec, camera: Camera, views: Camera, count: int, rng: torch.Generator) -> Camera:
    """Cameras at random in the range of yaw and pitch that the pseudo-views span, on the input camera's sphere."""
    angles = zip(camera.yaw_pitch(spec.pivot), views.yaw_pitch(spec.pivot))
    yaws, pitches = (torch.cat(both) for both in angles)
    turns = torch.remainder(yaws - yaws[0] + math.pi, 2 * math.pi) - math.pi
    yaw, pitch = (
        low + (high - low) * torch.rand(count, generator=rng).to(low)
        for low, high in ((turns.min(), turns.max()), (pitches.min(), pitches.max()))
    )
    radius = (camera.position - camera.position.new_tensor(spec.pivot)).norm(dim=1).item()
    orbit = Camera.orbit(yaws[0] + yaw, pitch, radius, spec.pivot, spec.focal)
    return Camera(orbit.cam2world, camera.intrinsics.expand(count, 3, 3))


def _targets(generator: Generator, inputs: RetuneInputs, config: RetuneConfig, context: Context) -> RetuneTargets:
    """The input view, the pseudo-views and the held views, in this order."""
    assert inputs.edited_views is not None
    size, spec = inputs.image.shape[-1], generator.spec
    held = held_cameras(spec, inputs.camera, inputs.pseudo_cameras, config.held_views, context.rng)
    cameras = Camera.cat([inputs.camera, inputs.pseudo_cameras, held])
    before = render_views(generator, inputs.pivot_w, inputs.noise, cameras)
    solid = before.alpha > SOLID
    edit = inputs.edit_mask if inputs.valid is None else inputs.edit_mask * inputs.valid
    nothing = edit.new_zeros(len(held), 1, size, size)
    edits = torch.cat([edit, inputs.warped_edit_masks, nothing])
    pictures = torch.cat([inputs.image, inputs.edited_views, nothing.expand(-1, 3, -1, -1)])
    targets = torch.lerp(resize(before.image, size).clamp(-1, 1), pictures, edits)
    # where a view sees the edited surface, but not well enough to say how, it takes the edit from the others
    near = config.tolerance * spec.box
    seen = SeenFrom(cameras, before.depth, solid)
    reach = marked_surface(edit, source=seen[0], views=seen, tolerance=near)
    rests = 1 - torch.maximum(reach, edits)
    # a view that only holds counts fully
    weights = torch.cat([edit.new_ones(1), inputs.confidences, edit.new_ones(len(held))])
    show = (edits > SOLID).flatten(1).any(1)
    weights = torch.where(show, weights, torch.ones_like(weights))
    return RetuneTargets(cameras, targets, edits, rests, show, weights, before.depth, before.alpha)
