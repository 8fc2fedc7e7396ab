"""Where a generator's encoders lie: a file, a name of the manifest, or whatever there is for that generator."""

from pathlib import Path

from pmv.encoders.dual import DualEncoder, load_encoders, made_for
from pmv.encoders.official_files import SUFFIXES, load_official, official_files
from pmv.errors import InputError, PmvError, shown
from pmv.files.manifest import cached, manifest
from pmv.files.reading import is_file
from pmv.generators.base import Generator

AUTO = "auto"


def find_encoders(name: str, generator: Generator) -> Path:
    """The file of encoders.

    Args:
        name: a file, a name of the manifest, or `AUTO`, see `made_encoders`.

    Raises:
        InputError: there is none.
        AssetsError: a fetched file is not the one that was pinned.
    """
    entries = _entries()
    if name == AUTO:
        path = made_encoders(generator)
        if path is None:
            raise InputError("there are no encoders for this generator; name their file with seed.encoders")
        return path
    if name in entries:
        path = cached(name)
        if path is None:
            raise InputError(f"{name}: not here yet; run: pmv fetch {name}")
        return path
    if not is_file(name):
        raise InputError(
            f"{shown(name, 500)}: neither a file of encoders nor the name of one ({', '.join((AUTO, *entries))})"
        )
    return Path(name)


def made_encoders(generator: Generator) -> Path | None:
    """The first encoders of the manifest that are here and say that they were made for a generator, which the published
    ones do not. AssetsError: a fetched file is not the one that was pinned."""
    paths = (cached(entry) for entry in _entries())
    return next((path for path in paths if path is not None and _fits(path, generator)), None)


def _entries() -> list[str]:
    return [entry.name for entry in manifest().values() if entry.kind == "encoder"]


def open_encoders(path: Path, generator: Generator) -> DualEncoder:
    """Encoders of pmv's own file, or of the published ones (`official_files`), ready for use.

    Raises:
        InputError: a file is missing or of another kind. CheckpointError: it is damaged, hostile, or was made for
            another generator.
    """
    return load_official(path, generator) if path.suffix in SUFFIXES else load_encoders(path, generator)


def files_of(path: Path) -> list[Path]:
    """All files that belong to encoders."""
    return official_files(path) if path.suffix in SUFFIXES else [path]


def _fits(path: Path, generator: Generator) -> bool:
    try:
        return made_for(path, generator)
    except PmvError:
        return False
