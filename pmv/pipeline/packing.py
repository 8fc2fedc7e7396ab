"""A dataclass of tensors and cameras as one safetensors file: what a stage gives, on disk.

A dataclass is saved as: a tensor under its field's name, a `Camera` as ``field/cam2world`` and ``field/intrinsics``,
a dict of tensors as ``field/<key>``; numbers and dicts of numbers go to the header, None is left out. The header says
which field is what, so that a file can be read without the class that wrote it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from pmv.files.artifacts import read_header, save_tensors, tensors_hash, value_hash
from pmv.geometry.camera import Camera


class Packed(NamedTuple):
    """One dataclass, flattened.

    tensors: name in the file → tensor; kinds: field → "tensor", "camera", "dict", "numbers" or "none"; numbers: field
    → value.
    """

    tensors: dict[str, Tensor]
    kinds: dict[str, str]
    numbers: dict[str, Any]

    def field_hashes(self) -> dict[str, str]:
        """Content hash of every field."""
        hashes = {}
        for field, kind in self.kinds.items():
            if kind in ("numbers", "none"):
                hashes[field] = value_hash([kind, self.numbers.get(field)])
            else:
                part = {k: v for k, v in self.tensors.items() if k == field or k.startswith(field + "/")}
                hashes[field] = tensors_hash(part)
        return hashes


def pack(value: Any) -> Packed:
    """Flatten a dataclass of tensors, cameras, dicts of tensors, numbers and None.

    Raises:
        TypeError: a field holds anything else.
    """
    tensors: dict[str, Tensor] = {}
    kinds: dict[str, str] = {}
    numbers: dict[str, Any] = {}
    for name in (f.name for f in fields(value)):
        item = getattr(value, name)
        if item is None:
            kinds[name] = "none"
        elif isinstance(item, Tensor):
            kinds[name] = "tensor"
            tensors[name] = item
        elif isinstance(item, Camera):
            kinds[name] = "camera"
            tensors[f"{name}/cam2world"] = item.cam2world
            tensors[f"{name}/intrinsics"] = item.intrinsics
        elif isinstance(item, Mapping) and all(isinstance(v, Tensor) for v in item.values()):
            kinds[name] = "dict"
            tensors.update({f"{name}/{k}": v for k, v in item.items()})
        elif isinstance(item, float | int) or (
            isinstance(item, Mapping) and all(isinstance(v, float | int) for v in item.values())
        ):
            kinds[name] = "numbers"
            numbers[name] = dict(item) if isinstance(item, Mapping) else item
        else:
            raise TypeError(f"{type(value).__name__}.{name}: cannot be saved: {type(item).__name__}")
    return Packed({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, kinds, numbers)


def save_packed(path: str | Path, packed: Packed) -> None:
    """Write what `pack` returned."""
    save_tensors(path, packed.tensors, {"kinds": packed.kinds, "numbers": packed.numbers})


def load_fields(path: str | Path, names: Iterable[str], device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read some fields of a saved dataclass, and nothing else of the file.

    Raises:
        InputError: the file is missing or damaged.
    """
    path = Path(path)
    header = read_header(path)
    values: dict[str, Any] = {}
    with safe_open(path, framework="pt", device=str(device)) as file:
        keys = file.keys()
        for name in names:
            kind = header["kinds"][name]
            if kind == "none":
                values[name] = None
            elif kind == "numbers":
                values[name] = header["numbers"][name]
            elif kind == "tensor":
                values[name] = file.get_tensor(name)
            else:
                prefix = name + "/"
                part = {k.removeprefix(prefix): file.get_tensor(k) for k in keys if k.startswith(prefix)}
                values[name] = Camera(**part) if kind == "camera" else part
    return values
