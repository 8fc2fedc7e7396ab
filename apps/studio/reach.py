"""Who may come in: where the studio listens, and the accounts of those who may use it."""

import hmac
import ipaddress
import os
import re
import stat
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from pmv.errors import InputError
from pmv.files.reading import read_text

_MOST_ACCOUNTS_FILE = 1 << 20
_NAME = re.compile(r"[\w.@-]{1,64}", re.ASCII)
_SHORTEST = 8
"""Letters of a password."""
_TRIES, _WINDOW = 5, 60.0
"""Wrong passwords for one account, and the seconds in which they are counted, after which none is looked at."""


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_reach(host: str, share: bool, accounts: Mapping[str, str] | None) -> None:
    """InputError where others could come in without a password."""
    if accounts is not None or (is_loopback(host) and not share):
        return
    option = "--share" if share else f"--host {host}"
    raise InputError(
        f"{option} lets others in: give --auth FILE, with a line NAME:PASSWORD for each who may use this machine"
    )


def read_accounts(path: Path) -> dict[str, str]:
    """Passwords by account, from a file with a line NAME:PASSWORD for each; # begins a remark.

    Raises:
        InputError: no such file, one that others on this machine can read, or no accounts.
    """
    text = read_text(path, _MOST_ACCOUNTS_FILE)
    if os.name == "posix" and stat.S_IMODE(os.stat(path).st_mode) & 0o077:
        raise InputError(f"{path}: others on this machine can read the passwords in it; chmod 600 {path}")
    accounts: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, password = line.strip().partition(":")
        if not colon or not _NAME.fullmatch(name):
            raise InputError(f"{path}: line {number} is not NAME:PASSWORD (a name has letters, digits, . _ @ -)")
        if len(password) < _SHORTEST:
            raise InputError(
                f"{path}: line {number}: the password has less than {_SHORTEST} letters; give a longer one"
            )
        if name in accounts:
            raise InputError(f"{path}: line {number}: {name} is there twice; keep one")
        accounts[name] = password
    if not accounts:
        raise InputError(f"{path}: names nobody; give a line NAME:PASSWORD for each who may come in")
    return accounts


class Door:
    """Says whether a name and a password belong together, and tires of those who guess."""

    def __init__(self, accounts: Mapping[str, str]) -> None:
        self._accounts = dict(accounts)
        self._wrong: dict[str, list[float]] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str, password: str) -> bool:
        known = self._accounts.get(name)
        with self._lock:
            recent = [then for then in self._wrong.get(name, []) if time.monotonic() - then < _WINDOW]
            if known is not None and len(recent) >= _TRIES:
                self._wrong[name] = recent
                return False
            # compared also where there is no such account, so that time does not tell which there are
            right = hmac.compare_digest(password.encode(), (known or "\0").encode()) and known is not None
            if known is not None:
                self._wrong[name] = [] if right else [*recent, time.monotonic()]
        return right
