"""A finished head on disk."""

import copy
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pmv.errors import CheckpointError, InputError
from pmv.files.artifacts import tensors_hash
from pmv.generators import EG3DGenerator, save_generator
from pmv.geometry.camera import Camera
from pmv.inversion import load_inversion, save_inversion


@pytest.fixture
def saved(tmp_path: Path, tiny_generator: EG3DGenerator) -> tuple[Path, Mapping[str, Tensor]]:
    """A run folder with an inversion whose decoder was changed."""
    save_generator(tiny_generator, tmp_path / "tiny.safetensors")
    tuned = {name: p.detach() + 0.01 for name, p in tiny_generator.tunable_parameters("decoder").items()}
    rng = torch.Generator().manual_seed(0)
    noise = {k: torch.randn(v.shape, generator=rng) for k, v in tiny_generator.noise_buffers().items()}
    w = tiny_generator.mean_w(16)
    header = {
        "generator": str(tmp_path / "tiny.safetensors"),
        "generator_hash": tensors_hash(tiny_generator.state_dict()),
    }
    save_inversion(tmp_path / "inversion.safetensors", tuned, w, noise, Camera.orbit(0.2, 0.1), header)
    expected = copy.deepcopy(tiny_generator)
    expected.load_state_dict(tuned, strict=False)
    image = expected.render(expected.planes(w, noise), w, Camera.orbit(0.2, 0.1)).image
    return tmp_path, {"image": image}


def test_an_inversion_renders_as_it_was_tuned(saved: tuple[Path, Mapping[str, Tensor]]):
    folder, expected = saved
    for path in (folder, folder / "inversion.safetensors"):
        generator, w, noise, camera = load_inversion(path)
        image = generator.render(generator.planes(w, noise), w, camera).image
        assert torch.equal(image, expected["image"])


def test_an_inversion_wants_its_own_generator(saved: tuple[Path, Mapping[str, Tensor]], tiny_generator: EG3DGenerator):
    folder, _ = saved
    other = copy.deepcopy(tiny_generator)
    other.decoder.net[0].bias.data += 1  # type: ignore[union-attr, operator]
    save_generator(other, folder / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other\.safetensors"):
        load_inversion(folder, generator=str(folder / "other.safetensors"))
    (folder / "tiny.safetensors").rename(folder / "moved.safetensors")
    (folder / "tiny.json").rename(folder / "moved.json")
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors"):
        load_inversion(folder)
    assert load_inversion(folder, generator=str(folder / "moved.safetensors")).w.shape[0] == 1
    with pytest.raises(InputError, match="no finished inversion"):
        load_inversion(folder.parent)
