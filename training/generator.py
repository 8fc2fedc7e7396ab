"""Trains the embedded generator on synthetic heads that other processes render meanwhile.

`python -m pmv.training.generator --assets MAKEHUMAN --out runs/generator --minutes 120`; the same command goes on where
it stopped. On another machine, `--carried FOLDER` goes on from what the run left in `compact/` (36 MB).
`--smoke` runs every phase for a few seconds.
"""

import argparse
import csv
import os
import signal
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from pmv.generators import EG3DConfig, PanoHeadConfig, load_generator, save_generator
from pmv.generators.superresolution import SuperResolutionHead
from pmv.pictures.images import write_png
from pmv.training.batches import HeadStore
from pmv.training.data import HeadPack, RenderPool, head_vector, held_out_layout, training_layout, wait_for
from pmv.training.evaluate import detail_sheet, evaluate, report
from pmv.training.trainer import TrainConfig, Trainer


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
    """Means of the losses between two lines; a line goes to the screen, to log.csv and, if asked for, to
    TensorBoard."""

    def __init__(self, folder: Path, tensorboard: bool) -> None:
        self.path = folder / "log.csv"
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.time = time.perf_counter()
        self.images = 0
        self.writer = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(folder / "tensorboard"))

    def add(self, terms: dict[str, Tensor], images: int) -> None:
        """Takes in a step; does not wait for the device."""
        self.images += images
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def line(self, trainer: Trainer, held_out: dict[str, float]) -> None:
        """Writes a line and starts new means."""
        means = {name: float(value) / self.counts[name] for name, value in self.sums.items()}  # waits for the device
        now = time.perf_counter()
        row: dict[str, float | str] = {
            "step": trainer.step_count,
            "minutes": round(trainer.elapsed / 60, 3),
            "phase": trainer.phase,
            "heads": len(trainer.store),
            "images/s": round(self.images / (now - self.time), 1),
        }
        row |= {name: round(value, 5) for name, value in (means | held_out).items()}
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)  # long form: phases have different columns
            writer.writerows(
                [row["step"], row["minutes"], k, v] for k, v in row.items() if k not in ("step", "minutes")
            )
        if self.writer is not None:
            for name, value in row.items():
                if not isinstance(value, str):
                    self.writer.add_scalar(name, value, trainer.step_count)
        self.sums, self.counts, self.images, self.time = {}, {}, 0, now


def export(trainer: Trainer, folder: Path, notes: dict) -> None:
    """Writes the averaged generator as heads.safetensors (fp16) and heads.json."""
    from pmv.training.heads import HeadParameters

    average = trainer.average
    with torch.no_grad():  # truncation pulls towards this
        average.backbone.mapping.w_avg.copy_(average.mean_w()[0, 0])
    trained = {
        "steps": trainer.step_count,
        "minutes": round(trainer.elapsed / 60, 2),
        "identities": len(trainer.store.pack.slots()),
        "views_per_identity": trainer.store.pack.layout.views,
    }
    run = {"trained": trained, "config": asdict(trainer.config)}
    notes = {"z_names": list(HeadParameters.names), "training": [run], **notes}
    save_generator(average, folder / "heads.safetensors", torch.float16, notes)


def checkpoint(trainer: Trainer, held_out: HeadStore, folder: Path) -> None:
    """Writes the state, whole and compact, the export, and `sheets/<step>.png`: held-out fronts, true and drawn."""
    trainer.save(folder / "state.pt")
    trainer.save_compact(folder / "compact")
    export(trainer, folder, {})
    held_out.refresh()
    if len(held_out):
        sheet = folder / "sheets" / f"{trainer.step_count:06d}.png"
        sheet.parent.mkdir(exist_ok=True)
        write_png(sheet, detail_sheet(trainer.average, held_out))


def train(trainer: Trainer, held_out: HeadStore, options: argparse.Namespace, rendering: list[RenderPool]) -> None:
    """Runs the schedule to its end, or until SIGTERM; leaves state, export and log in `options.out`."""
    stop = False

    def on_signal(*_) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, on_signal)
    log = Log(options.out, options.tensorboard)
    saved = judged = lined = last = time.perf_counter()
    while trainer.progress < 1 and not stop:
        if trainer.step_count % 10 == 0:
            trainer.store.refresh(limit=32)
        views = trainer.config.views * (1 if trainer.phase in ("full", "adversarial") else 2)
        log.add(trainer.step(), trainer.config.heads * views)
        now = time.perf_counter()
        trainer.elapsed += now - last
        last = now
        if now - lined >= options.log_seconds:
            lined, scores = now, {}
            alive = sum(pool.running() for pool in rendering)
            if alive:
                scores["rendering"] = alive
            if now - judged >= options.judge_seconds and held_out.refresh() + len(held_out):
                judged = now
                result = evaluate(trainer.average, held_out, 8)
                scores |= {name: result[name] for name in ("psnr_front", "psnr_back", "psnr", "iou", "depth_error")}
            log.line(trainer, scores)
            if now - saved >= options.save_seconds:
                saved = now
                checkpoint(trainer, held_out, options.out)
            # judging and saving are no training, and do not eat up the schedule
            last = log.time = time.perf_counter()
    log.line(trainer, {})
    checkpoint(trainer, held_out, options.out)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pmv.training.generator", description="Train the embedded generator."
    )
    parser.add_argument("--assets", type=Path, required=True, help="MakeHuman checkout, or its compiled .npz")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for state, log, export and evaluation; resumed if used"
    )
    parser.add_argument("--packs", type=Path, help="folder of the rendered heads (default: OUT/packs)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", choices=("heads", "tiny"), default="heads")
    parser.add_argument("--grid-depth", type=int, default=1, help="layers of a tri-grid; 1: tri-planes")
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
        "--render-gpu", type=int, help="EGL device to render on, where it is not to be the one that trains"
    )
    parser.add_argument("--init", help="start a new schedule from this generator's weights (name or file)")
    parser.add_argument("--carried", type=Path, metavar="FOLDER", help="go on from the compact/ of a run elsewhere")
    parser.add_argument("--smoke", action="store_true", help="every phase for seconds, with few heads")
    parser.add_argument("--tensorboard", action="store_true")
    parser.add_argument("--log-seconds", type=float, default=20)
    parser.add_argument("--judge-seconds", type=float, default=60)
    parser.add_argument("--save-seconds", type=float, default=120)
    defaults = TrainConfig()
    for name, value in asdict(defaults).items():
        kind: dict = {"action": argparse.BooleanOptionalAction} if isinstance(value, bool) else {"type": type(value)}
        parser.add_argument(f"--{name.replace('_', '-')}", default=value, help="see TrainConfig", **kind)
    options = parser.parse_args(arguments)
    if options.smoke:
        smoke = dict(minutes=0.6, half_until=0.2, raw_until=0.4, adversarial_from=0.7, judge_warmup=5, log_seconds=2.0)
        smoke |= dict(train_heads=8 * options.workers, held_out=4, start_heads=16, judge_seconds=8.0, save_seconds=10.0)
        for name, value in smoke.items():
            setattr(options, name, value)
    options.packs = options.packs or options.out / "packs"
    return options


def open_packs(options: argparse.Namespace, resolution: int) -> tuple[HeadPack, HeadPack, list[RenderPool]]:
    """The training and the held-out pack, and who makes them grow (nobody of ours with --workers 0)."""
    paths = options.packs / "training", options.packs / "held-out"
    if not options.workers:
        return HeadPack(paths[0]), HeadPack(paths[1]), []
    layout = training_layout(options.train_heads, options.train_views, resolution, options.gaussian)
    packs = HeadPack.create(paths[0], layout), HeadPack.create(paths[1], held_out_layout(options.held_out, resolution))
    few = max(1, options.workers // 5)
    return *packs, [
        RenderPool(pack, options.assets, n, options.render_gpu) for pack, n in zip(packs, (options.workers, few))
    ]


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    device = torch.device(options.device)
    # trying more algorithms cost 20 s at the first step of a phase, beside processes that render on the same GPU
    torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit = True, 2
    torch.set_float32_matmul_precision("high")  # TF32, as convolutions have it anyway
    begin = time.perf_counter()
    options.out.mkdir(parents=True, exist_ok=True)
    shape = shape_of(options.size, len(head_vector(0, 0.0)), options.grid_depth)
    pack, judged, rendering = open_packs(options, shape.resolution)
    try:
        store, held_out = HeadStore(pack, device), HeadStore(judged, device)
        config = TrainConfig(**{name: getattr(options, name) for name in asdict(TrainConfig())})
        trainer = Trainer(config, shape, store, device)
        state = options.out / "state.pt"
        if state.exists():
            trainer.load(state)
        elif options.carried:
            trainer.load_compact(options.carried)
        elif options.init:
            trainer.start_from(load_generator(options.init))
        millions = sum(p.numel() for p in trainer.generator.parameters()) / 1e6
        print(f"{millions:.2f} M parameters, z has {shape.z_dim} entries, on {device}", flush=True)
        wait_for(pack, min(options.start_heads, pack.layout.heads), rendering[0] if rendering else None)
        store.refresh()
        print(f"{len(store)} heads rendered {time.perf_counter() - begin:.1f} s after the start", flush=True)
        train(trainer, held_out, options, rendering)
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


if __name__ == "__main__":
    main()
