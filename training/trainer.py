"""One chain of training of the embedded generator: its schedule, its steps, its complete state.

The schedule runs on pictures that the generator drew since the chain began, so pieces of any length, on any number of
GPUs, go through it alike: coarse shape from small ray-marched images, then full ones, then super-resolution, then a
discriminator beside the truth.
"""

import contextlib
import copy
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._functorch import config as functorch_config
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pmv.errors import InputError
from pmv.files.artifacts import atomic_path
from pmv.fitting.replay import Replay
from pmv.generators import EG3DConfig, EG3DGenerator, PanoHeadConfig, PanoHeadGenerator, Render
from pmv.generators.volume import Jitter
from pmv.geometry.camera import Camera
from pmv.training.batches import Batch, HeadStore
from pmv.training.discriminator import DualDiscriminator, feature_matching, r1_penalty
from pmv.training.distributed import ALONE, Peers
from pmv.training.objective import Weights, first_views, gradient_share, learn, supervised

NETWORKS = ("generator", "average", "judge")
COUNTERS = ("step_count", "pictures", "judge_steps", "judge_pictures", "elapsed", "fresh_at", "untrained", "pieces")
LAZY = 16
"""Steps between two looks at R1 and at the gradient shares (StyleGAN2's lazy regularisation)."""


@dataclass(frozen=True)
class TrainConfig:
    """Numbers of a chain. What counts pictures counts those that the generator draws in training, on all GPUs.

    Attributes:
        pictures: length of the schedule.
        heads, views: identities a step and GPU, and views of each (twice as many views before super-resolution, which
            are cheap).
        random: share of these identities, in the adversarial phase, whose z is mixed from two others'
            (`pmv.training.batches.HeadStore.latents`): of them no truth is known, and only the discriminator's opinion
            counts.
        learning_rate, warmup: of everything, with equalised learning rates; rises over `warmup` pictures whenever a
            piece begins on another machine, falls by a cosine from `decay_from` to 5 %. Not scaled with the number of
            GPUs.
        half_until, raw_until: progress until which rays are marched at half the neural resolution, and without
            super-resolution.
        adversarial_from: progress from which the discriminator takes part; 1 = never.
        adversarial, matching: norm of the gradient at the image that the discriminator's opinion and the distance of
            its features may have, relative to that of the supervised image terms.
        r1: weight γ of the R1 penalty.
        judge_warmup: pictures during which the discriminator learns alone, when it is new.
        ema_half_life: pictures after which a weight counts half in the averaged generator.
        density_speed: factor on the learning rate of the density output, which must grow from near 0 to hundreds.
        mapping_speed: factor on the learning rate of the mapping network, whose own multiplier (0.01) suits
            StyleGAN's Gaussian z, not a z whose every entry means something.
        gradient_clip: largest norm of the generator's gradient.
        precision: "single", or "mixed" for bfloat16 convolutions in generator and discriminator.
        keep: samples a ray that get features and gradients; 0 = as many as matter, which a GPU must wait to hear.
        replayed: record most steps of the adversarial phase as CUDA graphs; needs `keep` and a GPU.
        compiled: fuse the step with torch.compile: one to three minutes at the start of every phase, then twice the
            speed on a GPU (assets/generator/MODEL_CARD.md).
        seed: of weights, batches and jitter.
    """

    pictures: float = 12e6
    heads: int = 10
    views: int = 2
    random: float = 0.1
    learning_rate: float = 2.2e-3
    warmup: float = 6e3
    decay_from: float = 0.7
    half_until: float = 0.01
    raw_until: float = 0.05
    adversarial_from: float = 0.2
    adversarial: float = 0.4
    matching: float = 0.3
    r1: float = 1.0
    judge_warmup: float = 1e4
    ema_half_life: float = 2e4
    density_speed: float = 10.0
    mapping_speed: float = 50.0
    gradient_clip: float = 5.0
    precision: str = "single"
    keep: int = 0
    compiled: bool = False
    replayed: bool = False
    seed: int = 0


@dataclass(frozen=True)
class _Pairs:
    """What the discriminator sees of a step: drawn and true pairs [N,7,R,R] of the same cameras, labels [N,25]."""

    fake: Tensor
    real: Tensor
    labels: Tensor

    def detach(self) -> "_Pairs":
        return _Pairs(self.fake.detach(), self.real, self.labels)


@dataclass(frozen=True)
class _Pass:
    """A forward and a backward pass: losses by name, the parameters that got a gradient, and that in one row, in the
    order of memory; pairs for the discriminator, if it takes part.

    One row, because a hundred small tensors cost more to visit one by one than all of them to exchange.
    """

    losses: dict[str, Tensor]
    parameters: list[nn.Parameter]
    gradient: Tensor
    pairs: _Pairs | None


def _row(parameters: list[nn.Parameter]) -> Tensor:
    """The gradients of parameters one after the other, each in its own order of memory."""
    parts = []
    for p in parameters:
        x = p.grad
        assert x is not None
        if not (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)):
            raise ValueError(f"a gradient of strides {x.stride()} has gaps")
        parts.append(x.as_strided((x.numel(),), (1,)))
    return torch.cat(parts)


class Trainer:
    """Holds everything that a chain changes.

    Args:
        config: the chain's numbers.
        shape: the generator's numbers.
        store: the heads to learn (with several processes, this one's share of them).
        device: where.
        peers: the processes that step together.

    Attributes:
        pictures: drawn since the chain began; the position in the schedule.
        pieces: what is told of every piece so far, the last one being at work; `training.generator` keeps it.
        elapsed: seconds of training within this piece.
    """

    def __init__(
        self,
        config: TrainConfig,
        shape: EG3DConfig,
        store: HeadStore,
        device: torch.device,
        peers: Peers = ALONE,
    ) -> None:
        if config.precision not in ("single", "mixed"):
            raise InputError(f"precision {config.precision!r} is neither single nor mixed")
        if config.compiled and not config.keep:
            raise InputError("a compiled step needs a fixed number of samples a ray: give --keep, say 16")
        if config.replayed and not (config.keep and device.type == "cuda"):
            raise InputError("recorded steps need a GPU and a fixed number of samples a ray: give --keep, say 16")
        if not 0 <= round(config.random * config.heads) < config.heads:
            raise InputError(f"a share of {config.random} random latents leaves none of {config.heads} heads to learn")
        self.config, self.store, self.device, self.peers = config, store, device, peers
        torch.manual_seed(config.seed)
        generator = PanoHeadGenerator(shape) if isinstance(shape, PanoHeadConfig) else EG3DGenerator(shape)
        with torch.no_grad():  # super-resolution starts as plain up-sampling of the raw image
            for block in generator.superresolution.children():
                block.get_parameter("torgb.weight").mul_(0.05)
        self.generator = generator.to(device)
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.judge = DualDiscriminator(shape.resolution, 32 * shape.resolution, shape.channel_max, shape.c_dim).to(
            device
        )
        if device.type == "cuda":  # the tensor cores' layout; else every convolution turns its inputs round
            for module in (self.generator, self.average, self.judge):
                module.to(memory_format=torch.channels_last)
        # The mapping's view of the camera is always zero: its embedding takes no part and must not drift.
        frozen = ("backbone.mapping.embed.",)
        trained = {k: p for k, p in self.generator.named_parameters() if not k.startswith(frozen)}
        mapping = [p for k, p in trained.items() if k.startswith("backbone.mapping.")]
        rest = [p for k, p in trained.items() if not k.startswith("backbone.mapping.")]
        self.speeds = (config.mapping_speed, 1.0)
        fused = device.type == "cuda"
        self.optimizer = torch.optim.Adam([{"params": mapping}, {"params": rest}], betas=(0.9, 0.99), fused=fused)
        self.judge_optimizer = torch.optim.Adam(self.judge.parameters(), betas=(0.0, 0.99), fused=fused)
        self.shares: Tensor | None = None  # measured at the discriminator's first opinion
        if config.compiled and hasattr(functorch_config, "donated_buffer"):  # PyTorch 2.6 and later
            # `_opinion` asks the judge's graph for a gradient beside the step's own, now and then: the first backward
            # pass, from which compiled code takes what it may overwrite, need not be such a one
            functorch_config.donated_buffer = False
        compiler = partial(torch.compile, fullgraph=True, dynamic=False) if config.compiled else (lambda f: f)
        self._learn, self._compiled_judge = compiler(learn), compiler(self.judge)
        self._replays: tuple[Replay[_Pass], Replay[_Pass]] | None = None
        self.condition = self.generator.spec.canonical_camera.to(device)
        self.jitter = torch.Generator(device)
        self.step_count, self.judge_steps, self.elapsed = 0, 0, 0.0
        self.pictures, self.judge_pictures = 0, 0
        self.fresh_at = 0  # pictures at which the optimisers last began anew
        self.untrained = True  # whether the chain began from random weights
        self.pieces: list[dict[str, Any]] = []

    # --- schedule -------------------------------------------------------------------------------------------

    @property
    def progress(self) -> float:
        """Position in the schedule, 0 to 1."""
        return min(1.0, self.pictures / self.config.pictures)

    @property
    def phase(self) -> str:
        """ "half", "raw", "full" or "adversarial"."""
        config, progress = self.config, self.progress
        if progress < config.raw_until:
            return "half" if progress < config.half_until else "raw"
        return "full" if progress < config.adversarial_from else "adversarial"

    def learning_rate(self) -> float:
        """Warm-up, plateau, cosine."""
        config = self.config
        fall = max(0.0, (self.progress - config.decay_from) / max(1e-6, 1 - config.decay_from))
        rate = config.learning_rate * (0.05 + 0.95 * (0.5 + 0.5 * math.cos(math.pi * fall)))
        risen = (self.pictures - self.fresh_at + self._drawn()) / max(1.0, config.warmup)
        return rate * min(1.0, risen)

    def _drawn(self) -> int:
        """Pictures that the next step draws, on all GPUs."""
        enlarge = self.phase in ("full", "adversarial")
        return self.peers.count * self.config.heads * self.config.views * (1 if enlarge else 2)

    def mixed(self) -> contextlib.AbstractContextManager:
        """What the convolutions run under."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "mixed")

    # --- steps ----------------------------------------------------------------------------------------------

    def step(self) -> dict[str, Tensor]:
        """One step of everything; returns the losses by name, on the device (reading them waits for it)."""
        config, phase = self.config, self.phase
        # one seed a step: what a step draws does not depend on how the chain was cut into pieces
        seed = (config.seed << 32) + self.step_count * self.peers.count + self.peers.rank
        draw = torch.Generator().manual_seed(seed)
        self.jitter.manual_seed(seed)
        enlarge = phase in ("full", "adversarial")
        views = config.views * (1 if enlarge else 2)
        batch = self.store.sample(config.heads, views, draw)
        known = config.heads
        if phase == "adversarial":
            known -= round(config.random * config.heads)
            batch = replace(batch, z=torch.cat([batch.z[:known], self.store.latents(config.heads - known, draw)]))
        resolution = self.generator.spec.neural_resolution // (2 if phase == "half" else 1)
        jitter = self._jitter(len(batch.cameras), resolution)
        rate, drawn = self.learning_rate(), self._drawn()
        for group, speed in zip(self.optimizer.param_groups, self.speeds):
            group["lr"] = rate * speed
        for group in self.judge_optimizer.param_groups:
            group["lr"] = rate
        adversarial = phase == "adversarial"
        opinion = adversarial and self.judge_pictures >= config.judge_warmup
        lazy = self.judge_steps % LAZY == 0 or self.shares is None
        if config.replayed and opinion and not lazy:
            terms, judged = self._replay(batch, jitter, known * views)
        else:
            terms = self._generator_pass(batch, jitter, known * views, resolution, adversarial, opinion, lazy)
            judged = self._judge_pass(terms, lazy) if adversarial else None
        self._update(terms, drawn)
        losses = terms.losses
        if judged is not None:
            self._exchange(judged)
            self.judge_optimizer.step()
            self.judge_steps += 1
            self.judge_pictures += drawn
            losses = losses | judged.losses
        self.step_count += 1
        self.pictures += drawn
        return losses

    def _generator_pass(
        self, batch: Batch, jitter: Jitter, known: int, resolution: int, adversarial: bool, opinion: bool, lazy: bool
    ) -> "_Pass":
        """Draws the batch and finds the generator's gradient.

        Args:
            known: views of heads whose truth is known, the first of the batch.
            adversarial: make pairs for the discriminator.
            opinion: let the discriminator's opinion count.
            lazy: look at the gradient shares.
        """
        config = self.config
        render, losses, loss = self._learn(
            self.generator,
            batch,
            self.condition,
            resolution,
            jitter,
            self.phase in ("full", "adversarial"),
            config.precision == "mixed",
            config.keep or None,
            known,
        )
        pairs = None
        if adversarial:
            # the true pictures of heads with a random z are no truth for it, but they are true pictures
            fake = DualDiscriminator.pair(render.image, render.raw, render.alpha)
            pairs = _Pairs(fake, self._real_pair(batch), batch.cameras.labels())
            if opinion:
                loss = loss + self._opinion(pairs, render, batch, known, losses, lazy)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        losses = {name: value.detach() for name, value in losses.items()}
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        return _Pass(losses, parameters, _row(parameters), pairs and pairs.detach())

    def _replay(self, batch: Batch, jitter: Jitter, known: int) -> tuple["_Pass", "_Pass"]:
        """What `_generator_pass` and `_judge_pass` do in most steps, from their recordings."""
        assert isinstance(jitter, tuple)
        cameras = batch.cameras
        inputs = (batch.z, cameras.cam2world, cameras.intrinsics, batch.image, batch.alpha, batch.depth, *jitter)
        if self._replays is None:
            resolution = self.generator.spec.neural_resolution

            def draw(z, cam2world, intrinsics, image, alpha, depth, *draws) -> _Pass:
                again = Batch(z, Camera(cam2world, intrinsics), image, alpha, depth)
                return self._generator_pass(again, draws, known, resolution, True, True, False)

            first = Replay(draw, inputs)
            self._replays = first, Replay(lambda: self._judge_pass(first.outputs, False))
        return self._replays[0](*inputs), self._replays[1]()

    def _jitter(self, views: int, resolution: int) -> Jitter:
        """Randomness along the rays of a step; compiled code takes numbers, not a generator."""
        if not self.config.keep:
            return self.jitter
        shape = self.generator.config
        rays = resolution * resolution

        def uniform(*sides: int) -> Tensor:
            return torch.rand(sides, generator=self.jitter, device=self.device)

        return uniform(views, rays, shape.coarse_samples), uniform(views * rays, shape.fine_samples)

    def _real_pair(self, batch: Batch) -> Tensor:
        raw, alpha, _ = batch.raw(self.generator.spec.neural_resolution)
        return DualDiscriminator.pair(batch.image, raw, alpha)

    def _opinion(
        self, pairs: "_Pairs", render: Render, batch: Batch, known: int, losses: dict[str, Tensor], lazy: bool
    ) -> Tensor:
        """The discriminator's part of the generator's loss; adds its terms to `losses`.

        Args:
            pairs: of the same views, the first `known` of them of heads whose truth the true ones are.
            lazy: look at the gradient shares.
        """
        config = self.config
        self.judge.requires_grad_(False)
        with self.mixed():
            logits, features = self._compiled_judge(pairs.fake, pairs.labels)
            with torch.no_grad():
                _, true_features = self._compiled_judge(pairs.real, pairs.labels)
        self.judge.requires_grad_(True)
        ours, theirs = ([f[:known].float() for f in x] for x in (features, true_features))
        opinion, distance = F.softplus(-logits.float()).mean(), feature_matching(ours, theirs)
        if lazy:
            # anew: those in `losses` may come from compiled code, which does not tell its gradient at the image
            wanted = supervised(*first_views(render, batch, known), Weights())
            reference = wanted["image"] + wanted["gradient"]
            now = torch.stack([gradient_share(reference, term, render.image, known) for term in (opinion, distance)])
            self.peers.average_(now)
            if self.shares is None:
                self.shares = now
            else:
                self.shares.lerp_(now, 0.2)  # in place: recorded steps read it where it is
        assert self.shares is not None
        losses |= {"opinion": opinion.detach(), "matching": distance.detach()}
        return config.adversarial * self.shares[0] * opinion + config.matching * self.shares[1] * distance

    def _judge_pass(self, drawn: "_Pass", lazy: bool) -> "_Pass":
        """The discriminator's gradient for what the generator drew.

        Args:
            lazy: add the R1 penalty.
        """
        pairs = drawn.pairs
        assert pairs is not None
        with self.mixed():
            fake_logits, real_logits = (
                self._compiled_judge(x, pairs.labels)[0].float() for x in (pairs.fake, pairs.real)
            )
        loss = F.softplus(fake_logits).mean() + F.softplus(-real_logits).mean()
        losses = {"judge": loss.detach()}
        if lazy:
            some = -(-len(pairs.real) // 4)  # differentiating twice costs more than a whole step
            with self.mixed():  # not compiled: it differentiates twice
                penalty = r1_penalty(self.judge, pairs.real[:some], pairs.labels[:some])
            loss = loss + self.config.r1 * LAZY * penalty
            losses["penalty"] = penalty.detach()
        self.judge_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = list(self.judge.parameters())
        return _Pass(losses, parameters, _row(parameters), None)

    def _update(self, found: "_Pass", drawn: int) -> None:
        """Applies the generator's gradient and follows it with the average.

        Args:
            drawn: pictures of this step.
        """
        config = self.config
        self._exchange(found, config.gradient_clip)
        output = self.generator.decoder.net[-1]
        rows = (output.get_parameter("weight"), output.get_parameter("bias"))
        before = [row[0].detach().clone() for row in rows]
        self.optimizer.step()
        with torch.no_grad():
            for row, old in zip(rows, before):
                row[0].add_(row[0] - old, alpha=config.density_speed - 1)
            # from random weights the average grows with what was seen (StyleGAN2-ADA's ramp)
            half_life = min(config.ema_half_life, 0.05 * self.pictures) if self.untrained else config.ema_half_life
            beta = 0.5 ** (drawn / max(half_life, 1.0))
            get_ema_multi_avg_fn(beta)(list(self.average.parameters()), list(self.generator.parameters()), 0)

    def _exchange(self, found: "_Pass", clip: float = math.inf) -> None:
        """Gives the parameters their gradients' mean over all processes, of norm `clip` at most; what is not finite
        counts nothing."""
        flat = found.gradient.nan_to_num_(nan=0.0, posinf=1e5, neginf=-1e5)
        self.peers.average_(flat)
        if math.isfinite(clip):
            flat *= (clip / (flat.norm() + 1e-6)).clamp_max(1.0)
        for p, part in zip(found.parameters, flat.split([p.numel() for p in found.parameters]), strict=True):
            p.grad = part.as_strided(p.shape, p.stride())

    # --- state ----------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Writes everything that a step depends on, so that a piece resumed on the same machine goes on as if it had
        not stopped. `pmv.training.chain` writes what travels."""
        state: dict[str, Any] = {
            name: getattr(self, name).state_dict() for name in (*NETWORKS, "optimizer", "judge_optimizer")
        }
        state |= {name: getattr(self, name) for name in ("shares", *COUNTERS)}
        with atomic_path(path) as temporary:
            torch.save(state, temporary)

    def load(self, path: Path) -> None:
        """Reads what `save` wrote, for the same configuration."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name in (*NETWORKS, "optimizer", "judge_optimizer"):
            getattr(self, name).load_state_dict(state[name])
        for name in ("shares", *COUNTERS):
            setattr(self, name, state[name])

    def start_from(self, generator: EG3DGenerator) -> None:
        """Takes the weights of a trained generator of the same shape, as the start of a new chain."""
        for module in (self.generator, self.average):
            module.load_state_dict(generator.state_dict())
        self.untrained = False
