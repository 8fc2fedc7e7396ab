"""The guard at the door of every file that somebody else may have written: regular files only, never more bytes than
such a file has, and whatever a parser raises as one `InputError`.

What is inside is then held against a type (`fitted`), so that no reader has to ask twice.
"""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar

from pmv.errors import InputError, PmvError, shown

MOST_JSON = 16 << 20
"""Bytes of a JSON file. A run's longest, the losses of thousands of steps, has some two million; 16 MiB of nothing but
brackets become 400 MB of lists."""

T = TypeVar("T")


@contextmanager
def open_regular(path: str | Path, most: int | None = None, follow: bool = True) -> Iterator[BufferedReader]:
    """A file opened for reading, if it is one: no folder, pipe or device, which would never end.

    Args:
        most: bytes that such a file has at most; None = any number.
        follow: whether `path` may be a symbolic link. Not where the name was found in a folder that others may have
            filled: it could lead to any file of the user's.

    Raises:
        InputError: it is missing, something else than a file, longer than `most`, or not readable.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe that nobody writes to must not be waited for
    if not follow and os.path.islink(path):
        raise InputError(f"{path}: is a link, and none is followed here; put the file itself there")
    try:
        handle = os.open(path, flags | (0 if follow else os.O_NOFOLLOW))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({_reason(error)})") from error
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "no file but a pipe or a device"
        raise InputError(f"{path}: is {what}; give a file")
    with open(handle, "rb") as file:
        if most is not None and status.st_size > most:
            raise InputError(f"{path}: has {status.st_size / 1e6:.0f} MB; such a file has at most {most / 1e6:.2g}")
        yield file


def read_content(path: str | Path, most: int, follow: bool = True) -> bytes:
    """All bytes of a file that has at most `most`; see `open_regular`."""
    with open_regular(path, most, follow) as file:
        try:
            content = file.read(most + 1)  # the size of some system's files is told as 0
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({_reason(error)})") from error
    if len(content) > most:
        raise InputError(f"{path}: does not end; such a file has at most {most / 1e6:.2g} MB")
    return content


def read_text(path: str | Path, most: int, follow: bool = True) -> str:
    """A text in UTF-8, with or without a byte order mark; see `read_content`."""
    try:
        return read_content(path, most, follow).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text in UTF-8 (byte {error.start}); save it as UTF-8") from error


def parse_json(text: str | bytes, where: str | Path) -> Any:
    """JSON as plain values; NaN and Infinity are read, as Python writes them.

    Raises:
        InputError: it is damaged, or nested deeper than anything that pmv reads; the message begins with `where`.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise InputError(f"{where}: not readable as JSON (nested too deeply)") from error
    except ValueError as error:  # also numbers of thousands of digits, and bytes that are no text
        raise InputError(f"{where}: not readable as JSON ({shown(' '.join(str(error).split()), 150)})") from error


def fitted(value: Any, kind: type[T], where: str | Path) -> T:
    """Plain values as a dataclass or any other type: nothing is bent but whole numbers to floats, entries that the type
    does not have are left out.

    Raises:
        InputError: something is missing or of another type; the message begins with `where`.
    """
    import msgspec  # here, since machines that train and read no such file need not have it

    try:
        return msgspec.convert(value, kind)
    except PmvError:
        raise
    except RecursionError as error:
        raise InputError(f"{where}: damaged (nested too deeply)") from error
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        raise InputError(f"{where}: damaged ({shown(' '.join(str(error).split()), 150)})") from error


def is_plain_name(name: object) -> bool:
    """Whether a name read from a file names something directly inside its folder, on any system: neither a path, nor
    hidden, nor with letters that do not show."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= 200
        and name.isprintable()
        and not name.startswith(".")
        and not set(name) & set("/\\:")
    )


def is_file(name: str | Path) -> bool:
    """Whether a name, which may have been read from a file, names one; False also for what no system takes."""
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


def _reason(error: OSError | ValueError) -> str:
    return shown(getattr(error, "strerror", None) or str(error), 60)
