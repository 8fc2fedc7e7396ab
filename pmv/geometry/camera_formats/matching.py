"""Which of a file's cameras is a photo's: the one whose name shares most of the photo's path, from the end."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from pmv.errors import InputError, shown


def matching_rows(names: Sequence[str], image: str) -> list[int]:
    """The rows whose names fit the photo best: several where nothing tells them apart.

    A name fits if its file is called as the photo's, else if it is so but for the suffix. Of those the one with most
    parts of the path in common wins, counted from the end; among equals a name that is in common as a whole.

    Args:
        names: paths as a camera file writes them, with slashes or backslashes.
        image: the photo's path, as long as it is known.
    """
    wanted, split = _parts(image), [_parts(name) for name in names]
    for stems in (False, True):
        scores = [_score(parts, wanted, stems) for parts in split]
        best = max(scores, default=(0, False))
        if best[0]:
            return [i for i, score in enumerate(scores) if score == best]
    return []


def _parts(name: str) -> list[str]:
    """The parts of a path, the last first."""
    return [part for part in reversed(name.strip().replace("\\", "/").split("/")) if part not in ("", ".")]


def _score(parts: list[str], wanted: list[str], stems: bool) -> tuple[int, bool]:
    """How many parts of two paths agree, from the file on, and whether that is all of the first."""
    if not parts or not wanted or not (_same_stem if stems else str.__eq__)(parts[0], wanted[0]):
        return 0, False
    shared = 1
    while shared < min(len(parts), len(wanted)) and parts[shared] == wanted[shared]:
        shared += 1
    return shared, shared == len(parts)


def _same_stem(name: str, wanted: str) -> bool:
    """Whether two file names differ in their suffix only, which the first may lack."""
    stem = PurePosixPath(wanted).stem
    return name == stem or PurePosixPath(name).stem == stem


def no_row(names: Sequence[str], image: str) -> InputError:
    """The error where no row fits."""
    some = ", ".join(shown(name) for name in names[:3]) + (" …" if len(names) > 3 else "")
    return InputError(f"no camera for {shown(_parts(image)[0] if _parts(image) else image)}; it lists {some}")


def ambiguous_rows(names: Sequence[str], image: str) -> InputError:
    """The error where several rows with different cameras fit."""
    some = ", ".join(shown(name) for name in names[:3]) + (" …" if len(names) > 3 else "")
    return InputError(
        f"{len(names)} cameras may be that of {shown(_parts(image)[0])}: {some}; give a file with its camera alone, or "
        "the photo by a path that tells them apart"
    )
