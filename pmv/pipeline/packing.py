"""A dataclass of tensors and cameras as one safetensors file: what a stage gives, on disk.

A dataclass is saved as: a tensor under its field's name, a `Camera` as ``field/cam2world`` and ``field/intrinsics``,
a dict of tensors as ``field/<key>``; numbers and dicts of numbers go to the header, None is left out. The header says
which field is what, so that a file can be read without the class that wrote it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import torch
from torch import Tensor

from pmv.errors import InputError, shown
from pmv.files.artifacts import open_tensors, save_tensors, tensors_hash, tensors_header, value_hash
from pmv.files.reading import fitted
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


def load_fields(
    path: str | Path, names: Iterable[str], device: str | torch.device = "cpu", follow: bool = True
) -> dict[str, Any]:
    """Read some fields of a saved dataclass, and nothing else of the file.

    Args:
        follow: see `pmv.files.reading.open_regular`.

    Raises:
        InputError: the file is missing or damaged, or a field is not in it or no such thing as it says.
    """
    values: dict[str, Any] = {}
    with open_tensors(path, device, follow) as file:
        header = fitted(tensors_header(file, path), _Header, path)
        keys = file.keys()
        for name in names:
            kind = header["kinds"].get(name)
            prefix = name + "/"
            part = {k: file.get_tensor(k) for k in keys if k == name or k.startswith(prefix)}
            for key, tensor in part.items():
                if tensor.dtype not in _TYPES:
                    raise InputError(f"{path}: damaged ({shown(key)} is of the type {tensor.dtype})")
            if kind == "none":
                values[name] = None
            elif kind == "numbers" and name in header.get("numbers", {}):
                values[name] = header.get("numbers", {})[name]
            elif kind == "tensor" and name in part:
                values[name] = part[name]
            elif kind == "dict":
                values[name] = {k.removeprefix(prefix): v for k, v in part.items() if k != name}
            elif kind == "camera" and part.keys() == {f"{name}/cam2world", f"{name}/intrinsics"}:
                values[name] = _camera(part[f"{prefix}cam2world"], part[f"{prefix}intrinsics"], path)
            else:
                raise InputError(f"{path}: damaged, or not a file that pmv wrote (it holds no {name})")
    return values


_Number = float | int | bool | None


class _Header(TypedDict):
    kinds: dict[str, str]
    numbers: NotRequired[dict[str, _Number | dict[str, _Number]]]


_TYPES = {torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16}
_TYPES |= {torch.int8, torch.uint8, torch.bool}
"""What pmv saves tensors as."""


def _camera(cam2world: Tensor, intrinsics: Tensor, path: str | Path) -> Camera:
    if not (cam2world.is_floating_point() and intrinsics.is_floating_point()):
        raise InputError(f"{path}: damaged (a camera of whole numbers)")
    try:
        camera = Camera(cam2world, intrinsics)
    except (ValueError, IndexError) as error:
        raise InputError(f"{path}: damaged (a camera of other matrices than 4×4 and 3×3)") from error
    if not (cam2world.isfinite().all() and intrinsics.isfinite().all()):
        raise InputError(f"{path}: damaged (a camera that is no number)")
    return camera
