"""Reads pickles without executing anything in them.

A pickle is a program: it names functions, and whoever loads it calls them. Official EG3D and PanoHead files even carry
Python source that their persistence wrapper executes. Here an interpreter with few instructions and a closed list of
names rebuilds plain containers; every class that checkpoints mention becomes an inert `Record`, every tensor a
`TensorRef` to bytes in the file, and any other name or instruction is refused. Nothing that a file names is imported;
no tensor takes memory before `TensorRef.read` is called; work and memory are bounded. `pmv.generators.torch_files`
knows the files that pickles come in.
"""

import mmap
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pmv.errors import shown

_INERT_MODULES = ("training.", "torch_utils.", "dnnlib.", "torch.nn.modules.")
"""Classes below these modules are rebuilt as `Record`s: data, no behaviour."""
_INERT_CLASSES = {("torch", "device"), ("torch", "Size"), ("numpy", "ndarray"), ("torch.nn.parameter", "Buffer")}
_MAX_WORK = 1_000_000
"""Reads and copied entries. PanoHead's generator takes 72 000, and an official file holds it twice, and its judge."""
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


def refuse(reason: str) -> pickle.UnpicklingError:
    """The error of a file that is not trusted; `reason` completes "refused: …"."""
    return pickle.UnpicklingError(reason)


class Record:
    """Stands in for an object of a class that is not rebuilt: it keeps the pickled state and does nothing."""

    __slots__ = ("state",)

    def __init__(self, *_args: object) -> None:
        self.state: dict[str, Any] = {}

    def set_state(self, state: object) -> None:
        if isinstance(state, dict):
            self.state = state


class _Dictionary(dict):
    """Any dictionary class of official files."""

    __slots__ = ()

    def set_state(self, state: object) -> None:
        """Entries of configuration dictionaries; a state dict's `_metadata` is bookkeeping."""
        if isinstance(state, dict):
            self.update({key: value for key, value in state.items() if key != "_metadata"})


class _Callable:
    """A function that a pickle may call."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: object) -> Any:
        return self.function(*args)


class StorageType:
    """A storage class of torch, known by its type of number."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class Storage:
    """A tensor's flat memory: where its bytes lie."""

    __slots__ = ("dtype", "load", "size")

    def __init__(self, dtype: torch.dtype, size: int, load: Callable[[], bytes] | None = None) -> None:
        if not 0 <= size < 2**63:
            raise refuse("a tensor of an impossible size")
        self.dtype, self.size, self.load = dtype, size, load


class TensorRef:
    """A tensor that is not read yet: dtype, shape, and where its numbers lie."""

    __slots__ = ("offset", "shape", "storage", "stride")

    def __init__(self, storage: object, offset: object, shape: object, stride: object) -> None:
        if not isinstance(storage, Storage):
            raise refuse("a tensor without memory")
        if not isinstance(shape, tuple | list) or not isinstance(stride, tuple | list) or not isinstance(offset, int):
            raise refuse("a tensor without a shape")
        numbers = [offset, *shape, *stride]
        # with numbers of megabytes, multiplying takes for ever
        if len(shape) != len(stride) or len(shape) > 16 or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
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
    record.state = meta["state"]
    record.state["__class_name__"] = meta.get("class_name")
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


def _encoded(text: object, codec: object) -> bytes:
    """Bytes, as old pickle protocols write them."""
    if not isinstance(text, str) or codec != "latin1":
        raise refuse("bytes in an unknown encoding")
    return text.encode("latin1")


def _key(value: object) -> Any:
    """A value that may be hashed: hashing nested tuples, or numbers made to collide, would take for ever."""
    if type(value) in (str, bytes, bool) or value is None or (type(value) is int and abs(value) < 2**31):
        return value
    raise refuse(f"a key of type {type(value).__name__}")


def _dictionary(entries: object = ()) -> _Dictionary:
    if not isinstance(entries, list | tuple) or not all(isinstance(e, list | tuple) and len(e) == 2 for e in entries):
        raise refuse("a dictionary made of something else than entries")
    return _Dictionary((_key(key), value) for key, value in entries)


def _set(entries: object = ()) -> set:
    if not isinstance(entries, list | tuple | set):
        raise refuse("a set made of something else than a list")
    return {_key(entry) for entry in entries}


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

StorageFinder = Callable[[tuple], Any]
"""Makes a storage of a persistent id."""
BytesLoader = Callable[[object, "Budget"], Storage]
"""Makes a storage of bytes that are a stream of their own."""


class Budget:
    """What a file may ask for in all its parts.

    Args:
        size: of the file; no more bytes than it has are made of texts.
    """

    def __init__(self, size: int) -> None:
        self._work, self._bytes = _MAX_WORK, size

    def spend(self, work: int = 0, copied: int = 0) -> None:
        self._work -= work
        self._bytes -= copied
        if self._work < 0 or self._bytes < 0:
            raise refuse("it asks for more work than any checkpoint")


class Stream:
    """Bytes of the file, or of a part of it, read in order; all parts share one budget of work.

    Args:
        data: memory-mapped, or bytes.
    """

    def __init__(self, data: mmap.mmap | bytes, budget: Budget) -> None:
        self.data, self.end, self.position, self.budget = data, len(data), 0, budget

    def read(self, n: int) -> bytes:
        """At most n bytes: an instruction may claim any length."""
        self.budget.spend(1)
        start = self.position
        self.position = min(start + max(n, 0), self.end)
        return self.data[start : self.position]

    def readline(self) -> bytes:
        newline = self.data.find(b"\n", self.position, self.position + 4096)
        if newline < 0:
            raise EOFError("a line without an end")
        return self.read(newline + 1 - self.position)

    def slice(self, start: int, length: int) -> bytes:
        return self.data[start : start + length]


_Interpreter: Any = pickle._Unpickler  # pyright: ignore[reportAttributeAccessIssue]
"""The pickle module's own reference implementation in Python: the C one cannot be told what to leave out."""


class _Unpickler(_Interpreter):
    """Knows few instructions and a closed list of names.

    Args:
        find: of persistent ids; None where the format has none.
        load_bytes: of tensors whose memory is a stream of its own, as in official `.pkl` files; None where it is not.
    """

    def __init__(self, stream: Stream, find: StorageFinder | None, load_bytes: BytesLoader | None) -> None:
        super().__init__(stream)
        self._budget, self._find, self._load_bytes = stream.budget, find, load_bytes
        self._known: dict[tuple[str, str], Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            self._known[module, name] = self._stand_in(module, name)
        return self._known[module, name]

    def _stand_in(self, module: str, name: str) -> Any:
        """What is given out for a name; made for this file alone, so that no file alters another's."""
        if (module, name) in _FUNCTIONS:
            return _Callable(_FUNCTIONS[module, name])
        if self._load_bytes is not None and (module, name) == ("torch.storage", "_load_from_bytes"):
            load_bytes, budget = self._load_bytes, self._budget
            return _Callable(lambda data: load_bytes(data, budget))
        if module == "torch" and name in _STORAGE_DTYPES:
            return StorageType(_STORAGE_DTYPES[name])
        if (module, name) == ("dnnlib.util", "EasyDict"):
            return _Dictionary
        if (module, name) in _INERT_CLASSES or (module.startswith(_INERT_MODULES) and name.isidentifier()):
            return Record
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return Record
        raise refuse(f"it names {shown(module)}.{shown(name)}, which a generator checkpoint has no need of")

    def persistent_load(self, pid: Any) -> Any:
        if self._find is None or not isinstance(pid, tuple) or not pid:
            raise refuse("it refers to objects outside the file")
        return self._find(pid)

    # What follows replaces the instructions that call, alter or hash; the stack is `self.stack`, as in the base class.

    def _frame(self) -> None:
        # a frame says how much to read ahead; read ahead, its instructions would not be counted
        self.read(8)

    def _needless(self) -> None:
        raise refuse("it uses a pickle instruction that a checkpoint has no need of")

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack[-1]
        if not isinstance(arguments, tuple) or not (isinstance(function, _Callable) or function is Record):
            raise refuse("it calls what is no function")
        # one list or text may be the argument of many calls, each of which copies it
        self._budget.spend(
            work=sum(len(a) for a in arguments if isinstance(a, list | tuple | set)),
            copied=sum(len(a) for a in arguments if isinstance(a, str)),
        )
        self.stack[-1] = function(*arguments)

    def _make(self) -> None:
        arguments, kind = self.stack.pop(), self.stack[-1]
        if not isinstance(arguments, tuple) or (kind is not Record and kind is not _Dictionary):
            raise refuse("it makes an object of what is no class")
        self.stack[-1] = kind()

    def _make_with_keywords(self) -> None:
        self.stack.pop()
        self._make()

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Record | _Dictionary):
            self._budget.spend(len(state) if isinstance(state, dict) else 0)
            target.set_state(state)
        elif not isinstance(target, _NumpyType):  # its byte order; files of machines with another say so elsewhere
            raise refuse("it alters what is not its own")

    def _set_items(self) -> None:
        items = self.pop_mark()
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise refuse("it sets entries of what is no dictionary")
        for key, value in zip(items[::2], items[1::2]):
            target[_key(key)] = value

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        if not isinstance(self.stack[-1], dict):
            raise refuse("it sets entries of what is no dictionary")
        self.stack[-1][_key(key)] = value

    def _add_items(self) -> None:
        items = self.pop_mark()
        if not isinstance(self.stack[-1], set):
            raise refuse("it adds to what is no set")
        self.stack[-1].update(_key(item) for item in items)

    def _append_items(self) -> None:
        items = self.pop_mark()
        if type(self.stack[-1]) is not list:
            raise refuse("it appends to what is no list")
        self.stack[-1].extend(items)

    def _append_item(self) -> None:
        item = self.stack.pop()
        if type(self.stack[-1]) is not list:
            raise refuse("it appends to what is no list")
        self.stack[-1].append(item)

    dispatch: ClassVar = dict(_Interpreter.dispatch)
    for _opcode in (
        # the extension registry, text instead of bytes, old ways to call and to build, memory from outside the file
        *(pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.PERSID, pickle.INST, pickle.OBJ, pickle.DICT, pickle.LIST),
        *(pickle.FROZENSET, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.BYTEARRAY8, pickle.STRING),
        *(pickle.INT, pickle.LONG, pickle.FLOAT, pickle.UNICODE, pickle.BINSTRING, pickle.SHORT_BINSTRING),
        *(pickle.PUT, pickle.GET, pickle.DUP, pickle.LONG4),  # the last: numbers of more than 255 bytes
    ):
        dispatch[_opcode[0]] = _needless
    dispatch |= {
        pickle.FRAME[0]: _frame,
        pickle.REDUCE[0]: _call,
        pickle.NEWOBJ[0]: _make,
        pickle.NEWOBJ_EX[0]: _make_with_keywords,
        pickle.BUILD[0]: _build,
        pickle.SETITEMS[0]: _set_items,
        pickle.SETITEM[0]: _set_item,
        pickle.ADDITEMS[0]: _add_items,
        pickle.APPENDS[0]: _append_items,
        pickle.APPEND[0]: _append_item,
    }


def load_pickle(stream: Stream, find: StorageFinder | None = None, load_bytes: BytesLoader | None = None) -> Any:
    """One pickle from a stream, which is left behind it; for `find` and `load_bytes` see their types.

    Raises:
        pickle.UnpicklingError: refused; anything else: damaged.
    """
    return _Unpickler(stream, find, load_bytes).load()
