"""02 latent: the point of the generator's latent space whose render is closest to the photo, and the photo's camera.

W+ optimisation from the mean latent with noise that fades (StyleGAN2's projector, arXiv:1912.04958 §5.3; HFGI3D's
schedule), with three additions that each can be switched off: the camera is refined together with the latent; the
silhouette is fitted through alpha; and what the generator cannot draw (the *difference mask*: tattoos, hands, glasses)
stops pulling at the latent and, in the next stage, at the geometry. The user may know better and say it with a mask.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor

from pmv.errors import InputError
from pmv.fitting.losses import masked_l2, noise_regulariser, w_distance
from pmv.fitting.optimise import Drawn, Group, Ramp, optimise
from pmv.fitting.perceptual import Perceptual
from pmv.generators.base import Render
from pmv.geometry.camera import Camera
from pmv.pictures.images import resize
from pmv.pictures.masks import erode
from pmv.pipeline.context import Context
from pmv.pipeline.ranges import LearningRate, Length, Part, Range, Steps, Weight

log = logging.getLogger("pmv")

_MOST_MARKED = 0.7
"""Part of the head that a mask of what the generator cannot draw may take from the fit."""


@dataclass(frozen=True)
class LatentInputs:
    """original [1,3,S,S] without edits; foreground [1,1,S,S]; initial_camera: batch of 1; photo_ood_mask
    [1,1,S,S] in [0,1], 1 = out of distribution, or None = find it; valid [1,1,S,S], 0 in the photo's mirrored border,
    None = there is none; camera_confidence in (0,1]; start_w [1,num_ws,w_dim] and start_camera, batch of 1: where to
    start from, None = from the mean latent and the initial camera."""

    original: Tensor
    foreground: Tensor
    initial_camera: Camera
    photo_ood_mask: Tensor | None = None
    valid: Tensor | None = None
    camera_confidence: float = 1.0
    start_w: Tensor | None = None
    start_camera: Camera | None = None


@dataclass(frozen=True)
class LatentConfig:
    """Knobs of the latent fit.

    Attributes:
        steps: Adam steps.
        learning_rate: Adam's learning rate, for w and noise.
        ramp_up, ramp_down: parts of the steps over which the rate rises linearly and falls as a half cosine.
        mean_samples: latents whose mean is the start, where there is no other.
        w_noise: standard deviation of noise added to w, in units of w's own spread, at the first step.
        w_noise_until: part of the steps over which that noise fades to zero (quadratically).
        w_plus_from: part of the steps after which every row of w is free; before, all rows move as one. A start from
            elsewhere has rows of its own, which are free at once.
        l2_weight, perceptual_weight: weights of squared and perceptual difference on the input view.
        alpha_weight: weight of the silhouette against the foreground mask; used only by generators whose subject stands
            alone.
        w_distance_weight: weight of what pulls the rows of w together (keeps unseen sides plausible).
        optimise_noise: fit the synthesis noise maps too.
        noise_weight: weight of the regulariser that keeps them noise.
        camera_rate: learning rate of the camera, relative to `learning_rate`; 0 keeps the given camera.
        camera_prior_degrees: the camera's turn is penalised as a Gaussian of this standard deviation, degrees.
        camera_prior_shift: as above for its shift, in world units.
        camera_prior_widen: both are wider by this, times one minus the confidence in the camera that prepare found.
        camera_weight: weight of that penalty.
        difference_from: part of the steps after which pixels that cannot be fitted are left out; 1 = never. A user's
            mask holds from the first step.
        difference_threshold: smallest smoothed absolute difference, image units [-1,1], that counts as out of
            distribution.
        difference_most: at most this part of the foreground is taken as out of distribution.
    """

    steps: Steps = 500
    learning_rate: LearningRate = 0.01
    ramp_up: Part = 0.05
    ramp_down: Part = 0.25
    mean_samples: Annotated[int, Range(2, 1_000_000)] = 600
    w_noise: Annotated[float, Range(0, 10)] = 0.05
    w_noise_until: Part = 0.75
    w_plus_from: Part = 0.2
    l2_weight: Weight = 1.0
    perceptual_weight: Weight = 1.0
    alpha_weight: Weight = 0.5
    w_distance_weight: Weight = 0.05
    optimise_noise: bool = False
    noise_weight: Weight = 1e5
    camera_rate: Annotated[float, Range(0, 1000)] = 0.5
    camera_prior_degrees: Annotated[float, Range(0, 180, above=True)] = 3.0
    camera_prior_shift: Length = 0.02
    camera_prior_widen: Annotated[float, Range(0, 100)] = 2.0
    camera_weight: Weight = 0.02
    difference_from: Part = 0.6
    difference_threshold: Annotated[float, Range(0, 2)] = 0.4
    difference_most: Part = 0.15


@dataclass(frozen=True)
class LatentOutputs:
    """pivot_w [1,num_ws,w_dim]; noise: name → [R,R]; camera: refined, batch of 1; difference_mask [1,1,S,S], 1 = out
    of distribution; out_of_distribution: that part of the head."""

    pivot_w: Tensor
    noise: dict[str, Tensor]
    camera: Camera
    difference_mask: Tensor
    out_of_distribution: float


def find_difference(render: Tensor, image: Tensor, foreground: Tensor, threshold: float, most: float) -> Tensor:
    """Where a render cannot be the image: HFGI3D's difference map, which its released code never reads.

    Args:
        render, image: [1,3,S,S].
        foreground: [1,1,S,S].
        threshold: smallest smoothed absolute difference that counts.
        most: only the worst part of the foreground, at most this large, is taken.

    Returns: [1,1,S,S] of zeros and ones.
    """
    size = image.shape[-1]
    sigma = max(size * 0.012, 0.5)
    kernel = 2 * max(1, round(2 * sigma)) + 1
    difference = gaussian_blur2d((render - image).abs().mean(1, keepdim=True), (kernel, kernel), (sigma, sigma))
    inside = foreground > 0.5
    if not inside.any():
        return torch.zeros_like(foreground)
    level = max(threshold, torch.quantile(difference[inside], 1.0 - most).item())
    return ((difference > level) & inside).float()


def check_ood_mask(mask: Tensor, size: int) -> None:
    """Refuse a mask [1,1,h,w] that is not in the frame of the aligned picture, or that leaves nothing to fit.

    Args:
        size: S of the aligned picture.

    Raises:
        InputError: says how to mend it.
    """
    height, width = mask.shape[-2:]
    if (height, width) != (size, size):
        raise InputError(
            f"the --ood-mask is {width}×{height} pixels; make it {size}×{size}, painted over the run's "
            "02_latent/out_of_distribution.png"
        )
    if mask.min() > 0.5:
        raise InputError("the --ood-mask covers the whole picture; paint white only what the generator cannot draw")


def check_ood_share(mask: Tensor, foreground: Tensor) -> None:
    """Refuse a mask [1,1,S,S] that takes most of the head away from the fit, and warn of one that takes nothing.

    Args:
        foreground: [1,1,S,S].

    Raises:
        InputError: says how to mend it.
    """
    inside, marked = foreground > 0.5, mask > 0.5
    share = float((marked & inside).sum() / inside.sum().clamp_min(1))
    if share > _MOST_MARKED:
        raise InputError(
            f"the --ood-mask covers {100 * share:.0f} % of the head: is it inverted? Paint white only what the "
            "generator cannot draw"
        )
    if marked.any() and share == 0:
        log.warning("latent: the --ood-mask marks nothing of the head; is it of another picture?")


def show_difference(image: Tensor, difference: Tensor) -> Tensor:
    """An image [1,3,S,S] in which what is out of distribution, a mask [1,1,S,S], is tinted and outlined in magenta."""
    magenta = image.new_tensor([1.0, -1.0, 1.0])[:, None, None]
    tinted = torch.lerp(image, magenta, 0.35 * difference)
    outline = difference - erode(difference, 1.5 / image.shape[-1])
    return torch.lerp(tinted, magenta, outline)


@dataclass(frozen=True)
class LatentTarget:
    """What the input view should be, and where latent and camera are expected.

    Attributes:
        image: [1,3,S,S].
        keep: [1,1,S,S], 1 where the generator can draw it; valid: [1,1,S,S], 0 in the photo's mirrored border.
        silhouette: [1,1,S,S] that alpha should be, None = the generator's alpha is none.
        spread: standard deviation of w's entries.
        reach: how much wider than configured the prior of the camera is, ≥ 1.
    """

    image: Tensor
    keep: Tensor
    valid: Tensor
    silhouette: Tensor | None
    spread: float
    reach: float = 1.0


@dataclass(frozen=True)
class Guess:
    """What is fitted, as it is now.

    Attributes:
        w: [1,num_ws,w_dim], without the noise that a step adds to it.
        noise: maps by name.
        turn: [3] axis-angle vector in radians; shift: [3] world units: the camera's way so far, see
            `Camera.adjusted`.
    """

    w: Tensor
    noise: Mapping[str, Tensor]
    turn: Tensor
    shift: Tensor


def latent_losses(
    out: Render, guess: Guess, target: LatentTarget, config: LatentConfig, perceptual: Perceptual
) -> dict[str, Tensor]:
    """The weighted terms of one step, scalars; which there are depends on the config and on the target.

    Args:
        out: the input view.
    """
    size = target.image.shape[-1]
    view = resize(out.image, size)
    losses = {
        "l2": config.l2_weight * masked_l2(view, target.image, target.keep).mean(),
        "perceptual": config.perceptual_weight * perceptual(view, target.image, target.keep).mean(),
        "w_distance": config.w_distance_weight * w_distance(guess.w).mean() / target.spread**2,
    }
    if target.silhouette is not None and config.alpha_weight:
        alpha = resize(out.alpha, size)
        losses["alpha"] = config.alpha_weight * masked_l2(alpha, target.silhouette, target.valid).mean()
    if config.optimise_noise:
        losses["noise"] = config.noise_weight * noise_regulariser(guess.noise.values())
    if config.camera_rate:
        # an uncertain camera may go further; the penalty is that of a wider Gaussian
        angle = guess.turn.square().sum() / (target.reach * config.camera_prior_degrees * torch.pi / 180) ** 2
        moved = guess.shift.square().sum() / (target.reach * config.camera_prior_shift) ** 2
        losses["camera"] = config.camera_weight * (angle + moved)
    return losses


class _Fit:
    """What the steps of one fit share and change.

    Attributes:
        start: [1,num_ws,w_dim]; shared, rows: [1,1,w_dim] and [1,num_ws,w_dim], what is added to it; noise: maps by
            name; turn, shift: see `Guess`; target: what the view should be; has_looked: what the generator cannot draw
            was found.
    """

    def __init__(self, inputs: LatentInputs, config: LatentConfig, context: Context) -> None:
        self.inputs, self.config, self.context = inputs, config, context
        self.generator, self.spec = context.generator, context.generator.spec
        start = inputs.start_w
        self.start = self.generator.mean_w(config.mean_samples) if start is None else start
        self.first_camera = inputs.initial_camera if inputs.start_camera is None else inputs.start_camera
        self.w_plus_from = config.w_plus_from if start is None else 0.0
        self.spread = self.generator.w_std(config.mean_samples) / self.spec.w_dim**0.5
        self.shared = torch.zeros_like(self.start[:, :1]).requires_grad_(True)
        self.rows = torch.zeros_like(self.start).requires_grad_(True)
        self.noise = {name: value.clone() for name, value in self.generator.noise_buffers().items()}
        if config.optimise_noise:
            self.noise = {
                name: torch.randn(v.shape, generator=context.rng).to(v).requires_grad_(True)
                for name, v in self.noise.items()
            }
        device = inputs.original.device
        self.turn = torch.zeros(3, device=device, requires_grad=True)
        self.shift = torch.zeros(3, device=device, requires_grad=True)
        given = inputs.photo_ood_mask
        self.difference = torch.zeros_like(inputs.foreground) if given is None else (given > 0.5).float()
        self.looks = config.difference_from < 1 and given is None
        valid = torch.ones_like(inputs.foreground) if inputs.valid is None else inputs.valid
        self.foreground = inputs.foreground * valid
        self.target = LatentTarget(
            inputs.original,
            (1.0 - self.difference) * valid,
            valid,
            inputs.foreground if self.spec.has_alpha else None,
            self.spread,
            1.0 + config.camera_prior_widen * (1.0 - inputs.camera_confidence),
        )
        self.view = inputs.original
        self.has_looked = False
        # not a copy from the host in every step
        self.pivot = inputs.original.new_tensor(self.spec.pivot)

    def groups(self) -> list[Group]:
        config = self.config
        groups = [Group([self.shared, self.rows], config.learning_rate)]
        if config.optimise_noise:
            groups.append(Group(list(self.noise.values()), config.learning_rate))
        if config.camera_rate:
            # turn in radians and shift in world units are both small numbers: a hundredth of w's rate is right for them
            groups.append(Group([self.turn, self.shift], config.learning_rate * config.camera_rate * 0.1))
        return groups

    @property
    def w(self) -> Tensor:
        """[1,num_ws,w_dim]."""
        return self.start + self.shared + self.rows

    @property
    def camera(self) -> Camera:
        return self.first_camera.adjusted(self.turn[None], self.shift[None], self.pivot)

    def draw(self, step: int) -> tuple[Tensor]:
        """What is added to w in this step, [1,num_ws,w_dim]."""
        config, t = self.config, step / self.config.steps
        fade = max(0.0, 1.0 - t / config.w_noise_until) ** 2 if config.w_noise_until else 0.0
        self.rows.requires_grad_(self._rows_are_free(step))
        noise = torch.randn(self.start.shape, generator=self.context.rng).to(self.start)
        return (noise * (self.spread * config.w_noise * fade),)

    def _rows_are_free(self, step: int) -> bool:
        return step / self.config.steps >= self.w_plus_from

    def phase(self, step: int) -> tuple[bool, bool]:
        """What a step's work hangs on."""
        return self._rows_are_free(step), self.has_looked

    def terms(self, jitter: Tensor) -> dict[str, Tensor]:
        """The weighted terms of a step."""
        w = self.w
        out = self.generator.render(self.generator.planes(w + jitter, self.noise), w + jitter, self.camera)
        self.view = out.image.detach()
        guess = Guess(w, self.noise, self.turn, self.shift)
        return latent_losses(out, guess, self.target, self.config, self.context.perceptual)

    @torch.no_grad()
    def after(self, step: int) -> None:
        self.context.glimpse(self.view)
        if self.config.optimise_noise:
            for value in self.noise.values():
                value.sub_(value.mean()).mul_(value.square().mean().rsqrt())
        if self.looks and step == int(self.config.steps * self.config.difference_from):
            self.difference = self.unlike(resize(self.view, self.target.image.shape[-1]))
            self.target = replace(self.target, keep=(1.0 - self.difference) * self.target.valid)
            self.has_looked = True

    def unlike(self, view: Tensor) -> Tensor:
        """Where a view [1,3,S,S] cannot be the photo."""
        # what was made up differs from nothing, nor does it blur into what is known
        known = torch.lerp(view, self.target.image, self.target.valid)
        config = self.config
        return find_difference(view, known, self.foreground, config.difference_threshold, config.difference_most)


def run(inputs: LatentInputs, config: LatentConfig, context: Context) -> LatentOutputs:
    """Fits w (and noise and camera) to the input view; see the module's docstring and `LatentConfig`."""
    size = inputs.original.shape[-1]
    if inputs.photo_ood_mask is not None:
        check_ood_mask(inputs.photo_ood_mask, size)
        check_ood_share(inputs.photo_ood_mask, inputs.foreground)
    fit = _Fit(inputs, config, context)
    ramp = Ramp(config.ramp_up, config.ramp_down)
    with context.following(config.steps, "latent", shown=("l2", "perceptual")) as callback:
        optimise(
            fit.groups(),
            Drawn(fit.draw, fit.terms, fit.phase),
            config.steps,
            ramp=ramp,
            after=fit.after,
            callback=callback,
            stop=context.stop,
            recorded=context.recorded,
        )
    with torch.no_grad():
        pivot, camera = fit.w.clone(), fit.camera
        noise = {name: value.detach() for name, value in fit.noise.items()}
        view = resize(fit.generator.render(fit.generator.planes(pivot, noise), pivot, camera).image, size)
        difference = fit.unlike(view) if fit.looks else fit.difference
    context.preview("pivot", view)
    context.preview("difference_mask", difference)
    context.preview("out_of_distribution", show_difference(inputs.original, difference))
    inside = fit.foreground > 0.5
    part = float(difference[inside].mean()) if inside.any() else 0.0
    return LatentOutputs(pivot, noise, camera, difference, part)
