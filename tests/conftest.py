"""Fixtures that several parts share."""

from pathlib import Path

import pytest
import torch

from pmv.generators import EG3DConfig, EG3DGenerator
from pmv.generators.superresolution import SuperResolutionHead

# Tests work on tiny tensors: a second thread gains nothing there, and where another program holds its core, every step
# waits for it.
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
"""Data that is not part of the repository; tests that need it skip without it."""


def make_tiny_generator(steps: int = 120) -> EG3DGenerator:
    """A generator with 32² output that was taught one thing in two seconds: a ball of radius 0.2, coloured by
    direction.

    So every view has a silhouette, depth and texture, and all code paths of the real one are used.
    """
    torch.manual_seed(0)
    config = EG3DConfig.small(
        z_dim=16,
        w_dim=32,
        plane_resolution=16,
        channel_base=256,
        channel_max=16,
        plane_channels=8,
        coarse_samples=12,
        fine_samples=12,
        neural_resolution=16,
        resolution=32,
        head=SuperResolutionHead(16, (8, 8), (True, False), stores_filter=False),
    )
    generator = EG3DGenerator(config)
    optimizer = torch.optim.Adam(generator.parameters(), 1e-2)
    w = generator.mean_w(64)
    for _ in range(steps):
        points = (torch.rand(1, 1024, 3) - 0.5) * config.box
        radius = points.norm(dim=-1, keepdim=True)
        density, features = generator.density(points, generator.planes(w))
        occupied = torch.nn.functional.softplus(density - 1)
        solid = (radius < 0.2).float()
        colour = 0.5 + 0.45 * points / radius.clamp_min(0.05)
        loss = (occupied / 40 - solid).square().mean() + (solid * (features[..., :3] - colour).square()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():  # let the super-resolution start as plain up-sampling of the ray-marched image
        for block in (generator.superresolution.get_submodule(f"block{i}") for i in range(2)):
            block.get_submodule("torgb").get_parameter("weight").mul_(0.05)
    return generator.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_generator() -> EG3DGenerator:
    """See `make_tiny_generator`; tests must copy it before they change it."""
    return make_tiny_generator()
