"""A run's folder: what lies where, and how it stays whole when a process dies.

``source/`` holds copies of what the user gave, so that a run can be resumed without the originals. Each stage writes
into ``.tmp-NN_name`` and appears under its own name only when it is complete. Whatever a killed process left is
removed at the next start.

A run may come from somebody else. So no link in it is followed, with one exception (`RunFolder.check_links`), and what
is read from it is held against a type.
"""

import logging
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from io import BufferedWriter, FileIO, TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from pmv.errors import BusyError, InputError, shown
from pmv.files.artifacts import file_hash, fsync_folder, link_or_copy, read_json, write_json, write_text
from pmv.files.locks import Taken, held, open_own
from pmv.pipeline.config import read_yaml
from pmv.pipeline.packing import Packed, save_packed
from pmv.pipeline.stage_record import StageRecord, checked_record
from pmv.pipeline.table import Sources, Stage, Table

OUTPUTS = "outputs.safetensors"
SOURCE = "source"
RECORD = "stage.json"
CONFIG = "config.yaml"
LOCK = ".lock"
_BEFORE = f".tmp-{SOURCE}-before"
_FILES = (CONFIG, "run.json", "report.html", "log.txt", LOCK)

log = logging.getLogger("pmv")


class RunFolder:
    """One run on disk."""

    def __init__(self, path: str | Path, table: Table) -> None:
        self.path = Path(path)
        self.table = table
        self._holds = 0
        self._restoring = False
        self._records: dict[str, tuple[tuple[int, int, int], StageRecord | InputError]] = {}

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def source(self) -> Path:
        """Where the copies of what the user gave lie; what they are called there is the table's business."""
        return self / SOURCE

    @property
    def is_run(self) -> bool:
        """Whether a run lies here, also one whose sources were just being replaced when it was killed."""
        return (self.source.is_dir() or (self / f".old-{SOURCE}").is_dir()) and (self / CONFIG).is_file()

    @property
    def is_begun(self) -> bool:
        """Whether nothing lies here but the config of a run that was killed before it had its sources."""
        try:
            names = {path.name for path in self.path.iterdir() if not path.name.startswith(".")}
            return names == {CONFIG} and {"run", "generator"} <= read_yaml(self / CONFIG, follow=False).keys()
        except (OSError, InputError):
            return False

    def require_run(self) -> None:
        """InputError where there is no run, or one with links in it; see `check_links`."""
        if not self.path.is_dir():
            raise InputError(f"{self.path}: no such run folder")
        self.check_links()
        if not self.is_run:
            raise InputError(
                f"{self.path}: not a run folder (it lacks source/ or config.yaml); start a new run with an image"
            )

    def check_links(self) -> None:
        """InputError where something of the run is a link to elsewhere: a run that somebody else made could lead to any
        file of the user's.

        Allowed is a link in a stage's place to a folder that holds just this stage, for those who move large stages to
        another disk. Nothing is ever written or removed there: where the stage runs again, a folder takes the link's
        place.
        """
        for name in (*_FILES, *(product.file for product in self.table.products), SOURCE):
            if (self / name).is_symlink():
                mend = "put what it leads to in its place" if name in (SOURCE, CONFIG) else "remove it"
                raise InputError(f"{self / name}: is a link, and pmv follows none within a run; {mend}")
        for stage in self.table:
            path = self / stage.folder
            if path.is_symlink():
                try:
                    checked_record(read_json(path / RECORD, follow=False), stage.name, path / RECORD)
                except InputError as error:
                    raise InputError(
                        f"{path}: is a link to something else than the stage's own folder; put that folder in its "
                        "place, or remove the link"
                    ) from error

    @contextmanager
    def locked(self, create: bool = False) -> Iterator[None]:
        """Hold the folder for this process. The lock dies with the process, however it ends; who holds it already,
        holds it on.

        Args:
            create: make the folder where it is missing.

        Raises:
            BusyError: another process holds it. InputError: the folder has links (`check_links`).
        """
        if self._holds:
            self._holds += 1
            try:
                yield
            finally:
                self._holds -= 1
            return
        with ExitStack() as stack:
            file = self._lock_file(stack, create)
            file.truncate(0)
            file.write(str(os.getpid()).encode())
            self._holds = 1
            try:
                yield
            finally:
                self._holds = 0

    def _lock_file(self, stack: ExitStack, create: bool) -> FileIO:
        while True:
            if create:
                self.path.mkdir(parents=True, exist_ok=True)
            self.check_links()
            try:
                return stack.enter_context(held(self / LOCK))
            except FileNotFoundError as error:  # who held it cleared the folder away meanwhile
                if not create:
                    raise InputError(f"{self.path}: no such run folder") from error
            except Taken as taken:
                raise BusyError(
                    f"{self.path}: process {taken.owner} is working in this folder; wait for it or stop it"
                ) from taken

    def tidy(self) -> None:
        """Remove what a killed process left, and finish a swap that it had begun."""
        for name in (SOURCE, *(stage.folder for stage in self.table)):
            old, target = self / f".old-{name}", self / name
            if os.path.lexists(target):
                _remove(old)
            elif os.path.lexists(old):
                old.rename(target)
            _remove(self / f".tmp-{name}")
        if not self._restoring:
            _remove(self / _BEFORE)
        for name in (*_FILES, *(product.file for product in self.table.products)):
            for part in self.path.glob(f".{name}.*.part"):
                _remove(part)

    def clear(self) -> None:
        """Remove everything that a run without a finished stage has made; for whoever holds the lock, since it goes
        too."""
        if not self._holds:
            raise RuntimeError("a folder is cleared by whoever holds its lock")
        self.tidy()
        for name in (SOURCE, *_FILES):  # the lock last: whoever comes after it finds nothing
            _remove(self / name)

    def _swap_in(self, temporary: Path, target: Path) -> None:
        """Put a complete folder in the place of another; `tidy` mends a death in between."""
        old = self / f".old-{target.name}"
        for file in temporary.iterdir():
            if stat.S_ISREG(file.lstat().st_mode):
                with open(file, "rb") as handle:
                    os.fsync(handle.fileno())
        if os.path.lexists(target):
            target.rename(old)
        temporary.rename(target)
        fsync_folder(self.path)
        _remove(old)

    def open_log(self) -> TextIO:
        """``log.txt``, to write at its end."""
        file = open_own(self / "log.txt", os.O_WRONLY | os.O_APPEND)
        return TextIOWrapper(BufferedWriter(file), encoding="utf-8")

    # --- sources

    @property
    def first(self) -> Path:
        """The first stage's folder, where a user may put files of his own."""
        return self / self.table[0].folder

    def sources(self) -> Sources:
        """What the user gave, as the table reads it."""
        return self.table.open_sources(self.source, self.first)

    @contextmanager
    def replacing_source(self) -> Iterator[Path]:
        """A temporary folder to fill, which then takes the place of ``source/``: what is not in it is gone."""
        temporary = self / f".tmp-{SOURCE}"
        _remove(temporary)
        temporary.mkdir()
        yield temporary
        self._swap_in(temporary, self.source)

    @contextmanager
    def restoring_source(self, *errors: type[Exception]) -> Iterator[None]:
        """If the block raises one of these, ``source/`` is as it was before. Takes no room, so a full disk is no
        hindrance."""
        before = self / _BEFORE
        _remove(before)
        before.mkdir()
        self._restoring = True
        try:
            for path in self.source.iterdir():
                if _is_file_or_link(path):
                    link_or_copy(path, before / path.name)
            try:
                yield
            except errors:
                self._swap_in(before, self.source)
                raise
        finally:
            self._restoring = False
            _remove(before)

    # --- stages

    def read_record(self, stage: Stage) -> StageRecord:
        """The stage's ``stage.json``; InputError where it is missing or damaged."""
        path = self / stage.folder / RECORD
        try:
            status = path.lstat()
            key = (status.st_ino, status.st_size, status.st_mtime_ns)
        except OSError as error:
            raise InputError(f"{path}: no such file") from error
        known = self._records.get(stage.name)
        if known is None or known[0] != key:  # the report asks for all of them at every change
            try:
                record = checked_record(read_json(path, follow=False), stage.name, path)
                if record["outputs"].keys() != {field.name for field in fields(stage.outputs)}:
                    raise InputError(f"{path}: damaged (it lists other outputs than the stage's)")
                known = (key, record)
            except InputError as error:
                known = (key, error)
            self._records[stage.name] = known
        if isinstance(known[1], InputError):
            raise InputError(*known[1].args) from known[1]
        return known[1]

    def record(self, stage: Stage) -> StageRecord | None:
        """The stage's ``stage.json``, or None where the stage is not complete."""
        try:
            return self.read_record(stage)
        except InputError:
            return None

    def is_intact(self, stage: Stage, record: StageRecord) -> bool:
        """True if the outputs are the bytes that the stage wrote."""
        try:
            return file_hash(self.outputs(stage), follow=False) == record["outputs_sha256"]
        except InputError:
            return False

    def outputs(self, stage: Stage) -> Path:
        return self / stage.folder / OUTPUTS

    @contextmanager
    def writing(self, stage: Stage) -> Iterator[Path]:
        """A temporary folder for the stage; removed unless `commit` takes it."""
        temporary = self / f".tmp-{stage.folder}"
        _remove(temporary)
        temporary.mkdir()
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def commit(self, stage: Stage, temporary: Path, packed: Packed, record: dict[str, Any]) -> StageRecord:
        """Write outputs and record, and let the stage appear; returns the whole record. Files that a user put into the
        old folder are kept, links as links."""
        save_packed(temporary / OUTPUTS, packed)
        files = sorted([*(path.name for path in temporary.iterdir()), RECORD])
        record = {**record, "outputs_sha256": file_hash(temporary / OUTPUTS), "files": files}
        self._keep_users_files(stage, temporary)
        write_json(temporary / RECORD, record)
        self._swap_in(temporary, self / stage.folder)
        return checked_record(record, stage.name, self / stage.folder / RECORD)

    def _keep_users_files(self, stage: Stage, temporary: Path) -> None:
        old, folder = self.record(stage), self / stage.folder
        if old is None:
            return
        users = [path for path in folder.iterdir() if path.name not in old["files"] and _is_file_or_link(path)]
        if folder.is_symlink():
            # whoever made the run says what the link leads to: nothing is taken from there
            kept = ", ".join(shown(path.name) for path in users)
            log.warning(
                "%s: was a link and is a folder of the run now; what it led to stays as it was%s",
                folder,
                f", with your files there ({kept})" if users else "",
            )
            return
        for path in users:
            if not os.path.lexists(temporary / path.name):
                link_or_copy(path, temporary / path.name)

    def write_config(self, text: str) -> None:
        write_text(self / CONFIG, text)


def _is_file_or_link(path: Path) -> bool:
    mode = path.lstat().st_mode
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def _remove(path: Path) -> None:
    """Remove a file, a link itself, or a folder with all that is in it; nothing there is fine."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)
