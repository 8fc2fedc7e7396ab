"""Does a trained perceptual network find better heads than random features, or than none?

Held-out synthetic heads (never trained on) are fitted from their true front view alone, with the true camera, as the
stage `latent` does (and, with --tune, `coarse`), with several losses, one --loss each: squared difference alone ("l2"),
or with a perceptual distance: lpips-random-squeeze ("random"), any other name of `pmv.fitting.perceptual`, or a file
that `pmv.training.perceptual` or `pmv.training.efficientnet` wrote. What counts is how the fitted head looks from sides
that were not seen: ±30° and ±60°, against the true views:

- PSNR (dB) and SSIM inside the true silhouette;
- edges: mean L1 distance of the pictures' finite differences at three scales inside it (blur and displaced edges);
- IoU of the silhouettes; depth: mean absolute z-depth error where both are solid, 0.001 world units.

Fairness: all fits start alike and take equal steps. A perceptual term gets the weight at which its gradient in the
latent has the norm of the squared difference's where the fits start (geometric mean over the heads), times a share: 1,
or what follows the loss's name, as in "efficientnet:0.5". l2 alone gets twice the weight, so that data and priors are
balanced alike. Norms at the picture would say little: most of a perceptual gradient there is fine grain that no latent
can follow.

Finished fits lie in --work and are not run again, unless generator, weights or settings are others.
"""

import json
import math
import os
import platform
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.errors import PmvError
from pmv.files.artifacts import file_hash, value_hash, write_json
from pmv.fitting.losses import masked_l2, masked_mean
from pmv.fitting.metrics import psnr, ssim
from pmv.fitting.perceptual import PerceptualLoss, identity, load_perceptual
from pmv.generators import load_generator, resolve_generator
from pmv.generators.views import render_views
from pmv.geometry.camera import Camera
from pmv.pictures.images import to_uint8, write_png
from pmv.pictures.masks import SOLID
from pmv.pictures.sheets import tile
from pmv.pipeline.context import Context
from pmv.stages import coarse, latent
from pmv.training.batches import Batch, HeadStore
from pmv.training.data import HELD_OUT_SEED, HeadPack, PackLayout, RenderPool, head_vector, wait_for
from pmv.training.objective import gradient_difference, gradient_share

OUT = Path(__file__).resolve().parent / "results" / "perceptual.json"
ANGLES = (0, 30, -30, 60, -60)
"""Degrees of yaw of the true views; the first is fitted."""
GROUPS = {"front": (0,), "±30°": (1, 2), "±60°": (3, 4)}
LOSSES = ("l2", "random", "efficientnet")
BASELINES = ("l2", "random")
"""Losses that the others are compared with."""
RANDOM = "lpips-random-squeeze"
METRICS = {"psnr": "PSNR", "ssim": "SSIM", "edges": "edges", "iou": "IoU", "depth": "depth"}
LOWER = ("edges", "depth")
"""Metrics of which less is better."""


@dataclass(frozen=True)
class Loss:
    """One column of the comparison.

    Attributes:
        label: of the tables. network: name or file of the perceptual distance, "" = none. share: see the module's text.
    """

    label: str
    network: str
    share: float

    @classmethod
    def parse(cls, text: str) -> "Loss":
        """From "l2", "random", a name of `NAMES` or a .safetensors file, with ":SHARE" after it or without.

        Raises:
            click.BadParameter: a share that is no positive number, or an unknown distance.
        """
        name, _, number = text.partition(":")
        try:
            share = float(number or 1.0)
            network = {"l2": "", "random": RANDOM}.get(name, name)
            if network:
                identity(network)
        except (ValueError, PmvError) as error:
            raise click.BadParameter(f"{text}: {error}") from error
        if not 0 < share < math.inf:
            raise click.BadParameter(f"{text}: the share must be positive")
        label = Path(name).stem if name.endswith(".safetensors") else name
        return cls(f"{label} × {share:g}" if number else label, network, share)


@dataclass(frozen=True)
class Fit:
    """One fit: everything that its result depends on.

    Attributes:
        generator: name or file. network: name or file of the perceptual distance, "" = none. truth: folder of the true
            views. slot: the head. perceptual_weight, l2_weight: of the loss.
        steps, learning_rate: of the latent stage. tune: steps of the coarse stage.
    """

    generator: str
    network: str
    truth: str
    slot: int
    perceptual_weight: float
    l2_weight: float
    steps: int
    learning_rate: float
    tune: int

    def key(self) -> str:
        """Names its result."""
        content = [file_hash(resolve_generator(self.generator)), identity(self.network) if self.network else ""]
        rest = asdict(replace(self, truth="", generator="", network=""))
        return f"{Path(self.network or 'l2').stem}-{self.slot}-{value_hash([content, rest])[:16]}"


def true_views(makehuman: Path, folder: Path, heads: int, workers: int) -> HeadPack:
    """The pack of true views at `ANGLES`, rendered where it is not there yet."""
    z_dim = len(head_vector(HELD_OUT_SEED, 0.0))
    pack = HeadPack.create(folder, PackLayout(heads, len(ANGLES), HELD_OUT_SEED, z_dim))
    yaw = torch.tensor(ANGLES, dtype=torch.float32).deg2rad()
    pack.cameras[:] = Camera.orbit(yaw, torch.zeros_like(yaw)).labels().numpy()
    if len(pack.slots()) < heads:
        pool = RenderPool(pack, makehuman, workers)
        try:
            wait_for(pack, heads, pool, math.inf)
        finally:
            pool.stop()
    return pack


def truth_of(pack: HeadPack, slot: int) -> Batch:
    """All views of one head."""
    store = HeadStore(pack, torch.device("cpu"))
    return store.batch(torch.tensor([slot]), torch.arange(len(ANGLES))[None])


def distance_of(network: str) -> PerceptualLoss | None:
    """The perceptual distance of a loss; None for l2, whose network is ""."""
    return load_perceptual(network) if network else None


def balance(distance: PerceptualLoss, w: Tensor, image: Tensor, truths: Tensor) -> float:
    """The weight at which a distance and the squared difference have gradients of equal norm; see the module's text.

    Args:
        w: the latent that every fit starts from, with gradients; image: its render [1,3,S,S]; truths: [N,3,S,S].
    """
    logs = []
    for truth in truths.split(1):
        logs.append(gradient_share(masked_l2(image, truth).sum(), distance(image, truth).sum(), w).log())
    return float(torch.stack(logs).mean().exp())


def run_fit(fit: Fit, work: Path) -> None:
    """Fits and leaves the metrics (.json) and the views (.npz) in `work`."""
    generator = load_generator(fit.generator)
    batch = truth_of(HeadPack(Path(fit.truth)), fit.slot)
    distance = distance_of(fit.network)

    def perceptual(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
        return a.new_zeros(len(a)) if distance is None else distance(a, b, mask)

    context = Context(generator, torch.device("cpu"), torch.Generator().manual_seed(0), perceptual)
    image, alpha, camera = batch.image[:1], batch.alpha[:1], batch.cameras[0]
    started = time.monotonic()
    config = latent.LatentConfig(
        fit.steps,
        fit.learning_rate,
        l2_weight=fit.l2_weight,
        perceptual_weight=fit.perceptual_weight,
        camera_rate=0.0,
        difference_from=1.0,
    )
    out = latent.run(latent.LatentInputs(image, alpha, camera), config, context)
    if fit.tune:
        tuning = coarse.CoarseConfig(
            fit.tune,
            learning_rate=1e-3,
            l2_weight=fit.l2_weight,
            perceptual_weight=fit.perceptual_weight,
            views=8,
            around=3,
            depth_resolution=32,
        )
        inputs = coarse.CoarseInputs(image, alpha, torch.zeros_like(alpha), out.pivot_w, out.noise, camera)
        generator.load_tuned(coarse.run(inputs, tuning, context).coarse_state)
    seconds = time.monotonic() - started
    render = render_views(generator, out.pivot_w, out.noise, batch.cameras, batch=1)
    figures = measure(render.image.clamp(-1, 1), render.alpha, render.depth, batch)
    name = work / fit.key()
    np.savez(name.with_suffix(".npz"), views=to_uint8(render.image), true=to_uint8(batch.image))
    write_json(name.with_suffix(".json"), {"views": figures, "seconds": round(seconds, 1)})


def measure(image: Tensor, alpha: Tensor, depth: Tensor, truth: Batch) -> dict[str, list[float]]:
    """Every metric of `METRICS` for each view: image [V,3,R,R], alpha and depth [V,1,r,r] of the fitted head."""
    mask = (truth.alpha > SOLID).float()
    drawn = F.interpolate(alpha, mask.shape[-2:], mode="bilinear", align_corners=False) > SOLID
    _, _, true_depth = truth.raw(depth.shape[-1])
    solid = (~true_depth.isnan() & (alpha > SOLID)).float()
    views = range(len(image))
    edges = [gradient_difference(image[i : i + 1], truth.image[i : i + 1], mask[i : i + 1]) for i in views]
    rows = {
        "psnr": psnr(image, truth.image, mask),
        "ssim": ssim(image, truth.image, mask),
        "edges": torch.stack(edges) / mask.mean((1, 2, 3)),
        "iou": (drawn & (mask > 0)).sum((1, 2, 3)) / (drawn | (mask > 0)).sum((1, 2, 3)),
        "depth": 1000 * masked_mean((depth - true_depth.nan_to_num()).abs(), solid),
    }
    return {name: [round(float(v), 5) for v in values] for name, values in rows.items()}


def cost(networks: Iterable[str], rounds: int = 10) -> dict[str, float]:
    """Processor milliseconds of one distance with its gradient at 256², the least of several in turn, for each
    perceptual distance."""
    a, b = torch.rand(2, 1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    image, mask = a.requires_grad_(True), torch.ones(1, 1, 256, 256)
    times: dict[str, float] = {}
    distances = [load_perceptual(network) for network in dict.fromkeys(networks) if network]
    for _ in range(rounds):
        for distance in distances:
            started = time.process_time()
            distance(image, b, mask).sum().backward()
            times[distance.name] = min(times.get(distance.name, math.inf), 1000 * (time.process_time() - started))
    return {name: round(value, 1) for name, value in times.items()}


def summary(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Means over heads for each loss and group of views; and "against": for each loss that is not in `BASELINES`, its
    paired differences to those that are, over all novel views, with their standard error and the heads on which it is
    better."""
    arrays = {
        loss: {name: np.array([row["views"][name] for row in rows]) for name in METRICS}
        for loss, rows in results.items()
    }
    means = {
        loss: {
            group: {name: round(float(values[:, list(views)].mean()), 4) for name, values in arrays[loss].items()}
            for group, views in GROUPS.items()
        }
        for loss in arrays
    }
    against: dict[str, Any] = {}
    for loss in arrays:
        for other in BASELINES:
            if loss in BASELINES or other not in arrays:
                continue
            rows = against.setdefault(loss, {}).setdefault(other, {})
            for name in METRICS:
                gain = (arrays[loss][name] - arrays[other][name])[:, 1:].mean(1) * (-1 if name in LOWER else 1)
                error = gain.std(ddof=1) / math.sqrt(len(gain)) if len(gain) > 1 else math.nan
                rows[name] = [round(float(gain.mean()), 4), round(float(error), 4), int((gain > 0).sum())]
    return {"means": means, "against": against}


def table(result: dict[str, Any], heads: int) -> str:
    """Markdown: a row for each loss and group of views, and one for each comparison."""
    names = "PSNR (dB) | SSIM | edges | IoU | depth (0.001 units)"
    lines = [f"| loss | views | {names} |", "|---|---|--:|--:|--:|--:|--:|"]
    for loss, groups in result["means"].items():
        for group, row in groups.items():
            cells = (
                f"{row['psnr']:.2f} | {row['ssim']:.4f} | {row['edges']:.4f} | {row['iou']:.4f} | {row['depth']:.2f}"
            )
            lines.append(f"| {loss} | {group} | {cells} |")
    for loss, others in result["against"].items():
        for other, row in others.items():
            cells = [f"{gain:+.3f} ± {error:.3f} ({wins}/{heads})" for gain, error, wins in row.values()]
            lines.append(f"| gain of {loss} on {other} | novel | {' | '.join(cells)} |")
    return "\n".join(lines)


def sheet(work: Path, fits: dict[str, list[Fit]], path: Path) -> None:
    """A row a head: for the front, +30°, −30° and +60° the truth and each loss."""
    pictures, labels = [], []
    for slot in range(len(next(iter(fits.values())))):
        stored = {loss: np.load(work / f"{rows[slot].key()}.npz") for loss, rows in fits.items()}
        for view in (0, 1, 2, 3):
            pictures.append(next(iter(stored.values()))["true"][view])
            labels.append(f"true {ANGLES[view]}°")
            for loss, arrays in stored.items():
                pictures.append(arrays["views"][view])
                labels.append(loss)
    write_png(path, tile(pictures, labels, columns=4 * (1 + len(fits))))


@click.command(help=(__doc__ or "").split("\n")[0])
@click.option("--makehuman", required=True, type=click.Path(path_type=Path), help="A MakeHuman checkout.")
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Folder for views and fits; used again.")
@click.option("--generator", default="heads", show_default=True, help="Name or file.")
@click.option("--loss", "losses", multiple=True, default=LOSSES, show_default=True, help="NAME, or NAME:SHARE.")
@click.option("--heads", default=8, show_default=True, help="Held-out heads.")
@click.option("--steps", default=50, show_default=True, help="Of each fit.")
@click.option("--learning-rate", default=0.03, show_default=True, help="Of each fit.")
@click.option("--tune", default=0, show_default=True, help="Steps of tuning after it.")
@click.option("--workers", default=os.cpu_count() or 2, show_default=True, help="Processes, of one thread each.")
@click.option("--out", default=OUT, type=click.Path(path_type=Path), help="The JSON to write.")
def main(
    makehuman: Path,
    work: Path,
    generator: str,
    losses: tuple[str, ...],
    heads: int,
    steps: int,
    learning_rate: float,
    tune: int,
    workers: int,
    out: Path,
) -> None:
    torch.set_num_threads(1)
    columns = [Loss.parse(text) for text in losses]
    work.mkdir(parents=True, exist_ok=True)
    truth = work / f"truth-{heads}"
    pack = true_views(makehuman, truth, heads, workers)
    fronts = torch.cat([truth_of(pack, slot).image[:1] for slot in range(heads)])
    model = load_generator(generator)
    mean = model.mean_w().requires_grad_(True)
    camera = Camera.from_labels(torch.from_numpy(np.array(pack.cameras[0, :1])))
    start = model.render(model.planes(mean), mean, camera).image
    fits: dict[str, list[Fit]] = {}
    balanced: dict[str, float] = {}
    for column in columns:
        name = column.network
        if name not in balanced:
            distance = distance_of(name)
            balanced[name] = 0.0 if distance is None else balance(distance, mean, start, fronts)
        l2 = 1.0 if name else 1.0 + column.share
        weight = column.share * balanced[name]
        fits[column.label] = [
            Fit(generator, name, str(truth), slot, weight, l2, steps, learning_rate, tune) for slot in range(heads)
        ]
    wanted = [fit for slot in zip(*fits.values()) for fit in slot if not (work / f"{fit.key()}.json").exists()]
    print(f"{len(wanted)} fits to run", flush=True)
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for done in pool.map(run_fit, wanted, [work] * len(wanted)):
            assert done is None
    results = {loss: [json.loads((work / f"{f.key()}.json").read_text()) for f in rows] for loss, rows in fits.items()}
    result = summary(results)
    result["milliseconds"] = cost(column.network for column in columns)
    about = {
        "heads": heads,
        "steps": steps,
        "learning_rate": learning_rate,
        "tune": tune,
        "shares": {column.label: column.share for column in columns},
        "perceptual_weights": {loss: round(rows[0].perceptual_weight, 5) for loss, rows in fits.items()},
        "seconds_a_fit": {loss: float(np.median([row["seconds"] for row in rows])) for loss, rows in results.items()},
        "generator": file_hash(resolve_generator(generator)),
        "networks": {column.label: identity(column.network) for column in columns if column.network},
        "machine": {
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "workers": workers,
            "torch": metadata.version("torch"),
        },
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, about | result)
    sheet(work, fits, work / "sheet.png")
    print(table(result, heads))
    costs = ", ".join(f"{loss} {value} ms" for loss, value in result["milliseconds"].items())
    print(f"\na distance with its gradient at 256², of one core: {costs}")
    print(f"{work / 'sheet.png'}; " + ", ".join(f"{key} {value}" for key, value in about["machine"].items()))


if __name__ == "__main__":
    main()
