"""How the process of a command behaves: its log, its signals, its exit codes and its one line of error."""

import logging
import os
import signal
import sys
from pathlib import Path

import click

from pmv.errors import PmvError, disk_fault, shown


def execute(command: click.Command) -> None:
    """Run a command with this process's arguments and exit: 0; 2 for an input that cannot be used; 130/143 when
    interrupted.
    """
    _asked.clear()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = command.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:  # what click makes of Ctrl-C
        code = 130
    except BaseException as error:
        if not asked_to_end():
            told = str(error) if isinstance(error, PmvError) else disk_fault(error)
            if told is None:
                raise
            click.echo(f"pmv: error: {told}", err=True)
        code = 2
    sys.exit(_asked[0] if _asked else code if isinstance(code, int) else 0)


_asked: list[int] = []
"""The exit code that a signal asked for."""


def asked_to_end() -> bool:
    """Whether SIGTERM came. What it raises can strike inside a library that swallows it or makes another error of it
    (NumPy's C interface says ImportError for whatever ends an import), so long work asks here as well.
    """
    return bool(_asked)


def _terminate(signum: int, frame: object) -> None:
    _asked.append(128 + signum)
    raise SystemExit(128 + signum)


def log_to_stderr() -> None:
    """Show the log above the progress bars; warnings and the rest alike, since stdout is for results."""
    from tqdm import tqdm

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno < logging.ERROR:  # errors are told once, at the end
                tqdm.write(f"pmv: {shown(record.getMessage(), 2000)}", file=sys.stderr)

    log = logging.getLogger("pmv")
    log.handlers = [Handler()]
    log.propagate = False


def print_path(path: Path) -> None:
    """Print a result: the file or folder that a command made. For another program it is the bytes that the system calls
    it by, whether or not these are text; on a terminal nothing that this would obey."""
    terminal = sys.stdout.isatty()
    click.echo(shown(str(path), 5000) if terminal else os.fsencode(path))
