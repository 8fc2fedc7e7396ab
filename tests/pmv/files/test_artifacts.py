"""Files that are complete or absent."""

import os
from pathlib import Path

import pytest
import torch

from pmv.errors import InputError
from pmv.files.artifacts import atomic_path, read_header, read_json, save_tensors, tensors_hash, write_json


def test_files_are_readable_as_the_user_wants_them(tmp_path: Path):
    before = os.umask(0o027)
    try:
        save_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(2)}, {})
        write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a.safetensors", "a.json")] == [0o640, 0o640]


def test_hash_sees_names_types_and_shapes_but_no_layout():
    a = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    same = tensors_hash({"x": a, "y": a})
    assert tensors_hash({"y": a, "x": a.T.contiguous().T}) == same
    for other in ({"x": a}, {"x": a, "z": a}, {"x": a, "y": a.reshape(3, 2)}, {"x": a, "y": a.double()}):
        assert tensors_hash(other) != same
    assert tensors_hash({"x": torch.tensor(1.0), "y": torch.zeros(0)})  # scalars and empty tensors have one too


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
