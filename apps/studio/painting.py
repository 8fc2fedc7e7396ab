"""What is painted and placed on a portrait by hand: an editor's layers become an edit, strokes a foreground."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import cv2
import msgspec
import numpy as np
import torch
from msgspec import Meta
from torch import Tensor

from pmv.errors import InputError, shown
from pmv.files.artifacts import atomic_folder, read_json
from pmv.files.reading import fitted
from pmv.pictures.decode import decode
from pmv.pictures.images import read_image, write_png
from pmv.pictures.overlay import Placement, draw_overlay
from pmv.stages.edit_list import Edit

MOST_PLACED = 20
MOST_LAYERS = 20
_LEAST = 8
"""Of 255: alpha from which a pixel counts as painted."""
_RECORD, _PAINTED, _MASK = "edits.json", "painted.png", "painted_mask.png"
HEAD, GROUND = "#00c853", "#d50000"
"""Colours of strokes that say: this belongs to the head, this does not."""


def read_layer(content: bytes) -> np.ndarray:
    """An editor's layer, as a browser sends it → uint8 [H,W,4]; through the decoder that every picture goes through.

    Raises:
        InputError: it is no picture.
    """
    with tempfile.NamedTemporaryFile(suffix=".layer") as file:
        file.write(content)
        file.flush()
        try:
            decoded = decode(file.name)
        except InputError as error:
            raise InputError(f"what was painted cannot be read: {str(error).partition(': ')[2]}") from error
    if decoded.pixels.dtype != np.uint8:
        raise InputError("what was painted cannot be read: a layer has 8 bits")
    alpha = np.full(decoded.pixels.shape[:2], 255, np.uint8) if decoded.alpha is None else decoded.alpha
    return np.dstack([decoded.pixels, alpha])


def merged(layers: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Layers uint8 [H,W,4] over one another, the last on top, as one of size² pixels: uint8 [S,S,4], straight alpha.

    Raises:
        InputError: there is nothing on them.
    """
    colour, cover = np.zeros((size, size, 3), np.float32), np.zeros((size, size, 1), np.float32)
    for layer in layers[:MOST_LAYERS]:
        alpha = layer[..., 3:].astype(np.float32) / 255
        premultiplied = np.concatenate([layer[..., :3].astype(np.float32) * alpha, alpha], -1)
        shrinks = size < max(layer.shape[:2])
        small = cv2.resize(premultiplied, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        colour = small[..., :3] + colour * (1 - small[..., 3:])
        cover = small[..., 3:] + cover * (1 - small[..., 3:])
    pixels = np.concatenate([colour / np.maximum(cover, 1e-6), cover * 255], -1).round().clip(0, 255).astype(np.uint8)
    if (pixels[..., 3] < _LEAST).all():
        raise InputError("nothing is painted; take the brush and paint on the picture first")
    return pixels


def with_strokes(foreground: np.ndarray, strokes: np.ndarray) -> np.ndarray:
    """A foreground [S,S] in [0,1] with strokes uint8 [S,S,4] on it: those of `HEAD`'s colour belong to it, all others
    do not."""
    belongs = (strokes[..., 1] > strokes[..., 0]).astype(np.float32)
    weight = strokes[..., 3].astype(np.float32) / 255
    return foreground * (1 - weight) + belongs * weight


@dataclass(frozen=True)
class _Placed:
    """An overlay: its file in the folder, what it is called, and its placement."""

    file: Annotated[str, Meta(pattern=r"^placed-\d{1,3}$")]
    name: Annotated[str, Meta(max_length=200)]
    placement: Placement


class Edits:
    """The edits of a head: one painting, and overlays on top of it.

    Args:
        folder: where they lie; need not be there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def given(self) -> list[Edit]:
        """As a run takes them."""
        painted = self.folder / _PAINTED
        edits = [Edit(painted, self.folder / _MASK, name="painted")] if painted.is_file() else []
        return edits + [Edit(self.folder / p.file, placement=p.placement, name=p.name) for p in self._placed()]

    def labels(self) -> list[str]:
        """What each is called."""
        return [edit.name for edit in self.given()]

    def paint(self, pixels: np.ndarray) -> None:
        """Put uint8 [S,S,4] in the place of what was painted before."""
        with self._changing() as folder:
            write_png(folder / _PAINTED, pixels)
            # what is half transparent is laid on the picture by its own alpha: it is an edit as a whole
            write_png(folder / _MASK, np.repeat(np.where(pixels[..., 3:] >= _LEAST, 255, 0).astype(np.uint8), 3, -1))

    def place(self, picture: Path, name: str, placement: Placement) -> None:
        """Lay a picture on top of the other edits; its file is copied.

        Raises:
            InputError: it is no picture, is transparent everywhere, or there are too many.
        """
        placed = self._placed()
        if len(placed) >= MOST_PLACED:
            raise InputError(f"{MOST_PLACED} pictures are placed already; take them away first")
        try:
            Edit(picture, placement=placement).read()
        except InputError as error:
            raise InputError(f"{shown(name)}: {str(error).partition(': ')[2]}") from error
        with self._changing() as folder:
            one = _Placed(f"placed-{len(placed)}", shown(name, 80), placement)
            shutil.copyfile(picture, folder / one.file)
            self._write(folder, [*placed, one])

    def drop_painting(self) -> bool:
        """Take away what was painted, which is of one crop alone; whether there was anything."""
        if not (self.folder / _PAINTED).is_file():
            return False
        with self._changing() as folder:
            for name in (_PAINTED, _MASK):
                (folder / name).unlink()
        return True

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def on(self, picture: Tensor) -> Tensor:
        """A picture [1,3,S,S] with the edits laid on it; those that follow the surface lie flat, since there is none
        before a run."""
        for edit in self.given():
            loaded, alpha = read_image(edit.picture)
            if edit.placement is None:
                picture = torch.lerp(picture, loaded, torch.ones_like(loaded) if alpha is None else alpha)
            else:
                flat = Placement(**{**asdict(edit.placement), "follow_surface": False})
                picture, _ = draw_overlay(picture, loaded, alpha, flat)
        return picture

    def _placed(self) -> list[_Placed]:
        path = self.folder / _RECORD
        return fitted(read_json(path), list[_Placed], path) if path.is_file() else []

    @contextmanager
    def _changing(self) -> Iterator[Path]:
        """A copy of the folder to change, which then takes its place."""
        with atomic_folder(self.folder) as new:
            if self.folder.is_dir():
                shutil.copytree(self.folder, new, dirs_exist_ok=True)
            yield new

    @staticmethod
    def _write(folder: Path, placed: Sequence[_Placed]) -> None:
        text = json.dumps(msgspec.to_builtins(list(placed)), ensure_ascii=False)
        (folder / _RECORD).write_text(text, encoding="utf-8")
