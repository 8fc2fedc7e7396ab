"""Dataclasses in safetensors."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pmv.files.artifacts import file_hash
from pmv.geometry.camera import Camera
from pmv.pipeline.packing import load_fields, pack, save_packed


@dataclass(frozen=True)
class Everything:
    image: Tensor
    camera: Camera
    noise: dict[str, Tensor]
    empty: dict[str, Tensor]
    metrics: dict[str, float]
    score: float
    nothing: Tensor | None


def everything() -> Everything:
    rng = torch.Generator().manual_seed(0)
    # an expanded and a transposed tensor: shared and strided memory
    return Everything(
        torch.randn(1, 3, 1, 4, generator=rng).expand(1, 3, 4, 4),
        Camera.orbit(torch.tensor([0.1, 0.2]), 0.3),
        {"b.c": torch.randn(3, 2, generator=rng).T, "a": torch.arange(3)},
        {},
        {"psnr": 30.5},
        0.25,
        None,
    )


def test_fields_come_back_exactly(tmp_path: Path):
    value = everything()
    save_packed(tmp_path / "a.safetensors", pack(value))
    back = load_fields(tmp_path / "a.safetensors", value.__dataclass_fields__)
    assert torch.equal(back["image"], value.image) and back["nothing"] is None
    assert torch.equal(back["camera"].cam2world, value.camera.cam2world)
    assert torch.equal(back["camera"].labels(), value.camera.labels())
    assert back["noise"].keys() == value.noise.keys() and torch.equal(back["noise"]["b.c"], value.noise["b.c"])
    assert back["noise"]["a"].dtype == torch.int64
    assert (back["empty"], back["metrics"], back["score"]) == ({}, {"psnr": 30.5}, 0.25)


def test_equal_content_is_equal_in_bytes_and_hash(tmp_path: Path):
    for name in "abcd":
        save_packed(tmp_path / name, pack(everything()))
    assert len({file_hash(tmp_path / name) for name in "abcd"}) == 1
    hashes = pack(everything()).field_hashes()
    assert hashes.keys() == Everything.__dataclass_fields__.keys()
    changed = everything()
    changed.noise["a"][0] += 1
    other = pack(changed).field_hashes()
    assert [name for name in hashes if hashes[name] != other[name]] == ["noise"]


def test_what_cannot_be_saved_is_a_bug():
    @dataclass(frozen=True)
    class Wrong:
        text: str

    with pytest.raises(TypeError, match=r"Wrong\.text"):
        pack(Wrong("a"))
