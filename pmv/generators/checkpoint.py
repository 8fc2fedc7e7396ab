"""Reads official `.pkl` checkpoints without executing anything in them.

An official EG3D file is a pickle whose persistence wrapper carries Python *source code* that `pickle.load` would
execute. Here an unpickler with a closed list of names rebuilds plain containers, tensors from their bytes, and inert
records in place of every class that official files mention; nothing that a file names is ever imported, and any other
name is refused. Tensor sizes are checked against the bytes that are really there before memory is taken.
"""

import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pmv.errors import CheckpointError

_INERT_MODULES = ("training.", "torch_utils.", "dnnlib.", "torch.nn.modules.")
"""Classes below these modules are rebuilt as `Record`s: data, no behaviour."""
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MAX_DEPTH = 64
_STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class OfficialCheckpoint:
    """What an official generator checkpoint says.

    Attributes:
        state: official state-dict key → tensor.
        init_kwargs: constructor arguments of the generator.
        class_name: name of the generator's class.
        neural_resolution: side of the ray-marched image at the end of training, None if not recorded.
    """

    state: dict[str, Tensor]
    init_kwargs: dict[str, Any]
    class_name: str
    neural_resolution: int | None


class Record:
    """Stands in for an object of a class that is not rebuilt: it keeps the pickled state and does nothing."""

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.state = state


class _EasyDict(dict):
    """Official configuration dictionaries: a dict, without attribute access."""

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.update(state)


def _persistent_object(meta: dict[str, Any]) -> Record:
    """The persistence wrapper's reconstruction, minus the execution of `meta["module_src"]`."""
    record = Record()
    record.state = dict(meta["state"])
    record.state["__class_name__"] = str(meta.get("class_name", ""))
    return record


@dataclass
class _Storage:
    """A tensor's flat memory; the bytes of a legacy stream arrive after the objects that refer to them."""

    dtype: torch.dtype
    size: int
    flat: Tensor | None = None


@dataclass(frozen=True)
class _StorageType:
    dtype: torch.dtype


def _rebuild_tensor(storage: _Storage, offset: int, size: tuple, stride: tuple, *_: object) -> Tensor:
    if not isinstance(storage, _Storage) or storage.flat is None:
        raise pickle.UnpicklingError("a tensor without its bytes")
    # as_strided refuses views that reach beyond the storage; the clone lets the storage go
    return storage.flat.as_strided(tuple(size), tuple(stride), int(offset)).clone()


class _NumpyType(Record):
    """A numpy dtype, kept by its code ("f8")."""

    def __init__(self, code: str, *_: object) -> None:
        super().__init__()
        self.code = str(code)


def _numpy_scalar(kind: _NumpyType, data: bytes) -> int | float | bool:
    """Numpy numbers stray into official configurations; they become plain ones."""
    if kind.code not in ("f4", "f8", "i4", "i8", "b1"):
        raise pickle.UnpicklingError("a number of an unknown type")
    return np.frombuffer(data, kind.code, count=1)[0].item()


def _rebuild_parameter(data: Tensor, *_: object) -> Tensor:
    return data


class _RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that knows a closed list of names."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "collections" and name == "OrderedDict":
            return OrderedDict
        if module == "builtins" and name == "set":
            return set
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return _rebuild_tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return _rebuild_parameter
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "scalar":
            return _numpy_scalar
        if module == "numpy" and name == "dtype":
            return _NumpyType
        if module == "torch.storage" and name == "_load_from_bytes":
            return _read_legacy_storage
        if module == "torch" and name in _STORAGE_DTYPES:
            return _StorageType(_STORAGE_DTYPES[name])
        if module == "torch_utils.persistence" and name == "_reconstruct_persistent_obj":
            return _persistent_object
        if module == "dnnlib.util" and name == "EasyDict":
            return _EasyDict
        if module.startswith(_INERT_MODULES) and name.isidentifier():
            return type("Record", (Record,), {})
        raise pickle.UnpicklingError(f"it names {module}.{name}, which a generator checkpoint has no need of")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects outside the file")


class _LegacyUnpickler(_RestrictedUnpickler):
    """As above, for the object part of `torch.save`'s legacy stream, whose storages are persistent ids."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.storages: dict[str, _Storage] = {}

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _location, size, *_view = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise pickle.UnpicklingError("an unknown kind of persistent object")
        return self.storages.setdefault(str(key), _Storage(storage_type.dtype, int(size)))


def _read_legacy_storage(data: bytes) -> _Storage:
    """One storage from a legacy `torch.save` stream: magic, protocol, system, object, keys, then size and bytes of
    each."""
    if not isinstance(data, bytes):
        raise pickle.UnpicklingError("a tensor's memory that is not bytes")
    stream = io.BytesIO(data)
    magic = _RestrictedUnpickler(stream).load()
    protocol = _RestrictedUnpickler(stream).load()
    if magic != _LEGACY_MAGIC or protocol != _LEGACY_PROTOCOL:
        raise pickle.UnpicklingError("a tensor's memory in an unknown format")
    if not _RestrictedUnpickler(stream).load().get("little_endian", False):
        raise pickle.UnpicklingError("big-endian tensors")
    unpickler = _LegacyUnpickler(stream)
    result = unpickler.load()
    if not isinstance(result, _Storage):
        raise pickle.UnpicklingError("a tensor's memory that holds something else")
    for key in _RestrictedUnpickler(stream).load():
        storage = unpickler.storages[key]
        count = int.from_bytes(stream.read(8), "little", signed=True)
        length = count * storage.dtype.itemsize
        if count != storage.size or length < 0 or length > len(data) - stream.tell():
            raise pickle.UnpicklingError("a tensor that is larger than its file")
        raw = bytearray(stream.read(length))
        storage.flat = torch.frombuffer(raw, dtype=storage.dtype) if raw else torch.empty(0, dtype=storage.dtype)
    return result


def _tensors(module: Record, prefix: str = "", depth: int = 0) -> dict[str, Tensor]:
    """The state dict of a recorded module tree."""
    if depth > _MAX_DEPTH:
        raise pickle.UnpicklingError("modules nested too deeply")
    found = {}
    for kind in ("_parameters", "_buffers"):
        for name, value in (module.state.get(kind) or {}).items():
            if isinstance(value, Tensor):
                found[f"{prefix}{name}"] = value
    for name, child in (module.state.get("_modules") or {}).items():
        if isinstance(child, Record):
            found.update(_tensors(child, f"{prefix}{name}.", depth + 1))
    return found


def read_official(path: Path) -> OfficialCheckpoint:
    """Reads the generator (`G_ema`, or the bare generator) of an official `.pkl`.

    Raises:
        CheckpointError: missing, not a pickle, truncated, or naming anything outside the closed list.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(1) != b"\x80":
                raise CheckpointError(f"{path}: not a pickled checkpoint; give an official .pkl or pmv's .safetensors")
            stream.seek(0)
            content = _RestrictedUnpickler(stream).load()
        generator = content.get("G_ema") if isinstance(content, dict) else content
        if not isinstance(generator, Record):
            raise CheckpointError(f"{path}: holds no generator (G_ema)")
        state = generator.state
        kwargs = state.get("_init_kwargs") or state.get("init_kwargs")
        if not isinstance(kwargs, dict):
            raise CheckpointError(f"{path}: does not say how its generator was built (init_kwargs)")
        kwargs = dict(kwargs)
        # the training script replaces the rendering options after construction: the attribute is the truth
        if isinstance(state.get("rendering_kwargs"), dict):
            kwargs["rendering_kwargs"] = state["rendering_kwargs"]
        resolution = state.get("neural_rendering_resolution")
        return OfficialCheckpoint(
            _tensors(generator), kwargs, state.get("__class_name__", ""), int(resolution) if resolution else None
        )
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: refused: {' '.join(str(error).split())}") from error
    except Exception as error:  # a malformed pickle can raise anything; none of it may reach the user as a traceback
        raise CheckpointError(f"{path}: damaged checkpoint ({type(error).__name__})") from error
