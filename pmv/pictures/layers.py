"""Layers of a render beside its colours as 16-bit PNG: depth and normals."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from pmv.files.artifacts import atomic_path

_FULL = 65535


def depth_bits(depth: Tensor, valid: Tensor, unit: float) -> np.ndarray:
    """uint16 [H,W] of a depth map [1,1,H,W] in steps of `unit`; 0 where it is not valid, bool [1,1,H,W]."""
    steps = (depth / unit).round().clamp(1, _FULL)
    return torch.where(valid, steps, torch.zeros_like(steps))[0, 0].cpu().numpy().astype(np.uint16)


def normal_bits(normals: Tensor) -> np.ndarray:
    """uint16 [H,W,3] of unit normals [1,3,H,W]: (n + 1)/2 of the full range, mid grey where there is none."""
    values = ((normals + 1) / 2 * _FULL).round().clamp(0, _FULL)
    return values[0].permute(1, 2, 0).cpu().numpy().astype(np.uint16)


def write_layer(path: Path, pixels: np.ndarray) -> None:
    """Write a PNG atomically: uint8 or uint16, [H,W], [H,W,3] or [H,W,4] with red first."""
    order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, order[pixels.shape[2]])
    done, data = cv2.imencode(".png", pixels)
    assert done
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())
