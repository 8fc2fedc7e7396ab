"""A file of encoders for a tiny generator, untrained but not silent."""

from pathlib import Path

import torch

from pmv.encoders.dual import DualEncoder, save_encoders
from pmv.encoders.network import Encoder
from pmv.generators import EG3DGenerator

TINY = dict(resolution=32, widths=(8, 12, 16), blocks=(1, 1, 1), hidden=16, pyramid=8, detail=8, plane_width=8)
TINY |= dict(lift_size=16, lift_samples=16)
"""Sizes of an encoder that takes milliseconds."""


def speaking_encoder(generator: EG3DGenerator, seed: int = 1) -> Encoder:
    """Its last layers say something, which they do not before training."""
    torch.manual_seed(seed)
    encoder = Encoder.for_generator(generator, **TINY)
    for layer in (encoder.read[-1], encoder.pose[-1], encoder.surface, encoder.plane.leave):
        assert isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
        torch.nn.init.normal_(layer.weight, std=0.05)
    return encoder.eval()


def write_encoders(path: Path, generator: EG3DGenerator, both: bool = True) -> Path:
    """Both encoders, or the visible one alone."""
    second = speaking_encoder(generator, 2) if both else None
    save_encoders(path, DualEncoder(speaking_encoder(generator), second), generator, {})
    return path
