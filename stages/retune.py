"""09 retune: the edits put into the tuned generator, and everything else held where it is.

Two tunings that differ in an edit alone differ everywhere a little, and where no view sees well they differ visibly:
each takes its own path. So an edit never takes part in `tune`. Its tuning starts from the weights that `tune` found
without it, asks for the edit where the input view and the pseudo-views show it, and for the unedited head's own renders
everywhere else, also from sides between and behind the pseudo-views. A run's result so depends on its edits alone, not
on whether they came with the photo or later.
"""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pmv.camera import Camera
from pmv.generators.base import GeneratorSpec
from pmv.images import resize
from pmv.losses import alpha_hold, depth_hold, masked_l2
from pmv.masks import SOLID
from pmv.optimise import ramped_rate, render_views, set_rate, snapshot, tuner
from pmv.visibility import surface_mask
from stages.context import Context


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
        steps: Adam steps.
        learning_rate: of all tuned weights.
        ramp_up, ramp_down: parts of the steps over which the rate rises linearly and falls as a half cosine; 0 =
            constant.
        groups: parameter groups that are tuned; see `EG3DGenerator.tunable_parameters`.
        residual_rate: learning rate of the residual of the tri-planes, in units of their standard deviation; 0 = it
            stays as it is.
        views_per_step: pseudo-views that show the edit, beside the input view in every step.
        held_views: views at random between the pseudo-views in which the unedited head is held, as it is in the
            pseudo-views that do not show the edit.
        held_per_step: of these, in every step.
        l2_weight, perceptual_weight: on edit and rest of every view.
        rest_weight: of the L2 of all that is not edited against that of the edit, each a mean over its own pixels.
        hold_weight: of depth and alpha held to the unedited head's; 0 = off.
        hold_scale: depth difference, world units, from which the hold is linear.
        tolerance: depth difference, as a fraction of the generator's box, up to which a surface is taken for the edited
            one, so that nothing holds it as it was.
    """

    steps: int = 200
    learning_rate: float = 3e-4
    ramp_up: float = 0.02
    ramp_down: float = 0.25
    groups: tuple[str, ...] = ("all",)
    residual_rate: float = 0.01
    views_per_step: int = 2
    held_views: int = 12
    held_per_step: int = 1
    l2_weight: float = 10.0
    perceptual_weight: float = 1.0
    rest_weight: float = 1.0
    hold_weight: float = 1.0
    hold_scale: float = 0.01
    tolerance: float = 0.04


@dataclass(frozen=True)
class RetuneOutputs:
    """tuned_state: tuned weights by state-dict name, with the edits."""

    tuned_state: dict[str, Tensor]


@dataclass(frozen=True)
class _Views:
    """What is asked for from N cameras: targets [N,3,S,S]; edits [N,1,S,S], where a view shows the edit; rests
    [N,1,S,S], what must stay; depths, alphas [N,1,D,D] of the unedited head."""

    cameras: Camera
    targets: Tensor
    edits: Tensor
    rests: Tensor
    depths: Tensor
    alphas: Tensor


def run(inputs: RetuneInputs, config: RetuneConfig, context: Context) -> RetuneOutputs:
    """Tunes the tuned generator on; without edits its weights are returned as they are."""
    if inputs.edited_views is None:
        return RetuneOutputs(dict(inputs.unedited_state))
    size = inputs.image.shape[-1]
    generator = copy.deepcopy(context.generator)
    generator.load_tuned(inputs.unedited_state)
    w, noise = inputs.pivot_w, inputs.noise
    views = _views(generator, inputs, config, context)
    weights = torch.ones(len(views.targets)).to(inputs.confidences)
    weights[1 : 1 + len(inputs.confidences)] = inputs.confidences
    shows = views.edits.flatten(1).any(1)
    showing = _Order(shows[1:].nonzero().flatten() + 1, context.rng)
    held = _Order((~shows[1:]).nonzero().flatten() + 1, context.rng)
    parameters, optimizer = tuner(generator, w, noise, config.groups, config.learning_rate, config.residual_rate)
    with context.progress(config.steps, "retune") as bar:
        for step in range(config.steps):
            set_rate(optimizer, ramped_rate(step, config.steps, config.ramp_up, config.ramp_down))
            chosen = [torch.zeros(1, dtype=torch.long), showing.next(config.views_per_step)]
            which = torch.cat([*chosen, held.next(config.held_per_step)])
            out = generator.render(generator.planes(w, noise), w, views.cameras[which])
            seen, target, edit, rest = resize(out.image, size), views.targets[which], views.edits[which], views.rests[which]
            known = torch.maximum(edit, rest)
            losses = {
                "edit": config.l2_weight * (weights[which] * masked_l2(seen, target, edit)).mean(),
                "rest": config.l2_weight * config.rest_weight * masked_l2(seen, target, rest).mean(),
                "perceptual": config.perceptual_weight
                * (weights[which] * context.perceptual(seen, target, known)).mean(),
            }
            if config.hold_weight:
                depth, alpha = views.depths[which], views.alphas[which]
                hold = depth_hold(out.depth, depth, (alpha > 0.9).float(), config.hold_scale)
                losses["hold"] = config.hold_weight * (hold + alpha_hold(out.alpha, alpha)).mean()
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
            values = {name: value.item() for name, value in losses.items()}
            context.record(step=step, **values)
            bar.set_postfix(**{name: f"{value:.3f}" for name, value in values.items()})
            bar.update(1)
    generator.requires_grad_(False)
    after = resize(render_views(generator, w, noise, views.cameras).image, size)
    count = 1 + len(inputs.pseudo_cameras)
    context.preview("input_view", after[:1])
    context.preview("views", after[1:count])
    context.preview("held_views", after[count:])
    return RetuneOutputs({**inputs.unedited_state, **snapshot(parameters)})


class _Order:
    """Indices in random order, every one once before any twice."""

    def __init__(self, indices: Tensor, rng: torch.Generator) -> None:
        self.indices, self.rng = indices.cpu(), rng
        self.left = torch.empty(0, dtype=torch.long)

    def next(self, count: int) -> Tensor:
        """The next `count` of them, or as many as there are."""
        count = min(count, len(self.indices))
        if len(self.left) < count:
            self.left = torch.cat([self.left, self.indices[torch.randperm(len(self.indices), generator=self.rng)]])
        chosen, self.left = self.left[:count], self.left[count:]
        return chosen


def held_cameras(spec: GeneratorSpec, camera: Camera, views: Camera, count: int, rng: torch.Generator) -> Camera:
    """Cameras at random in the range of yaw and pitch that the pseudo-views span, on the input camera's sphere."""
    yaws, pitches = (torch.cat(angles) for angles in zip(camera.yaw_pitch(spec.pivot), views.yaw_pitch(spec.pivot)))
    turns = torch.remainder(yaws - yaws[0] + math.pi, 2 * math.pi) - math.pi
    yaw, pitch = (
        low + (high - low) * torch.rand(count, generator=rng).to(low)
        for low, high in ((turns.min(), turns.max()), (pitches.min(), pitches.max()))
    )
    radius = (camera.position - camera.position.new_tensor(spec.pivot)).norm(dim=1).item()
    orbit = Camera.orbit(yaws[0] + yaw, pitch, radius, spec.pivot)
    return Camera(orbit.cam2world.to(camera.cam2world), camera.intrinsics.expand(count, 3, 3))


def _views(generator, inputs: RetuneInputs, config: RetuneConfig, context: Context) -> _Views:
    """The input view, the pseudo-views and the held views, in this order."""
    assert inputs.edited_views is not None
    size, spec = inputs.image.shape[-1], generator.spec
    held = held_cameras(spec, inputs.camera, inputs.pseudo_cameras, config.held_views, context.rng)
    cameras = Camera.cat([inputs.camera, inputs.pseudo_cameras, held])
    before = render_views(generator, inputs.pivot_w, inputs.noise, cameras)
    edit = inputs.edit_mask if inputs.valid is None else inputs.edit_mask * inputs.valid
    none = edit.new_zeros(len(held), 1, size, size)
    edits = torch.cat([edit, inputs.warped_edit_masks, none])
    pictures = torch.cat([inputs.image, inputs.edited_views, none.expand(-1, 3, -1, -1)])
    # where the edited surface is seen, but not well enough to say how, it takes the edit from the other views
    surface = before.depth[:1], before.alpha[:1] > SOLID
    reach = surface_mask(
        edit, inputs.camera, *surface, cameras, before.depth, before.alpha > SOLID, config.tolerance * spec.box
    )
    reach[:1] = edit
    targets = torch.lerp(resize(before.image, size).clamp(-1, 1), pictures, edits)
    return _Views(cameras, targets, edits, 1 - torch.maximum(reach, edits), before.depth, before.alpha)
