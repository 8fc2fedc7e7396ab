"""Errors a user can mend.

Every message is one line that names the file or option and says how to mend it; the command line prints it and exits
with code 2. Anything else that escapes is a bug and shows its traceback.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class PmvError(Exception):
    """Base of all errors that are the input's fault, not the program's."""


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
    """A value from a file as it may stand in a message: short, and nothing that a terminal would obey.

    Containers and objects are told by their type alone, since the text of a small file's list can be endless.
    """
    if isinstance(value, int) and value.bit_length() > 256:
        return "a number of some 100 digits or more"
    text = str(value) if value is None or isinstance(value, str | int | float) else type(value).__name__
    return "".join(c if c.isprintable() else "?" for c in text[:most])


_DISK = {
    errno.ENOSPC: "the disk is full; free some space, or give another --out",
    errno.EDQUOT: "the disk quota is used up; free some space, or give another --out",
    errno.EFBIG: "a file is larger than the disk takes; give another --out",
    errno.EROFS: "cannot be written to (read-only); give another --out",
    errno.EACCES: "cannot be written to (no permission); give another --out",
    errno.EPERM: "cannot be written to (no permission); give another --out",
    errno.ENOTDIR: "cannot be made (a part of its path is a file); give another --out",
}


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what a disk may refuse into an InputError that names the folder; other errors pass.

    An error is told in full only where its cause is not the disk's: "no such file" here would be a bug.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise InputError(f"{folder}: {_DISK[error.errno]}") from error
