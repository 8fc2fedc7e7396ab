"""Where whose heads lie: a folder for each person, a folder in it for each head, all in the studio's own folder.

    people/OWNER/HEAD/
        about.json    what it is called, and what it is made with
        found/        what `pmv prepare` found in the picture, which lies in it too
        draft/        the same after corrections by hand: what the run takes
        edits/        what is painted on it and placed on it
        run/          the run
        versions/     heads with attributes changed
        exports/      files to take away
        job.json      the last thing that was asked for, and what became of it

OWNER is a keyed hash of an account's name or of a secret in a browser's cookie: whoever knows neither the key nor the
secret can name no folder. HEAD is random. Nothing that a browser sends is used as a path.
"""

import hashlib
import hmac
import os
import re
import secrets
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from pmv.errors import InputError, shown
from pmv.files.artifacts import read_json, write_json
from pmv.files.reading import fitted
from pmv.inversion import FILE_NAME

MOST_HEADS = 100
"""Of one person."""
_HEAD = re.compile(r"[0-9a-f]{16}")
_KEY = "key"
Text = Annotated[str, Meta(max_length=300)]


@dataclass(frozen=True)
class About:
    """What a head is called, and what it is made with.

    Attributes:
        name: as its picture's file was called.
        created: seconds since 1970.
        generator: name or path, of those that the studio offers.
    """

    name: Text
    created: float
    generator: Annotated[str, Meta(max_length=4096)]


@dataclass(frozen=True)
class Version:
    """A finished head with attributes changed: its folder, and by how many deviations."""

    path: Path
    amounts: dict[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return ", ".join(f"{name} {amount:+g}" for name, amount in self.amounts.items()) or "as the photo"


@dataclass(frozen=True)
class HeadFolder:
    """One head of one person."""

    path: Path

    @property
    def name(self) -> str:
        """What others may know it by: random, and unlike any other's."""
        return self.path.name

    @property
    def found(self) -> Path:
        return self.path / "found"

    @property
    def draft(self) -> Path:
        return self.path / "draft"

    @property
    def edits(self) -> Path:
        return self.path / "edits"

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def exports(self) -> Path:
        return self.path / "exports"

    @property
    def live(self) -> Path:
        """The head so far, while a run goes on."""
        return self.path / "live.jpg"

    @property
    def about(self) -> About:
        return fitted(read_json(self.path / "about.json"), About, "this head")

    @property
    def is_finished(self) -> bool:
        return (self.run / FILE_NAME).is_file()

    def versions(self) -> list[Version]:
        """The finished head itself, and those with attributes changed, the oldest first."""
        if not self.is_finished:
            return []
        found = [path for path in (self.path / "versions").glob("*") if (path / FILE_NAME).is_file()]
        found.sort(key=lambda path: path.stat().st_mtime)
        records = [fitted(read_json(path / "edit.json"), _Record, "this version") for path in found]
        return [Version(self.run), *(Version(path, record.attributes) for path, record in zip(found, records))]

    def version(self, name: str | None) -> Version:
        """One of `versions`, by its folder's name; None or "run" = the head itself."""
        for version in self.versions():
            if version.path.name == (name or "run"):
                return version
        raise InputError("there is no such head; run it first")

    def new_version(self) -> Path:
        (self.path / "versions").mkdir(exist_ok=True)
        return self.path / "versions" / secrets.token_hex(4)

    def write_about(self, about: About) -> None:
        write_json(self.path / "about.json", msgspec.to_builtins(about))

    def made_with(self, generator: str) -> None:
        self.write_about(replace(self.about, generator=generator))


@dataclass(frozen=True)
class _Record:
    run: str
    attributes: dict[str, float]


class Workspace:
    """The heads of one person."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def heads(self) -> list[HeadFolder]:
        """All of them, the newest first."""
        if not self.path.is_dir():
            return []
        found = [HeadFolder(path) for path in self.path.iterdir() if (path / "about.json").is_file()]
        return sorted(found, key=lambda head: -head.about.created)

    def head(self, name: Any) -> HeadFolder:
        """One of this person's heads. InputError where there is none of that name, whoever else may have one."""
        if not isinstance(name, str) or not _HEAD.fullmatch(name) or not (self.path / name / "about.json").is_file():
            raise InputError("there is no such head; choose one of yours, or begin with a picture")
        return HeadFolder(self.path / name)

    def new(self, name: str, generator: str) -> HeadFolder:
        """A head to begin with; `name` is what its picture is called.

        Raises:
            InputError: there are too many already.
        """
        if len(self.heads()) >= MOST_HEADS:
            raise InputError(f"there are {MOST_HEADS} heads of yours already; remove one first")
        head = HeadFolder(self.path / secrets.token_hex(8))
        head.path.mkdir(parents=True, mode=0o700)
        head.write_about(About(shown(name, 80), time.time(), generator))
        return head

    def remove(self, head: HeadFolder) -> None:
        """Remove a head with all that belongs to it. Nothing must be at work in it."""
        shutil.rmtree(self.path / head.name)


class People:
    """All workspaces of a studio.

    Args:
        root: the studio's folder; made where it is missing, for nobody else on this machine to read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._key = self._own_key()

    @property
    def folder(self) -> Path:
        return self.root / "people"

    def _own_key(self) -> bytes:
        path = self.folder / _KEY
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return path.read_bytes()
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(32))
        return path.read_bytes()

    def workspace(self, identity: str) -> Workspace:
        """Of whoever is known as this: an account, or a browser's secret."""
        digest = hmac.new(self._key, identity.encode(), hashlib.sha256).hexdigest()
        return Workspace(self.folder / digest[:40])

    def everybody_s_heads(self) -> list[HeadFolder]:
        """For the queue, which goes on with what a studio that ended left."""
        return [HeadFolder(path.parent) for path in sorted(self.folder.glob("*/*/about.json"))]
