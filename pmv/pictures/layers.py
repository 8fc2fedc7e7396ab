"""Layers of a render beside its colours, depth and normals: as 16-bit PNG, or as OpenEXR of floats."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np

from pmv.errors import AssetsError
from pmv.files.artifacts import atomic_path

_FULL = 65535


def depth_bits(depth: np.ndarray, unit: float) -> np.ndarray:
    """uint16 [H,W] of a depth map float [H,W] in steps of `unit`; 0, which is nothing, stays 0."""
    return np.where(depth > 0, (depth / unit).round().clip(1, _FULL), 0).astype(np.uint16)


def normal_bits(normals: np.ndarray) -> np.ndarray:
    """uint16 [H,W,3] of unit normals [H,W,3]: (n + 1)/2 of the full range, mid grey where there is none, 0."""
    return ((normals + 1) / 2 * _FULL).round().clip(0, _FULL).astype(np.uint16)


def write_layer(path: Path, pixels: np.ndarray) -> None:
    """Write a PNG atomically: uint8 or uint16, [H,W], [H,W,3] or [H,W,4] with red first."""
    order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, order[pixels.shape[2]])
    done, data = cv2.imencode(".png", pixels)
    assert done
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())


def write_exr(path: Path, pixels: np.ndarray, channels: Sequence[str]) -> None:
    """Write an OpenEXR of 32-bit floats atomically.

    Args:
        pixels: [H,W] or [H,W,C].
        channels: C names.

    Raises:
        AssetsError: OpenEXR is not installed.
    """
    exr = require_exr()
    planes = np.atleast_3d(pixels).astype(np.float32)
    named = {name: np.ascontiguousarray(planes[..., i]) for i, name in enumerate(channels)}
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    with atomic_path(path) as temporary:
        exr.File(header, named).write(str(temporary))


def require_exr() -> ModuleType:
    """OpenEXR, which writes EXR; AssetsError where it is not installed."""
    try:
        import OpenEXR  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise AssetsError('EXR needs OpenEXR: pip install "pmv[exr]"; or leave --exr out') from error
    return OpenEXR
