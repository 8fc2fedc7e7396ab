"""Draws the demo portraits in assets/portraits: `python -m pmv.training.heads.demo_portraits MAKEHUMAN OUTDIR`.

Two held-out heads, one of them with a tattoo painted on the cheek, on a soft neutral background; with masks and EG3D
cameras.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pmv.geometry.camera import Camera
from pmv.training.heads.assets import HeadAssets
from pmv.training.heads.build import Head, build_head
from pmv.training.heads.compile import load_assets
from pmv.training.heads.parameters import sample_parameters
from pmv.training.heads.renderer import HeadRenderer

_RESOLUTION = 512


@dataclass(frozen=True)
class Portrait:
    """A demo portrait: the head's seed (90000 and above are never trained on), its camera, tattooed or not."""

    name: str
    seed: int
    yaw_deg: float
    pitch_deg: float
    tattoo: bool


PORTRAITS = (
    Portrait("plain", 90012, 8.0, 2.0, tattoo=False),
    Portrait("tattoo", 90020, -6.0, 1.0, tattoo=True),
)


def compass_tattoo(size: int = 512) -> NDArray:
    """A compass rose in dark ink: float32 [size,size,4] RGBA in [0,1], drawn four times as large and reduced."""
    big = 4 * size
    ink = Image.new("L", (big, big), 0)
    draw = ImageDraw.Draw(ink)
    centre = np.array([big / 2, big / 2])

    def at(turn: float, radius: float) -> tuple[float, float]:
        angle = 2 * np.pi * turn
        x, y = centre + radius * big * np.array([np.sin(angle), -np.cos(angle)])
        return float(x), float(y)

    for radius, width in ((0.36, 0.028), (0.29, 0.014)):
        box = [*(centre - radius * big), *(centre + radius * big)]
        draw.ellipse(box, outline=255, width=int(width * big))
    for point in range(8):
        turn, length = point / 8, 0.48 if point % 2 == 0 else 0.30
        draw.polygon([at(turn, length), at(turn + 1 / 16, 0.09), at(turn, 0.0)], fill=255)
        draw.line([at(turn, length), at(turn - 1 / 16, 0.09), at(turn, 0.0)], fill=255, width=int(0.016 * big))
    for tick in range(32):
        draw.line([at(tick / 32, 0.30), at(tick / 32, 0.345)], fill=255, width=int(0.012 * big))
    coverage = np.asarray(ink.resize((size, size), Image.Resampling.LANCZOS), np.float32) / 255
    colour = np.broadcast_to(np.array([0.07, 0.10, 0.16], np.float32), (size, size, 3))
    return np.concatenate([colour, 0.9 * coverage[..., None]], 2)


def _background(resolution: int) -> NDArray:
    """A soft neutral backdrop, brighter in the middle: float [H,W,3] in 0..255."""
    rows, columns = np.mgrid[0:resolution, 0:resolution] / resolution - 0.5
    brightness = 0.80 - 0.22 * np.sqrt(rows**2 + columns**2)
    return brightness[..., None] * np.array([250.0, 252.0, 255.0])


def portrait_head(assets: HeadAssets, portrait: Portrait) -> Head:
    """The head of a demo portrait, tattoo and all; draw it from elsewhere for the truth of a novel view."""
    head = build_head(assets, sample_parameters(portrait.seed))
    return head.with_decal(compass_tattoo(), centre=(0.655, 0.605), width=0.17) if portrait.tattoo else head


def write_demo_portraits(assets: HeadAssets, folder: Path) -> None:
    """Write NAME.png, NAME_mask.png and dataset.json (EG3D labels) of every portrait into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    renderer = HeadRenderer(_RESOLUTION, supersample=4, specular=True, texture_size=1536)
    labels = []
    for portrait in PORTRAITS:
        yaw, pitch = (torch.tensor(np.radians(angle)) for angle in (portrait.yaw_deg, portrait.pitch_deg))
        camera = Camera.orbit(yaw, pitch)
        renderer.load(portrait_head(assets, portrait))
        view = renderer.render(camera.cam2world[0].numpy(), camera.intrinsics[0].numpy())
        alpha = view.alpha[..., None]
        picture = view.rgb * alpha + _background(_RESOLUTION) * (1 - alpha)
        Image.fromarray(np.round(picture).astype(np.uint8)).save(folder / f"{portrait.name}.png", optimize=True)
        mask = np.round(view.alpha * 255).astype(np.uint8)
        Image.fromarray(mask).save(folder / f"{portrait.name}_mask.png", optimize=True)
        labels.append([f"{portrait.name}.png", [round(float(x), 7) for x in camera.labels()[0]]])
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m pmv.training.heads.demo_portraits MAKEHUMAN OUTDIR")
    write_demo_portraits(load_assets(sys.argv[1]), Path(sys.argv[2]))
