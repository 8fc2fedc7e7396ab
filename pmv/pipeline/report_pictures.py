"""Pictures of a run as they stand in its report: small enough to travel inside the page, compared, and in colour."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pmv.errors import InputError
from pmv.files.reading import open_regular
from pmv.pictures.images import read_bytes

_QUALITY = 88
_LARGEST = 1600
"""Longer side in pixels of a picture inside the page; the file beside it is whole."""
_STEEP = 4.0
"""A difference of 1 / this of the whole range is the heat map's brightest."""
_RED = np.array([210, 40, 40], np.float32)


def read_pixels(path: Path) -> np.ndarray | None:
    """uint8 [H,W,3], or None where there is no such picture, or a link, which could lead to any of the user's."""
    if path.is_symlink():
        return None
    try:
        return np.ascontiguousarray(read_bytes(path)[0][0].permute(1, 2, 0).numpy())
    except InputError:
        return None


def picture_shape(path: Path) -> tuple[int, int] | None:
    """(height, width) of a PNG, which is not decoded for it; None where there is none, or a link."""
    try:
        with open_regular(path, follow=False) as file, Image.open(file, formats=("PNG",)) as picture:
            return picture.height, picture.width
    except (OSError, ValueError, InputError, Image.DecompressionBombError):
        return None


def data_uri(pixels: np.ndarray) -> str:
    """A picture uint8 [H,W,3] as a data: URI (WebP)."""
    picture = Image.fromarray(pixels)
    if max(picture.size) > _LARGEST:
        picture.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    memory = io.BytesIO()
    picture.save(memory, "WEBP", quality=_QUALITY, method=2)
    return bytes_uri(memory.getvalue(), "image/webp")


def bytes_uri(content: bytes, kind: str) -> str:
    """Any file as a data: URI of a media type."""
    return f"data:{kind};base64,{base64_text(content)}"


def base64_text(content: bytes) -> str:
    """Bytes as letters that need no escaping in a page."""
    return base64.b64encode(content).decode()


def heat_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two pictures differ: uint8 [H,W,3], black = not at all, yellow = by a quarter of the range or more."""
    if a.shape != b.shape:
        b = cv2.resize(b, (a.shape[1], a.shape[0]), interpolation=cv2.INTER_AREA)
    difference = np.abs(a.astype(np.float32) - b).mean(-1) * _STEEP
    return _coloured(difference.clip(0, 255).astype(np.uint8), cv2.COLORMAP_INFERNO)


def in_colour(depth: np.ndarray) -> np.ndarray:
    """A picture of depth, uint8 [H,W,3] of greys, in colours that keep small steps apart."""
    return _coloured(depth[..., 0], cv2.COLORMAP_VIRIDIS)


def _coloured(values: np.ndarray, colours: int) -> np.ndarray:
    return np.ascontiguousarray(cv2.applyColorMap(values, colours)[..., ::-1])


def tinted(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A picture with what its mask leaves out tinted red; both uint8 [H,W,3]."""
    if mask.shape != picture.shape:
        mask = cv2.resize(mask, (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_NEAREST)
    weight = 0.6 * (1 - mask[..., :1].astype(np.float32) / 255)
    return (picture * (1 - weight) + _RED * weight).round().astype(np.uint8)


def untiled(sheet: np.ndarray, side: int, count: int, gap: int) -> Sequence[np.ndarray]:
    """The first `count` square pictures of a sheet that `pmv.pictures.sheets.tile` made without labels."""
    columns = max((sheet.shape[1] + gap) // (side + gap), 1)
    pictures = []
    for i in range(count):
        y, x = i // columns * (side + gap), i % columns * (side + gap)
        if y + side > sheet.shape[0]:
            break
        pictures.append(np.ascontiguousarray(sheet[y : y + side, x : x + side]))
    return pictures
