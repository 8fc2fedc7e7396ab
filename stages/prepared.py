"""A photo that was prepared before: all that the stage `prepare` finds, as `pmv prepare` leaves it in a folder.

The folder holds plain files, to look at and to change by hand, and `EXACT`, which holds the same without rounding to
8 bits. A picture that was not changed is taken from there, so that a run of the folder is the run of the photo to the
last bit; one that was changed is taken as it is.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pmv.errors import InputError, shown
from pmv.files.artifacts import (
    load_tensors,
    read_header,
    read_json,
    save_tensors,
    tensors_hash,
    value_hash,
    write_json,
)
from pmv.geometry.camera import Camera
from pmv.pictures.images import read_image, to_uint8, write_png
from pmv.portrait.crop import FRAMINGS

IMAGE, MASK, CAMERA, CROP, VALID = "image.png", "mask.png", "camera.json", "crop.json", "valid.png"
EXACT = "exact.safetensors"
FILES = (IMAGE, MASK, CAMERA, CROP, VALID, EXACT)
"""What a prepared folder holds, besides a copy of the photo: ``photo`` with the photo's own suffix."""


@dataclass(frozen=True)
class Prepared:
    """What the stage `prepare` would find.

    Attributes:
        picture: [1,3,S,S] in [-1,1], before the generator's background.
        foreground: [1,1,S,S] in [0,1].
        valid: [1,1,S,S], 0 where the photo's border was mirrored; None = 1 everywhere.
        crop: [2,3], pixels of the photo → pixels of the picture.
        camera: batch of 1, as a label (`PrepareOutputs.label_camera`).
        confidence: of the camera, in (0,1].
        framing: whose training pictures the crop is like, of `pmv.portrait.crop.FRAMINGS`; None = not known.
    """

    picture: Tensor
    foreground: Tensor
    valid: Tensor | None
    crop: Tensor
    camera: Camera
    confidence: float
    framing: str | None = None

    def to(self, device: torch.device) -> "Prepared":
        """Everything on a device."""
        return replace(
            self,
            picture=self.picture.to(device),
            foreground=self.foreground.to(device),
            valid=None if self.valid is None else self.valid.to(device),
            crop=self.crop.to(device),
            camera=self.camera.to(device),
        )

    def content(self) -> str:
        """A hash of all of it."""
        return value_hash([tensors_hash(self.tensors()), self.confidence, self.framing])

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name; the camera as `label` [1,25]."""
        found = {"picture": self.picture, "foreground": self.foreground, "valid": self.valid, "crop": self.crop}
        found["label"] = self.camera.labels()
        return {name: value for name, value in found.items() if value is not None}


def is_prepared_folder(path: Path) -> bool:
    """Whether a path is a folder that `pmv prepare` wrote."""
    return path.is_dir() and all((path / name).is_file() for name in (IMAGE, CAMERA))


def find_photo(folder: Path) -> Path:
    """The photo that lies in a prepared folder; where there is none, the picture itself."""
    return next((path for path in sorted(folder.glob("photo.*")) if path.is_file()), folder / IMAGE)


def write_prepared_folder(folder: Path, prepared: Prepared, photo: Path, size: tuple[int, int]) -> None:
    """Write the plain files, the exact one and a copy of the photo into a folder that is there.

    Args:
        size: width and height of the photo in pixels, upright.
    """
    pictures = {IMAGE: prepared.picture, MASK: prepared.foreground, VALID: prepared.valid}
    for name, picture in pictures.items():
        if picture is not None:
            write_png(folder / name, picture)
    label = prepared.camera.labels()[0].tolist()
    write_json(folder / CAMERA, {"label": label, "confidence": prepared.confidence})
    crop = {"matrix": prepared.crop.tolist(), "width": size[0], "height": size[1], "photo": photo.name}
    write_json(folder / CROP, crop | {"framing": prepared.framing})
    save_prepared(folder / EXACT, prepared)
    shutil.copyfile(photo, folder / ("photo" + (photo.suffix.lower() or ".image")))


def save_prepared(path: Path, prepared: Prepared) -> None:
    """Write one file that `read_prepared` reads."""
    save_tensors(path, prepared.tensors(), {"confidence": prepared.confidence, "framing": prepared.framing})


def read_prepared(path: Path) -> Prepared:
    """Read a prepared folder, or a file of `save_prepared`.

    Raises:
        InputError: something is missing, damaged, or does not fit the rest.
    """
    if not path.is_dir():
        return _read_exact(path)
    exact = _read_exact(path / EXACT) if (path / EXACT).is_file() else None
    for name in (IMAGE, MASK, CROP):
        if not (path / name).is_file():
            raise InputError(f"{path}: lacks {name}; run pmv prepare again, or give the photo itself")
    picture, _ = read_image(path / IMAGE)
    foreground = _read_grey(path / MASK)
    valid = _read_grey(path / VALID) if (path / VALID).is_file() else None
    if foreground.max() < 0.5:
        raise InputError(f"{path / MASK}: the mask is empty; paint the head white")
    height, side = picture.shape[-2:]
    for name, mask in ((MASK, foreground), (VALID, valid)):
        if height != side or (mask is not None and mask.shape[-2:] != (side, side)):
            raise InputError(f"{path / name}: must be square and as large as {IMAGE}, which is {side}×{height} pixels")
    camera = Camera.load(path / CAMERA)
    settings, crop = read_json(path / CAMERA), read_json(path / CROP)
    try:
        matrix = torch.tensor(np.array(crop["matrix"], np.float32).reshape(2, 3))
        confidence = float(settings.get("confidence", 1.0)) if isinstance(settings, Mapping) else 1.0
    except (KeyError, TypeError, ValueError, OverflowError) as error:  # also 400 digits for a float
        raise InputError(f"{path / CROP}: not what pmv prepare wrote ({type(error).__name__}); run it again") from error
    if exact is not None:
        picture, foreground = _unchanged(picture, exact.picture), _unchanged(foreground, exact.foreground)
        valid = None if valid is None else _unchanged(valid, exact.valid)
    prepared = Prepared(picture, foreground, valid, matrix, camera, confidence, crop.get("framing"))
    _check(path, prepared)
    return prepared


def _read_grey(path: Path) -> Tensor:
    """A mask as pmv wrote it: [1,1,H,W] in [0,1], of any extent."""
    return (read_image(path)[0].mean(1, keepdim=True) + 1) / 2


def _unchanged(read: Tensor, exact: Tensor | None) -> Tensor:
    """The exact picture where it is what was read but for rounding."""
    if exact is None or exact.shape != read.shape or not np.array_equal(to_uint8(read), to_uint8(exact)):
        return read
    return exact


def _read_exact(path: Path) -> Prepared:
    header, tensors = read_header(path), load_tensors(path)
    side = tensors["picture"].shape[-1] if "picture" in tensors else 0
    shapes = {"picture": (1, 3, side, side), "foreground": (1, 1, side, side), "crop": (2, 3), "label": (1, 25)}
    if "valid" in tensors:
        shapes["valid"] = (1, 1, side, side)
    plain = all(value.dtype == torch.float32 for value in tensors.values())
    if not plain or not isinstance(header, dict) or {n: tuple(t.shape) for n, t in tensors.items()} != shapes:
        raise InputError(f"{path}: not what pmv prepare wrote; run it again")
    prepared = Prepared(
        tensors["picture"],
        tensors["foreground"],
        tensors.get("valid"),
        tensors["crop"],
        Camera.from_labels(tensors["label"]),
        header.get("confidence", 1.0),
        header.get("framing"),
    )
    _check(path, prepared)
    return prepared


def _check(path: Path, prepared: Prepared) -> None:
    """InputError for what is no number, or lies where it cannot."""
    if not all(bool(value.isfinite().all()) for value in prepared.tensors().values()):
        raise InputError(f"{path}: holds NaN or infinity; run pmv prepare again")
    if not isinstance(prepared.confidence, float | int) or not 0 < prepared.confidence <= 1:
        raise InputError(f"{path}: confidence is {shown(prepared.confidence)}; it lies above 0 and is at most 1")
    if prepared.framing not in (None, *FRAMINGS):
        raise InputError(f"{path}: framing is {shown(prepared.framing)}; it is one of {', '.join(FRAMINGS)}")
    if float(torch.linalg.det(prepared.crop[:, :2].double()).abs()) < 1e-9:
        raise InputError(f"{path}: the crop's matrix has no inverse; run pmv prepare again")
