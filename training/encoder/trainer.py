"""One of the two encoders in training: its schedule, its steps, its complete state, and what of it travels.

As a generator's chain (`pmv.training.trainer`), the schedule runs on pictures, here of photos encoded, so that pieces
of any length, on any number of GPUs, go through it alike.

    average.safetensors   the averaged encoder, half precision
    judge.safetensors     the discriminator of planes, half precision (the second encoder's alone)
    moments.safetensors   second moments, factored (`pmv.training.moments`)
    state.json            position, configuration, shape, what is told of every piece
"""

import copy
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pmv.encoders.dual import seen_texels
from pmv.encoders.network import Encoder, EncoderShape
from pmv.errors import InputError
from pmv.files.artifacts import atomic_path, read_header, read_json, tensors_hash, write_json
from pmv.files.manifest import cached
from pmv.generators import EG3DGenerator, Render
from pmv.training import moments
from pmv.training.batches import HeadStore
from pmv.training.distributed import ALONE, Peers
from pmv.training.encoder.judge import EVERY, PlaneJudge, judge_loss, synthetic_planes
from pmv.training.encoder.lessons import Lesson, Teacher
from pmv.training.encoder.objective import EncoderWeights, Judges, encoder_losses, look_losses
from pmv.training.objective import render_planes

VISIBLE, WHOLE = "visible", "whole"
"""The first encoder, right where the photo sees the head, and the second, plausible everywhere."""
SHIPPED = "heads-encoder"
"""The manifest's name of what the open chain has made so far."""
COUNTERS = ("step_count", "pictures", "pieces")


@dataclass(frozen=True)
class EncoderConfig:
    """Numbers of a chain.

    Attributes:
        which: "visible" or "whole"; the second has the discriminator.
        pictures: length of the schedule.
        look_steps: steps before it that draw no head: what is seen, surface and camera, is learned first, which costs a
            fiftieth. looks: further photos in each step, of these and of all others, from which that alone is learned.
        heads, views: photos a step and GPU, and views of each head that are compared, the photo's own among them.
        generated: share of the heads that the generator draws itself.
        learning_rate, warmup: AdamW's; rises over `warmup` pictures, falls by a cosine from `decay_from` to 2 %.
        raw_until: progress until which views are compared without super-resolution.
        adversarial: weight of the discriminator's opinion (the paper's). judge_rate: its learning rate.
        ema_half_life: pictures after which a weight counts half in the average.
        gradient_clip: largest norm of the gradient.
        identity: weight of the identity term; 0 = the network is not loaded.
        precision: "single", or "mixed" for bfloat16 convolutions.
        keep: samples a ray that get gradients, see `pmv.generators.volume.march`.
        seed: of weights and lessons.
    """

    which: str = VISIBLE
    pictures: float = 2e5
    look_steps: int = 3000
    looks: int = 64
    heads: int = 8
    views: int = 3
    generated: float = 0.25
    learning_rate: float = 4e-4
    warmup: float = 1e3
    decay_from: float = 0.5
    raw_until: float = 0.05
    adversarial: float = 1e-3
    judge_rate: float = 1e-4
    ema_half_life: float = 2e3
    gradient_clip: float = 2.0
    identity: float = 0.5
    precision: str = "single"
    keep: int = 16
    seed: int = 0


class EncoderTrainer:
    """Holds everything that a chain changes.

    Args:
        config: the chain's numbers. encoder: to be trained, on the device. generator: frozen, on the device. store:
            rendered heads (kind "portraits"), this process's share. judges: networks that compare. peers: who steps
            together.

    Attributes:
        pictures: photos encoded since the chain began, on all GPUs. pieces: what is told of every piece so far.
    """

    def __init__(
        self,
        config: EncoderConfig,
        encoder: Encoder,
        generator: EG3DGenerator,
        store: HeadStore,
        judges: Judges,
        peers: Peers = ALONE,
    ) -> None:
        if config.which not in (VISIBLE, WHOLE):
            raise InputError(f"which {config.which!r} is neither {VISIBLE} nor {WHOLE}")
        if config.precision not in ("single", "mixed"):
            raise InputError(f"precision {config.precision!r} is neither single nor mixed")
        self.config, self.encoder, self.generator, self.judges, self.peers = config, encoder, generator, judges, peers
        self.device = generator.device
        self.average = copy.deepcopy(encoder).eval().requires_grad_(False)
        self.weights = EncoderWeights(identity=config.identity)
        shape = encoder.shape.planes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.judge = PlaneJudge(*shape[:2]).to(self.device)
        self.optimizer = torch.optim.AdamW(encoder.parameters(), config.learning_rate, (0.9, 0.99), weight_decay=1e-3)
        self.judge_optimizer = torch.optim.Adam(self.judge.parameters(), config.judge_rate, (0.5, 0.99))
        self.draws, self.picks = torch.Generator(self.device), torch.Generator()
        self.teacher = Teacher(store, generator, self.draws, self.picks, config.views)
        self.step_count, self.pictures = 0, 0
        self.pieces: list[dict[str, Any]] = []

    @property
    def progress(self) -> float:
        """Position in the schedule, 0 to 1."""
        return min(1.0, self.pictures / self.config.pictures)

    def learning_rate(self) -> float:
        """Warm-up, plateau, cosine."""
        config = self.config
        fall = max(0.0, (self.progress - config.decay_from) / max(1e-6, 1 - config.decay_from))
        rate = config.learning_rate * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * fall)))
        return rate * min(1.0, self._encoded() * (self.step_count + 1) / max(1.0, config.warmup))

    def _encoded(self) -> int:
        return self.config.heads * self.peers.count

    @property
    def plane_scale(self) -> float:
        """Deviation of the planes' texels."""
        return float(self.average.scales[1])

    # --- steps

    def step(self) -> dict[str, Tensor]:
        """One step; its losses by name, on the device."""
        config = self.config
        # one seed a step: what a step draws does not depend on how the chain was cut into pieces
        seed = (config.seed << 32) + self.step_count * self.peers.count + self.peers.rank
        self.draws.manual_seed(seed)
        self.picks.manual_seed(seed)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        drawn = self.step_count >= config.look_steps
        terms, masked = self._draw_step() if drawn else ({}, None)
        for name, value in self._look_step().items():
            terms[name] = terms[name] + value if name in terms else value
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        self._apply(self.optimizer, config.gradient_clip)
        if masked is not None:
            fake, real = (x.detach() for x in masked)
            judged = judge_loss(self.judge, fake, real, self.step_count % EVERY == 0)
            self.judge_optimizer.zero_grad(set_to_none=True)
            torch.stack(list(judged.values())).sum().backward()
            self._apply(self.judge_optimizer, math.inf)
            terms |= judged
        beta = 0.5 ** (self._encoded() / min(config.ema_half_life, 0.1 * self._encoded() * (self.step_count + 1)))
        with torch.no_grad():
            get_ema_multi_avg_fn(beta)(list(self.average.parameters()), list(self.encoder.parameters()), 0)
        self.step_count += 1
        self.pictures += self._encoded() * drawn
        return {name: value.detach() for name, value in terms.items()}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "mixed")

    def _look_step(self) -> dict[str, Tensor]:
        """Terms of photos of which no head is drawn."""
        if not self.config.looks:
            return {}
        lesson = self.teacher.rendered(self.config.looks, views=1)
        with self._autocast():
            look = self.encoder.look(lesson.image, lesson.foreground, lesson.camera, self.generator.spec)
        return look_losses(look, lesson.truth.depth, lesson.taken_from, self.weights)

    def _draw_step(self) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor] | None]:
        """Terms of heads that are drawn, and what the discriminator is to tell apart."""
        config = self.config
        own = (self.step_count * config.generated) % 1 < config.generated  # every fourth step, say
        lesson = self.teacher.generated(config.heads) if own else self.teacher.rendered(config.heads)
        with self._autocast():
            encoded = self.encoder(self.generator, lesson.image, lesson.foreground, lesson.camera)
        drawn = self.draw(encoded.planes, encoded.w, lesson)
        terms = encoder_losses(encoded, drawn, lesson, self.judges, self.weights, self.plane_scale)
        if config.which != WHOLE:
            return terms, None
        unseen = 1 - seen_texels(self.generator, encoded, seam=0)
        real = synthetic_planes(self.generator, config.heads, self.draws)
        masked = unseen * encoded.planes / self.plane_scale, unseen * real / self.plane_scale
        self.judge.requires_grad_(False)
        terms["opinion"] = config.adversarial * F.softplus(-self.judge(masked[0])).mean()
        self.judge.requires_grad_(True)
        return terms, masked

    def draw(self, planes: Tensor, w: Tensor, lesson: Lesson) -> Render:
        """The lesson's views of planes."""
        config, resolution = self.config, self.generator.spec.neural_resolution
        return render_planes(
            self.generator,
            planes.repeat_interleave(lesson.views, 0),
            w.repeat_interleave(lesson.views, 0),
            lesson.truth.cameras,
            resolution,
            None,
            self.progress >= config.raw_until,
            config.precision == "mixed",
            config.keep or None,
        )

    def _apply(self, optimizer: torch.optim.Optimizer, clip: float) -> None:
        """Averages the gradients over all processes and steps; a gradient that is not finite counts nothing."""
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        row = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        row.nan_to_num_(nan=0.0, posinf=1e4, neginf=-1e4)
        self.peers.average_(row)
        if math.isfinite(clip):
            row *= (clip / (row.norm() + 1e-6)).clamp_max(1.0)
        for p, part in zip(parameters, row.split([p.numel() for p in parameters]), strict=True):
            p.grad = part.view_as(p)
        optimizer.step()

    # --- state

    def _modules(self) -> dict[str, nn.Module]:
        return {"average": self.average, "judge": self.judge}

    def save(self, folder: Path) -> None:
        """Writes what travels, each file whole or as it was before."""
        folder.mkdir(parents=True, exist_ok=True)
        names = ("average", "judge") if self.config.which == WHOLE else ("average",)
        files = {
            name: {k: v.half().contiguous() for k, v in self._modules()[name].state_dict().items()} for name in names
        }
        files["moments"] = moments.pack(self.optimizer, {"encoder": self.encoder})
        files["moments"] |= moments.pack(self.judge_optimizer, {"judge": self.judge})
        for name, content in files.items():
            with atomic_path(folder / f"{name}.safetensors") as temporary:
                save_file(content, temporary)
        told = {name: getattr(self, name) for name in COUNTERS}
        told |= {"config": asdict(self.config), "shape": asdict(self.encoder.shape)}
        write_json(folder / "state.json", told | {"generator_hash": tensors_hash(self.generator.state_dict())})

    def load(self, folder: Path, begin: bool = False) -> None:
        """Goes on from what `save` wrote.

        Args:
            begin: take the weights alone, as the start of a new chain: the second encoder from the first, or either
                from one of another generator.

        Raises:
            InputError: it is not there, or of another shape or generator.
        """
        generator = None if begin else self.generator
        average = average_of(folder, generator, self.device)
        if average.shape != self.encoder.shape:
            raise InputError(f"{folder} holds an encoder of another shape")
        for module in (self.encoder, self.average):
            own = {k: v for k, v in module.state_dict().items() if k in ("mean_w", "scales")}
            module.load_state_dict(average.state_dict() | own)
        if begin:
            return
        told = read_json(folder / "state.json")
        try:
            if self.config.which == WHOLE:
                judge = load_file(folder / "judge.safetensors", str(self.device))
                self.judge.load_state_dict({k: v.float() for k, v in judge.items()})
            carried = load_file(folder / "moments.safetensors")
            moments.unpack(self.optimizer, {"encoder": self.encoder}, carried)
            moments.unpack(self.judge_optimizer, {"judge": self.judge}, carried)
            for name in COUNTERS:
                setattr(self, name, told[name])
        except (OSError, KeyError, RuntimeError, SafetensorError) as error:
            raise _no_state(folder, error) from error


def _no_state(folder: Path, error: Exception) -> InputError:
    return InputError(f"{folder} holds no state of an encoder ({type(error).__name__})")


def average_of(folder: Path, generator: EG3DGenerator | None, device: torch.device | str = "cpu") -> Encoder:
    """The averaged encoder of a chain's state, frozen.

    Args:
        generator: that it must have been trained for; None = whichever it was.

    Raises:
        InputError: the folder holds none, or one of another generator.
    """
    told = read_json(folder / "state.json")
    try:
        if generator is not None and told["generator_hash"] != tensors_hash(generator.state_dict()):
            raise InputError(f"{folder} holds an encoder of another generator; begin a new chain from it")
        shape = EncoderShape.from_json(told["shape"])
        encoder = Encoder(shape, torch.zeros(1, shape.num_ws, shape.w_dim), 1.0, 1.0)
        encoder.load_state_dict({k: v.float() for k, v in _average_in(folder, told).items()})
    except (OSError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise _no_state(folder, error) from error
    return encoder.to(device).eval().requires_grad_(False)


def _average_in(folder: Path, told: dict[str, Any]) -> dict[str, Tensor]:
    """The averaged weights of a chain: its own file, or what ships, where that was made at the same place of the
    chain."""
    path, which = folder / "average.safetensors", told["config"]["which"]
    if path.exists():
        return load_file(path)
    shipped = cached(SHIPPED)
    header = {} if shipped is None else read_header(shipped)
    if shipped is None or header.get("training", {}).get(which, {}).get("pictures") != told["pictures"]:
        raise InputError(f"{folder} lacks average.safetensors, and what ships is of another place in the chain")
    tensors = load_file(shipped)
    return {k.removeprefix(f"{which}."): v for k, v in tensors.items() if k.startswith(f"{which}.")}


def encoder_config(folder: Path) -> dict[str, Any]:
    """The configuration of a chain that was saved. Raises InputError if there is none."""
    return dict(read_json(folder / "state.json")["config"])
