"""The checkpoints that pmv knows by name (`assets/manifest.yaml`), and which of them lie in the cache.

In the cache each checkpoint has its authors' file name, and beside it `NAME.pin.json` with the sha256 of the content
that was first seen: the *pin*. A file whose content is not its pin's is never used.
"""

import functools
import os
import re
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import yaml
from msgspec import Meta
from platformdirs import user_cache_path

from pmv import data_path
from pmv.errors import AssetsError, InputError, PmvError, shown
from pmv.files.artifacts import file_hash, read_json, write_json, write_text
from pmv.files.reading import fitted, is_file

CACHE_VARIABLE = "PMV_CACHE"
"""Environment variable that names the cache folder."""
FREE_LICENCES = ("CC0", "Apache-2.0")
"""Licences that need no acceptance before a download."""


@dataclass(frozen=True)
class Entry:
    """One row of the manifest; `assets/manifest.yaml` says what each value means."""

    name: str
    title: str
    kind: str
    domain: str | None
    file: str
    page: str
    url: str | None
    hint: str | None
    licence: str
    terms: str
    size: int | None
    sha256: str | None
    plane_convention: str | None

    @property
    def needs_acceptance(self) -> bool:
        """True where the licence must be accepted before a download."""
        return self.licence not in FREE_LICENCES

    @property
    def shipped(self) -> Path | None:
        """Where it lies if it ships with pmv."""
        path = data_path("assets", "generator", self.file)
        return path if self.page.startswith("assets/") else None

    def by_hand(self) -> str:
        """How to get it without pmv: one sentence."""
        hint = f" ({self.hint})" if self.hint else ""
        return f"get {self.file} from {self.page}{hint}, then run: pmv fetch {self.name} --from {self.file}"


@functools.cache
def manifest() -> dict[str, Entry]:
    """The manifest's rows by name, in its order."""
    rows: dict[str, dict[str, Any]] = yaml.safe_load(data_path("assets", "manifest.yaml").read_text(encoding="utf-8"))
    wanted = {field.name for field in fields(Entry)} - {"name"}
    for name, row in rows.items():
        if set(row) != wanted:
            raise AssetsError(f"assets/manifest.yaml: {name} must have just the values {', '.join(sorted(wanted))}")
    return {name: Entry(name=name, **row) for name, row in rows.items()}


def find_entry(name: str) -> Entry:
    """The row called `name`; InputError, naming all, where there is none."""
    if name not in manifest():
        raise InputError(f"{name}: no checkpoint is called that; there are {', '.join(manifest())}")
    return manifest()[name]


def cache_folder(folder: str | Path | None = None) -> Path:
    """Where fetched checkpoints lie: `folder`, else $PMV_CACHE, else the platform's cache folder."""
    chosen = folder or os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else user_cache_path("pmv", appauthor=False)


def cached(name: str, cache: str | Path | None = None) -> Path | None:
    """The file of a checkpoint that is here, None where it must be fetched first.

    A file that was put into the cache by hand is taken, and its content pinned from then on.

    Raises:
        InputError: no checkpoint is called that.
        AssetsError: the file is not the one that was pinned.
    """
    entry = find_entry(name)
    if entry.shipped is not None:
        return entry.shipped if entry.shipped.is_file() else None
    path = cache_folder(cache) / entry.file
    if not path.is_file():
        return None
    pin = read_pin(entry, path.parent)
    if pin is None or _stamp(path) != (pin["size"], pin["time"]):
        # not seen before, or touched since: only the content can tell
        try:
            record(entry, path, "a file put there by hand")
        except OSError:
            pass  # a cache that one may only read: the content was checked, it just cannot be noted
    return path


def pin_path(entry: Entry, folder: Path) -> Path:
    return folder / f"{entry.name}.pin.json"


class Pin(TypedDict):
    """What is recorded of a checkpoint: content, size, and time of change in nanoseconds; where it came from, when."""

    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    size: int
    time: int
    source: str
    fetched: NotRequired[str]


def read_pin(entry: Entry, folder: Path) -> Pin | None:
    """What was recorded of a checkpoint's first download, or None."""
    path = pin_path(entry, folder)
    if not path.exists():
        return None
    try:
        return fitted(read_json(path), Pin, path)
    except InputError as error:
        mend = f"remove it and {entry.file}, then run: pmv fetch {entry.name}"
        raise AssetsError(f"{path}: damaged; {mend}") from error


def check(entry: Entry, path: Path, folder: Path) -> str:
    """The file's sha256, if it is the published one, or else the pinned one.

    Raises:
        AssetsError: it is another file.
    """
    digest = file_hash(path)
    pin = read_pin(entry, folder)
    if entry.sha256 is not None and digest != entry.sha256:
        raise AssetsError(
            f"{entry.name}: the file has sha256 {digest}, the published one is {entry.sha256}; it is damaged or was "
            f"replaced, and is not used"
        )
    if pin is not None and digest != pin["sha256"]:
        raise AssetsError(
            f"{entry.name}: the file has sha256 {digest}, but {pin['sha256']} was pinned when it was first fetched "
            f"from {shown(pin['source'])}; if its authors replaced it, remove {pin_path(entry, folder)} to trust the "
            "new one"
        )
    return digest


def record(entry: Entry, path: Path, source: str) -> None:
    """Check a file that lies at its place in the cache, and pin it if nothing is pinned yet."""
    digest = check(entry, path, path.parent)
    size, modified = _stamp(path)
    known = read_pin(entry, path.parent)
    pin = {
        "sha256": digest,
        "size": size,
        "time": modified,
        "source": known["source"] if known else source,
        "fetched": known.get("fetched", "") if known else time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    write_json(pin_path(entry, path.parent), pin)


def recognise(checkpoint: str | Path, cache: str | Path | None = None) -> Entry | None:
    """The manifest's row of a checkpoint given by name or path, by its published or pinned sha256; None if unknown."""
    if str(checkpoint) in manifest():
        return manifest()[str(checkpoint)]
    path = Path(checkpoint)
    if not is_file(path):
        return None
    folder, size = cache_folder(cache), path.stat().st_size
    known: list[tuple[Entry, str]] = []
    for entry in manifest().values():
        if entry.sha256 is not None and entry.size in (None, size):
            known.append((entry, entry.sha256))
        try:
            pin = read_pin(entry, folder)
        except PmvError:
            continue
        if pin is not None and pin["size"] == size:
            known.append((entry, pin["sha256"]))
    digest = file_hash(path) if known else ""
    return next((entry for entry, sha256 in known if sha256 == digest), None)


def update_shipped(name: str, path: Path, manifest_file: Path | None = None) -> None:
    """Write size and sha256 of a newly trained shipped file into the manifest, comments and order kept.

    Args:
        name: a row whose file ships with pmv, "heads".
        path: the new file.
    """
    target = manifest_file or data_path("assets", "manifest.yaml")
    head, start, rest = target.read_text(encoding="utf-8").partition(f"\n{name}:\n")
    if not start:
        raise InputError(f"{target}: has no row {name}")
    row, gap, others = rest.partition("\n\n")
    for key, value in {"size": path.stat().st_size, "sha256": file_hash(path)}.items():
        row = re.sub(rf"(?m)^  {key}: .*$", f"  {key}: {value}", row)
    write_text(target, head + start + row + gap + others)
    manifest.cache_clear()


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of change: what tells cheaply that a file was touched."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def table(cache: str | Path | None = None) -> list[tuple[str, str, str, str]]:
    """(name, here?, licence, title) of every row."""
    rows = []
    for entry in manifest().values():
        try:
            here = "shipped" if entry.shipped else "here" if cached(entry.name, cache) else "-"
        except PmvError:
            here = "changed!"
        rows.append((entry.name, here, entry.licence, entry.title))
    return rows
