"""Trains one of the two encoders, piece by piece, on synthetic heads that other processes render meanwhile.

`python -m pmv.training.encoder --which visible --assets ASSETS --out runs/visible` begins a chain or goes on with the
one in OUT; on another machine `--carried FOLDER` goes on from what the last piece left in OUT/state. The second encoder
begins from the first: `--which whole --begin runs/visible/state`. On several GPUs by torchrun, see docs/training.md.
"""

import argparse
import csv
import math
import os
import shutil
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pmv.encoders.network import Encoder
from pmv.fitting.efficientnet import load_efficientnet
from pmv.fitting.identity import load_identity
from pmv.generators import EG3DGenerator, load_generator
from pmv.pictures.images import write_png
from pmv.portrait.five_points import anchor_points
from pmv.training.batches import HeadStore
from pmv.training.chain import average as chain_average
from pmv.training.data import HELD_OUT_SEED, HeadPack, RenderPool, portraits_layout, wait_for
from pmv.training.distributed import Peers, own_device
from pmv.training.encoder.evaluate import FIGURES, evaluate, sheet
from pmv.training.encoder.objective import Judges
from pmv.training.encoder.trainer import EncoderConfig, EncoderTrainer, encoder_config

SIZES: dict[str, dict[str, Any]] = {
    "heads": {},
    "tiny": dict(widths=(8, 12, 16, 16), blocks=(1, 1, 1, 1), hidden=16, pyramid=8)
    | dict(detail=8, plane_width=8, lift_size=16, lift_samples=12),
}
"""By name: what differs from `EncoderShape`'s own sizes."""
CURVE = "curve.csv"
_FIRST = ("piece", "step", "pictures", "minutes", "machine", "heads", "pictures_per_second")
_TERMS = ("raw", "raw_gradient", "alpha", "depth", "image", "gradient", "perceptual", "identity")
_OWN_TERMS = ("surface", "relief", "pose", "residual", "planes", "opinion", "judge", "penalty")
COLUMNS: tuple[str, ...] = (*_FIRST, *_TERMS, *_OWN_TERMS, *FIGURES)


class Curve:
    """Means of the losses between two lines of the curve, which go to the screen too."""

    def __init__(self, path: Path) -> None:
        self.path, self.since = path, time.perf_counter()
        self.sums: dict[str, tuple[Tensor, int]] = {}
        self.pictures = 0

    def add(self, terms: dict[str, Tensor], pictures: int) -> None:
        """Takes in a step; does not wait for the device."""
        self.pictures += pictures
        for name, value in terms.items():
            total, count = self.sums.get(name, (torch.zeros_like(value), 0))
            self.sums[name] = total + value, count + 1

    def line(self, row: dict[str, Any]) -> None:
        """Writes a line and starts new means."""
        row |= {name: float(total) / count for name, (total, count) in self.sums.items()}
        row["pictures_per_second"] = self.pictures / max(1e-6, time.perf_counter() - self.since)
        row = {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()}
        print("  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
        begins = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
            if begins:
                writer.writeheader()
            writer.writerow(row)
        self.sums, self.pictures, self.since = {}, 0, time.perf_counter()


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pmv.training.encoder", description="Train an encoder.")
    parser.add_argument("--assets", type=Path, required=True, help="MakeHuman checkout, or its compiled .npz")
    parser.add_argument("--out", type=Path, required=True, help="folder for state, curve and sheets; resumed if used")
    parser.add_argument("--packs", type=Path, help="folder of the rendered heads (default: OUT/packs)")
    parser.add_argument("--generator", default="heads", help="name, file, or a folder with a chain's state")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", choices=list(SIZES), default="heads")
    parser.add_argument("--piece-minutes", type=float, default=math.inf, help="wall clock from start to last step")
    parser.add_argument("--train-heads", type=int, default=8000, help="identities to render")
    parser.add_argument("--train-views", type=int, default=8, help="views of each, half of them photos")
    parser.add_argument("--first-seed", type=int, default=0, help="of these identities: others in every piece")
    parser.add_argument("--start-heads", type=int, default=400, help="training starts when so many are rendered")
    parser.add_argument("--held-out", type=int, default=48, help="held-out identities")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2), help="rendering processes")
    parser.add_argument("--render-gpus", type=int, nargs="*", default=[], help="EGL devices to render on")
    parser.add_argument("--begin", type=Path, metavar="FOLDER", help="begin a new chain from these weights")
    parser.add_argument("--carried", type=Path, metavar="FOLDER", help="go on from a chain's state")
    parser.add_argument("--log-seconds", type=float, default=20)
    parser.add_argument("--judge-seconds", type=float, default=60)
    defaults = asdict(EncoderConfig())
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help="see EncoderConfig")
    carried = parser.parse_known_args(arguments)[0].carried
    if carried:  # the chain's numbers, unless told otherwise
        parser.set_defaults(**{k: v for k, v in encoder_config(carried).items() if k in defaults})
    options = parser.parse_args(arguments)
    options.packs = options.packs or options.out / "packs"
    return options


def load_teacher(name: str, device: torch.device) -> EG3DGenerator:
    """The generator that an encoder is made for: shipped, a file, or the average of a chain that is still open."""
    if Path(name, "state.json").exists():
        from pmv.training.heads import HeadParameters

        return chain_average(Path(name), list(HeadParameters.names)).to(device)
    generator = load_generator(name, device=device)
    if not isinstance(generator, EG3DGenerator):
        raise SystemExit(f"{name}: encoders are trained for generators of tri-planes")
    return generator


def open_packs(options: argparse.Namespace, resolution: int, peers: Peers) -> tuple[list[HeadPack], list[RenderPool]]:
    """The training and the held-out pack, and who makes them grow."""
    paths = options.packs / "training", options.packs / "held-out"
    if not options.workers or not peers.leads:
        peers.wait()  # until they are made
        return [HeadPack(path) for path in paths], []
    layouts = (
        portraits_layout(options.train_heads, options.train_views, resolution, options.first_seed),
        portraits_layout(options.held_out, options.train_views, resolution, HELD_OUT_SEED),
    )
    packs = [HeadPack.create(path, layout) for path, layout in zip(paths, layouts, strict=True)]
    peers.wait()
    counts = options.workers, max(1, options.workers // 5)
    return packs, [RenderPool(pack, options.assets, n, options.render_gpus) for pack, n in zip(packs, counts)]


def train(
    trainer: EncoderTrainer, pack: HeadPack, held_out: HeadStore, options: argparse.Namespace, end: float
) -> None:
    """Steps until the schedule or the piece ends, or SIGTERM comes; leaves state, curve and a sheet in
    `options.out`."""
    stop = False

    def on_signal(*_) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, on_signal)
    peers = trainer.peers
    machine = f"{peers.count}x {torch.cuda.get_device_name()}" if trainer.device.type == "cuda" else "cpu"
    curve = Curve(options.out / "state" / CURVE)
    started = lined = judged = time.perf_counter()
    trainer.pieces.append({"piece": len(trainer.pieces) + 1, "machine": machine, "from_pictures": trainer.pictures})

    def line(heads_judged: int) -> None:
        heads = len(pack.slots())
        minutes = (time.perf_counter() - started) / 60
        trainer.pieces[-1] |= {"minutes": round(minutes, 2), "to_pictures": trainer.pictures, "heads": heads}
        row = {"piece": len(trainer.pieces), "step": trainer.step_count, "pictures": trainer.pictures}
        row |= {"minutes": minutes, "machine": machine, "heads": heads}
        if heads_judged and held_out.refresh() + len(held_out):
            row |= evaluate(trainer.average, trainer.generator, held_out, heads_judged)
        curve.line(row)

    while trainer.progress < 1:
        if trainer.step_count % 10 == 0:
            if peers.any(stop or time.perf_counter() > end, trainer.device):
                break
            trainer.teacher.store.refresh(limit=32)
        before = trainer.pictures
        curve.add(trainer.step(), trainer.pictures - before)
        now = time.perf_counter()
        if peers.leads and now - lined >= options.log_seconds:
            look = now - judged >= options.judge_seconds
            line(8 if look else 0)
            if look:
                trainer.save(options.out / "state")
                judged = time.perf_counter()
            lined = curve.since = time.perf_counter()
    if peers.leads:
        line(options.held_out)
        trainer.save(options.out / "state")
        if len(held_out):
            write_png(options.out / "sheet.png", sheet(trainer.average, trainer.generator, held_out, 6))


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    start = time.perf_counter()
    device = own_device(options.device)
    torch.set_float32_matmul_precision("high")
    peers = Peers.join(device)
    (options.out / "state").mkdir(parents=True, exist_ok=True)
    generator = load_teacher(options.generator, device)
    config = EncoderConfig(**{name: getattr(options, name) for name in asdict(EncoderConfig())})
    (pack, judged), rendering = open_packs(options, generator.spec.resolution, peers)
    try:
        store, held_out = HeadStore(pack, device, (peers.rank, peers.count)), HeadStore(judged, device)
        torch.manual_seed(config.seed)
        encoder = Encoder.for_generator(generator, **SIZES[options.size]).to(device)
        if device.type == "cuda":
            encoder = encoder.to(memory_format=torch.channels_last)
        identity = load_identity(device) if config.identity else None
        judges = Judges(load_efficientnet().to(device), identity, anchor_points("heads").to(device))
        trainer = EncoderTrainer(config, encoder, generator, store, judges, peers)
        own, carried = options.out / "state", options.carried
        if (own / "state.json").exists():
            trainer.load(own)
        elif carried:
            trainer.load(carried)
            if peers.leads and (carried / CURVE).exists():
                shutil.copy(carried / CURVE, own / CURVE)
        elif options.begin:
            trainer.load(options.begin, begin=True)
        wait_for(pack, min(options.start_heads, pack.layout.heads), rendering[0] if rendering else None)
        store.refresh()
        if peers.leads:
            count = sum(p.numel() for p in encoder.parameters()) / 1e6
            print(f"{config.which}: {count:.2f} M parameters, {len(pack.slots())} heads, {device}", flush=True)
        train(trainer, pack, held_out, options, start + 60 * options.piece_minutes)
    finally:
        for pool in rendering:
            pool.stop()
    peers.leave()


if __name__ == "__main__":
    main()
