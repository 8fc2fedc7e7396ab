"""Fixtures that several parts share."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import torch

from pmv.generators import EG3DConfig, EG3DGenerator, PanoHeadConfig, PanoHeadGenerator
from pmv.generators.superresolution import SuperResolutionHead
from tests.error_lines import WRITE, ErrorLines

# Tests work on tiny tensors: a second thread gains nothing there, and where another program holds its core, every step
# waits for it.
torch.set_num_threads(1)
if not torch.cuda.is_available():
    # Kernels then run in Triton's interpreter. It is read when Triton is imported, which PyTorch does at its first
    # optimiser, in whichever test that is.
    os.environ["TRITON_INTERPRET"] = "1"

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
"""Data that is not part of the repository; tests that need it skip without it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(WRITE, action="store_true", help="write the files that tests compare with (-n 0)")


@pytest.fixture
def write(request: pytest.FixtureRequest) -> bool:
    """True where the user asked to write what is compared, see `pytest_addoption`."""
    return request.config.getoption(WRITE)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where a test computes; "cuda" only with ``-m gpu``."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    return torch.device(request.param)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """What a test computes in."""
    return request.param


TINY = {
    "z_dim": 16,
    "w_dim": 32,
    "plane_resolution": 16,
    "channel_base": 256,
    "channel_max": 16,
    "plane_channels": 8,
    "coarse_samples": 12,
    "fine_samples": 12,
    "neural_resolution": 16,
    "resolution": 32,
    "head": SuperResolutionHead(16, (8, 8), (True, False), stores_filter=False),
}
"""Numbers of a generator with 32² output."""


def make_tiny_generator(steps: int = 120) -> EG3DGenerator:
    """A generator with 32² output that was taught one thing in two seconds: a ball of radius 0.2, coloured by
    direction.

    So every view has a silhouette, depth and texture, and all code paths of the real one are used.
    """
    torch.manual_seed(0)
    return _taught_a_ball(EG3DGenerator(EG3DConfig.small(**TINY)), steps)


def make_tiny_panohead(steps: int = 120) -> PanoHeadGenerator:
    """The same ball as a PanoHead: a tri-grid of two layers, before a painted background, its camera a little off."""
    torch.manual_seed(0)
    generator = PanoHeadGenerator(PanoHeadConfig.small(**TINY, plane_convention="panohead", grid_depth=2))
    assert generator.torgb is not None
    with torch.no_grad():
        # the raw image starts as the first three features, and shifts are a fraction of the ball
        channels = generator.config.plane_channels
        generator.torgb.affine.weight.zero_()
        generator.torgb.weight.copy_(channels**0.5 * torch.eye(3, channels)[:, :, None, None])
        for parameter in generator.t_mapping.get_submodule("fc1").parameters():
            parameter.mul_(0.02)
    return _taught_a_ball(generator, steps)


Tiny = TypeVar("Tiny", bound=EG3DGenerator)


def _taught_a_ball(generator: Tiny, steps: int) -> Tiny:
    config = generator.config
    plain = not isinstance(config, PanoHeadConfig)
    optimizer = torch.optim.Adam(generator.parameters(), 1e-2)
    w = generator.mean_w(64)
    for _ in range(steps):
        points = (torch.rand(1, 1024, 3) - 0.5) * config.box
        radius = points.norm(dim=-1, keepdim=True)
        density, features = generator.density(points, generator.planes(w))
        occupied = torch.nn.functional.softplus(density - 1)
        solid = (radius < 0.2).float()
        colour = 0.9 * points / radius.clamp_min(0.05)
        colour = (colour + 1) / 2 if plain else colour
        loss = (occupied / 40 - solid).square().mean() + (solid * (features[..., :3] - colour).square()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():  # let the super-resolution start as plain up-sampling of the ray-marched image
        for block in (generator.superresolution.get_submodule(f"block{i}") for i in range(2)):
            block.get_submodule("torgb").get_parameter("weight").mul_(0.05)
    return generator.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_panohead() -> PanoHeadGenerator:
    """See `make_tiny_panohead`; tests must copy it before they change it."""
    return make_tiny_panohead()


@pytest.fixture(scope="session")
def tiny_generator() -> EG3DGenerator:
    """See `make_tiny_generator`; tests must copy it before they change it."""
    return make_tiny_generator()


@pytest.fixture(scope="session")
def _error_lines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ErrorLines]:
    update = request.config.getoption(WRITE)
    if update and hasattr(request.config, "workerinput"):
        pytest.exit(f"{WRITE} writes one file: run it with -n 0", returncode=4)
    # below the base lies one folder for each test, "name0"
    folders = {re.escape(str(tmp_path_factory.getbasetemp())) + r"/[^/\s]+": "TMP", re.escape(str(ROOT)): "PMV"}
    lines = ErrorLines(folders, update)
    yield lines
    if update:
        lines.save()


@pytest.fixture
def told_before(request: pytest.FixtureRequest, _error_lines: ErrorLines) -> Callable[..., None]:
    """``told_before(line)`` compares the line that bad input was answered with with ``tests/error_messages.json``.

    ``told_before(line, case)`` names the case where the test's parameters do not, or by their numbers only.
    """
    file = request.path.relative_to(ROOT).as_posix()
    test = f"{file}::{getattr(request.node, 'originalname', request.node.name)}"
    callspec = getattr(request.node, "callspec", None)

    def check(line: str, case: str = "") -> None:
        _error_lines.check(test, case or (callspec.id if callspec else ""), line)

    return check
