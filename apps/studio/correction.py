"""Crop, camera and foreground of a prepared photo, corrected by hand."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pmv.errors import InputError
from pmv.files.artifacts import atomic_folder
from pmv.geometry.camera import Camera
from pmv.pictures.images import read_bytes, resize
from pmv.portrait import crop
from pmv.portrait.photo import from_tensor, sample
from pmv.stages.prepare import foreground_of
from pmv.stages.prepared import Prepared, find_photo, read_prepared, write_prepared_folder

_SMALLEST = 32.0
"""Pixels of the photo that a crop's side has at least."""


@dataclass(frozen=True)
class Square:
    """A crop: a square in the photo.

    Attributes:
        x, y: its middle, in fractions of the photo's width and height.
        side: in fractions of the photo's width.
        turn: degrees by which it is turned clockwise.
    """

    x: float
    y: float
    side: float
    turn: float = 0.0

    @classmethod
    def of(cls, matrix: np.ndarray, size: int, width: int, height: int) -> "Square":
        """That of a crop's matrix [2,3], for pictures of size² pixels, in a photo of width × height."""
        middle = crop.apply(crop.invert(matrix), np.array([size / 2, size / 2]))
        scale = math.hypot(matrix[0, 0], matrix[1, 0])
        turn = -math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))
        return cls(float(middle[0]) / width, float(middle[1]) / height, size / scale / width, turn)

    def matrix(self, size: int, width: int, height: int) -> np.ndarray:
        """[2,3], pixels of the photo → pixels of the picture.

        Raises:
            InputError: it is no number, too small, or beside the photo.
        """
        if not all(map(math.isfinite, (self.x, self.y, self.side, self.turn))):
            raise InputError("the crop is no square; draw it on the photo")
        if not (0 <= self.x <= 1 and 0 <= self.y <= 1):
            raise InputError("the crop's middle lies beside the photo; draw it on the photo")
        side = self.side * width
        if side < _SMALLEST or side > 4 * max(width, height):
            raise InputError(f"the crop is {side:.0f} pixels wide; give at least {_SMALLEST:.0f}")
        angle = math.radians(-self.turn)
        c, s = math.cos(angle) * size / side, math.sin(angle) * size / side
        linear = np.array([[c, -s], [s, c]])
        middle = np.array([self.x * width, self.y * height])
        return np.concatenate([linear, (size / 2 - linear @ middle)[:, None]], 1)


@dataclass(frozen=True)
class Nudge:
    """Degrees by which the camera that was found is moved: to the right, up, and about its axis (which turns the mean
    head counter-clockwise)."""

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0


def photo_size(folder: Path) -> tuple[int, int]:
    """Width and height of the photo of a prepared folder."""
    photo, _ = read_bytes(find_photo(folder))
    return photo.shape[-1], photo.shape[-2]


def rolled(camera: Camera, degrees: float) -> Camera:
    """Cameras turned clockwise about their axes."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = camera.cam2world.new_tensor([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    return Camera(camera.cam2world @ turn, camera.intrinsics)


def corrected(found: Path, square: Square | None, nudge: Nudge, pivot: Any, matte: str = "auto") -> Prepared:
    """What was found in a photo with corrections; without any, the very same.

    A crop that is drawn by hand says where the head is, so the camera still looks where it looked; one that is turned
    turns the camera along. The foreground is found anew in it.

    Args:
        found: folder of `pmv prepare`. square: None = as found.
        pivot: [3], the point that the camera is moved around.
        matte: see `prepare.matte`.

    Raises:
        InputError: the crop cannot be.
    """
    prepared = read_prepared(found)
    size = prepared.picture.shape[-1]
    camera = prepared.camera
    if square is not None:
        photo, alpha = read_bytes(find_photo(found))
        before = Square.of(prepared.crop.double().numpy(), size, photo.shape[-1], photo.shape[-2])
        matrix = square.matrix(size, photo.shape[-1], photo.shape[-2])
        picture, valid = crop.cut(from_tensor(photo), matrix, size)
        if alpha is None:
            foreground = foreground_of(picture, matte)
        else:
            foreground = sample(alpha[0, 0].numpy(), matrix, size).astype(np.float32) / 255
        camera = rolled(camera, square.turn - before.turn)
        prepared = replace(
            prepared,
            picture=torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1,
            foreground=torch.from_numpy(foreground)[None, None],
            valid=None if valid.all() else torch.from_numpy(valid)[None, None],
            crop=torch.from_numpy(matrix).float(),
        )
    if nudge != Nudge():
        camera = rolled(camera.turned(math.radians(nudge.yaw), math.radians(nudge.pitch), pivot), nudge.roll)
    return replace(prepared, camera=camera)


def write(prepared: Prepared, found: Path, draft: Path) -> None:
    """Write a folder that a run takes in the place of `found`, whose photo it keeps."""
    photo = find_photo(found)
    with atomic_folder(draft) as folder:
        write_prepared_folder(folder, prepared, photo, photo_size(found))


class MeanHead:
    """A generator's mean head, to hold pictures and cameras against."""

    @torch.no_grad()
    def __init__(self, generator: Any) -> None:
        self.generator = generator
        self.w = generator.mean_w()
        self.planes = generator.planes(self.w)

    @torch.no_grad()
    def over(self, prepared: Prepared) -> torch.Tensor:
        """The picture with the mean head half over it, as the camera sees it: [1,3,S,S]."""
        camera = self.generator.photo_camera(prepared.camera.to(self.w.device))
        view = self.generator.render(self.planes, self.w, camera).image
        return (resize(view, prepared.picture.shape[-1]).clamp(-1, 1).cpu() + prepared.picture) / 2
