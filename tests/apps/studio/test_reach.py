"""Who may come in: addresses, shares, accounts."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from pmv.apps.cli import cli
from pmv.apps.studio.opened import Settings
from pmv.apps.studio.reach import Door, check_reach, is_loopback, read_accounts
from pmv.apps.studio.server import serve
from pmv.errors import AssetsError, InputError


def accounts(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "accounts.txt"
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_alone_needs_no_password(host: str):
    assert is_loopback(host)
    check_reach(host, False, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "example.org", "localhost.example.org", ""])
def test_others_do(host: str):
    assert not is_loopback(host)
    with pytest.raises(InputError, match="--auth FILE"):
        check_reach(host, False, None)
    check_reach(host, False, {"ada": "a long password"})


def test_and_so_does_the_whole_world():
    with pytest.raises(InputError, match="--share lets others in"):
        check_reach("127.0.0.1", True, None)


@pytest.mark.parametrize(
    "arguments, case",
    [(["--host", "0.0.0.0"], "host"), (["--share"], "share"), (["--auth", "nobody.txt"], "no file")],
)
def test_the_command_refuses_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told_before: Callable, arguments: list[str], case: str
):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["studio", *arguments])
    assert isinstance(result.exception, InputError)
    told_before(str(result.exception), case)
    assert not list(tmp_path.iterdir()), "and nothing is begun"


def test_without_gradio_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with pytest.raises(AssetsError, match=r"pip install \"pmv\[studio\]\""):
        serve(Settings(tmp_path / "studio"), lambda: None)
    assert not list(tmp_path.iterdir())


def test_accounts_are_read(tmp_path: Path):
    path = accounts(tmp_path, "# who may\n\nada:correct horse\nbo.b@example.org:with:colons:in:it\n")
    assert read_accounts(path) == {"ada": "correct horse", "bo.b@example.org": "with:colons:in:it"}


@pytest.mark.parametrize(
    "text, case",
    [
        ("", "empty"),
        ("ada\n", "no password"),
        ("ada:short\n", "short"),
        ("a/../b:long enough\n", "name"),
        ("ada:long enough\nada:other enough\n", "twice"),
    ],
)
def test_wrong_accounts_are_refused(tmp_path: Path, told_before: Callable, text: str, case: str):
    with pytest.raises(InputError) as refused:
        read_accounts(accounts(tmp_path, text))
    told_before(str(refused.value), case)


@pytest.mark.skipif(os.name != "posix", reason="needs modes of files")
def test_accounts_that_others_can_read_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="chmod 600"):
        read_accounts(accounts(tmp_path, "ada:correct horse\n", 0o644))


def test_the_door_opens_for_who_knows_the_password_and_tires_of_guesses():
    door = Door({"ada": "correct horse", "bob": "battery staple"})
    assert door("ada", "correct horse")
    assert not door("ada", "battery staple") and not door("eve", "correct horse") and not door("", "")
    for guess in range(10):
        assert not door("ada", f"guess {guess}")
    assert not door("ada", "correct horse"), "for a while nothing more is looked at"
    assert door("bob", "battery staple"), "which is nobody else's trouble"
