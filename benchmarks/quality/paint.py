"""Pictures painted on the skin of synthetic heads: tattoos, freckles, make-up, scars, which the generator never saw.

Each is an RGBA picture in the frame of the frontal EG3D picture, thrown from there onto the skin (`Head.with_decal`):
it bends with the surface and is true from every side. The eyes lie near (0.38, 0.46) and (0.62, 0.46) of that frame,
and the mouth below (0.5, 0.66).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_SIDE = 1024
_FINE = 2  # drawn so many times as large and reduced


class _Canvas:
    """Layers of ink, later ones on top, in coordinates of [0,1]."""

    def __init__(self) -> None:
        self.side = _SIDE * _FINE
        self.picture = np.zeros((_SIDE, _SIDE, 4), np.float32)
        self._begin()

    def _begin(self) -> None:
        self._ink = Image.new("L", (self.side, self.side), 0)
        self.draw = ImageDraw.Draw(self._ink)

    def at(self, x: float, y: float) -> tuple[float, float]:
        return x * self.side, y * self.side

    def width(self, part: float) -> int:
        return max(1, round(part * self.side))

    def dot(self, x: float, y: float, radius: float, strength: int = 255) -> None:
        (cx, cy), r = self.at(x, y), radius * self.side
        self.draw.ellipse([cx - r, cy - r, cx + r, cy + r], fill=strength)

    def line(self, points: NDArray, width: float, strength: int = 255) -> None:
        self.draw.line([self.at(*p) for p in points.tolist()], fill=strength, width=self.width(width), joint="curve")

    def lay(self, colour: tuple[float, float, float], opacity: float, blur: float = 0.0) -> None:
        """Lay what was drawn since the last time over the picture."""
        ink = np.asarray(self._ink.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), np.float32) / 255
        if blur:
            import cv2

            ink = cv2.GaussianBlur(ink, (0, 0), blur * _SIDE)
        self.lay_mask(ink, colour, opacity)
        self._begin()

    def lay_mask(self, mask: NDArray, colour: tuple[float, float, float], opacity: float) -> None:
        over, under = np.clip(mask, 0, 1)[..., None] * opacity, self.picture[..., 3:]
        alpha = over + under * (1 - over)
        mixed = np.asarray(colour, np.float32) * over + self.picture[..., :3] * under * (1 - over)
        self.picture = np.concatenate([mixed / np.maximum(alpha, 1e-6), alpha], 2).astype(np.float32)


def tattoo(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Dark line work: a star in rings on one cheek, a band over the brow, waves down the other cheek."""
    side = rng.choice([-1, 1])
    cx, cy, radius = 0.5 + side * 0.135, 0.60, rng.uniform(0.05, 0.065)
    turns = np.linspace(0, 2 * np.pi, 65)
    for ring, width in ((1.0, 0.006), (0.72, 0.003)):
        canvas.line(np.stack([cx + ring * radius * np.sin(turns), cy - ring * radius * np.cos(turns)], 1), width)
    count = int(rng.integers(5, 9))
    for point in range(count):
        angle = 2 * np.pi * point / count
        tips = [(angle, 0.95), (angle + np.pi / count, 0.25), (angle, 0.0), (angle - np.pi / count, 0.25)]
        shape = [canvas.at(cx + radius * r * np.sin(a), cy - radius * r * np.cos(a)) for a, r in tips]
        canvas.draw.polygon(shape, fill=255)
    x = np.linspace(0.36, 0.64, 60)
    for row in (0.345, 0.375):
        canvas.line(np.stack([x, row + 0.012 * np.cos((x - 0.5) * 14)], 1), 0.004)
    for k in range(9):
        left = 0.365 + 0.031 * k
        canvas.line(np.array([[left, 0.372], [left + 0.012, 0.352], [left + 0.024, 0.372]]), 0.004)
    y = np.linspace(0.52, 0.68, 50)
    for shift in (0.0, 0.018, 0.036):
        wave = 0.5 - side * (0.115 + shift) + 0.006 * np.sin((y - 0.5) * 110)
        canvas.line(np.stack([wave, y], 1), 0.0035)
    canvas.lay((0.07, 0.10, 0.16), 0.9)


def freckles(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Several hundred freckles over nose, cheeks and brow, and some moles."""
    for _ in range(700):
        x, y = rng.normal(0.5, 0.10), rng.normal(0.56, 0.07)
        canvas.dot(x, y, rng.uniform(0.0012, 0.0036), int(rng.integers(90, 230)))
    canvas.lay((0.42, 0.24, 0.14), 0.75, blur=0.0008)
    for _ in range(10):
        canvas.dot(rng.normal(0.5, 0.11), rng.normal(0.55, 0.10), rng.uniform(0.004, 0.007))
    canvas.lay((0.20, 0.11, 0.08), 0.9, blur=0.0008)


def make_up(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Coloured shadow around the eyes, wings of eyeliner, stripes of paint on the cheeks."""
    rows, columns = np.mgrid[0:_SIDE, 0:_SIDE] / _SIDE
    hue = rng.choice(3)
    shadow = ((0.10, 0.35, 0.60), (0.55, 0.10, 0.45), (0.05, 0.45, 0.35))[hue]
    for side in (-1, 1):
        away = ((columns - 0.5 - side * 0.125) / 0.062) ** 2 + ((rows - 0.435) / 0.030) ** 2
        canvas.lay_mask(np.exp(-(away**1.5)), shadow, 0.85)
        wing = np.array([[0.5 + side * 0.168, 0.462], [0.5 + side * 0.205, 0.440]])
        canvas.line(wing, 0.007)
        canvas.line(np.array([[0.5 + side * 0.085, 0.425], [0.5 + side * 0.19, 0.418]]), 0.003)
    canvas.lay((0.03, 0.03, 0.05), 0.95)
    stripe = ((0.85, 0.15, 0.12), (0.95, 0.85, 0.20), (0.95, 0.95, 0.95))[(hue + 1) % 3]
    for side in (-1, 1):
        for k in range(3):
            y = 0.545 + 0.027 * k
            canvas.line(np.array([[0.5 + side * 0.075, y + 0.004], [0.5 + side * 0.175, y - 0.012]]), 0.011)
    canvas.lay(stripe, 0.85, blur=0.001)


def scars(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Long pale scars with dark edges and stitches: over a cheek, through a brow, over the forehead."""
    side = rng.choice([-1, 1])
    paths = [
        np.array([[0.5 + side * 0.07, 0.50], [0.5 + side * 0.115, 0.57], [0.5 + side * 0.13, 0.66]]),
        np.array([[0.5 - side * 0.10, 0.34], [0.5 - side * 0.125, 0.40], [0.5 - side * 0.155, 0.44]]),
        np.array([[0.5 + side * 0.02, 0.30], [0.5 + side * 0.07, 0.335], [0.5 + side * 0.14, 0.345]]),
    ]
    curves = []
    for path in paths:
        t = np.linspace(0, 1, 40)[:, None]
        curve = (1 - t) ** 2 * path[0] + 2 * t * (1 - t) * path[1] + t**2 * path[2]
        curves.append(curve + 0.0015 * rng.normal(size=curve.shape).cumsum(0) / 3)
    for curve in curves:
        canvas.line(curve, 0.013)
    canvas.lay((0.50, 0.22, 0.20), 0.7, blur=0.0015)
    for curve in curves:
        canvas.line(curve, 0.006)
    canvas.lay((0.93, 0.76, 0.72), 0.9, blur=0.0008)
    for curve in curves:
        along = np.gradient(curve, axis=0)
        across = np.stack([-along[:, 1], along[:, 0]], 1)
        across /= np.linalg.norm(across, axis=1, keepdims=True).clip(1e-6)
        for k in range(4, 38, 6):
            canvas.line(np.stack([curve[k] - 0.013 * across[k], curve[k] + 0.013 * across[k]]), 0.003)
    canvas.lay((0.25, 0.09, 0.09), 0.85)


PAINTS: tuple[tuple[Callable[[_Canvas, np.random.Generator], None], ...], ...] = (
    (tattoo,),
    (freckles,),
    (make_up,),
    (scars,),
    (freckles, tattoo),
    (make_up, scars),
)
"""What the heads of the painted group carry, one after the other."""


def painting(index: int, seed: int) -> NDArray:
    """The picture of the head number `index`: float32 [1024,1024,4] RGBA in [0,1], not premultiplied."""
    canvas, rng = _Canvas(), np.random.default_rng([seed, 7])
    for paint in PAINTS[index % len(PAINTS)]:
        paint(canvas, rng)
    return canvas.picture
