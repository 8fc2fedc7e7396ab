"""One training run of the embedded generator: its schedule, its steps, its complete state.

The schedule runs on progress in [0,1] (of minutes, or of steps where a run must be repeatable):
coarse shape from small ray-marched images, then full ones, then super-resolution, then a discriminator beside the
truth.
"""

import contextlib
import copy
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch._functorch import config as functorch_config
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pmv.errors import InputError
from pmv.files.artifacts import atomic_path, read_json, write_json
from pmv.generators import EG3DConfig, EG3DGenerator, PanoHeadConfig, PanoHeadGenerator, Render
from pmv.generators.volume import Jitter
from pmv.training.batches import Batch, HeadStore
from pmv.training.discriminator import DualDiscriminator, feature_matching, r1_penalty
from pmv.training.objective import Weights, gradient_share, learn, supervised

_NETWORKS = ("generator", "average", "judge")
_COUNTERS = ("step_count", "judge_steps", "elapsed", "fresh_at")
LAZY = 16
"""Steps between two looks at R1 and at the gradient shares (StyleGAN2's lazy regularisation)."""


@dataclass(frozen=True)
class TrainConfig:
    """Numbers of a run.

    Attributes:
        minutes: length of the schedule in minutes of training.
        steps: length in steps instead (0: minutes count); then equal seeds give equal runs on a CPU.
        heads, views: identities a step and views of each (twice as many views before super-resolution, which are
            cheap).
        learning_rate, warmup: of everything, with equalised learning rates; rises over `warmup` steps, falls by a
            cosine from `decay_from` to 5 %.
        half_until, raw_until: progress until which rays are marched at half the neural resolution, and without
            super-resolution.
        adversarial_from: progress from which the discriminator takes part; 1 = never.
        adversarial, matching: norm of the gradient at the image that the discriminator's opinion and the distance of
            its features may have, relative to that of the supervised image terms.
        r1: weight γ of the R1 penalty.
        judge_warmup: steps that the discriminator learns alone.
        ema_half_life: steps after which a weight counts half in the averaged generator.
        density_speed: factor on the learning rate of the density output, which must grow from near 0 to hundreds.
        mapping_speed: factor on the learning rate of the mapping network, whose own multiplier (0.01) suits
            StyleGAN's Gaussian z, not a z whose every entry means something.
        gradient_clip: largest norm of the generator's gradient.
        precision: "single", or "mixed" for bfloat16 convolutions in generator and discriminator.
        keep: samples a ray that get features and gradients; 0 = as many as matter, which a GPU must wait to hear.
        compiled: fuse the step with torch.compile: one to three minutes at the start of every phase, then twice the
            speed on a GPU (assets/generator/MODEL_CARD.md).
        seed: of weights, batches and jitter.
    """

    minutes: float = 15.0
    steps: int = 0
    heads: int = 16
    views: int = 2
    learning_rate: float = 2.5e-3
    warmup: int = 200
    decay_from: float = 0.5
    half_until: float = 0.04
    raw_until: float = 0.15
    adversarial_from: float = 0.65
    adversarial: float = 0.15
    matching: float = 0.4
    r1: float = 1.0
    judge_warmup: int = 150
    ema_half_life: float = 400.0
    density_speed: float = 10.0
    mapping_speed: float = 50.0
    gradient_clip: float = 5.0
    precision: str = "single"
    keep: int = 0
    compiled: bool = False
    seed: int = 0


class Trainer:
    """Holds everything that a run changes.

    Args:
        config: the run's numbers.
        shape: the generator's numbers.
        store: the heads to learn.
        device: where.
    """

    def __init__(self, config: TrainConfig, shape: EG3DConfig, store: HeadStore, device: torch.device) -> None:
        if config.precision not in ("single", "mixed"):
            raise InputError(f"precision {config.precision!r} is neither single nor mixed")
        if config.compiled and not config.keep:
            raise InputError("a compiled step needs a fixed number of samples a ray: give --keep, say 16")
        self.config, self.store, self.device = config, store, device
        torch.manual_seed(config.seed)
        generator = PanoHeadGenerator(shape) if isinstance(shape, PanoHeadConfig) else EG3DGenerator(shape)
        with torch.no_grad():  # super-resolution starts as plain up-sampling of the raw image
            for block in generator.superresolution.children():
                block.get_parameter("torgb.weight").mul_(0.05)
        self.generator = generator.to(device)
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.judge = DualDiscriminator(shape.resolution, 32 * shape.resolution, shape.channel_max).to(device)
        # The mapping's view of the camera is always zero: its embedding takes no part and must not drift.
        frozen = ("backbone.mapping.embed.",)
        trained = {k: p for k, p in self.generator.named_parameters() if not k.startswith(frozen)}
        mapping = [p for k, p in trained.items() if k.startswith("backbone.mapping.")]
        rest = [p for k, p in trained.items() if not k.startswith("backbone.mapping.")]
        self.speeds = (config.mapping_speed, 1.0)
        fused = device.type == "cuda"
        self.optimizer = torch.optim.Adam([{"params": mapping}, {"params": rest}], betas=(0.9, 0.99), fused=fused)
        self.judge_optimizer = torch.optim.Adam(self.judge.parameters(), betas=(0.0, 0.99), fused=fused)
        self.shares = torch.zeros(2, device=device)
        if config.compiled and hasattr(functorch_config, "donated_buffer"):  # PyTorch 2.6 and later
            # `_opinion` asks the judge's graph for a gradient beside the step's own, now and then: the first backward
            # pass, from which compiled code takes what it may overwrite, need not be such a one
            functorch_config.donated_buffer = False
        compiler = partial(torch.compile, fullgraph=True, dynamic=False) if config.compiled else (lambda f: f)
        self._learn, self._compiled_judge = compiler(learn), compiler(self.judge)
        self.condition = self.generator.spec.canonical_camera.to(device)
        self.jitter = torch.Generator(device)
        self.step_count, self.judge_steps, self.elapsed = 0, 0, 0.0
        self.fresh_at = 0  # the step at which the optimisers last began anew

    # --- schedule -------------------------------------------------------------------------------------------

    @property
    def progress(self) -> float:
        """Position in the schedule, 0 to 1."""
        config = self.config
        position = self.step_count / config.steps if config.steps else self.elapsed / (60 * config.minutes)
        return min(1.0, position)

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
        return rate * min(1.0, (self.step_count - self.fresh_at + 1) / config.warmup)

    def mixed(self) -> contextlib.AbstractContextManager:
        """What the convolutions run under."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "mixed")

    # --- steps ----------------------------------------------------------------------------------------------

    def step(self) -> dict[str, Tensor]:
        """One step of everything; returns the losses by name, on the device (reading them waits for it)."""
        config, phase = self.config, self.phase
        # one seed a step: what a step draws does not depend on how the run was cut into pieces
        seed = (config.seed << 32) + self.step_count
        draw = torch.Generator().manual_seed(seed)
        self.jitter.manual_seed(seed)
        enlarge = phase in ("full", "adversarial")
        batch = self.store.sample(config.heads, config.views * (1 if enlarge else 2), draw)
        resolution = self.generator.spec.neural_resolution // (2 if phase == "half" else 1)
        rate = self.learning_rate()
        for group, speed in zip(self.optimizer.param_groups, self.speeds):
            group["lr"] = rate * speed
        render, terms, loss = self._learn(
            self.generator,
            batch,
            self.condition,
            resolution,
            self._jitter(len(batch.cameras), resolution),
            enlarge,
            config.precision == "mixed",
            config.keep or None,
        )
        fake = None
        if phase == "adversarial":
            fake = DualDiscriminator.pair(render.image, render.raw, render.alpha)
            real = self._real_pair(batch)
            loss = loss + self._opinion(fake, real, render, batch, terms)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._update()
        if fake is not None:
            terms |= self._judge_step(fake.detach(), real, rate)
        self.step_count += 1
        return {name: value.detach() for name, value in terms.items()}

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

    def _opinion(self, fake: Tensor, real: Tensor, render: Render, batch: Batch, terms: dict[str, Tensor]) -> Tensor:
        """The discriminator's part of the generator's loss; adds its terms to `terms`."""
        config = self.config
        if self.judge_steps < config.judge_warmup:
            return fake.new_zeros(())
        self.judge.requires_grad_(False)
        with self.mixed():
            logits, features = self._compiled_judge(fake)
            with torch.no_grad():
                _, true_features = self.judge(real)
        logits, features = logits.float(), [f.float() for f in features]
        self.judge.requires_grad_(True)
        opinion, distance = F.softplus(-logits).mean(), feature_matching(features, [f.float() for f in true_features])
        if self.judge_steps == config.judge_warmup or self.judge_steps % LAZY == 0:
            # anew: those in `terms` may come from compiled code, which does not tell its gradient at the image
            wanted = supervised(render, batch, Weights())
            reference = wanted["image"] + wanted["gradient"]
            now = torch.stack([gradient_share(reference, term, render.image) for term in (opinion, distance)])
            self.shares = now if self.judge_steps == config.judge_warmup else self.shares.lerp(now, 0.2)
        terms |= {"opinion": opinion.detach(), "matching": distance.detach()}
        return config.adversarial * self.shares[0] * opinion + config.matching * self.shares[1] * distance

    def _update(self) -> None:
        """Applies the generator's gradient and follows it with the average."""
        config = self.config
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        for p in parameters:
            torch.nan_to_num(p.grad, nan=0.0, posinf=1e5, neginf=-1e5, out=p.grad)
        nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
        output = self.generator.decoder.net[-1]
        rows = (output.get_parameter("weight"), output.get_parameter("bias"))
        before = [row[0].detach().clone() for row in rows]
        self.optimizer.step()
        with torch.no_grad():
            for row, old in zip(rows, before):
                row[0].add_(row[0] - old, alpha=config.density_speed - 1)
            beta = min(0.5 ** (1 / config.ema_half_life), (1 + self.step_count) / (10 + self.step_count))
            get_ema_multi_avg_fn(beta)(list(self.average.parameters()), list(self.generator.parameters()), 0)

    def _judge_step(self, fake: Tensor, real: Tensor, rate: float) -> dict[str, Tensor]:
        """One step of the discriminator; returns its losses."""
        for group in self.judge_optimizer.param_groups:
            group["lr"] = rate
        with self.mixed():
            fake_logits, real_logits = (self._compiled_judge(x)[0].float() for x in (fake, real))
        loss = F.softplus(fake_logits).mean() + F.softplus(-real_logits).mean()
        total = loss
        if self.judge_steps % LAZY == 0:
            with self.mixed():  # not compiled: it differentiates twice
                total = loss + self.config.r1 * LAZY * r1_penalty(self.judge, real)
        self.judge_optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.judge_optimizer.step()
        self.judge_steps += 1
        return {"judge": loss}

    # --- state ----------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Writes everything that a step depends on, so that a resumed run goes on as if it had not stopped."""
        state: dict[str, Any] = {
            name: getattr(self, name).state_dict() for name in (*_NETWORKS, "optimizer", "judge_optimizer")
        }
        state |= {name: getattr(self, name) for name in ("shares", *_COUNTERS)}
        with atomic_path(path) as temporary:
            torch.save(state, temporary)

    def load(self, path: Path) -> None:
        """Reads what `save` wrote, for the same configuration."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name in (*_NETWORKS, "optimizer", "judge_optimizer"):
            getattr(self, name).load_state_dict(state[name])
        for name in ("shares", *_COUNTERS):
            setattr(self, name, state[name])

    def save_compact(self, folder: Path) -> None:
        """Writes what can travel to another machine: half-precision weights, 12 MB a network, and the counters.

        The optimisers' moments stay behind. They are anew within some hundred steps, for which the learning rate
        rises once more; so a run that goes on from here goes on where it was, but not bit by bit.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name in _NETWORKS:
            weights = {k: v.half().contiguous() for k, v in getattr(self, name).state_dict().items()}
            with atomic_path(folder / f"{name}.safetensors") as temporary:
                save_file(weights, temporary)
        counters = {name: getattr(self, name) for name in _COUNTERS} | {"shares": self.shares.tolist()}
        write_json(folder / "counters.json", counters)

    def load_compact(self, folder: Path) -> None:
        """Reads what `save_compact` wrote. Raises InputError if it is not there or of another shape."""
        try:
            for name in _NETWORKS:
                getattr(self, name).load_state_dict(load_file(folder / f"{name}.safetensors", str(self.device)))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise InputError(f"{folder} holds no compact checkpoint of this generator ({error})") from error
        counters = read_json(folder / "counters.json")
        self.shares = torch.tensor(counters.pop("shares"), device=self.device)
        for name, value in counters.items():
            setattr(self, name, value)
        self.fresh_at = self.step_count

    def start_from(self, generator: EG3DGenerator) -> None:
        """Takes the weights of a trained generator of the same shape, as the start of a new schedule."""
        for module in (self.generator, self.average):
            module.load_state_dict(generator.state_dict())
