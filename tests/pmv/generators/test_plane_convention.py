"""Which axes the planes stand for: said by the checkpoint, the manifest or the user, and noticed where it is wrong."""

import logging
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pmv.errors import CheckpointError, InputError
from pmv.generators import EG3DConfig, EG3DGenerator, load_generator
from pmv.generators import families as families_module
from pmv.generators.base import PLANE_AXES, convention_of
from pmv.generators.families import build_generator
from pmv.generators.probe import probe_planes
from pmv.generators.settings import with_settings
from tests.conftest import TINY


@dataclass(frozen=True)
class Found:
    """What a reader finds in a checkpoint."""

    state: dict[str, Tensor]
    init_kwargs: dict[str, Any] | None = None
    neural_resolution: int | None = 16
    plane_axes: Tensor | None = None
    class_name: str = field(default="TriPlaneGenerator")


def axes_of(convention: str) -> Tensor:
    return torch.eye(3)[torch.tensor([(u, v, 3 - u - v) for u, v in PLANE_AXES[convention]])]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What the logger "pmv" says, also where the command line has turned its propagation off."""
    monkeypatch.setattr(logging.getLogger("pmv"), "propagate", True)
    caplog.set_level(logging.WARNING, "pmv")
    return caplog


@pytest.fixture(scope="module")
def embedded() -> EG3DGenerator:
    return load_generator("heads")


@pytest.fixture(scope="module")
def taught() -> EG3DGenerator:
    """A tiny generator with EG3D's published planes that was taught a skull, a nose and a neck."""
    torch.manual_seed(0)
    generator = EG3DGenerator(EG3DConfig.small(**TINY, plane_convention="eg3d"))
    optimizer, w = torch.optim.Adam(generator.parameters(), 1e-2), generator.mean_w(64)
    for _ in range(80):
        points = (torch.rand(1, 2048, 3) - 0.5) * generator.config.box
        x, y, z = points.unbind(-1)
        skull = (x / 0.16) ** 2 + ((y - 0.05) / 0.2) ** 2 + (z / 0.18) ** 2 < 1
        nose = (x.abs() < 0.04) & (y.abs() < 0.06) & (z > 0) & (z < 0.25)
        neck = (x.abs() < 0.12) & (y < -0.1) & ((z + 0.05).abs() < 0.1)
        density = generator.density(points, generator.planes(w))[0][..., 0]
        solid = (skull | nose | neck).float()
        loss = (torch.nn.functional.softplus(density - 1) / 40 - solid).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return generator.eval().requires_grad_(False)


@pytest.mark.parametrize("convention", PLANE_AXES)
def test_a_renderers_axes_name_their_convention(convention):
    assert convention_of(axes_of(convention)) == convention


@pytest.mark.parametrize("axes", [axes_of("fixed")[[1, 0, 2]], -axes_of("fixed"), torch.eye(3), torch.zeros(3, 3, 3)])
def test_unknown_axes_are_refused(axes, tiny_generator):
    found = Found(tiny_generator.state_dict(), plane_axes=axes)
    with pytest.raises(CheckpointError, match=r"^some\.pkl: its planes lie along axes .* no known convention"):
        build_generator(found, "some.pkl", like=tiny_generator.config)


def test_the_probe_knows_trained_heads_and_only_these(embedded, taught, tiny_generator):
    assert probe_planes(embedded).convention == "fixed"
    assert probe_planes(taught).convention == "eg3d"
    assert probe_planes(tiny_generator).convention is None  # a ball looks the same along all axes
    torch.manual_seed(0)
    assert probe_planes(EG3DGenerator(EG3DConfig.small(**TINY))).convention is None


def test_whatever_it_is_read_by_the_probe_finds_the_same(embedded):
    wrong = with_settings(embedded, {"plane_convention": "eg3d"})
    assert wrong.spec.plane_convention == wrong.config.plane_convention == "eg3d"
    assert probe_planes(wrong).convention == "fixed"


@pytest.mark.parametrize("wrong", ["eg3d", "panohead"])
def test_a_wrong_override_is_taken_and_told(embedded, log, wrong):
    changed = with_settings(embedded, {"plane_convention": wrong})
    assert changed.spec.plane_convention == wrong
    assert "only when they are read as 'fixed'" in log.text
    log.clear()
    assert with_settings(changed, {"plane_convention": "fixed"}).spec.plane_convention == "fixed"
    assert not log.records


def test_an_unknown_override_is_refused(embedded):
    with pytest.raises(InputError, match="eg3d, fixed, panohead"):
        with_settings(embedded, {"plane_convention": "xyz"})


class FromNumbers:
    """Lets `build_generator` take a configuration for constructor arguments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, config: EG3DConfig) -> None:
        monkeypatch.setattr(EG3DConfig, "from_init_kwargs", classmethod(lambda cls, *_: config))


def test_the_file_speaks_before_the_manifest_and_both_before_the_probe(taught, log, monkeypatch):
    FromNumbers(monkeypatch, replace(taught.config, plane_convention="fixed"))
    state = taught.state_dict()

    @dataclass
    class Row:
        plane_convention: str = "panohead"

    monkeypatch.setattr(families_module, "recognise", lambda source: Row())
    said = build_generator(Found(state, {}, plane_axes=axes_of("eg3d")), "a.pkl")
    assert said.spec.plane_convention == "eg3d"
    listed = build_generator(Found(state, {}), "a.pkl")
    assert listed.spec.plane_convention == "panohead" and not log.records
    monkeypatch.setattr(families_module, "recognise", lambda source: None)
    probed = build_generator(Found(state, {}), "a.pkl")
    assert probed.spec.plane_convention == "eg3d" and "only read as 'eg3d' it draws a head" in log.text
    log.clear()
    asked = build_generator(Found(state, {}), "a.pkl", "fixed")
    assert asked.spec.plane_convention == "fixed" and "read as 'eg3d'" in log.text


def test_where_nothing_tells_the_familys_own_is_taken_and_told(tiny_generator, log, monkeypatch):
    FromNumbers(monkeypatch, replace(tiny_generator.config, plane_convention="fixed"))
    monkeypatch.setattr(families_module, "recognise", lambda source: None)
    built = build_generator(Found(dict(tiny_generator.state_dict()), {}), "a.pkl")
    assert built.spec.plane_convention == "fixed" and "nothing says which axes" in log.text
