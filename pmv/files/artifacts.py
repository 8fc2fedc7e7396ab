"""Files that are either complete or absent, hashes of what is in them, and tensors with a header in safetensors."""

import errno
import hashlib
import json
import os
import re
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

from pmv.errors import InputError, PmvError, disk_errors
from pmv.files.reading import MOST_JSON, open_regular, parse_json, read_text

MOST_BYTES = 8 << 30
"""Bytes of any file that pmv reads whole; the largest checkpoints, with all that training needs, have some one and a
half billion."""
_MOST_HEADER = 16 << 20
"""Bytes of a safetensors header; that of a run has some hundred thousand, the library's own limit is six times this."""
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
    check_no_link(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file")
    # a name that nobody can have put a link under; long names are cut, a disk takes 255 bytes
    start = os.fsencode(path.name)[:200].decode("utf-8", "ignore")
    handle, name = tempfile.mkstemp(prefix=f".{start}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # safetensors keeps its files from everybody else
        os.replace(temporary, path)
        fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def check_no_link(path: Path) -> None:
    """InputError where what is to be written is a link: replaced it would be none any more, followed it leads who knows
    where."""
    with disk_errors(path):
        is_link = path.is_symlink()
    if is_link:
        raise InputError(f"{path}: is a link, which pmv does not write through; give the place that it leads to")


def check_output(path: Path) -> None:
    """InputError, before any work, where a file cannot be written: its folder is missing, it is a folder or a link, or
    nobody may write there."""
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; make it first")
    check_no_link(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file in it")
    with disk_errors(path):
        handle, name = tempfile.mkstemp(prefix=".pmv.", suffix=".part", dir=path.parent)
        os.close(handle)
        os.unlink(name)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file, or a link itself, a second name; where the disk knows none, a copy."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK, errno.ENOSYS):
            raise
        shutil.copy2(source, target, follow_symlinks=False)


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
    check_no_link(path)
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
    """Write a text file atomically, in UTF-8; halves of characters, as in file names that are no UTF-8, become the
    escapes that JSON has for them."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: str | Path, follow: bool = True) -> Any:
    """Read JSON; InputError names the file where it is missing, damaged, no file, or too long.

    Args:
        follow: see `pmv.files.reading.open_regular`.
    """
    return parse_json(read_text(path, MOST_JSON, follow), path)


def copy_file(source: str | Path, target: str | Path, most: int | None = None) -> None:
    """Copy a file's bytes atomically; InputError where `source` is none, or longer than `most` bytes."""
    with atomic_path(target) as temporary, open_regular(source, most) as file, open(temporary, "wb") as copy:
        shutil.copyfileobj(file, copy, 1 << 20)


def file_hash(path: str | Path, follow: bool = True) -> str:
    """SHA-256 of a file's bytes, hexadecimal; InputError where it is none, or longer than any that pmv reads: a hole
    of a terabyte takes no room on the disk.

    Args:
        follow: see `pmv.files.reading.open_regular`.
    """
    with open_regular(path, MOST_BYTES, follow) as file:
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


SEAL = "sha256"
"""Entry of a sealed header, see `sealed`."""


def sealed(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """A header for `save_tensors` with the hash of itself and of the tensors, which `check_seal` looks at."""
    plain = {name: value for name, value in header.items() if name != SEAL}
    return {**plain, SEAL: value_hash([plain, tensors_hash(tensors)])}


def check_seal(header: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """InputError where a file that was written with a `sealed` header is not what was written. A file without, of
    earlier versions, passes."""
    if SEAL in header and header[SEAL] != sealed(header, tensors)[SEAL]:
        raise InputError(f"{where}: damaged (it is not what was written: another sha256)")


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write safetensors atomically, with one JSON header. Equal content gives equal bytes."""
    # save_file refuses tensors that share memory (an expanded w, say)
    own = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(own, temporary, metadata={_HEADER: json.dumps(header, sort_keys=True)})
        except SafetensorError as error:
            told = re.search(r"os error (\d+)", str(error))  # the library tells the system's number in words alone
            full = "StorageFull" in str(error) or "No space left" in str(error)
            number = errno.ENOSPC if full else int(told[1]) if told else None
            if number is None:
                raise
            raise OSError(number, os.strerror(number), str(path)) from error


@contextmanager
def open_tensors(path: str | Path, device: str | torch.device = "cpu", follow: bool = True) -> Iterator[Any]:
    """A safetensors file as `safetensors.safe_open` gives it, in whose block nothing but `InputError` is raised.

    Args:
        follow: see `pmv.files.reading.open_regular`.

    Raises:
        InputError: it is missing, damaged, or no such file; also where reading a tensor of it fails.
    """
    check_header_length(path, follow)
    try:
        with safe_open(path, framework="pt", device=str(device)) as opened:
            yield opened
    except PmvError:
        raise
    except Exception as error:  # SafetensorError, and what PyTorch makes of types that it does not have
        raise _damaged(path, error) from error


def check_header_length(path: str | Path, follow: bool = True) -> None:
    """InputError unless a file is one, and no longer at its head than any that holds tensors: the library that reads it
    takes whatever the first bytes say."""
    with open_regular(path, MOST_BYTES, follow) as file:
        if int.from_bytes(file.read(8), "little") > _MOST_HEADER:
            raise InputError(f"{path}: damaged, or not a safetensors file (its header has no end)")


def read_header(path: str | Path, follow: bool = True) -> dict[str, Any]:
    """The JSON header that `save_tensors` wrote; InputError where the file is missing or damaged."""
    with open_tensors(path, follow=follow) as file:
        return tensors_header(file, path)


def load_tensors(path: str | Path, device: str | torch.device = "cpu", follow: bool = True) -> dict[str, Tensor]:
    """All tensors of a file that `save_tensors` wrote, by name; InputError where it is missing or damaged."""
    with open_tensors(path, device, follow) as file:
        tensors_header(file, path)
        return {name: file.get_tensor(name) for name in file.keys()}


def tensors_header(file: Any, path: str | Path) -> dict[str, Any]:
    """As `read_header`, of a file that `open_tensors` opened."""
    try:
        header = parse_json((file.metadata() or {})[_HEADER], path)
    except (KeyError, InputError) as error:
        raise _damaged(path, error) from error
    if not isinstance(header, dict):
        raise _damaged(path, TypeError("no header"))
    return header


def _damaged(path: str | Path, error: Exception) -> InputError:
    why = type(error).__name__
    return InputError(f"{path}: damaged, or not a file that pmv wrote ({why})")
