"""How good a generator of synthetic heads is: true views of held-out heads against those it draws from their true
latents.

`python -m pmv.training.evaluate --generator heads --pack DIR` prints the table and writes the sheets; `--fit-steps 300`
adds the table of latents that were fitted to the front view alone, as inversion begins.
"""

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.fitting.losses import masked_l2, masked_mean, w_distance
from pmv.fitting.optimise import Group, Ramp, optimise
from pmv.generators import EG3DGenerator, Render, load_generator
from pmv.pictures.images import to_uint8, write_png
from pmv.pictures.sheets import tile
from pmv.training import chain
from pmv.training.batches import Batch, HeadStore
from pmv.training.data import EVALUATION_VIEWS, HELD_OUT, HeadPack
from pmv.training.latents import with_entries, z_names
from pmv.training.objective import gradient_difference

JUDGED_AT = 128
"""Side in pixels of the pictures that are compared."""
FINE_SIGMA = 0.006
"""Standard deviation, in picture widths, of the Gaussian whose difference from a picture is its fine detail: 1.5 pixels
of 256, so strands, lashes and edges count, masses of hair do not."""
SHEET_VIEWS = ("front", "three_quarter", "right60", "left60", "back")


def _views(
    generator: EG3DGenerator, store: HeadStore, heads: int, latents: Tensor | None = None
) -> Iterator[tuple[Batch, Render]]:
    """True and drawn views, one head at a time; drawn from the true z, or from `latents` [heads,num_ws,w_dim]."""
    every = torch.arange(store.pack.layout.views)
    for row, slot in enumerate(store.slots[:heads]):
        batch = store.batch(slot[None], every[None])
        w = generator.map(batch.z, generator.spec.canonical_camera) if latents is None else latents[row : row + 1]
        yield batch, generator.render(generator.planes(w), w, batch.cameras)


def fit_front(generator: EG3DGenerator, store: HeadStore, heads: int, steps: int, together: int = 8) -> Tensor:
    """W+ latents [heads,num_ws,w_dim] of held-out heads, found from their front view and its alpha alone.

    Adam from the mean latent, all rows as one for the first fifth of the steps (StyleGAN2's projector, arXiv:1912.04958
    §5.3, as `stages/latent.py` has it), with plain losses: L1 of the picture, of its differences and of alpha.

    Args:
        store: of a pack with the cameras of `EVALUATION_VIEWS`.
        steps: Adam steps.
        together: heads that share a step; they do not influence one another.
    """
    front = list(EVALUATION_VIEWS).index("front")
    mean, spread = generator.mean_w(), generator.w_std()
    found = []
    for slots in store.slots[:heads].split(together):
        batch = store.batch(slots, torch.full((len(slots), 1), front))
        shared = torch.zeros(len(slots), 1, mean.shape[2], device=mean.device, requires_grad=True)
        rows = torch.zeros(len(slots), *mean.shape[1:], device=mean.device, requires_grad=True)

        def losses(step: int, batch: Batch = batch, shared: Tensor = shared, rows: Tensor = rows) -> dict[str, Tensor]:
            w = mean + shared + (rows if step >= steps / 5 else rows.detach())
            drawn = generator.render(generator.planes(w), w, batch.cameras)
            alpha = F.interpolate(batch.alpha, drawn.alpha.shape[-2:], mode="area")
            heads = len(batch.z)  # means over the batch, but each head is to go its own way at its own rate
            return {
                "image": heads * F.l1_loss(drawn.image, batch.image),
                "gradient": heads * 0.5 * gradient_difference(drawn.image, batch.image),
                "alpha": heads * 0.5 * F.l1_loss(drawn.alpha, alpha),
                "w_distance": heads * 0.05 * w_distance(w).mean() / spread**2,
            }

        optimise([Group([shared, rows], 0.01)], losses, steps, ramp=Ramp(0.05, 0.25))
        found.append((mean + shared + rows).detach())
    return torch.cat(found)


def fine_detail(image: Tensor) -> Tensor:
    """[N,3,R,R] less its blur by `FINE_SIGMA`."""
    sigma = FINE_SIGMA * image.shape[-1]
    reach = math.ceil(3 * sigma)
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=image.device) / sigma).square())
    taps = (taps / taps.sum()).expand(image.shape[1], 1, -1)
    blurred = F.pad(image, [reach] * 4, mode="reflect")
    for shape in ((1, -1), (-1, 1)):
        blurred = F.conv2d(blurred, taps.unflatten(2, shape), groups=image.shape[1])
    return image - blurred


def _shrink(x: Tensor) -> Tensor:
    return F.interpolate(x, (JUDGED_AT, JUDGED_AT), mode="area")


@torch.no_grad()
def evaluate(
    generator: EG3DGenerator, store: HeadStore, heads: int = 10**6, latents: Tensor | None = None
) -> dict[str, float]:
    """Means over held-out heads of what `JUDGED_AT` pixels show.

    Args:
        store: of a pack with the cameras of `EVALUATION_VIEWS`.
        heads: how many of it at most.
        latents: [heads,num_ws,w_dim] to draw them from; None = their true z.

    Returns:
        "psnr_<view>" and "psnr" (mean of the views): dB inside the true mask, over mid grey;
        "iou" of the masks (alpha > 0.5);
        "depth_error": mean absolute z-depth error in world units where alpha > 0.5 in the raw image (NaN if nowhere);
        "high_pass_<view>" and "high_pass": energy of `fine_detail` at full size inside the mask, less its rim, over
        the truth's energy there; 1 is as sharp as the truth, whatever the details.
    """
    rows: dict[str, list[Tensor]] = {"psnr": [], "iou": [], "depth_error": [], "drawn_energy": [], "true_energy": []}
    for batch, render in _views(generator, store, heads, latents):
        mask = (_shrink(batch.alpha) > 0.5).float()
        error = masked_l2(_shrink(render.image.clamp(-1, 1)), _shrink(batch.image), mask)
        rows["psnr"].append(10 * torch.log10(4 / error))
        drawn = F.interpolate(render.alpha, (JUDGED_AT, JUDGED_AT), mode="bilinear", align_corners=False) > 0.5
        both, either = (drawn & (mask > 0)).sum((1, 2, 3)), (drawn | (mask > 0)).sum((1, 2, 3))
        rows["iou"].append(both / either)
        _, _, depth = batch.raw(render.depth.shape[-1])
        solid = (~depth.isnan() & (render.alpha > 0.5)).float()
        error = masked_mean((render.depth - depth.nan_to_num()).abs(), solid)
        rows["depth_error"].append(torch.where(solid.amax((1, 2, 3)) > 0, error, torch.nan))
        inside = 1 - F.max_pool2d((batch.alpha < 0.99).float(), 9, 1, 4)  # the outline is an edge that all have
        for name, picture in (("drawn_energy", render.image.clamp(-1, 1)), ("true_energy", batch.image)):
            rows[name].append((fine_detail(picture).square() * inside).sum((1, 2, 3)))
    means = {name: torch.stack(values).nanmean(0) for name, values in rows.items()}
    means["high_pass"] = means.pop("drawn_energy") / means.pop("true_energy").clamp_min(1e-12)
    result = {
        f"{name}_{view}": float(value)
        for name in ("psnr", "high_pass")
        for view, value in zip(EVALUATION_VIEWS, means[name])
    }
    return result | {name: float(value.mean()) for name, value in means.items()}


def _depth_picture(render: Render, view: int) -> np.ndarray:
    """[JUDGED_AT,JUDGED_AT,3]: nearer is brighter, empty is black."""
    near, far = 2.3, 3.0
    shade = ((far - render.depth[view : view + 1]) / (far - near)).clamp(0, 1) * (render.alpha[view : view + 1] > 0.5)
    return to_uint8(_shrink(shade))[0]


@torch.no_grad()
def held_out_sheet(
    generator: EG3DGenerator, store: HeadStore, heads: int = 10, latents: Tensor | None = None
) -> np.ndarray:
    """uint8 [H,W,3]: a row a head; for each of `SHEET_VIEWS` the truth and the generator's view, and the front's
    depth."""
    names = list(EVALUATION_VIEWS)
    pictures, labels = [], []
    for batch, render in _views(generator, store, heads, latents):
        for view in SHEET_VIEWS:
            i = names.index(view)
            pictures += [to_uint8(_shrink(x[i : i + 1]))[0] for x in (batch.image, render.image)]
            labels += [f"{view} true", "drawn"]
        pictures.append(_depth_picture(render, 0))
        labels.append("front depth")
    return tile(pictures, labels, columns=2 * len(SHEET_VIEWS) + 1)


@torch.no_grad()
def detail_sheet(generator: EG3DGenerator, store: HeadStore, heads: int = 8) -> np.ndarray:
    """uint8 [H,W,3]: front truth and front drawn at full size, two heads a row."""
    pictures = []
    for batch, render in _views(generator, store, heads):
        pictures += [to_uint8(x[:1])[0] for x in (batch.image, render.image)]
    return tile(pictures, columns=4)


def _latent(generator: EG3DGenerator, count: int, seed: int) -> Tensor:
    """[count,z_dim] standard normal latents."""
    z = torch.randn(count, generator.spec.z_dim, generator=torch.Generator().manual_seed(seed))
    return z.to(generator.device)


@torch.no_grad()
def _orbit(generator: EG3DGenerator, w: Tensor, yaws: Tensor) -> list[np.ndarray]:
    """One latent seen from level cameras at `yaws` radians, each picture [JUDGED_AT,JUDGED_AT,3]."""
    cameras = generator.spec.orbit(yaws, 0.0)
    return list(to_uint8(_shrink(generator.render(generator.planes(w), w, cameras).image)))


def random_sheet(generator: EG3DGenerator, heads: int = 16, seed: int = 0) -> np.ndarray:
    """uint8 [H,W,3]: heads of standard normal latents, each from the front and from 45° to its side."""
    ws = generator.map(_latent(generator, heads, seed), generator.spec.canonical_camera)
    yaws = torch.tensor([0.0, math.pi / 4])
    return tile([picture for w in ws for picture in _orbit(generator, w[None], yaws)], columns=8)


def turntable_sheet(generator: EG3DGenerator, heads: int = 3, views: int = 12, seed: int = 0) -> np.ndarray:
    """uint8 [H,W,3]: a row a head of a standard normal latent, once around it in equal steps."""
    ws = generator.map(_latent(generator, heads, seed), generator.spec.canonical_camera)
    yaws = torch.arange(views) * (2 * math.pi / views)
    return tile([picture for w in ws for picture in _orbit(generator, w[None], yaws)], columns=views)


def interpolation_sheet(generator: EG3DGenerator, pairs: int = 3, between: int = 8, seed: int = 0) -> np.ndarray:
    """uint8 [H,W,3]: a row a pair of standard normal latents, from the one to the other in equal steps in w."""
    ws = generator.map(_latent(generator, 2 * pairs, seed), generator.spec.canonical_camera)
    pictures = []
    for start, end in zip(ws[::2], ws[1::2]):
        for share in torch.linspace(0, 1, between).tolist():
            pictures += _orbit(generator, torch.lerp(start, end, share)[None], torch.tensor([0.3]))
    return tile(pictures, columns=between)


def table(result: dict[str, float]) -> str:
    """The evaluation in lines that people read."""
    lines = [
        f"{view:>14}: {result[f'psnr_{view}']:.2f} dB in the mask at {JUDGED_AT} px, "
        f"fine detail {result[f'high_pass_{view}']:.2f} of the truth's"
        for view in EVALUATION_VIEWS
    ]
    lines.append(
        f"{'mean':>14}: {result['psnr']:.2f} dB, {result['high_pass']:.2f}; IoU {result['iou']:.4f}; "
        f"depth error {result['depth_error']:.4f} units"
    )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pmv.training.evaluate", description="Judge a generator on held-out heads."
    )
    parser.add_argument("--generator", default="heads", help="name, file, or folder of a chain's state")
    parser.add_argument("--pack", type=Path, required=True, help="held-out pack that pmv.training.generator left")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of table and sheets")
    parser.add_argument("--heads", type=int, default=1000)
    parser.add_argument(
        "--fit-steps", type=int, default=0, help="also judge W+ latents fitted to the front view in so many steps"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    from pmv.training.heads import HeadParameters

    # a generator of other heads knows those entries of z that it has names for
    names = list(HeadParameters.names)
    if (Path(options.generator) / chain.DESCRIPTION).exists():
        generator = chain.average(Path(options.generator), names).to(options.device)
    else:
        generator = with_entries(load_generator(options.generator, options.device), z_names(options.generator), names)
    pack = HeadPack(options.pack)
    if pack.layout.kind != HELD_OUT:
        parser.error(f"{options.pack} holds training heads")
    store = HeadStore(pack, torch.device(options.device))
    store.refresh()
    report(generator, store, options.out, options.heads)
    if options.fit_steps:
        latents = fit_front(generator, store, options.heads, options.fit_steps)
        result = evaluate(generator, store, options.heads, latents)
        (options.out / "front_fit.json").write_text(json.dumps({"steps": options.fit_steps, **result}, indent=1) + "\n")
        write_png(options.out / "front_fit.png", held_out_sheet(generator, store, latents=latents))
        print(f"after {options.fit_steps} steps in W+ on the front view\n{table(result)}", flush=True)


def report(generator: EG3DGenerator, store: HeadStore, folder: Path, heads: int) -> dict[str, float]:
    """Evaluates, prints the table and writes it and the sheets into a folder."""
    result = evaluate(generator, store, heads)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps({"heads": min(heads, len(store)), **result}, indent=1) + "\n")
    write_png(folder / "held_out.png", held_out_sheet(generator, store))
    write_png(folder / "detail.png", detail_sheet(generator, store))
    for name, sheet in {"random": random_sheet, "turntable": turntable_sheet, "between": interpolation_sheet}.items():
        write_png(folder / f"{name}.png", sheet(generator))
    print(f"{min(heads, len(store))} held-out heads\n{table(result)}", flush=True)
    return result


if __name__ == "__main__":
    main()
