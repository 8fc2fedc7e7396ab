"""A run's folder: what lies where, and how it stays whole when a process dies.

``source/`` holds copies of what the user gave, so that a run can be resumed without the originals. Each stage writes
into ``.tmp-NN_name`` and appears under its own name only when it is complete. Whatever a killed process left is
removed at the next start.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pmv.errors import BusyError, InputError
from pmv.files.artifacts import file_hash, fsync_folder, read_json, write_json, write_text
from pmv.pipeline.packing import Packed, save_packed
from pmv.pipeline.table import Sources, Stage, Table

OUTPUTS = "outputs.safetensors"
SOURCE = "source"
RECORD = "stage.json"


class RunFolder:
    """One run on disk."""

    def __init__(self, path: str | Path, table: Table) -> None:
        self.path = Path(path)
        self.table = table

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def source(self) -> Path:
        """Where the copies of what the user gave lie; what they are called there is the table's business."""
        return self / SOURCE

    @property
    def is_run(self) -> bool:
        return self.source.is_dir() and (self / "config.yaml").is_file()

    def require_run(self) -> None:
        """InputError where there is no run."""
        if not self.path.is_dir():
            raise InputError(f"{self.path}: no such run folder")
        if not self.is_run:
            raise InputError(
                f"{self.path}: not a run folder (it lacks source/ or config.yaml); start a new run with an image"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process. The lock dies with the process, however it ends."""
        with open(self / ".lock", "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                owner = file.read().strip() or "unknown"
                raise BusyError(
                    f"{self.path}: process {owner} is working in this folder; wait for it or stop it"
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def tidy(self) -> None:
        """Remove what a killed process left, and finish a swap that it had begun."""
        for old in self.path.glob(".old-*"):
            target = self / old.name.removeprefix(".old-")
            if target.exists():
                shutil.rmtree(old)
            else:
                old.rename(target)
        for leftover in [*self.path.glob(".tmp-*"), *self.path.glob(".*.part")]:
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    def clear(self) -> None:
        """Remove everything that a run without a finished stage has made."""
        if self.path.is_dir():
            self.tidy()
            shutil.rmtree(self.source, ignore_errors=True)
            for name in ("config.yaml", "run.json", "report.html", "log.txt", ".lock"):
                (self / name).unlink(missing_ok=True)

    def _swap_in(self, temporary: Path, target: Path) -> None:
        """Put a complete folder in the place of another; `tidy` mends a death in between."""
        old = self / f".old-{target.name}"
        for file in temporary.iterdir():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
        if target.exists():
            target.rename(old)
        temporary.rename(target)
        fsync_folder(self.path)
        shutil.rmtree(old, ignore_errors=True)

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
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        self._swap_in(temporary, self.source)

    # --- stages

    def record(self, stage: Stage) -> dict[str, Any] | None:
        """The stage's ``stage.json``, or None where the stage is not complete."""
        path = self / stage.folder / RECORD
        try:
            return read_json(path)
        except InputError:
            return None

    def is_intact(self, stage: Stage, record: dict[str, Any]) -> bool:
        """True if the outputs are the bytes that the stage wrote."""
        path = self / stage.folder / OUTPUTS
        return path.is_file() and file_hash(path) == record.get("outputs_sha256")

    def outputs(self, stage: Stage) -> Path:
        return self / stage.folder / OUTPUTS

    @contextmanager
    def writing(self, stage: Stage) -> Iterator[Path]:
        """A temporary folder for the stage; removed unless `commit` takes it."""
        temporary = self / f".tmp-{stage.folder}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def commit(self, stage: Stage, temporary: Path, packed: Packed, record: dict[str, Any]) -> None:
        """Write outputs and record, and let the stage appear. Files that a user put into the old folder are kept."""
        save_packed(temporary / OUTPUTS, packed)
        record = {**record, "outputs_sha256": file_hash(temporary / OUTPUTS)}
        record["files"] = sorted([*(path.name for path in temporary.iterdir()), RECORD])
        old = self.record(stage)
        if old is not None:
            for path in (self / stage.folder).iterdir():
                if path.is_file() and path.name not in old["files"] and not (temporary / path.name).exists():
                    shutil.copy2(path, temporary / path.name)
        write_json(temporary / RECORD, record)
        self._swap_in(temporary, self / stage.folder)

    def write_config(self, text: str) -> None:
        write_text(self / "config.yaml", text)
