"""Fixtures that several parts share."""

from pathlib import Path

import pytest
import torch

from pmv.generators import EG3DConfig, EG3DGenerator
from pmv.generators.superresolution import SuperResolutionHead

SHARED = Path(__file__).resolve().parents[2] / "shared"
"""Data that is not part of the repository; tests that need it skip without it."""


def tiny_config() -> EG3DConfig:
    return EG3DConfig.small(
        z_dim=16,
        w_dim=32,
        plane_resolution=16,
        channel_base=256,
        channel_max=16,
        plane_channels=8,
        coarse_samples=8,
        fine_samples=8,
        neural_resolution=16,
        resolution=32,
        head=SuperResolutionHead(16, (8, 8), (True, False), stores_filter=False),
    )


@pytest.fixture(scope="session")
def tiny_generator() -> EG3DGenerator:
    """A generator of random weights whose density is a ball, 32² output: small enough for every test, round enough to turn."""
    torch.manual_seed(0)
    generator = EG3DGenerator(tiny_config()).eval().requires_grad_(False)
    return generator
