"""What the readers of all camera files share: bounded reading, numbers that are numbers, and what a file holds."""

import json
import math
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pmv.errors import InputError, shown

MOST_BYTES = 80 << 20
"""Larger files are refused. The labels of FFHQ, all 140 000, take some 60 MB; empty lists of this length take 2 GB of
memory."""


@dataclass(frozen=True)
class Row:
    """One camera of a file.

    Attributes:
        cam2world: [4,4], OpenCV axes.
        intrinsics: [3,3], normalised by the picture's width (first row) and height (second row).
        picture: width and height in pixels of the picture that it is of, None where the file does not say.
    """

    cam2world: np.ndarray
    intrinsics: np.ndarray
    picture: tuple[float, float] | None = None


@dataclass(frozen=True)
class Rows:
    """The cameras of a file, each read when it is asked for: a broken one does not hide the others.

    Attributes:
        names: of the images that they are of; None where there are none.
        read: ``read(i)`` is the i-th.
        count: how many there are.
    """

    names: Sequence[str] | None
    read: Callable[[int], Row]
    count: int


def check_regular(path: Path) -> None:
    """InputError unless the path is a file of reasonable size: no pipe, no device."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: not a file; give a camera file or a COLMAP folder")
    if status.st_size > MOST_BYTES:
        raise InputError(
            f"{path}: has {status.st_size >> 20} MiB, at most {MOST_BYTES >> 20} are read; give one with the photo's "
            "camera alone"
        )
    if status.st_size == 0:
        raise InputError(f"{path}: the camera file is empty")


def read_text(path: Path) -> str:
    """The text of a file: UTF-8, or UTF-16 with a byte order mark, as editors on Windows write it."""
    check_regular(path)
    content = path.read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a readable camera file (not a text in UTF-8)") from error


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    text = read_text(path)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):  # JSON lets the last win without a word
            keys = [key for key, _ in pairs]
            twice = next(key for key in found if keys.count(key) > 1) if len(keys) < 1000 else "a name"
            raise InputError(f"{path}: {shown(twice)} stands there twice; take out the one that is wrong")
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except RecursionError as error:
        raise InputError(f"{path}: not a readable camera file (nested too deeply)") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not a readable camera file (JSONDecodeError: {shown(str(error))})") from error
    except ValueError as error:
        raise InputError(f"{path}: not a readable camera file (a number of thousands of digits)") from error


def number(value: Any, what: str) -> float:
    """A finite number from JSON; InputError says what it should have been."""
    try:
        result = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise InputError(f"{what} is {shown(value, 40)!r}; make it a finite number")
    return result


def positive(value: Any, what: str) -> float:
    """A number above 0, see `number`."""
    result = number(value, what)
    if result <= 0:
        raise InputError(f"{what} is {result:g}; make it a number above 0")
    return result


def numbers(values: Any, count: int, what: str) -> np.ndarray:
    """A list of so many finite numbers: float64 [count]."""
    if not isinstance(values, list) or len(values) != count:
        got = f"{len(values)} values" if isinstance(values, list) else shown(values, 40)
        raise InputError(f"{what} has {count} numbers, not {got}")
    return np.array([number(value, f"number {i + 1} of {what}") for i, value in enumerate(values)])


def matrix(values: Any, shapes: Sequence[tuple[int, int]], what: str) -> np.ndarray:
    """A list of rows of finite numbers of one of the shapes: float64."""
    for rows, columns in shapes:
        if isinstance(values, list) and len(values) == rows and all(isinstance(row, list) for row in values):
            if all(len(row) == columns for row in values):
                flat = [value for row in values for value in row]
                return numbers(flat, rows * columns, what).reshape(rows, columns)
    wanted = " or ".join(f"{rows}×{columns}" for rows, columns in shapes)
    raise InputError(f"{what} is not a matrix of {wanted} numbers")


def pose(values: Any, what: str) -> np.ndarray:
    """A matrix of 4×4 numbers, or of 3×4, whose last row is understood: float64 [4,4]."""
    found = matrix(values, [(4, 4), (3, 4)], what)
    return found if len(found) == 4 else np.concatenate([found, [[0.0, 0.0, 0.0, 1.0]]])
