"""Reads pickles and `torch.save` files without executing anything in them.

A pickle is a program: it names functions, and whoever loads it calls them. Official EG3D and PanoHead files even carry
Python source that their persistence wrapper executes. Here a pickle is read twice. First its instructions are walked
through without being carried out: sizes are checked against the bytes that are there, memory indices against the
instructions before them, and instructions that no checkpoint needs are refused. Then an unpickler with a closed list of
names rebuilds plain containers; every class that checkpoints mention becomes an inert `Record`, every tensor a
`TensorRef` to bytes in the file, and any other name is refused. Nothing that a file names is imported, and no tensor
takes memory before `TensorRef.read` is called.
"""

import mmap
import pickle
import pickletools
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pmv.errors import CheckpointError, PmvError

_INERT_MODULES = ("training.", "torch_utils.", "dnnlib.", "torch.nn.modules.")
"""Classes below these modules are rebuilt as `Record`s: data, no behaviour."""
_INERT_CLASSES = {("torch", "device"), ("torch", "Size"), ("numpy", "ndarray"), ("torch.nn.parameter", "Buffer")}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MAX_INSTRUCTIONS = 1_000_000
"""An official file of generator and discriminators has some 20 000."""
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
_NEEDLESS = {"EXT1", "EXT2", "EXT4", "INST", "OBJ", "PERSID", "NEXT_BUFFER", "READONLY_BUFFER", "BYTEARRAY8"}
"""Instructions that no checkpoint uses: the extension registry, old ways to call, memory from outside the file."""


class Stream(Protocol):
    """What instructions are read from: a memory-mapped file, or bytes."""

    def read(self, n: int = ..., /) -> bytes: ...

    def readline(self) -> bytes: ...

    def tell(self) -> int: ...

    def seek(self, pos: int, whence: int = ..., /) -> Any: ...


def refuse(reason: str) -> pickle.UnpicklingError:
    """The error of a file that is not trusted; `reason` completes "refused: …"."""
    return pickle.UnpicklingError(reason)


class Record:
    """Stands in for an object of a class that is not rebuilt: it keeps the pickled state and does nothing."""

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        self.state: dict[str, Any] = {}

    def __new__(cls, *_args: object, **_kwargs: object) -> "Record":
        record = object.__new__(cls)
        record.state = {}
        return record

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.state = state


class _Sealed:
    """An object that a pickle may mention but not alter (its BUILD instruction would set any attribute)."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise refuse("it alters what is not its own")


class _Dictionary(dict):
    """Any dictionary class of official files. What BUILD adds, beside the entries of configuration dictionaries, is
    bookkeeping (a state dict's `_metadata`)."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.update({key: value for key, value in state.items() if key != "_metadata"})


class _Callable(_Sealed):
    """A function that a pickle may call."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: object) -> Any:
        return self.function(*args)


class _StorageType(_Sealed):
    """A storage class of torch, known by its type of number."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class Storage(_Sealed):
    """A tensor's flat memory: where its bytes lie."""

    __slots__ = ("dtype", "load", "size")

    def __init__(self, dtype: torch.dtype, size: int, load: Callable[[], bytes] | None = None) -> None:
        if size < 0:
            raise refuse("a tensor of negative size")
        self.dtype, self.size, self.load = dtype, size, load


class TensorRef(_Sealed):
    """A tensor that is not read yet: dtype, shape, and where its numbers lie."""

    __slots__ = ("offset", "shape", "storage", "stride")

    def __init__(self, storage: object, offset: object, shape: object, stride: object) -> None:
        if not isinstance(storage, Storage):
            raise refuse("a tensor without memory")
        if not isinstance(shape, tuple | list) or not isinstance(stride, tuple | list) or not isinstance(offset, int):
            raise refuse("a tensor without a shape")
        numbers = [offset, *shape, *stride]
        if len(shape) != len(stride) or len(shape) > 16 or not all(type(n) is int and n >= 0 for n in numbers):
            raise refuse("a tensor of an impossible shape")
        count, last = 1, offset
        for length, step in zip(shape, stride):
            count *= length
            last += max(length - 1, 0) * step
        if count and (last >= storage.size or count > storage.size):
            raise refuse("a tensor that is larger than its memory")
        self.storage, self.offset, self.shape, self.stride = storage, offset, tuple(shape), tuple(stride)

    @property
    def dtype(self) -> torch.dtype:
        return self.storage.dtype

    def blank(self) -> Tensor:
        """Its dtype and shape, without numbers or memory (device "meta")."""
        return torch.empty(self.shape, dtype=self.dtype, device="meta")

    def read(self) -> Tensor:
        """The tensor, in memory of its own."""
        storage = self.storage
        if storage.load is None:
            raise refuse("a tensor without its bytes")
        raw = bytearray(storage.load())
        if len(raw) != storage.size * storage.dtype.itemsize:
            raise refuse("a tensor that is larger than its file")
        flat = torch.frombuffer(raw, dtype=storage.dtype) if raw else torch.empty(0, dtype=storage.dtype)
        view = flat.as_strided(self.shape, self.stride, self.offset)
        return view if view.numel() == flat.numel() and view.is_contiguous() else view.clone()


def _persistent_object(meta: object) -> Record:
    """The persistence wrapper's reconstruction, minus the execution of `meta["module_src"]`."""
    if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
        raise refuse("a persistent object without a state")
    record = Record()
    record.state = {**meta["state"], "__class_name__": str(meta.get("class_name", ""))}
    return record


def _parameter(data: object, *_: object) -> TensorRef:
    if not isinstance(data, TensorRef):
        raise refuse("a parameter that is no tensor")
    return data


def _tensor(storage: object, offset: object, shape: object, stride: object, *_: object) -> TensorRef:
    return TensorRef(storage, offset, shape, stride)


def _number(kind: object, data: object) -> int | float | bool:
    """Numpy numbers stray into official configurations; they become plain ones."""
    if not isinstance(kind, _NumpyType) or kind.code not in ("f4", "f8", "i4", "i8", "b1") or type(data) is not bytes:
        raise refuse("a number of an unknown type")
    return np.frombuffer(data, kind.code, count=1)[0].item()


class _NumpyType:
    """A numpy dtype, kept by its code ("f8")."""

    __slots__ = ("code",)

    def __init__(self, code: object, *_: object) -> None:
        self.code = code if isinstance(code, str) else ""

    def __setstate__(self, state: object) -> None:
        pass  # byte order: official files are written on little-endian machines, and the code says so where not


def _encoded(text: object, codec: object) -> bytes:
    """Bytes, as old pickle protocols write them."""
    if not isinstance(text, str) or codec != "latin1":
        raise refuse("bytes in an unknown encoding")
    return text.encode("latin1")


def _dictionary(entries: object = ()) -> _Dictionary:
    if not isinstance(entries, list | tuple):
        raise refuse("a dictionary made of something else than entries")
    return _Dictionary(entries)


def _set(entries: object = ()) -> set:
    if not isinstance(entries, list | tuple | set):
        raise refuse("a set made of something else than a list")
    return set(entries)


_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _dictionary,
    ("builtins", "set"): _set,
    ("__builtin__", "set"): _set,
    ("_codecs", "encode"): _encoded,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("numpy.core.multiarray", "scalar"): _number,
    ("numpy._core.multiarray", "scalar"): _number,
    ("numpy.core.multiarray", "_reconstruct"): Record,
    ("numpy._core.multiarray", "_reconstruct"): Record,
    ("numpy", "dtype"): _NumpyType,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent_object,
}
"""Functions that checkpoints call → what is called in their place."""

_StorageFinder = Callable[[tuple], Any]


class _Unpickler(pickle.Unpickler):
    """Knows a closed list of names. What it gives out is made for this file alone, so that no file alters another's.

    Args:
        find: makes a storage of a persistent id; None where the format has none.
        nested: whether tensors' memory may be pickled streams of their own, as in official `.pkl` files.
    """

    def __init__(self, stream: Stream, find: _StorageFinder | None = None, nested: bool = False) -> None:
        super().__init__(stream)  # pyright: ignore[reportArgumentType]  # read and readline are all that it uses
        self._find, self._nested = find, nested

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _FUNCTIONS:
            return _Callable(_FUNCTIONS[module, name])
        if self._nested and (module, name) == ("torch.storage", "_load_from_bytes"):
            return _Callable(_storage_of_stream)
        if module == "torch" and name in _STORAGE_DTYPES:
            return _StorageType(_STORAGE_DTYPES[name])
        if (module, name) == ("dnnlib.util", "EasyDict"):
            return type("EasyDict", (_Dictionary,), {"__slots__": ()})
        if (module, name) in _INERT_CLASSES or (module.startswith(_INERT_MODULES) and name.isidentifier()):
            return type("Record", (Record,), {})
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return _Callable(Record)
        raise refuse(f"it names {module}.{name}, which a generator checkpoint has no need of")

    def persistent_load(self, pid: Any) -> Any:
        if self._find is None or not isinstance(pid, tuple):
            raise refuse("it refers to objects outside the file")
        return self._find(pid)


def _walk(stream: Stream, end: int, persistent: bool) -> None:
    """Goes through the instructions of one pickle without carrying them out; leaves the stream where it was.

    Args:
        end: position after the last byte that may belong to it.
        persistent: whether references to storages outside the pickle are in order.
    """
    start = stream.tell()
    memo = 0
    for count, (op, value, position) in enumerate(pickletools.genops(_Clamped(stream, end))):
        if op.name in _NEEDLESS or (op.name == "BINPERSID" and not persistent):
            what = f" for {value!r}" if isinstance(value, str) and len(value) < 80 else ""
            raise refuse(f"it uses the pickle instruction {op.name}{what}, which a checkpoint has no need of")
        if count > _MAX_INSTRUCTIONS:
            raise refuse("it has more instructions than any checkpoint")
        if op.name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            index = memo if op.name == "MEMOIZE" else value
            # unpicklers keep a table as long as the largest index
            if not isinstance(index, int) or not 0 <= index <= count:
                raise refuse("it asks for a table larger than itself")
            memo += 1
        if op.name == "FRAME" and isinstance(value, int) and value > end - (position or 0):
            raise EOFError("a frame ends beyond the file")
    stream.seek(start)


class _Clamped:
    """A stream whose reads never ask for more than there is: an instruction may claim any length."""

    def __init__(self, stream: Stream, end: int) -> None:
        self._stream, self._end = stream, end

    def read(self, n: int) -> bytes:
        return self._stream.read(max(min(n, self._end - self._stream.tell()), 0))

    def readline(self) -> bytes:
        return self._stream.readline()

    def tell(self) -> int:
        return self._stream.tell()


def _load(stream: Stream, end: int, find: _StorageFinder | None = None, nested: bool = False) -> Any:
    """One pickle from a stream, which is left behind it."""
    _walk(stream, end, find is not None)
    return _Unpickler(stream, find, nested).load()


def _legacy_stream(stream: Stream, end: int) -> Any:
    """What `torch.save` wrote before PyTorch 1.6, and writes inside pickles still: magic, protocol, system, object,
    keys, then size and bytes of each storage.
    """
    if _load(stream, end) != _LEGACY_MAGIC or _load(stream, end) != _LEGACY_PROTOCOL:
        raise refuse("a tensor's memory in an unknown format")
    system = _load(stream, end)
    if not isinstance(system, dict) or not system.get("little_endian", False):
        raise refuse("big-endian tensors")
    storages: dict[str, Storage] = {}

    def find(pid: tuple) -> Any:
        if pid[0] == "module" and len(pid) == 4:  # a class with its source; the source is data that nobody reads
            return pid[1]
        if len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], _StorageType) or type(pid[4]) is not int:
            raise refuse("an unknown kind of persistent object")
        if len(pid) > 5 and pid[5] is not None:
            raise refuse("a storage that is part of another")
        return storages.setdefault(str(pid[2]), Storage(pid[1].dtype, pid[4]))

    result = _load(stream, end, find)
    keys = _load(stream, end)
    if not isinstance(keys, list) or len(set(map(str, keys))) != len(keys):
        raise refuse("storages without a list of their names")
    for key in keys:
        storage = storages[key]
        count = int.from_bytes(stream.read(8), "little", signed=True)
        length, start = count * storage.dtype.itemsize, stream.tell()
        if count != storage.size or length > end - start:
            raise refuse("a tensor that is larger than its file")
        storage.load = partial(_slice, stream, start, length)
        stream.seek(start + length)
    return result


def _slice(stream: Stream, start: int, length: int) -> bytes:
    stream.seek(start)
    return stream.read(length)


def _storage_of_stream(data: object) -> Storage:
    """A storage that lies as a `torch.save` stream of its own within a pickle."""
    if type(data) is not bytes:
        raise refuse("a tensor's memory that is not bytes")
    result = _legacy_stream(BytesIO(data), len(data))
    if not isinstance(result, Storage):
        raise refuse("a tensor's memory that holds something else")
    return result


def _from_zip(file: Any, size: int) -> Any:
    """What `torch.save` writes since PyTorch 1.6: a zip of a pickle and the storages' bytes, nothing compressed."""
    archive = zipfile.ZipFile(file)
    members = {info.filename: info for info in archive.infolist()}
    if len(members) != len(archive.infolist()):
        raise refuse("two members of the archive have one name")
    if any(info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size for info in members.values()):
        raise refuse("it is a compressed archive, which torch.save does not write")
    if sum(info.file_size for info in members.values()) > size:
        raise refuse("members of the archive overlap")
    roots = [name.removesuffix("data.pkl") for name in members if name.split("/", 1)[-1] == "data.pkl"]
    if len(roots) != 1:
        raise refuse("the archive is none of torch.save's")
    root = roots[0]
    if f"{root}constants.pkl" in members:
        raise refuse("it is a TorchScript program, not weights")
    if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
        raise refuse("big-endian tensors")
    storages: dict[str, Storage] = {}

    def find(pid: tuple) -> Storage:
        if len(pid) != 5 or pid[0] != "storage" or not isinstance(pid[1], _StorageType) or type(pid[4]) is not int:
            raise refuse("an unknown kind of persistent object")
        key, dtype, count = str(pid[2]), pid[1].dtype, pid[4]
        name = f"{root}data/{key}"
        if name not in members:
            raise refuse("a tensor without its bytes")
        if members[name].file_size != count * dtype.itemsize:
            raise refuse("a tensor that is larger than its file")
        return storages.setdefault(key, Storage(dtype, count, partial(archive.read, name)))

    data = archive.read(f"{root}data.pkl")
    return _load(BytesIO(data), len(data), find)


@dataclass(frozen=True)
class Pickled:
    """What a file holds.

    Attributes:
        content: plain containers, `Record`s and `TensorRef`s; the latter can be read while the file is open.
        format: "pickle", "torch.save" or "torch.save (legacy)".
    """

    content: Any
    format: str


@contextmanager
def open_pickle(path: Path) -> Iterator[Pickled]:
    """The content of a pickle or `torch.save` file, while it is open.

    Raises:
        CheckpointError: missing, not such a file, damaged, or holding anything outside the closed list; reading a
            tensor inside the `with` block raises it too.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{path}: not a file; give a checkpoint (.pkl, .pt, .pth or .safetensors)")
        if status.st_size == 0:
            raise CheckpointError(f"{path}: is empty; download or copy it again")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
            if memory[:2] == b"PK":
                yield Pickled(_from_zip(file, status.st_size), "torch.save")
            elif memory[:1] == b"\x80":
                yield _pickled(memory, status.st_size)
            else:
                raise CheckpointError(f"{path}: not a pickled checkpoint; give an official .pkl, .pt or .pth")
    except PmvError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: refused: {' '.join(str(error).split())}") from error
    except Exception as error:  # a malformed pickle can raise anything; none of it may reach the user as a traceback
        raise CheckpointError(f"{path}: damaged checkpoint ({type(error).__name__}); download or copy it again") from error


def _pickled(memory: mmap.mmap, size: int) -> Pickled:
    content = _load(memory, size, nested=True)
    if isinstance(content, int) and content == _LEGACY_MAGIC:
        memory.seek(0)
        return Pickled(_legacy_stream(memory, size), "torch.save (legacy)")
    return Pickled(content, "pickle")
