"""The files that `torch.save` and official training scripts write: pickles, zips and legacy streams, read by the
interpreter of `pmv.generators.pickles`.
"""

import mmap
import pickle
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pmv.errors import CheckpointError, PmvError
from pmv.generators.pickles import Budget, Storage, StorageType, Stream, load_pickle, refuse

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MAX_DIRECTORY = 4 << 20
"""Bytes of a zip's table of contents; that of a generator and its discriminators takes some 100 000. Python makes ten
times as much of it before one can ask for a name."""


def _legacy_stream(stream: Stream) -> Any:
    """What `torch.save` wrote before PyTorch 1.6, and writes inside pickles still: magic, protocol, system, object,
    keys, then size and bytes of each storage.
    """
    if load_pickle(stream) != _LEGACY_MAGIC or load_pickle(stream) != _LEGACY_PROTOCOL:
        raise refuse("a tensor's memory in an unknown format")
    system = load_pickle(stream)
    if not isinstance(system, dict) or not system.get("little_endian", False):
        raise refuse("big-endian tensors")
    storages: dict[str, Storage] = {}

    def find(pid: tuple) -> Any:
        if pid[0] == "module" and len(pid) == 4:  # a class with its source; the source is data that nobody reads
            return pid[1]
        if len(pid) > 5 and pid[5] is not None:
            raise refuse("a storage that is part of another")
        key, dtype, count = _storage_id(pid[:5])
        return storages.setdefault(key, Storage(dtype, count))

    result = load_pickle(stream, find)
    keys = load_pickle(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
        raise refuse("storages without a list of their names")
    for key in keys:
        storage = storages[key]
        count = int.from_bytes(stream.read(8), "little", signed=True)
        length = count * storage.dtype.itemsize
        if count != storage.size or length > stream.end - stream.position:
            raise refuse("a tensor that is larger than its file")
        storage.load = partial(stream.slice, stream.position, length)
        stream.position += length
    return result


def _storage_id(pid: tuple) -> tuple[str, torch.dtype, int]:
    """Name, type and length of the storage that a persistent id of `torch.save` stands for."""
    if len(pid) != 5 or pid[0] != "storage" or not isinstance(pid[1], StorageType):
        raise refuse("an unknown kind of persistent object")
    if not isinstance(pid[2], str) or type(pid[4]) is not int:
        raise refuse("an unknown kind of persistent object")
    return pid[2], pid[1].dtype, pid[4]


def _storage_of_stream(data: object, budget: Budget) -> Storage:
    """A storage that lies as a `torch.save` stream of its own within a pickle."""
    if type(data) is not bytes:
        raise refuse("a tensor's memory that is not bytes")
    result = _legacy_stream(Stream(data, budget))
    if not isinstance(result, Storage):
        raise refuse("a tensor's memory that holds something else")
    return result


def open_zip(file: Any) -> zipfile.ZipFile | None:
    """The archive in an open file; None where its table of contents is longer than that of any honest one."""
    end = zipfile._EndRecData(file)  # pyright: ignore[reportAttributeAccessIssue]
    return None if end is not None and end[5] > _MAX_DIRECTORY else zipfile.ZipFile(file)


def _from_zip(file: Any, size: int) -> Any:
    """What `torch.save` writes since PyTorch 1.6: a zip of a pickle and the storages' bytes, nothing compressed."""
    archive = open_zip(file)
    if archive is None:
        raise refuse("its table of contents is longer than any checkpoint's")
    members = {info.filename: info for info in archive.infolist()}
    if len(members) != len(archive.infolist()):
        raise refuse("two members of the archive have one name")
    if any(
        info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size for info in members.values()
    ):
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
        key, dtype, count = _storage_id(pid)
        name = f"{root}data/{key}"
        if name not in members:
            raise refuse("a tensor without its bytes")
        if members[name].file_size != count * dtype.itemsize:
            raise refuse("a tensor that is larger than its file")
        return storages.setdefault(key, Storage(dtype, count, partial(archive.read, name)))

    return load_pickle(Stream(archive.read(f"{root}data.pkl"), Budget(size)), find)


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
                yield _pickled(memory)
            else:
                raise CheckpointError(f"{path}: not a pickled checkpoint; give an official .pkl, .pt or .pth")
    except PmvError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except MemoryError as error:
        raise CheckpointError(f"{path}: takes more memory than there is") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: refused: {' '.join(str(error).split())}") from error
    except Exception as error:  # a malformed pickle can raise anything; none of it may reach the user as a traceback
        raise CheckpointError(
            f"{path}: damaged checkpoint ({type(error).__name__}); download or copy it again"
        ) from error


def _pickled(memory: mmap.mmap) -> Pickled:
    content = load_pickle(Stream(memory, Budget(len(memory))), load_bytes=_storage_of_stream)
    if type(content) is int and content == _LEGACY_MAGIC:
        return Pickled(_legacy_stream(Stream(memory, Budget(len(memory)))), "torch.save (legacy)")
    return Pickled(content, "pickle")
