"""Locks between processes: a file that one of them holds. The lock dies with its holder, however that ends."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from pmv.errors import InputError, shown


class Taken(Exception):
    """Another process holds the lock; `owner` is what it wrote into it, "unknown" where it wrote nothing."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.owner = owner


def open_own(path: Path, flags: int) -> FileIO:
    """Open a file that pmv writes in place, in a folder that others may have filled: made where it is missing, else
    only if it is a file with this one name. A link, or a second name of another file, would lead the writing there.

    Args:
        flags: of `os.open`, besides those that see to this.

    Raises:
        InputError: it is something else; OSError: the disk refuses.
    """
    mend = f"remove it: rm {shown(str(path), 500)}"
    if os.path.islink(path):
        raise InputError(f"{path}: is a link, which pmv does not write through; {mend}")
    flags |= os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: is no file; {mend if not stat.S_ISDIR(status.st_mode) else 'remove the folder'}")
    except FileNotFoundError:
        pass
    file = FileIO(os.open(path, flags, 0o666), "r+" if flags & os.O_RDWR else "a")
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        file.close()
        raise InputError(f"{path}: is another file's second name (a hard link), which pmv does not write to; {mend}")
    return file


@contextmanager
def held(path: Path) -> Iterator[FileIO]:
    """Hold a lock file, made where it is missing; inside, it may be removed.

    Raises:
        Taken: another process holds it.
        InputError: something lies there that is no such file; OSError: the disk refuses.
    """
    while True:
        file = open_own(path, os.O_RDWR)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Taken(shown(file.read(20).decode(errors="replace").strip()) or "unknown") from error
            # its holder may have removed or renamed it after we opened it: then it keeps nobody else away
            if not _is_at(file, path):
                continue
            yield file
            return
        finally:
            file.close()


def _is_at(file: FileIO, path: Path) -> bool:
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    ours = os.fstat(file.fileno())
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)
