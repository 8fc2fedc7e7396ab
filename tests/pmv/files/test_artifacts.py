"""Files that are complete or absent; dataclasses in safetensors; the finished inversion."""

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pmv.errors import CheckpointError, InputError
from pmv.files.artifacts import (
    atomic_path,
    file_hash,
    load_fields,
    pack,
    read_header,
    read_json,
    save_packed,
    tensors_hash,
    write_json,
)
from pmv.generators import EG3DGenerator, save_generator
from pmv.geometry.camera import Camera
from pmv.inversion import load_inversion, save_inversion


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


def test_files_are_readable_as_the_user_wants_them(tmp_path: Path):
    before = os.umask(0o027)
    try:
        save_packed(tmp_path / "a.safetensors", pack(everything()))
        write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a.safetensors", "a.json")] == [0o640, 0o640]


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


def test_hash_sees_names_types_and_shapes_but_no_layout():
    a = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    same = tensors_hash({"x": a, "y": a})
    assert tensors_hash({"y": a, "x": a.T.contiguous().T}) == same
    for other in ({"x": a}, {"x": a, "z": a}, {"x": a, "y": a.reshape(3, 2)}, {"x": a, "y": a.double()}):
        assert tensors_hash(other) != same
    assert tensors_hash({"x": torch.tensor(1.0), "y": torch.zeros(0)})  # scalars and empty tensors have one too


def test_what_cannot_be_saved_is_a_bug():
    @dataclass(frozen=True)
    class Wrong:
        text: str

    with pytest.raises(TypeError, match=r"Wrong\.text"):
        pack(Wrong("a"))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "a.json"
    write_json(path, [1])
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path) == [1] and [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", [None, b"", b"garbage", b"\xff" * 100])
def test_damaged_files_are_named(tmp_path: Path, content: bytes | None):
    path = tmp_path / "a.safetensors"
    if content is not None:
        path.write_bytes(content)
    for read in (read_header, read_json):
        with pytest.raises(InputError, match=r"a\.safetensors"):
            read(path)


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
