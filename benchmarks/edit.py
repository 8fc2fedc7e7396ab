"""An overlay put on a portrait by pmv, against the same overlay painted on the true head.

A synthetic head is inverted from its front view (`--preset demo`), once as it is and once more with the overlay on the
finished run. Its truth is the head with the overlay painted on its surface, drawn from the same sides. What an edit
*does* is the difference of two pictures, edited minus unedited, of pmv's head and of the true one; these are compared,
so that the inversion's own error is not counted as the edit's:

- correlation: cosine of the two differences over pixels and channels. 1 = the same edit at the same place.
- IoU: overlap of the pixels that either difference changes by more than 0.1 (mean over channels, images in [-1,1]).
- shift: distance between the centroids of the two differences' magnitudes, in % of the picture's width.
- strength: how much of the true difference's magnitude pmv's has in sum. 1 = neither fainter nor stronger.
- rest: PSNR of pmv's edited head against its unedited one, on all the head outside.

The first four are taken within 4 % of the picture's width around the true edit, the last outside of that. Views are the
input's and ±30° beside it. The row "picture" compares the edited picture itself, before any 3D, with the true head's
front: what is left there is paint under light against paint on a picture. The row of the pseudo-views compares those
that were stored, what tuning was asked for, where they show the edit. A view's camera is the same relative to the
input's for both heads, because the inversion refines the input camera.
"""

import json
import math
import os
import platform
import shutil
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pmv.apps.invert import Request, invert
from pmv.errors import InputError
from pmv.files.artifacts import read_json, write_json
from pmv.fitting.metrics import psnr
from pmv.geometry.camera import Camera
from pmv.geometry.unroll import unrolled
from pmv.inversion import load_inversion
from pmv.pictures.images import resize, to_uint8, write_png
from pmv.pictures.masks import SOLID, dilate
from pmv.pictures.overlay import Placement, draw_overlay
from pmv.pictures.sheets import tile
from pmv.pipeline.packing import load_fields
from pmv.stages.edit_list import Edit

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "edit.json"
YAW = 30.0
_CHANGED = 0.1
_AROUND = 0.04
_PAINT = 1024  # pixels a side of the picture from which the truth is painted on


@dataclass(frozen=True)
class Case:
    """An overlay, the compass tattoo, and where it is laid."""

    placement: Placement


CASES = {
    "flat": Case(Placement((0.64, 0.60), 0.14)),
    "surface": Case(Placement((0.66, 0.58), 0.16, rotate=20, follow_surface=True)),
}


def carried(camera: Camera, other: Camera, views: Camera) -> Camera:
    """Views as `other` has them where `camera` has `views`: their poses relative to the two are the same."""
    relative = torch.linalg.inv(camera.cam2world) @ views.cam2world
    return Camera(other.cam2world @ relative, views.intrinsics)


def compare(plain: Tensor, edited: Tensor, true_plain: Tensor, true_edited: Tensor) -> dict[str, float]:
    """How alike two edits are: pictures [1,3,S,S] in [-1,1] without and with each; see the module's text.

    Raises:
        InputError: the true edit is not in the picture.
    """
    ours, true = edited - plain, true_edited - true_plain
    near = around(true_plain, true_edited)
    ours, true = ours * near, true * near
    masks = [difference.abs().mean(1, keepdim=True) > _CHANGED for difference in (ours, true)]
    if not masks[1].any():
        raise InputError("the edit is not in this view")
    centres = [_centroid(difference.abs().mean((0, 1))) for difference in (ours, true)]
    return {
        "correlation": float((ours * true).sum() / (ours.norm() * true.norm()).clamp_min(1e-9)),
        "iou": float((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()),
        "shift": 100 * math.dist(*centres) / plain.shape[-1],
        "strength": float(ours.abs().sum() / true.abs().sum()),
    }


def _centroid(weight: Tensor) -> tuple[float, float]:
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=weight.dtype) for n in weight.shape), indexing="ij")
    total = weight.sum().clamp_min(1e-9)
    return float((rows * weight).sum() / total), float((columns * weight).sum() / total)


def around(true_plain: Tensor, true_edited: Tensor) -> Tensor:
    """Where the true edit is, and a little around it: [1,1,S,S], 0 or 1."""
    changed = (true_edited - true_plain).abs().mean(1, keepdim=True) > _CHANGED
    return dilate(changed.float(), _AROUND)


class Truth:
    """A synthetic head from any side, with and without the overlay on its surface.

    Args:
        makehuman: a MakeHuman checkout.
        seed: of the head.
        size: pixels a side of the pictures.
    """

    def __init__(self, makehuman: Path, seed: int, size: int) -> None:
        from pmv.training.heads import HeadRenderer, build_head, load_assets, sample_parameters

        self.size = size
        self.camera = Camera.orbit(0.0, 0.0)
        self.head = build_head(load_assets(makehuman), sample_parameters(seed=seed))
        self.renderer = HeadRenderer(512, supersample=4, specular=True, texture_size=2048)

    def draw(self, head: Any, cameras: Camera) -> tuple[Tensor, Tensor]:
        """Pictures on mid grey [N,3,S,S] and coverage [N,1,S,S]."""
        self.renderer.load(head)
        pictures, alphas = [], []
        for i in range(len(cameras)):
            view = self._view(cameras[i])
            pictures.append(torch.from_numpy(view.over((0.5, 0.5, 0.5))).permute(2, 0, 1) / 127.5 - 1)
            alphas.append(torch.from_numpy(view.alpha)[None])
        return resize(torch.stack(pictures), self.size), resize(torch.stack(alphas), self.size)

    def painted(self, picture: NDArray, placement: Placement) -> Any:
        """The head with an RGBA overlay [h,w,4] painted on it where a placement lays it on the front view.

        A flat one is thrown from the front camera; one that follows the surface is first drawn over the *true* depth.
        """
        self.renderer.load(self.head)
        depth = torch.from_numpy(self._view(self.camera).depth)[None, None]
        rgba = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
        black = torch.full((1, 3, _PAINT, _PAINT), -1.0)
        surface = None
        if placement.follow_surface:
            aspect, shape = rgba.shape[-2] / rgba.shape[-1], {"at": placement.at, "width": placement.size}
            surface = unrolled(depth, depth > 0, self.camera, **shape, aspect=aspect, side=_PAINT)
        drawn, cover = draw_overlay(black, rgba[:, :3] * 2 - 1, rgba[:, 3:], placement, surface)
        colour = ((drawn + 1) / 2 / cover.clamp_min(1e-6)).clamp(0, 1)
        whole = torch.cat([colour, cover], 1)[0].permute(1, 2, 0).numpy()
        return self.head.with_decal(whole, centre=(0.5, 0.5), width=1.0)

    def _view(self, camera: Camera) -> Any:
        return self.renderer.render(camera.cam2world[0].numpy(), camera.intrinsics[0].numpy())


def write_portrait(truth: Truth, folder: Path) -> dict[str, Path]:
    """The unedited front view, its mask and its camera as files."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {name: folder / file for name, file in (("image", "front.png"), ("mask", "mask.png"))}
    picture, alpha = truth.draw(truth.head, truth.camera)
    write_png(names["image"], picture)
    write_png(names["mask"], alpha)
    names["camera"] = folder / "dataset.json"
    labels = [["front.png", truth.camera.labels()[0].tolist()]]
    names["camera"].write_text(json.dumps({"labels": labels}))
    return names


@torch.no_grad()
def measure(run: Path, edited_run: Path, truth: Truth, painted: Any, sheet: Path) -> dict[str, Any]:
    """Compare a run, the run with the edit, and the true heads; writes a picture of all views to look at."""
    size = truth.size
    generator, w, noise, camera = load_inversion(run)
    edited = load_inversion(edited_run).generator
    planes, edited_planes = generator.planes(w, noise), edited.planes(w, noise)
    turns = Camera.orbit(torch.tensor([0.0, -YAW, YAW]).deg2rad(), torch.zeros(3))
    figures: dict[str, Any] = {}
    shown = []
    true_plain, _ = truth.draw(truth.head, turns)
    true_edited, _ = truth.draw(painted, turns)
    before, after = (resize(_stored(folder, "edit", "image"), size) for folder in (run, edited_run))
    figures["picture"] = compare(before, after, true_plain[:1], true_edited[:1])
    for i, name in enumerate(("input", f"yaw -{YAW:.0f}", f"yaw +{YAW:.0f}")):
        at = carried(truth.camera, camera, turns[i])
        one, two = generator.render(planes, w, at), edited.render(edited_planes, w, at)
        pair = [resize(view.image.clamp(-1, 1), size) for view in (one, two)]
        true = true_plain[i : i + 1], true_edited[i : i + 1]
        figures[name] = compare(pair[0], pair[1], *true)
        outside = (resize(one.alpha, size) > SOLID).float() * (1 - around(*true))
        figures[name]["rest"] = float(psnr(pair[1], pair[0], outside))
        shown += [true[1], *pair, (0.5 + (pair[1] - pair[0]) / 2).clamp(-1, 1)]
    figures["pseudo-views"], views = _measure_pseudo_views(run, edited_run, truth, painted, camera)
    pictures = [to_uint8(picture)[0] for picture in shown]
    write_png(sheet, tile(pictures, ["truth", "pmv, unedited", "pmv, edited", "difference"] * 3, columns=4))
    write_png(sheet.with_stem(sheet.stem + "_pseudo_views"), tile([to_uint8(view)[0] for view in views]))
    return figures


def _stored(folder: Path, stage: str, name: str) -> Any:
    """One output of a stage of a run."""
    return load_fields(next(folder.glob(f"*_{stage}")) / "outputs.safetensors", [name])[name]


def _measure_pseudo_views(
    run: Path, edited_run: Path, truth: Truth, painted: Any, camera: Camera
) -> tuple[dict[str, float], list[Tensor]]:
    """Means over the pseudo-views in which the true edit covers at least half as much as in the front view; and those
    views, true and ours in turn.
    """
    cameras = carried(camera, truth.camera, _stored(run, "coarse", "pseudo_cameras"))
    ours = [_stored(run, "inpaint", "pseudo_views"), _stored(edited_run, "inpaint", "edited_views")]
    true = [truth.draw(head, cameras)[0] for head in (truth.head, painted)]
    front = [truth.draw(head, truth.camera)[0] for head in (truth.head, painted)]

    def area(plain: Tensor, edited: Tensor) -> int:
        return int(((edited - plain).abs().mean(1) > _CHANGED).sum())

    rows, views = [], []
    for i in range(len(cameras)):
        part = slice(i, i + 1)
        if area(true[0][part], true[1][part]) >= area(*front) / 2:
            rows.append(compare(*(pictures[part] for pictures in (*ours, *true))))
            views += [true[1][part], ours[1][part]]
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    return {**means, "views": len(rows)}, views


def machine() -> dict[str, Any]:
    """What the seconds depend on."""
    return {
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": metadata.version("torch"),
    }


def table(results: dict[str, Any]) -> str:
    """One row for each overlay and view, in Markdown."""
    lines = [
        "| overlay | view | correlation | IoU | shift (% of width) | strength | rest (dB) |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for name, result in results.items():
        for view, figures in result["views"].items():
            shown = f"pseudo-views ({figures['views']})" if "views" in figures else view
            cells = [name, shown, f"{figures['correlation']:.3f}", f"{figures['iou']:.2f}", f"{figures['shift']:.2f}"]
            cells += [f"{figures['strength']:.2f}", f"{figures['rest']:.1f}" if "rest" in figures else "–"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


@click.command(help=(__doc__ or "").split("\n")[0])
@click.option("--makehuman", required=True, type=click.Path(path_type=Path), help="A MakeHuman checkout.")
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Folder for the runs; resumed if there.")
@click.option("--case", "cases", multiple=True, type=click.Choice(list(CASES)), help="Only these overlays.")
@click.option("--seed", default=90037, show_default=True, help="Of the head; 90000 and above are never trained on.")
@click.option("--preset", default="demo", show_default=True, help="Of the runs.")
@click.option("--set", "settings", multiple=True, metavar="STAGE.KEY=VALUE", help="As of `pmv invert`.")
@click.option("--out", default=OUT, type=click.Path(path_type=Path), help="The JSON to write.")
def main(
    makehuman: Path, work: Path, cases: tuple[str, ...], seed: int, preset: str, settings: tuple[str, ...], out: Path
) -> None:
    from pmv.training.heads.demo_portraits import compass_tattoo

    truth = Truth(makehuman, seed, 256)
    files = write_portrait(truth, work / "portrait")
    tattoo = compass_tattoo()
    overlay = work / "portrait" / "tattoo.png"
    Image.fromarray((tattoo * 255).round().astype(np.uint8)).save(overlay)
    values = ("evaluate.frames=0", "evaluate.mesh_resolution=0", *settings)
    run = work / "plain"
    request = Request(presets=(preset,), mask=files["mask"], camera=files["camera"], settings=values)
    invert(request, files["image"], run)
    results: dict[str, Any] = {}
    for name in cases or CASES:
        placement = CASES[name].placement
        edited_run = work / name
        edits = [Edit(overlay, placement=placement, name=overlay.name)]
        if not edited_run.exists():
            shutil.copytree(run, edited_run)
        started = time.monotonic()
        invert(Request(edits=edits, clear_edits=True, settings=values), resume=edited_run)
        stages = read_json(edited_run / "run.json")["stages"]
        results[name] = {
            "views": measure(run, edited_run, truth, truth.painted(tattoo, placement), work / f"{name}.png"),
            "seconds": round(time.monotonic() - started, 1),
            "ran": [stage for stage, record in stages.items() if record["ran"]],
        }
    out.parent.mkdir(parents=True, exist_ok=True)
    about = {"machine": machine(), "preset": preset, "settings": list(settings), "seed": seed}
    write_json(out, {**about, "overlays": results})
    print(table(results))
    print("\n" + ", ".join(f"{key} {value}" for key, value in machine().items()))


if __name__ == "__main__":
    main()
