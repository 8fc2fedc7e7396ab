"""How a command's process ends: by itself, by a signal, and by a signal whose exception a library kept or changed."""

import os
import signal
from collections.abc import Callable, Iterator

import click
import pytest

from pmv.apps.cli.console import asked_to_end, execute
from pmv.errors import InputError, Stopped


@pytest.fixture(autouse=True)
def _handler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("sys.argv", ["pmv"])
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def _end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def passes_it_on() -> None:
    _end()


def swallows_it() -> None:
    try:
        _end()
    except BaseException:
        pass
    assert asked_to_end()
    raise Stopped


def swallows_it_and_finishes() -> None:
    try:
        _end()
    except BaseException:
        pass


def makes_another_error_of_it() -> None:
    try:
        _end()
    except BaseException as error:
        raise ImportError("failed to import") from error


def makes_a_mistake_of_it() -> None:
    try:
        _end()
    except BaseException as error:
        raise InputError("x: cannot be used") from error


def interrupted() -> None:
    raise KeyboardInterrupt


def is_refused() -> None:
    raise InputError("x.png: cannot be used\n  at all")


@pytest.mark.parametrize(
    "body, code",
    [
        (passes_it_on, 143),
        (swallows_it, 143),
        (swallows_it_and_finishes, 143),
        (makes_another_error_of_it, 143),
        (makes_a_mistake_of_it, 143),
        (interrupted, 130),
        (is_refused, 2),
        (lambda: None, 0),
    ],
)
def test_exit_codes(body: Callable[[], None], code: int, capsys: pytest.CaptureFixture):
    for _ in range(2):  # what one command was told says nothing of the next
        with pytest.raises(SystemExit) as caught:
            execute(click.command()(body))
        assert caught.value.code == code
    error = capsys.readouterr().err
    assert ("pmv: error: x.png: cannot be used at all\n" in error) == (body is is_refused)
    assert "ImportError" not in error and (is_refused is body or "error" not in error)


def test_a_bug_shows_its_traceback():
    def breaks() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        execute(click.command()(breaks))
