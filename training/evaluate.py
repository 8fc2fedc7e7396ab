"""How good a generator of synthetic heads is: true views of held-out heads against those it draws from their true
latents.

`python -m training.evaluate --generator heads --pack DIR` prints the table and writes the sheets.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.generators import EG3DGenerator, Render, load_generator
from pmv.images import to_uint8, write_png
from pmv.losses import masked_l2, masked_mean
from pmv.sheets import tile
from training.batches import Batch, HeadStore
from training.data import EVALUATION_VIEWS, HELD_OUT, HeadPack

JUDGED_AT = 128
"""Side in pixels of the pictures that are compared."""
SHEET_VIEWS = ("front", "three_quarter", "right60", "left60", "back")


def _views(generator: EG3DGenerator, store: HeadStore, heads: int) -> Iterator[tuple[Batch, Render]]:
    """True and drawn views, one head at a time."""
    every = torch.arange(store.pack.layout.views)
    for slot in store.slots[:heads]:
        batch = store.batch(slot[None], every[None])
        w = generator.map(batch.z, generator.spec.canonical_camera)
        yield batch, generator.render(generator.planes(w), w, batch.cameras)


def _shrink(x: Tensor) -> Tensor:
    return F.interpolate(x, (JUDGED_AT, JUDGED_AT), mode="area")


@torch.no_grad()
def evaluate(generator: EG3DGenerator, store: HeadStore, heads: int = 10**6) -> dict[str, float]:
    """Means over held-out heads, from their true latents, of what `JUDGED_AT` pixels show.

    Args:
        store: of a pack with the cameras of `EVALUATION_VIEWS`.
        heads: how many of it at most.

    Returns:
        "psnr_<view>" and "psnr" (mean of the views): dB inside the true mask, over mid grey;
        "iou" of the masks (alpha > 0.5);
        "depth_error": mean absolute z-depth error in world units where alpha > 0.5 in the raw image (NaN if nowhere).
    """
    rows: dict[str, list[Tensor]] = {"psnr": [], "iou": [], "depth_error": []}
    for batch, render in _views(generator, store, heads):
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
    means = {name: torch.stack(values).nanmean(0) for name, values in rows.items()}
    result = {f"psnr_{view}": float(value) for view, value in zip(EVALUATION_VIEWS, means["psnr"])}
    return result | {name: float(value.mean()) for name, value in means.items()}


def _depth_picture(render: Render, view: int) -> np.ndarray:
    """[JUDGED_AT,JUDGED_AT,3]: nearer is brighter, empty is black."""
    near, far = 2.3, 3.0
    shade = ((far - render.depth[view : view + 1]) / (far - near)).clamp(0, 1) * (render.alpha[view : view + 1] > 0.5)
    return to_uint8(_shrink(shade))[0]


@torch.no_grad()
def held_out_sheet(generator: EG3DGenerator, store: HeadStore, heads: int = 10) -> np.ndarray:
    """uint8 [H,W,3]: a row a head; for each of `SHEET_VIEWS` the truth and the generator's view, and the front's
    depth."""
    names = list(EVALUATION_VIEWS)
    pictures, labels = [], []
    for batch, render in _views(generator, store, heads):
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


@torch.no_grad()
def random_sheet(generator: EG3DGenerator, heads: int = 16, seed: int = 0) -> np.ndarray:
    """uint8 [H,W,3]: heads of standard normal latents, each from the front and from 45° to its side."""
    spec = generator.spec
    z = torch.randn(heads, spec.z_dim, generator=torch.Generator().manual_seed(seed)).to(generator.device)
    cameras = spec.orbit(torch.tensor([0.0, 0.785]), 0.0)
    pictures = []
    for latent in z:
        w = generator.map(latent[None], spec.canonical_camera)
        image = generator.render(generator.planes(w), w, cameras).image
        pictures += list(to_uint8(_shrink(image)))
    return tile(pictures, columns=8)


def table(result: dict[str, float]) -> str:
    """The evaluation in lines that people read."""
    lines = [f"{view:>14}: {result[f'psnr_{view}']:.2f} dB in the mask at {JUDGED_AT} px" for view in EVALUATION_VIEWS]
    lines.append(
        f"{'mean':>14}: {result['psnr']:.2f} dB; IoU {result['iou']:.4f}; depth error {result['depth_error']:.4f} units"
    )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate", description="Judge a generator on held-out heads."
    )
    parser.add_argument("--generator", default="heads", help="name or file")
    parser.add_argument("--pack", type=Path, required=True, help="held-out pack that training.generator left")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of table and sheets")
    parser.add_argument("--heads", type=int, default=1000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    generator = load_generator(options.generator, options.device)
    pack = HeadPack(options.pack)
    if pack.layout.kind != HELD_OUT:
        parser.error(f"{options.pack} holds training heads")
    store = HeadStore(pack, torch.device(options.device))
    store.refresh()
    report(generator, store, options.out, options.heads)


def report(generator: EG3DGenerator, store: HeadStore, folder: Path, heads: int) -> dict[str, float]:
    """Evaluates, prints the table and writes it and the sheets into a folder."""
    result = evaluate(generator, store, heads)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps({"heads": min(heads, len(store)), **result}, indent=1) + "\n")
    write_png(folder / "held_out.png", held_out_sheet(generator, store))
    write_png(folder / "detail.png", detail_sheet(generator, store))
    write_png(folder / "random.png", random_sheet(generator))
    print(f"{min(heads, len(store))} held-out heads\n{table(result)}", flush=True)
    return result


if __name__ == "__main__":
    main()
