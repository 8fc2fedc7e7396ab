"""Errors a user can mend.

Every message is one line that names the file or option and says how to mend it; the command line prints it and exits
with code 2. Anything else that escapes is a bug and shows its traceback.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class PmvError(Exception):
    """Base of all errors that are the input's fault, not the program's. As text it is one line that any terminal can
    show (`shown`), whatever names and values from files were put into it."""

    def __str__(self) -> str:
        return shown(" ".join(super().__str__().split()), 1500)


class InputError(PmvError):
    """A photo, mask, camera, edit, configuration or run folder cannot be used."""


class PhotoError(InputError):
    """What is in a photo cannot be used; the message says so without the file's name, which whoever knows it puts in
    front."""


class BusyError(InputError):
    """Another process works in a run's folder."""


class CheckpointError(PmvError):
    """A generator checkpoint is unknown, damaged, of an unsupported kind, or hostile."""


class FitError(PmvError):
    """A fit cannot go on: its loss is no number."""


class Stopped(Exception):
    """Somebody asked for an end, and what was under way stopped between two steps. No fault of anybody's."""


class AssetsError(PmvError):
    """Data that pmv needs from elsewhere (MakeHuman assets, pretrained weights) is missing or incomplete."""


def shown(value: object, most: int = 100) -> str:
    """A value from a file as it may stand in a message, a log, on a terminal or, escaped, on a page: one line, short,
    and nothing that a terminal or a reader's eye would obey: control characters, marks that turn the direction of
    writing, characters without a picture and halves of characters become "?".

    Containers and objects are told by their type alone, since the text of a small file's list can be endless.

    Args:
        value: anything.
        most: letters; what is longer ends in "…".
    """
    if isinstance(value, int) and value.bit_length() > 256:
        return "a number of some 100 digits or more"
    text = str(value) if value is None or isinstance(value, str | int | float) else type(value).__name__
    if len(text) > most:
        text = text[: most - 1] + "…"
    return "".join(c if c.isprintable() else "?" for c in text)


def quoted(value: object, most: int = 100) -> str:
    """`shown`, with quotation marks around texts: what somebody wrote where something else was wanted."""
    return repr(shown(value, most)) if isinstance(value, str) else shown(value, most)


def shown_lines(text: str, most: int = 10_000) -> str:
    """A text of several lines, such as a traceback or a config, each of them as `shown` shows it.

    Args:
        most: lines; what follows them is left out.
    """
    lines = text.split("\n")
    kept = [shown(line.expandtabs(), 2000) for line in lines[:most]]
    return "\n".join(kept + ["…"] * (len(lines) > most))


_DISK = {
    errno.ENOSPC: "the disk is full; free some space, or {mend}",
    errno.EDQUOT: "the disk quota is used up; free some space, or {mend}",
    errno.EFBIG: "a file is larger than the disk takes; {mend}",
    errno.EROFS: "cannot be written to (read-only); {mend}",
    errno.EACCES: "cannot be written to (no permission); {mend}",
    errno.EPERM: "cannot be written to (no permission); {mend}",
    errno.ENOTDIR: "cannot be made (a part of its path is a file); {mend}",
    errno.EISDIR: "is a folder; {mend}",
    errno.ENAMETOOLONG: "its name is longer than the disk takes; {mend}",
    errno.EILSEQ: "its name is none that the disk takes; {mend}",
    errno.EIO: "the disk fails; {mend}",
}


@contextmanager
def disk_errors(place: Path, mend: str = "give another --out") -> Iterator[None]:
    """Turn what a disk may refuse into an InputError that names the file or folder; other errors pass.

    An error is told in full only where its cause is not the disk's: "no such file" here would be a bug.

    Args:
        mend: what the user can do instead.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise InputError(f"{place}: {_DISK[error.errno].format(mend=mend)}") from error


def disk_fault(error: BaseException) -> str | None:
    """One line for an error of the disk that nobody foresaw, None for any other error."""
    if not isinstance(error, OSError) or error.errno not in _DISK or error.filename is None:
        return None
    return str(InputError(f"{os.fsdecode(error.filename)}: {_DISK[error.errno].format(mend='give another place')}"))
