"""The process that does one job of the queue: ``python -m pmv.apps.studio.worker FOLDER``.

It stops between two steps when it is sent SIGTERM, or when the studio that started it is gone.
"""

import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from pmv.apps.attributes import edit_run
from pmv.apps.export import export_run
from pmv.apps.invert import Request, invert
from pmv.apps.report import report_run
from pmv.apps.studio.files import EXPORTS, export_name
from pmv.apps.studio.jobs import Progress, read_job, write_progress, write_result
from pmv.apps.studio.painting import Edits
from pmv.apps.studio.workspace import HeadFolder
from pmv.errors import InputError, PmvError, Stopped
from pmv.pictures.images import to_uint8
from pmv.pipeline.context import Watch
from pmv.pipeline.device import pick_device

_PAUSE = 0.5
"""Seconds between two words of how far it is."""
_LOOK = 2.0
"""Seconds between two pictures of the head so far."""

log = logging.getLogger(__name__)


class _Bar:
    """A progress bar that is a file."""

    def __init__(self, folder: Path, total: int, description: str) -> None:
        self.folder, self.total, self.description = folder, total, description
        self.done, self.losses, self.told = 0, "", 0.0

    def update(self, n: int = 1) -> None:
        self.done += n
        if time.monotonic() - self.told > _PAUSE or self.done >= self.total:
            self.told = time.monotonic()
            write_progress(self.folder, Progress(self.description, self.done, self.total, self.losses[:300]))

    def set_postfix(self, **losses: Any) -> None:
        self.losses = ", ".join(f"{name} {value}" for name, value in losses.items())

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _Glimpses:
    """Pictures of the head so far, at most one in `_LOOK` seconds."""

    def __init__(self, path: Path) -> None:
        self.path, self.last = path, 0.0

    def __call__(self, image: Tensor) -> None:
        if time.monotonic() - self.last < _LOOK:
            return
        self.last = time.monotonic()
        part = self.path.with_name(".live.part")
        Image.fromarray(to_uint8(image[:1])[0]).save(part, "JPEG", quality=85)
        part.replace(self.path)


def main(folder: Path) -> None:
    """The process: `do`, until it is told to stop."""
    asked_to_end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked_to_end.set())
    threading.Thread(target=_watch_studio, args=(asked_to_end,), daemon=True).start()
    do(folder, asked_to_end.is_set)


def do(folder: Path, stop: Callable[[], bool]) -> None:
    """Do the job of a head's folder, asking `stop` between steps, and leave there what became of it."""
    job = read_job(folder)
    if job is None:
        raise SystemExit(f"{folder}: nothing is asked for")
    try:
        message = _DO[job.kind](HeadFolder(folder), job.asked, stop)
    except Stopped:
        write_result(folder, "stopped", "what is done stays, and Run goes on from there.")
    except PmvError as error:
        write_result(folder, "failed", str(error))
    else:
        write_result(folder, "done", message)


def _watch_studio(asked_to_end: threading.Event) -> None:
    while os.read(0, 1):  # ends when the studio does
        pass
    asked_to_end.set()


def _run(head: HeadFolder, asked: Mapping[str, Any], stop: Callable[[], bool]) -> str:
    """asked: "presets", "settings", "first" (a stage or None), "device"."""
    head.live.unlink(missing_ok=True)
    request = Request(
        presets=asked["presets"],
        settings=[*asked["settings"], f"run.generator={head.about.generator}", f"run.device={asked['device']}"],
        first=asked["first"],
        edits=Edits(head.edits).given(),
        command="pmv studio",
    )
    watch = Watch(lambda total, name: _Bar(head.path, total, name), _Glimpses(head.live))
    invert(request, head.draft, head.run, stop=stop, watch=watch)
    if stop():
        raise Stopped
    # of another head now
    for folder in (head.exports, head.path / "versions"):
        shutil.rmtree(folder, ignore_errors=True)
    write_progress(head.path, Progress("the head in 3D", 0, 1))
    report_run(head.run, device=pick_device(asked["device"]))
    return "finished"


def _export(head: HeadFolder, asked: Mapping[str, Any], stop: Callable[[], bool]) -> str:
    """asked: "format", "version" (its folder's name), "device"."""
    version, kind = head.version(asked["version"]), asked["format"]
    if kind not in EXPORTS:
        raise InputError(f"no format is called {kind!r}; there are {', '.join(EXPORTS)}")
    head.exports.mkdir(exist_ok=True)
    name = export_name(kind, version.path.name)
    write_progress(head.path, Progress(f"writing {kind}", 0, 1))
    if name.endswith(".zip"):
        folder = head.exports / name.removesuffix(".zip")
        export_run(version.path, kind, folder, device=pick_device(asked["device"]))
        shutil.make_archive(str(folder), "zip", folder)
        shutil.rmtree(folder)
    else:
        export_run(version.path, kind, head.exports / name, device=pick_device(asked["device"]))
    return f"{name} is ready"


def _edit(head: HeadFolder, asked: Mapping[str, Any], stop: Callable[[], bool]) -> str:
    """asked: "amounts" (attribute → deviations), "device"."""
    settings = [f"{name}={amount}" for name, amount in asked["amounts"].items()]
    write_progress(head.path, Progress("changing attributes", 0, 1))
    edit_run(head.run, settings, head.new_version(), pick_device(asked["device"]))
    return "kept as a head of its own"


_DO: dict[str, Callable[[HeadFolder, Mapping[str, Any], Callable[[], bool]], str]] = {
    "run": _run,
    "export": _export,
    "edit": _edit,
}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
