"""Trains the perceptual network on a pack of synthetic heads that may still be growing.

`python -m pmv.training.perceptual --packs runs/generator/packs --out runs/perceptual --minutes 4`; the same command
goes on where it stopped. It leaves heads.safetensors and heads.json (assets/perceptual), log.csv and state.pt.

What makes features that compare heads well? They must know what is a head and what is not, where each pixel lies on
it, which way its surface faces, and what tells one head from another. So each level's features from the third on have
a linear probe for silhouette, position and normal at its own resolution, the coarse ones a reader of the head's
parameters z, and all levels together a decoder (thrown away afterwards) for the same at full resolution and for the
picture without what was done to it, which keeps detail in the fine levels.
"""

import argparse
import csv
import itertools
import math
import signal
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmv.errors import InputError
from pmv.files.artifacts import atomic_path, file_hash, write_json
from pmv.fitting.heads_features import SLOPE, FeatureShape, HeadsFeatures, convolution, save_heads_features
from pmv.training.augment import Augment, Sample, surface
from pmv.training.batches import HeadStore
from pmv.training.data import HeadPack, wait_for

Z_LIMIT = 2.5
"""z is predicted clipped to this: beyond it a head hardly changes."""
POSITION_SCALE = 0.1
"""World units that count like a right angle of the normal."""
SHAPES = {"heads": FeatureShape(), "tiny": FeatureShape((4, 8, 12, 16, 24))}


@dataclass(frozen=True)
class PerceptualConfig:
    """Numbers of a run.

    Attributes:
        minutes: length of the schedule in minutes of training.
        steps: length in steps instead (0: minutes count).
        batch: pictures a step, of as many heads.
        learning_rate: Adam's; rises over the first 2 % of the run and falls to zero as a half cosine.
        weight_decay: AdamW's.
        z_weight, position_weight, normal_weight, alpha_weight, clean_weight: of the terms of the objective.
        size: "heads" is what ships, "tiny" trains on a CPU in seconds.
        seed: of weights, batches and changes.
    """

    minutes: float = 4.0
    steps: int = 0
    batch: int = 96
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    z_weight: float = 1.0
    position_weight: float = 0.5
    normal_weight: float = 1.0
    alpha_weight: float = 1.0
    clean_weight: float = 2.0
    size: str = "heads"
    seed: int = 0


class Learner(nn.Module):
    """The network while it learns (convolutions with batch normalisation), its probes and its decoder."""

    DENSE = 7  # silhouette, position, normal
    WIDTHS = (16, 32, 48)  # of the decoder's levels; the last is that of all coarser ones
    EPSILON = 1e-5  # added to the variances
    PROBED = 2  # the first level whose features see enough for a probe

    def __init__(self, shape: FeatureShape, z_dim: int) -> None:
        super().__init__()
        self.shape = shape
        rows = shape.convolutions()
        self.convolutions = nn.ModuleList(convolution(a, b, stride, False) for a, b, stride, _ in rows)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b, self.EPSILON, momentum=0.05, affine=False) for _, b, *_ in rows)
        self.ends = [end for *_, end in rows]
        wide = [after for _, after, _, end in rows if end]
        self.probes = nn.ModuleList(nn.Conv2d(c, self.DENSE, 1) for c in wide[self.PROBED :])
        self.readers = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * c, 2 * c), nn.LeakyReLU(SLOPE), nn.Linear(2 * c, z_dim)) for c in wide[-3:]
        )
        widths = (*self.WIDTHS, *[self.WIDTHS[-1]] * len(wide))[: len(wide)]
        self.laterals = nn.ModuleList(nn.Conv2d(c, width, 1) for c, width in zip(wide, widths))
        self.mixers = nn.ModuleList(nn.Conv2d(b, a, 3, padding=1) for a, b in itertools.pairwise(widths))
        self.dense = nn.Conv2d(widths[1], self.DENSE, 1)
        self.clean = nn.Conv2d(widths[0], 3, 3, padding=1)

    def features(self, image: Tensor) -> list[Tensor]:
        """Each level's features after the activation."""
        levels, x = [], image
        for layer, norm, end in zip(self.convolutions, self.norms, self.ends):
            x = F.leaky_relu(norm(layer(x)), SLOPE)
            if end:
                levels.append(x)
        return levels

    def forward(self, image: Tensor) -> dict[str, Any]:
        """Images [N,3,R,R] → "probes": dense predictions [N,7,R/2^i,R/2^i] of the levels from `PROBED` on; "z": list of
        [N,D], the last from the coarsest level; "dense" [N,7,R/2,R/2]; "clean" [N,3,R,R]."""
        levels = self.features(image)
        result: dict[str, Any] = {"probes": [probe(x) for probe, x in zip(self.probes, levels[self.PROBED :])]}
        pooled = [torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1) for x in levels[-3:]]
        result["z"] = [reader(x) for reader, x in zip(self.readers, pooled)]
        x = self.laterals[-1](levels[-1])
        for level in range(len(levels) - 2, -1, -1):
            x = F.interpolate(self.mixers[level](F.leaky_relu(x, SLOPE)), scale_factor=2, mode="nearest")
            x = x + self.laterals[level](levels[level])
            if level == 1:
                result["dense"] = self.dense(F.leaky_relu(x, SLOPE))
        result["clean"] = self.clean(F.leaky_relu(x, SLOPE))
        return result

    @torch.no_grad()
    def fold(self) -> HeadsFeatures:
        """The network alone, on the CPU, the normalisation inside its convolutions, level weights 1."""
        network = HeadsFeatures(self.shape)
        own, folded = self.state_dict(), {"level_weights": network.level_weights}
        for i in range(len(self.convolutions)):
            scale = (own[f"norms.{i}.running_var"] + self.EPSILON).rsqrt()
            folded[f"convolutions.{i}.weight"] = own[f"convolutions.{i}.weight"] * scale[:, None, None, None]
            folded[f"convolutions.{i}.bias"] = -own[f"norms.{i}.running_mean"] * scale
        network.load_state_dict(folded)
        return network.eval().requires_grad_(False)


def dense_terms(predicted: Tensor, sample: Sample) -> dict[str, Tensor]:
    """Errors of predictions [N,7,h,w] for pixels of any size."""
    size = predicted.shape[-2:]

    def shrunk(x: Tensor) -> Tensor:
        return F.interpolate(x, size, mode="area") if x.shape[-2:] != size else x

    known = shrunk(sample.known)
    # as premultiplied colours: cells that are known in part weigh in part
    position, normal = shrunk(sample.position), shrunk(sample.normal)
    total = known.sum().clamp_min(1.0)
    off = (predicted[:, 1:4] * POSITION_SCALE * known - position).norm(dim=1, keepdim=True) / POSITION_SCALE
    turned = (predicted[:, 4:] * known - normal).square().sum(1, keepdim=True) / 2
    return {
        "alpha": F.binary_cross_entropy_with_logits(predicted[:, :1], shrunk(sample.alpha)),
        "position": off.sum() / total,
        "normal": turned.sum() / total,
    }


def objective(result: dict[str, Any], sample: Sample, config: PerceptualConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum to minimise and, for the log, the full decoder's terms. The probes together count as much as the
    decoder."""
    weights = {"alpha": config.alpha_weight, "position": config.position_weight, "normal": config.normal_weight}

    def weighted(terms: dict[str, Tensor]) -> Tensor:
        return torch.stack([weights[name] * value for name, value in terms.items()]).sum()

    z = sample.z.clamp(-Z_LIMIT, Z_LIMIT)
    shown = dense_terms(result["dense"].float(), sample)
    shown["clean"] = (result["clean"].float() - sample.clean).abs().mean()
    total = weighted({k: shown[k] for k in weights}) + config.clean_weight * shown["clean"]
    total = total + torch.stack([weighted(dense_terms(p.float(), sample)) for p in result["probes"]]).mean()
    errors = torch.stack([(p.float() - z).square().mean() for p in result["z"]])
    shown["z"] = errors[-1]
    return total + config.z_weight * errors.mean(), shown | {"total": total.detach()}


class Trainer:
    """One run and its complete state."""

    def __init__(self, config: PerceptualConfig, store: HeadStore, device: torch.device) -> None:
        self.config, self.store, self.device = config, store, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.learner = Learner(SHAPES[config.size], store.pack.layout.z_dim).to(device)
        if device.type == "cuda":
            self.learner = self.learner.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(
            self.learner.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        self.batches = torch.Generator().manual_seed(config.seed)
        self.augment = Augment(torch.Generator(device).manual_seed(config.seed))
        self.step_count, self.elapsed = 0, 0.0

    @property
    def progress(self) -> float:
        """In [0,1]."""
        done = self.step_count / self.config.steps if self.config.steps else self.elapsed / (60 * self.config.minutes)
        return min(1.0, done)

    def step(self) -> dict[str, Tensor]:
        """One step; its terms."""
        rate = self.config.learning_rate * min(1.0, (self.progress + 1e-3) / 0.02)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * self.progress))
        sample = self.augment(self.store.sample(self.config.batch, 1, self.batches))
        image = sample.image
        if self.device.type == "cuda":
            image = image.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            result = self.learner(image)
        total, shown = objective(result, sample, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.learner.parameters(), 5.0)
        self.optimizer.step()
        self.step_count += 1
        return {name: value.detach() for name, value in shown.items()}

    def save(self, path: Path) -> None:
        """Everything that `load` needs, atomically."""
        state = {
            "learner": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "batches": self.batches.get_state(),
            "augment": self.augment.generator.get_state(),
            "count": (self.step_count, self.elapsed),
        }
        with atomic_path(path) as temporary:
            torch.save(state, temporary)

    def load(self, path: Path) -> None:
        """Goes on from a state. Raises InputError if it is of another size of network."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        try:
            self.learner.load_state_dict(state["learner"])
        except RuntimeError as error:
            raise InputError(f"{path} is the state of another network; give a new --out") from error
        self.optimizer.load_state_dict(state["optimizer"])
        self.batches.set_state(state["batches"].cpu())
        if self.device.type == self.augment.generator.device.type:
            self.augment.generator.set_state(state["augment"].cpu())
        self.step_count, self.elapsed = state["count"]


@torch.no_grad()
def calibrate(network: HeadsFeatures, store: HeadStore, seed: int = 0, rounds: int = 8) -> dict[str, list[float]]:
    """Sets the level weights so that every level contributes alike, and that different heads are 0.5 apart on average.

    "Alike" is the geometric mean over two kinds of pairs: different heads, and a head against the same picture
    blurred, moved by about two pixels and tinted, as a fit on its way looks.

    Returns: the mean unweighted distance of each level, for both kinds.
    """
    generator = torch.Generator().manual_seed(seed)
    augment = Augment(torch.Generator(store.device).manual_seed(seed))
    rows: dict[str, list[Tensor]] = {"other heads": [], "near": []}
    for _ in range(rounds):
        image = store.sample(min(16, max(2, len(store))), 1, generator).image
        rows["other heads"].append(network.levels(image, image.roll(1, 0)).mean(0))
        angle, scale = 0.02 * augment.normal(image), torch.exp(0.015 * augment.normal(image))
        shift = augment.normal(image, 2) * 3.0 / image.shape[-1]
        c, s = scale * angle.cos(), scale * angle.sin()
        theta = torch.stack([torch.stack([c, -s, shift[:, 0]], 1), torch.stack([s, c, shift[:, 1]], 1)], 1)
        moved = F.grid_sample(image, F.affine_grid(theta, list(image.shape), align_corners=False), align_corners=False)
        moved = augment.blur(moved) * torch.exp(0.05 * augment.normal(image, 3, 1, 1))
        rows["near"].append(network.levels(image, moved.clamp(-1, 1)).mean(0))
    other, near = (torch.stack(values).mean(0).double() for values in rows.values())
    weights = (other * near).clamp_min(1e-12).rsqrt()
    weights *= 0.5 / (weights * other).sum()
    network.level_weights.copy_(weights)
    return {"other heads": other.tolist(), "near": near.tolist()}


def explained_variance(true: Tensor, guess: Tensor) -> tuple[float, float]:
    """Share of the variance of z [N,D] that a guess [N,D] explains: of all entries together, and the mean over the
    quarter of them that is guessed best. An entry that hardly differs among these heads has no share of its own; where
    none differs, both are 0."""
    wrong, spread = (true - guess).square().sum(0), (true - true.mean(0)).square().sum(0)
    varied = spread > 0.01 * len(true)
    if not varied.any():
        return 0.0, 0.0
    shares = (1 - wrong / spread)[varied].sort(descending=True)[0]
    return float(1 - wrong.sum() / spread.sum()), float(shares[: max(1, len(shares) // 4)].mean())


@torch.no_grad()
def judge(trainer: Trainer, store: HeadStore) -> dict[str, float]:
    """How well unchanged held-out pictures are read: share of the variance of z that is explained (fronts only),
    mean errors of position (units) and normal (degrees), all views."""
    learner = trainer.learner.eval()
    z, guesses, off, turned, pixels = [], [], 0.0, 0.0, 0.0
    views = torch.arange(store.pack.layout.views)
    for slot in store.slots:
        batch = store.batch(slot[None], views[None])
        result = learner(batch.image)
        position, normal, known = surface(batch)
        dense = result["dense"].float()
        off += float(((dense[:, 1:4] * POSITION_SCALE - position).norm(dim=1, keepdim=True) * known).sum())
        cosine = F.cosine_similarity(dense[:, 4:], normal, dim=1).clamp(-1, 1)[:, None]
        turned += float((cosine.acos().rad2deg() * known).sum())
        pixels += float(known.sum())
        z.append(batch.z.clamp(-Z_LIMIT, Z_LIMIT))
        guesses.append(result["z"][-1][:1].float())
    learner.train()
    explained, best = explained_variance(torch.cat(z), torch.cat(guesses))
    return {
        "z_explained": explained,
        "z_explained_best_quarter": best,
        "position_error": off / max(pixels, 1.0),
        "normal_error_degrees": turned / max(pixels, 1.0),
    }


def export(trainer: Trainer, folder: Path, held_out: HeadStore | None, rounds: int = 8) -> dict[str, Any]:
    """Writes heads.safetensors and heads.json into a folder; returns what the JSON holds. `rounds` of calibration."""
    network = trainer.learner.fold().to(trainer.device)
    distances = calibrate(network, trainer.store, rounds=rounds)
    notes: dict[str, Any] = {
        "parameters": sum(p.numel() for p in network.parameters()),
        "channels": list(network.shape.channels),
        "level_weights": [round(w, 5) for w in network.level_weights.tolist()],
        "calibration": {name: [round(d, 5) for d in row] for name, row in distances.items()},
        "trained": {
            "steps": trainer.step_count,
            "minutes": round(trainer.elapsed / 60, 2),
            "identities": len(trainer.store),
            "views_per_identity": trainer.store.pack.layout.views,
            "resolution": trainer.store.pack.layout.resolution,
        },
        "config": asdict(trainer.config),
    }
    if held_out is not None and len(held_out):
        notes["held_out"] = {"heads": len(held_out)} | {k: round(v, 4) for k, v in judge(trainer, held_out).items()}
    path = folder / "heads.safetensors"
    save_heads_features(network, path, notes)
    write_json(folder / "heads.json", notes | {"size": path.stat().st_size, "sha256": file_hash(path)})
    return notes


class FirstHeads(HeadPack):
    """The first slots of a pack: what a device has memory for."""

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(path)
        self.layout = replace(self.layout, heads=min(most, self.layout.heads))
        for name in self.layout.arrays():
            setattr(self, name, getattr(self, name)[:most])


def open_pack(path: Path, most: int, seconds: float) -> HeadPack:
    """At most `most` heads of the pack at a path, waiting until another process has made it. Raises InputError if none
    comes."""
    end = time.monotonic() + seconds
    while not (path / "pack.json").exists() and time.monotonic() < end:
        time.sleep(0.2)
    return FirstHeads(path, most)


class Log:
    """Means of the terms between two lines, to the screen and to log.csv (long form)."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows, self.time = path, [], time.perf_counter()

    def add(self, terms: dict[str, Tensor]) -> None:
        """Takes in a step; does not wait for the device."""
        self.rows.append(terms)

    def line(self, trainer: Trainer) -> None:
        """Writes a line and starts new means."""
        if not self.rows:
            return
        means = {name: float(torch.stack([row[name] for row in self.rows]).mean()) for name in self.rows[0]}
        now = time.perf_counter()
        rate = len(self.rows) * trainer.config.batch / (now - self.time)
        head = {"minutes": trainer.elapsed / 60, "heads": len(trainer.store), "images/s": rate}
        row = head | means
        print(f"step {trainer.step_count}  " + "  ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows([trainer.step_count, name, round(value, 5)] for name, value in row.items())
        self.rows, self.time = [], now


def train(trainer: Trainer, out: Path, log_seconds: float, save_seconds: float) -> None:
    """Runs the schedule to its end, or until SIGTERM; leaves the state and the log."""
    stop = False

    def on_signal(*_: Any) -> None:
        nonlocal stop
        stop = True

    before = signal.signal(signal.SIGTERM, on_signal)
    log = Log(out / "log.csv")
    last = lined = saved = time.perf_counter()
    while trainer.progress < 1 and not stop:
        if trainer.step_count % 10 == 0:
            trainer.store.refresh(limit=32)
        log.add(trainer.step())
        if trainer.device.type == "cuda" and trainer.step_count % 10 == 0:
            torch.cuda.synchronize(trainer.device)  # launches must not run ahead of the clock
        now = time.perf_counter()
        trainer.elapsed += now - last
        last = now
        if now - lined >= log_seconds:
            log.line(trainer)
            lined = time.perf_counter()
        if now - saved >= save_seconds:
            trainer.save(out / "state.pt")
            export(trainer, out, None, rounds=1)  # what is there if the machine goes away
            last = saved = log.time = time.perf_counter()  # saving is no training
    log.line(trainer)
    trainer.save(out / "state.pt")
    signal.signal(signal.SIGTERM, before)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pmv.training.perceptual", description="Train the perceptual network."
    )
    parser.add_argument(
        "--packs", type=Path, required=True, help="what pmv.training.generator renders: holds training and held-out"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for state, log and weights; resumed if used")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--start-heads", type=int, default=200, help="training starts when so many are rendered")
    parser.add_argument("--most-heads", type=int, default=3000, help="heads taken at most (3.5 MB of 12 views each)")
    parser.add_argument("--wait", type=float, default=300, help="seconds to wait for the pack and its first heads")
    parser.add_argument("--log-seconds", type=float, default=10)
    parser.add_argument("--save-seconds", type=float, default=30)
    defaults = PerceptualConfig()
    for name, value in asdict(defaults).items():
        choices = tuple(SHAPES) if name == "size" else None
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(value), default=value, choices=choices, help="see PerceptualConfig")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    device = torch.device(options.device)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    options.out.mkdir(parents=True, exist_ok=True)
    pack = open_pack(options.packs / "training", options.most_heads, options.wait)
    store = HeadStore(pack, device)
    wait_for(pack, min(options.start_heads, pack.layout.heads), None, options.wait)
    store.refresh()
    config = PerceptualConfig(**{name: getattr(options, name) for name in asdict(PerceptualConfig())})
    trainer = Trainer(config, store, device)
    state = options.out / "state.pt"
    if state.exists():
        trainer.load(state)
    print(f"{trainer.learner.fold().shape}; {len(store)} heads, on {device}", flush=True)
    train(trainer, options.out, options.log_seconds, options.save_seconds)
    held_out = None
    if (options.packs / "held-out" / "pack.json").exists():
        held_out = HeadStore(HeadPack(options.packs / "held-out"), device)
        held_out.refresh(limit=64)
    notes = export(trainer, options.out, held_out)
    print(f"{notes}", flush=True)
    if device.type == "cuda":
        print(f"peak GPU memory {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB", flush=True)


if __name__ == "__main__":
    main()
