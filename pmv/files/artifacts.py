"""Files that are either complete or absent, hashes of what is in them, and tensors with a header in safetensors."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pmv.errors import InputError, disk_errors

# safetensors writes several header entries in random order; one entry keeps equal content equal in bytes
_HEADER = "pmv"


def fsync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write to; on success it is flushed and renamed to `path`, on failure removed."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # safetensors keeps its files from everybody else
        os.replace(temporary, path)
        fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: str | Path) -> Iterator[None]:
    """Make a folder and what is missing above it; if the block fails, those of them that are empty are removed again.

    Raises:
        NotADirectoryError: a part of the path is a file.
    """
    path = Path(path)
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from error
        yield
    except BaseException:
        with suppress(OSError):  # one that holds something stays, and so does what is above it
            for folder in made:
                folder.rmdir()
        raise


def check_replaceable(path: str | Path, files: Iterable[str], what: str) -> None:
    """InputError where a folder that is to be written is a file, or holds anything but these files.

    Args:
        files: names that such a folder may hold.
        what: what it holds, for the message: "a prepared photo".
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; give a folder as --out")
    if path.is_dir() and not {entry.name for entry in path.iterdir()} <= set(files):
        raise InputError(f"{path}: holds something else than {what}; give another --out")


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; on success it takes the place of `path`, on failure it is removed,
    and with it what had to be made above it.

    What is there already is replaced: ask `check_replaceable` first. InputError for what a disk refuses.
    """
    path = Path(path)
    with disk_errors(path), new_folder(path.parent):
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        old = temporary.with_name(temporary.name + ".old")
        try:
            temporary.chmod(0o755)
            yield temporary
            if path.exists():
                path.rename(old)
            try:
                temporary.rename(path)
            except OSError:
                if old.exists():
                    old.rename(path)
                raise
            fsync_folder(path.parent)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON; InputError names the file where it is missing or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error


def copy_file(source: str | Path, target: str | Path) -> None:
    """Copy a file's bytes atomically."""
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, independent of order, device and memory layout."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def value_hash(value: Any) -> str:
    """SHA-256 of plain values (what JSON can hold)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write safetensors atomically, with one JSON header. Equal content gives equal bytes."""
    # save_file refuses tensors that share memory (an expanded w, say)
    own = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(own, temporary, metadata={_HEADER: json.dumps(header, sort_keys=True)})
        except SafetensorError as error:
            if "StorageFull" in str(error) or "No space left" in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
            raise


def read_header(path: Path) -> dict[str, Any]:
    """The JSON header that `save_tensors` wrote; InputError where the file is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {})[_HEADER])
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: damaged, or not a file that pmv wrote ({type(error).__name__})") from error


def load_tensors(path: str | Path, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """All tensors of a file by name; InputError where it is missing or damaged."""
    read_header(Path(path))
    with safe_open(path, framework="pt", device=str(device)) as file:
        return {name: file.get_tensor(name) for name in file.keys()}
