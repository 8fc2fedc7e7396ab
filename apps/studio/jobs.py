"""The queue: one thing at a time is worked on, whoever asked for it, each in a process of its own.

A job is a file, ``job.json``, in the folder of the head that it is for. So closing a page loses nothing, and a studio
that ended, however it did, goes on with what waited when it is started again.
"""

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from pmv.errors import BusyError, InputError
from pmv.files.artifacts import read_json, write_json
from pmv.files.reading import fitted

JOB, PROGRESS, RESULT, LOG = "job.json", "progress.json", "result.json", "worker.txt"
_GRACE = 30.0
"""Seconds that a process which was told to stop has until it is killed."""
_MOST_LOG = 20_000
_ENDED = "the studio ended meanwhile; what is done stays, and Run goes on from there."

log = logging.getLogger(__name__)

State = Literal["waiting", "running", "done", "failed", "stopped"]
Kind = Literal["run", "export", "edit"]


@dataclass(frozen=True)
class Job:
    """What was asked for, and what became of it.

    Attributes:
        kind: "run" the head, "export" it, or "edit" its attributes.
        asked: what it is done with, see `pmv.apps.studio.worker`.
        asked_at: seconds since 1970.
        state: its own. message: one line: why it failed, or what came of it.
        seconds: that it took.
    """

    kind: Kind
    asked: dict[str, Any] = field(default_factory=dict)
    asked_at: float = 0.0
    state: State = "waiting"
    message: Annotated[str, Meta(max_length=2000)] = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Progress:
    """How far a fit is: of which stage, steps done and in all, and its losses."""

    stage: Annotated[str, Meta(max_length=100)]
    done: int
    total: int
    losses: Annotated[str, Meta(max_length=300)] = ""


def read_job(folder: Path) -> Job | None:
    """The last job of a head's folder, None where nothing was asked for yet."""
    path = folder / JOB
    return fitted(read_json(path), Job, path) if path.is_file() else None


def read_progress(folder: Path) -> Progress | None:
    """What the process at work last said; None before its first word."""
    try:
        return fitted(read_json(folder / PROGRESS), Progress, folder / PROGRESS)
    except InputError:
        return None


def command(folder: Path) -> list[str]:
    """The process that does the job of a folder."""
    return [sys.executable, "-m", "pmv.apps.studio.worker", str(folder)]


class Queue:
    """Jobs of all people, one after another in the order in which they were asked for.

    Args:
        most: that wait at a time, of everybody.
        most_each: of one person (one parent folder).
        command: makes the process of a job's folder; another one for tests.
    """

    def __init__(self, most: int = 100, most_each: int = 5, command: Callable[[Path], Sequence[str]] = command) -> None:
        self._most, self._most_each, self._command = most, most_each, command
        self._change = threading.Condition()
        self._waiting: list[Path] = []
        self._running: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stop_at: float | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="studio-queue", daemon=True)

    def start(self, folders: Sequence[Path] = ()) -> None:
        """Begin to work, first on what a studio before this one left undone.

        Args:
            folders: that may hold such jobs.
        """
        left = []
        for folder in folders:
            try:
                job = read_job(folder)
            except InputError:
                continue
            if job is not None and job.state == "waiting":
                left.append((job.asked_at, folder))
            elif job is not None and job.state == "running":
                _write(
                    folder,
                    replace(
                        job,
                        state="stopped",
                        message=_ENDED,
                    ),
                )
        with self._change:
            self._waiting += [folder for _, folder in sorted(left)]
        self._thread.start()

    def end(self) -> None:
        """Stop what is under way, keeping what it has done, and work on nothing more; what waits, waits on."""
        with self._change:
            self._ended = True
            self._tell_to_stop()
            self._change.notify_all()
        self._thread.join(_GRACE + 10)

    def ask(self, folder: Path, kind: Kind, asked: dict[str, Any]) -> None:
        """Put a job at the end.

        Raises:
            BusyError: this head has one already, or too many wait.
        """
        with self._change:
            if folder == self._running or folder in self._waiting:
                raise BusyError("this head is being worked on, or waits for it; wait for that, or stop it")
            if sum(other.parent == folder.parent for other in self._waiting) >= self._most_each:
                raise BusyError(f"{self._most_each} of your heads wait already; wait for one of them")
            if len(self._waiting) >= self._most:
                raise BusyError(f"{self._most} jobs wait already, more than is sensible; come back later")
            for name in (PROGRESS, RESULT):
                (folder / name).unlink(missing_ok=True)
            _write(folder, Job(kind, asked, time.time()))
            self._waiting.append(folder)
            self._change.notify_all()

    def stop(self, folder: Path) -> None:
        """Take back what waits, or tell what is under way to stop: finished stages are kept."""
        with self._change:
            if folder in self._waiting:
                self._waiting.remove(folder)
                job = read_job(folder)
                assert job is not None
                _write(folder, replace(job, state="stopped", message="taken back before its turn."))
                self._change.notify_all()
            elif folder == self._running:
                self._tell_to_stop()

    def place(self, folder: Path) -> int | None:
        """0 = it is being worked on, 1 = it is next …; None = there is nothing to do for it."""
        with self._change:
            if folder == self._running:
                return 0
            return self._waiting.index(folder) + 1 if folder in self._waiting else None

    def length(self) -> int:
        """How many are waiting or being worked on."""
        with self._change:
            return len(self._waiting) + (self._running is not None)

    # --- the one thread

    def _tell_to_stop(self) -> None:
        if self._process is not None and self._stop_at is None:
            self._stop_at = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    def _work(self) -> None:
        while True:
            with self._change:
                while not self._waiting and not self._ended:
                    self._change.wait()
                if self._ended:
                    return
                folder = self._running = self._waiting.pop(0)
            try:
                self._do(folder)
            except Exception:  # one head's trouble must not end the queue of all
                log.exception("a job failed")
            finally:
                with self._change:
                    self._running = self._process = self._stop_at = None

    def _do(self, folder: Path) -> None:
        job = read_job(folder)
        if job is None:
            return
        job = replace(job, state="running")
        _write(folder, job)
        started = time.monotonic()
        with open(folder / LOG, "wb") as told:
            # its input ends when this process does, however that happens: then it stops as well. In a session of its
            # own, so that Ctrl-C on the terminal reaches it through here, once
            process = subprocess.Popen(
                self._command(folder), stdin=subprocess.PIPE, stdout=told, stderr=told, start_new_session=True
            )
            with self._change:
                self._process = process
                if self._ended:
                    self._tell_to_stop()
            code = self._wait(process)
        state, message = _outcome(folder, code)
        _write(folder, replace(job, state=state, message=message, seconds=time.monotonic() - started))

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        while True:
            try:
                return process.wait(0.5)
            except subprocess.TimeoutExpired:
                with self._change:
                    late = self._stop_at is not None and time.monotonic() - self._stop_at > _GRACE
                if late:
                    process.kill()


def _write(folder: Path, job: Job) -> None:
    write_json(folder / JOB, msgspec.to_builtins(job))


def _outcome(folder: Path, code: int) -> tuple[State, str]:
    """What a process says became of its job; where it could not say anything, what can be told from outside."""
    try:
        result = fitted(read_json(folder / RESULT), _Result, folder / RESULT)
        return result.state, result.message
    except InputError:
        pass
    try:
        with open(folder / LOG, "rb") as file:
            file.seek(max(0, os.path.getsize(folder / LOG) - _MOST_LOG))
            log.error("the process of %s ended with %d:\n%s", folder, code, file.read().decode(errors="replace"))
    except OSError:
        pass
    if code < 0:
        return "failed", f"its process was ended from outside (signal {-code}); was there too little memory?"
    return "failed", f"its process ended with {code}; the studio's log says more"


@dataclass(frozen=True)
class _Result:
    state: Literal["done", "failed", "stopped"]
    message: Annotated[str, Meta(max_length=2000)] = ""


def write_result(folder: Path, state: State, message: str = "") -> None:
    """For the process: say what became of its job."""
    write_json(folder / RESULT, {"state": state, "message": message[:2000]})


def write_progress(folder: Path, progress: Progress) -> None:
    """For the process: say how far it is. Written in place of the file before it, but not flushed to the disk: it is of
    no worth after a power cut, and comes several times a second."""
    part = folder / f".{PROGRESS}.part"
    part.write_text(json.dumps(msgspec.to_builtins(progress)), encoding="utf-8")
    part.replace(folder / PROGRESS)
