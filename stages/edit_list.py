"""The edits of a run: as the user gives them, on disk in ``source/edits.yaml``, and read for the stage `edit`.

Edits stack in the order in which they are given. The run keeps copies of their pictures and every number, so that it
can be replayed without the originals, and so that further edits go on top.
"""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from pmv.errors import InputError, quoted, shown
from pmv.files.artifacts import copy_file, file_hash, write_text
from pmv.files.reading import is_plain_name, read_text
from pmv.files.yaml_reading import MOST_YAML, parse_yaml
from pmv.pictures.images import read_bytes, read_image, read_mask
from pmv.pictures.overlay import Placement

FILE = "edits.yaml"
MOST_PICTURE = 2 << 30
"""Bytes of a picture that a run keeps a copy of; one of 400 megapixels, not compressed at all, has fewer."""
_MOST_EDITS = 1000
_NUMBERS = ("at", "size", "rotate", "blend", "opacity", "follow_surface")


@dataclass(frozen=True)
class LoadedEdit:
    """One edit as tensors.

    Attributes:
        name: of its file, for messages.
        picture: [1,3,h,w], of an overlay float32 in [-1,1], a retouched one as bytes like the photo; alpha: [1,1,h,w]
            of the same type (float32 in [0,1]), or None.
        mask: [1,1,h,w] in [0,1], what of a retouched picture is taken over; None = what differs.
        placement: of an overlay; None = a retouched picture.
    """

    name: str
    picture: Tensor
    alpha: Tensor | None = None
    mask: Tensor | None = None
    placement: Placement | None = None

    def to(self, device: torch.device) -> "LoadedEdit":
        """As `Tensor.to`, on all of it."""
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True)
class Edit:
    """One edit as files and numbers.

    Attributes:
        picture: a retouched picture, or an overlay where there is a placement.
        mask: of a retouched picture: white where it is taken over. None = where it differs.
        placement: of an overlay.
        name: the picture's file name where the user has it.
    """

    picture: Path
    mask: Path | None = None
    placement: Placement | None = None
    name: str = ""

    def read(self) -> LoadedEdit:
        """InputError where a file is missing or damaged, or an overlay is transparent everywhere."""
        picture, alpha = (read_image if self.placement else read_bytes)(self.picture)
        if self.placement is not None and alpha is not None and not alpha.any():
            raise InputError(f"{self.picture}: is transparent everywhere; give an overlay with something on it")
        mask = read_mask(self.mask) if self.mask else None
        return LoadedEdit(shown(self.name or self.picture.name), picture, alpha, mask, self.placement)

    def content(self) -> list[Any]:
        """What the edit is made of, as plain values to hash."""
        numbers = asdict(self.placement) if self.placement else None
        return [file_hash(self.picture), file_hash(self.mask) if self.mask else None, numbers]


def read_placement(given: Mapping[str, Any], where: str) -> Placement:
    """A placement from texts, as on a command line, or numbers, as in a file.

    Args:
        given: the fields of `Placement` by name; "at" two numbers, or a text of two.

    Raises:
        InputError: something is missing or no number; the message begins with `where`.
    """
    for name, example in (("at", "0.64,0.6"), ("size", "0.2")):
        if name not in given:
            raise InputError(f"{where}: lacks {name}; add --{name} {example}, fractions of the aligned picture")
    values = dict(given)
    at = values["at"]
    parts = at.replace(",", " ").split() if isinstance(at, str) else at if isinstance(at, list | tuple) else [at]
    numbers = [_number(part) for part in parts]
    if len(numbers) != 2 or None in numbers:
        raise InputError(f"{where}: at is {quoted(at)}; give two numbers, such as 0.64,0.6")
    values["at"] = tuple(numbers)
    for name in ("size", "rotate", "opacity"):
        if name in values:
            number = _number(values[name])
            if number is None:
                raise InputError(f"{where}: {name} is {quoted(values[name])}; give a number")
            values[name] = number
    if not isinstance(values.get("follow_surface", False), bool):
        raise InputError(f"{where}: follow_surface is {quoted(values['follow_surface'])}; give true or false")
    try:
        return Placement(**values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


# --- on disk


def save_edits(edits: Sequence[Edit], folder: Path) -> None:
    """Copy the pictures of edits into a folder and list them there; no edits leave nothing."""
    rows = []
    for number, edit in enumerate(edits, 1):
        kind = "overlay" if edit.placement else "edit"
        stem = f"{kind}-{number:02d}"
        row: dict[str, Any] = {kind: _copy(edit.picture, folder, stem), "name": edit.name or edit.picture.name}
        if edit.mask:
            row["paint_mask"] = _copy(edit.mask, folder, f"{stem}-mask")
        if edit.placement:
            row |= {**asdict(edit.placement), "at": list(edit.placement.at)}
        rows.append(row)
    if rows:
        write_text(folder / FILE, yaml.safe_dump(rows, sort_keys=False, allow_unicode=True))


def _copy(path: Path, folder: Path, stem: str) -> str:
    name = stem + plain_suffix(path)
    copy_file(path, folder / name, MOST_PICTURE)
    return name


def plain_suffix(path: Path) -> str:
    """What the run's copy of a picture is called by: its suffix, if that is one."""
    suffix = path.suffix.lower()
    return suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else ".image"


def load_edits(folder: Path) -> list[Edit]:
    """The edits that a folder lists, none where it lists none.

    Raises:
        InputError: the list was damaged, or names what is no file directly in the folder.
    """
    path = folder / FILE
    if not os.path.lexists(path):
        return []
    rows = parse_yaml(read_text(path, MOST_YAML, follow=False), path)
    if not isinstance(rows, list) or len(rows) > _MOST_EDITS:
        raise InputError(f"{path}: no list of edits; put it back or use --clear-edits")
    return [_edit(row, path) for row in rows]


def _edit(row: Any, path: Path) -> Edit:
    """One row of the list at `path`."""
    kind = "overlay" if isinstance(row, dict) and "overlay" in row else "edit"
    numbers = _NUMBERS if kind == "overlay" else ("paint_mask",)
    if not isinstance(row, dict) or kind not in row or not row.keys() <= {kind, "name", *numbers}:
        raise InputError(f"{path}: a list of edits has rows with edit: FILE or overlay: FILE and their numbers")
    given = {k: v for k, v in row.items() if k in numbers}
    picture = _listed(path, row[kind])
    mask = _listed(path, given["paint_mask"]) if "paint_mask" in given else None
    placement = read_placement(given, f"{path}: {picture.name}") if kind == "overlay" else None
    name = row.get("name", picture.name)
    if not isinstance(name, str):
        raise InputError(f"{path}: the name of {picture.name} is no text; put it back or use --clear-edits")
    return Edit(picture, mask, placement, name)


def _listed(path: Path, name: Any) -> Path:
    """The file that the list at `path` names."""
    if not is_plain_name(name):
        raise InputError(
            f"{path}: names {quoted(name)}, which is no file in its folder; put it back or use --clear-edits"
        )
    file = path.parent / name
    if file.is_symlink() or not file.is_file():
        what = "is a link" if file.is_symlink() else "is gone"
        raise InputError(f"{file}: {what}, and {path.name} lists it; put the file back or use --clear-edits")
    return file
