"""Trains the embedded generator, piece by piece, on synthetic heads that other processes render meanwhile.

A chain begins with `python -m pmv.training.generator --assets MAKEHUMAN --out runs/generator [--init heads] …`; the
same command goes on where it stopped, after `--piece-minutes`, at the latest at the end of the schedule. On another
machine `--carried training/state` goes on from what `pmv.training.chain` writes, with the chain's own numbers. On
several GPUs: `torchrun --nproc-per-node gpu -m pmv.training.generator …`. docs/training.md tells the whole.
`--smoke` runs every phase for a few seconds.
"""

import argparse
import math
import os
import shutil
import signal
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from pmv.generators import EG3DConfig, PanoHeadConfig, load_generator, save_generator
from pmv.generators.superresolution import SuperResolutionHead
from pmv.pictures.images import write_png
from pmv.training import chain, curve
from pmv.training.batches import HeadStore
from pmv.training.data import HeadPack, RenderPool, head_vector, held_out_layout, training_layout, wait_for
from pmv.training.distributed import Peers, own_device
from pmv.training.evaluate import detail_sheet, evaluate, random_sheet, report
from pmv.training.latents import with_entries, z_names
from pmv.training.profiling import profile
from pmv.training.trainer import TrainConfig, Trainer

JUDGED_HEADS = 16
"""Held-out heads that the learning curve is of."""


def shape_of(size: str, z_dim: int, grid_depth: int = 1) -> EG3DConfig:
    """The generator's numbers: "heads" is what ships, "tiny" trains on a CPU in seconds and looks like it.

    With `grid_depth` > 1 it has a tri-grid of so many layers (PanoHead, arXiv:2303.13071 §4.2), and is else the same.
    """
    family, changes = EG3DConfig, {}
    if grid_depth > 1:
        family, changes = PanoHeadConfig, dict(decoder_activation="sigmoid", grid_depth=grid_depth, margin=0.0)
        changes |= dict(raw_torgb=False, background_network=False)
    if size == "heads":
        return family.small(z_dim=z_dim, channel_max=256, **changes)
    return family.small(
        z_dim=z_dim,
        w_dim=64,
        plane_resolution=32,
        plane_channels=8,
        channel_base=1024,
        channel_max=32,
        decoder_hidden=32,
        coarse_samples=12,
        fine_samples=12,
        neural_resolution=16,
        resolution=64,
        head=SuperResolutionHead(16, (16, 16), (True, True), stores_filter=False),
        **changes,
    )


class Log:
    """Means of the losses between two lines; a line goes to the screen, to the curve and, if asked for, to
    TensorBoard."""

    def __init__(self, path: Path, machine: str, tensorboard: Path | None) -> None:
        self.path, self.machine = path, machine
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.time = time.perf_counter()
        self.pictures = 0
        self.writer = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(tensorboard))

    def add(self, terms: dict[str, Tensor], pictures: int) -> None:
        """Takes in a step; does not wait for the device."""
        self.pictures += pictures
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def line(self, trainer: Trainer, heads: int, held_out: dict[str, float]) -> None:
        """Writes a line and starts new means.

        Args:
            heads: rendered so far.
            held_out: what `evaluate` said, or nothing.
        """
        means = {name: float(value) / self.counts[name] for name, value in self.sums.items()}  # waits for the device
        now = time.perf_counter()
        piece = trainer.pieces[-1]
        row: curve.Row = {
            "piece": piece["piece"],
            "step": trainer.step_count,
            "pictures": trainer.pictures,
            "minutes": trainer.elapsed / 60,
            "gpu_minutes": sum(p["gpu_minutes"] for p in trainer.pieces),
            "machine": self.machine,
            "heads": heads,
            "pictures_per_second": self.pictures / (now - self.time),
            "learning_rate": trainer.learning_rate(),
        }
        if held_out:
            side = (held_out["psnr_right60"] + held_out["psnr_left60"]) / 2
            means |= {name: held_out[name] for name in curve.JUDGED if name in held_out} | {"psnr_side": side}
        row |= means
        print(
            f"{trainer.phase}  "
            + "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()),
            flush=True,
        )
        curve.append(self.path, row)
        if self.writer is not None:
            for name, value in row.items():
                if not isinstance(value, str):
                    self.writer.add_scalar(name, value, trainer.step_count)
        self.sums, self.counts, self.pictures, self.time = {}, {}, 0, now


def export(trainer: Trainer, folder: Path, notes: dict) -> None:
    """Writes the averaged generator as heads.safetensors (fp16) and heads.json."""
    average = trainer.average
    with torch.no_grad():  # truncation pulls towards this
        average.backbone.mapping.w_avg.copy_(average.mean_w()[0, 0])
    run = {"pieces": trainer.pieces, "config": asdict(trainer.config)}
    notes = {"z_names": _names(), "training": [run], **notes}
    save_generator(average, folder / "heads.safetensors", torch.float16, notes)


def _names() -> list[str]:
    from pmv.training.heads import HeadParameters

    return list(HeadParameters.names)


def checkpoint(trainer: Trainer, held_out: HeadStore, folder: Path) -> None:
    """Writes the state, whole (state.pt) and to travel (state/), the export, and `sheets/`: held-out fronts, true and
    drawn, and heads of random latents."""
    trainer.save(folder / "state.pt")
    chain.save(trainer, folder / "state", _names())
    export(trainer, folder, {})
    held_out.refresh()
    sheets = folder / "sheets"
    sheets.mkdir(exist_ok=True)
    if len(held_out):
        write_png(sheets / f"{trainer.step_count:06d}.png", detail_sheet(trainer.average, held_out))
    write_png(sheets / f"{trainer.step_count:06d}-random.png", random_sheet(trainer.average, 8))


def train(
    trainer: Trainer, held_out: HeadStore, options: argparse.Namespace, rendering: list[RenderPool], end: float
) -> None:
    """Steps until the schedule ends, the piece does, or SIGTERM comes; leaves state, export and curve in
    `options.out`.

    Args:
        held_out: heads to judge by; of the leading process alone.
        end: when the piece ends, by time.perf_counter().
    """
    stop = False

    def on_signal(*_) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, on_signal)
    peers, leads = trainer.peers, trainer.peers.leads
    cards = f"{peers.count}x {torch.cuda.get_device_name()}" if trainer.device.type == "cuda" else "cpu"
    log = Log(options.out / "state" / chain.CURVE, cards, options.out / "tensorboard" if options.tensorboard else None)
    started = saved = judged = lined = last = time.perf_counter()
    trainer.elapsed = 0.0
    trainer.pieces.append({"piece": len(trainer.pieces) + 1, "machine": cards, "from_pictures": trainer.pictures})
    first_step = trainer.step_count

    def told() -> int:
        """Brings what is told of this piece up to date; returns how many heads there are."""
        heads = len(trainer.store.pack.slots())
        gpu_minutes = trainer.elapsed / 60 * peers.count if trainer.device.type == "cuda" else 0.0
        trainer.pieces[-1] |= {"minutes": round(trainer.elapsed / 60, 3), "gpu_minutes": round(gpu_minutes, 3)}
        trainer.pieces[-1] |= {"steps": trainer.step_count - first_step, "to_pictures": trainer.pictures}
        trainer.pieces[-1] |= {"heads": heads, "views": trainer.store.pack.layout.views}
        return heads

    while trainer.progress < 1:
        if trainer.step_count % 10 == 0:
            if peers.any(stop or time.perf_counter() > end, trainer.device):
                break
            trainer.store.refresh(limit=32)
        if options.profile and trainer.step_count == first_step + options.profile:
            written = profile(trainer, 16).table()  # one of the lazy rounds is among them
            if leads:
                (options.out / "profile.txt").write_text(written)
            last = log.time = time.perf_counter()
            continue
        before = trainer.pictures
        log.add(trainer.step(), trainer.pictures - before)
        now = time.perf_counter()
        trainer.elapsed += now - last
        last = now
        if leads and now - lined >= options.log_seconds:
            lined, scores = now, {}
            for pool in rendering:
                pool.running()  # starts anew who failed
            if now - judged >= options.judge_seconds and held_out.refresh() + len(held_out):
                judged = now
                scores = evaluate(trainer.average, held_out, JUDGED_HEADS)
            log.line(trainer, told(), scores)
            if now - saved >= options.save_seconds:
                saved = now
                checkpoint(trainer, held_out, options.out)
            # judging and saving are no training
            last = log.time = time.perf_counter()
    told()
    if leads:
        held_out.refresh()
        log.line(trainer, told(), evaluate(trainer.average, held_out, JUDGED_HEADS) if len(held_out) else {})
        checkpoint(trainer, held_out, options.out)
        print(f"trained for {time.perf_counter() - started:.1f} s of wall clock", flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pmv.training.generator", description="Train the embedded generator."
    )
    parser.add_argument("--assets", type=Path, required=True, help="MakeHuman checkout, or its compiled .npz")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for state, curve, export and evaluation; resumed if used"
    )
    parser.add_argument("--packs", type=Path, help="folder of the rendered heads (default: OUT/packs)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", choices=("heads", "tiny"), default="heads")
    parser.add_argument("--grid-depth", type=int, default=1, help="layers of a tri-grid; 1: tri-planes")
    parser.add_argument("--piece-minutes", type=float, default=math.inf, help="wall clock from start to last step")
    parser.add_argument("--train-heads", type=int, default=6000, help="identities to render")
    parser.add_argument("--train-views", type=int, default=12, help="views of each")
    parser.add_argument("--start-heads", type=int, default=300, help="training starts when so many are rendered")
    parser.add_argument("--held-out", type=int, default=64, help="held-out identities")
    parser.add_argument(
        "--gaussian", type=float, default=0.15, help="share of identities with a standard normal latent"
    )
    parser.add_argument(
        "--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2), help="rendering processes; 0: packs are there"
    )
    parser.add_argument(
        "--render-gpus", type=int, nargs="*", default=[], help="EGL devices to render on (default: the driver's choice)"
    )
    parser.add_argument("--init", help="begin a new chain from this generator's weights (name or file)")
    parser.add_argument("--carried", type=Path, metavar="FOLDER", help="go on from a chain (`training/state`)")
    parser.add_argument("--smoke", action="store_true", help="every phase for seconds, with few heads")
    parser.add_argument("--profile", type=int, default=0, metavar="STEP", help="write profile.txt after so many steps")
    parser.add_argument("--tensorboard", action="store_true")
    parser.add_argument("--log-seconds", type=float, default=20)
    parser.add_argument("--judge-seconds", type=float, default=60)
    parser.add_argument("--save-seconds", type=float, default=120)
    defaults = asdict(TrainConfig())
    for name, value in defaults.items():
        kind: dict = {"action": argparse.BooleanOptionalAction} if isinstance(value, bool) else {"type": type(value)}
        parser.add_argument(f"--{name.replace('_', '-')}", default=value, help="see TrainConfig", **kind)
    carried = parser.parse_known_args(arguments)[0].carried
    if carried:  # the chain's numbers, unless told otherwise
        parser.set_defaults(**{k: v for k, v in chain.config(carried).items() if k in defaults})
    options = parser.parse_args(arguments)
    if options.smoke:
        smoke = dict(pictures=1500.0, half_until=0.2, raw_until=0.4, adversarial_from=0.6, judge_warmup=60.0)
        smoke |= dict(warmup=100.0, ema_half_life=100.0, piece_minutes=10.0, log_seconds=2.0)
        smoke |= dict(train_heads=8 * options.workers, held_out=4, start_heads=16, judge_seconds=8.0, save_seconds=10.0)
        for name, value in smoke.items():
            setattr(options, name, value)
    options.packs = options.packs or options.out / "packs"
    return options


def open_packs(options: argparse.Namespace, resolution: int, peers: Peers) -> tuple[list[HeadPack], list[RenderPool]]:
    """The training and the held-out pack, and who makes them grow (nobody of ours with --workers 0; else processes of
    the leading one)."""
    paths = options.packs / "training", options.packs / "held-out"
    if not options.workers or not peers.leads:
        peers.wait()  # until they are made
        return [HeadPack(path) for path in paths], []
    layout = training_layout(options.train_heads, options.train_views, resolution, options.gaussian)
    packs = [HeadPack.create(paths[1], held_out_layout(options.held_out, resolution))]
    packs.insert(0, HeadPack.create(paths[0], layout))
    peers.wait()
    few = max(1, options.workers // 5)
    counts = (options.workers, few)
    return packs, [RenderPool(pack, options.assets, n, options.render_gpus) for pack, n in zip(packs, counts)]


def begin(trainer: Trainer, options: argparse.Namespace) -> None:
    """Puts the trainer where the chain stands: this machine's own state, a carried one, other weights, or nothing."""
    own, told = options.out / "state.pt", options.out / "state"
    if own.exists():
        trainer.load(own)
    elif options.carried:
        chain.load(trainer, options.carried, _names())
        if trainer.peers.leads and (options.carried / chain.CURVE).exists():
            told.mkdir(parents=True, exist_ok=True)
            shutil.copy(options.carried / chain.CURVE, told / chain.CURVE)
    elif options.init:
        generator = load_generator(options.init, trainer.device)
        trainer.start_from(with_entries(generator, z_names(options.init), _names()))


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    start = time.perf_counter()
    device = own_device(options.device)
    # trying more algorithms cost 20 s at the first step of a phase, beside processes that render on the same GPU
    torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit = True, 2
    torch.set_float32_matmul_precision("high")  # TF32, as convolutions have it anyway
    peers = Peers.join(device)
    (options.out / "state").mkdir(parents=True, exist_ok=True)
    shape = shape_of(options.size, len(head_vector(0, 0.0)), options.grid_depth)
    (pack, judged), rendering = open_packs(options, shape.resolution, peers)
    try:
        store, held_out = HeadStore(pack, device, (peers.rank, peers.count)), HeadStore(judged, device)
        config = TrainConfig(**{name: getattr(options, name) for name in asdict(TrainConfig())})
        trainer = Trainer(config, shape, store, device, peers)
        begin(trainer, options)
        if peers.leads:
            millions = sum(p.numel() for p in trainer.generator.parameters()) / 1e6
            print(f"{millions:.2f} M parameters, z has {shape.z_dim} entries, on {peers.count}x {device}", flush=True)
        wait_for(pack, min(options.start_heads, pack.layout.heads), rendering[0] if rendering else None)
        store.refresh()
        if peers.leads:
            ready = len(pack.slots())
            print(f"{ready} heads rendered {time.perf_counter() - start:.1f} s after the start", flush=True)
        train(trainer, held_out, options, rendering, start + 60 * options.piece_minutes)
        if peers.leads:
            wait_for(judged, judged.layout.heads, rendering[1] if rendering else None)
            held_out.refresh()
            result = report(trainer.average, held_out, options.out, len(held_out))
            notes = {"heads": len(held_out)} | {k: round(v, 4) for k, v in result.items()}
            export(trainer, options.out, {"evaluation": notes})
            if device.type == "cuda":
                print(f"peak GPU memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", flush=True)
    finally:
        for pool in rendering:
            pool.stop()
    peers.leave()


if __name__ == "__main__":
    main()
