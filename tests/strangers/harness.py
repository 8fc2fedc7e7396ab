"""Runs the command line on a stranger's files in a process of its own, and notices what it should not do.

The process is forked from this one, where everything is imported already, so a row costs what its command costs. It
notices programs (by canaries that stand first on the PATH, and by Python's own audit events), files that were opened
for writing outside the folder of the row, and any change of a folder that is nobody's business. It measures memory and
time, and both have an end.
"""

import json
import os
import resource
import select
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAMS = (
    "gs gswin64c magick convert identify ffmpeg ffprobe exiftool curl wget git uname lspci file sh bash python3 cc"
)
MOST_SECONDS = 60
MOST_GROWTH = 4 << 30
"""Bytes of address space beyond what the process has already."""
_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn")
_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod")


@dataclass
class Outcome:
    """What a command came to.

    Attributes:
        code: its exit code, or minus the signal that ended it.
        out, error: what it printed.
        seconds: it took; megabytes: of memory at its peak, beyond what every command takes.
        caught: programs that were started, and files outside its folder that were opened or changed.
    """

    code: int
    out: str
    error: str
    seconds: float
    megabytes: float
    caught: list[str] = field(default_factory=list)

    @property
    def told(self) -> str:
        """The line of error, or "" where there is none or more than one."""
        lines = [line for line in self.error.splitlines() if line.startswith("pmv: error: ")]
        return lines[0].removeprefix("pmv: error: ") if len(lines) == 1 else ""


class Watch:
    """A home folder that nobody may touch, and programs that nobody may start.

    Args:
        folder: an empty one, in which both are made.
    """

    def __init__(self, folder: Path) -> None:
        self.home, self.programs, self.started = folder / "home", folder / "programs", folder / "started"
        for path in (self.home / "private", self.programs):
            path.mkdir(parents=True)
        for name in (".bashrc", "notes.txt", "edit-01.png", "private/key", "private/outputs.safetensors"):
            (self.home / name).write_text(f"mine: {name}\n")
        for name in PROGRAMS.split():
            program = self.programs / name
            program.write_text(f"#!/bin/sh\necho {name} >> {self.started}\n")
            program.chmod(0o755)
        self.before = self._seen()

    def _seen(self) -> dict[str, tuple[Any, ...]]:
        seen = {}
        for path in sorted(self.home.rglob("*")):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            seen[str(path)] = (status.st_mode, status.st_mtime_ns, status.st_nlink, content)
        return seen

    def check(self) -> list[str]:
        """What was touched or started since the last time."""
        found = [f"started {name}" for name in (self.started.read_text().split() if self.started.exists() else [])]
        self.started.unlink(missing_ok=True)
        now = self._seen()
        found += [f"touched {path}" for path in sorted({*self.before, *now}) if self.before.get(path) != now.get(path)]
        self.before = now
        return found


def run(
    arguments: list[str | bytes], folder: Path, watch: Watch, seconds: float = MOST_SECONDS, growth: int = MOST_GROWTH
) -> Outcome:
    """Run `pmv ARGUMENTS` in a folder, outside of which it may write nothing."""
    (out_read, out), (error_read, error), (report_read, report) = os.pipe(), os.pipe(), os.pipe()
    started = time.monotonic()
    child = os.fork()
    if not child:
        try:
            for read in (out_read, error_read, report_read):
                os.close(read)
            code = _command([os.fsdecode(a) for a in arguments], folder, watch, (out, error, report), seconds, growth)
        except BaseException as failed:
            os.write(error, f"Traceback of the harness: {failed!r}".encode())
            code = 99
        finally:
            os._exit(code)
    for write in (out, error, report):
        os.close(write)
    texts = _drained([out_read, error_read, report_read])
    _, status, usage = os.wait4(child, 0)
    took = time.monotonic() - started
    found = json.loads(texts[2] or b'{"memory": 0, "caught": ["the process died before it could report"]}')
    code = os.waitstatus_to_exitcode(status)
    megabytes = max(0.0, usage.ru_maxrss / 1024 - found["memory"])
    printed, told = (text.decode("utf-8", "surrogateescape") for text in texts[:2])
    return Outcome(code, printed, told, took, megabytes, [*found["caught"], *watch.check()])


def _drained(pipes: list[int]) -> list[bytes]:
    texts: dict[int, bytes] = dict.fromkeys(pipes, b"")
    waiting = list(pipes)
    while waiting:
        for pipe in select.select(waiting, [], [])[0]:
            part = os.read(pipe, 1 << 16)
            texts[pipe] += part
            if not part:
                waiting.remove(pipe)
                os.close(pipe)
    return list(texts.values())


def _command(
    arguments: list[str], folder: Path, watch: Watch, pipes: tuple[int, int, int], seconds: float, growth: int
) -> int:
    """In the child: the command, with everything that limits and watches it."""
    import logging

    from pmv.apps import cli

    out, error, report = pipes
    os.dup2(out, 1)
    os.dup2(error, 2)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(folder)
    temporary = folder / ".temporary"
    temporary.mkdir(exist_ok=True)
    os.environ.update(
        HOME=str(watch.home),
        TMPDIR=str(temporary),
        PATH=f"{watch.programs}:{os.environ['PATH']}",
        XDG_CACHE_HOME=str(watch.home / "cache"),
    )
    logging.getLogger("pmv").handlers = []
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    statm = Path("/proc/self/statm").read_text().split()
    pages = int(statm[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + growth, resource.RLIM_INFINITY))
    caught: list[str] = []
    inside = os.path.realpath(folder)

    def listen(event: str, given: tuple[Any, ...]) -> None:
        if event in _STARTS:
            caught.append(f"{event} {str(given[:2])[:100]}")
        elif event == "open" and isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR):
            if isinstance(given[0], str | bytes | os.PathLike):
                note("opened", given[0])
        elif event in _CHANGES:
            for path in given[1:2] if event == "os.symlink" else given[:2]:
                if isinstance(path, str | bytes | os.PathLike):
                    note(event, path)

    def note(what: str, path: Any) -> None:
        name = os.path.abspath(os.fsdecode(path))
        real = os.path.join(os.path.realpath(os.path.dirname(name)), os.path.basename(name))
        if what == "opened":
            real = os.path.realpath(real)
        if not (real + "/").startswith(inside + "/") and real not in (os.devnull, "/dev/tty"):
            caught.append(f"{what} {real}")

    os.fsync = lambda handle: None  # whether a row survives a power cut is not asked, and it takes half of the time
    sys.addaudithook(listen)
    # the most that a fork inherits is no growth of its own
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.argv = ["pmv", *arguments]
    code = 0
    try:
        cli.main()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    listening = list(caught)  # what follows is ours
    sys.stdout.flush()
    sys.stderr.flush()
    shutil.rmtree(temporary, ignore_errors=True)
    os.write(report, json.dumps({"memory": memory, "caught": listening}).encode())
    return code
