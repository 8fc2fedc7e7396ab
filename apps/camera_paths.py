"""Cameras of films and series of pictures: named paths around a head, and paths that other programs wrote."""

import json
import math
from pathlib import Path

import torch

from pmv.errors import InputError
from pmv.generators.base import GeneratorSpec
from pmv.geometry.camera import Camera
from pmv.geometry.camera_io import read_cameras

PATHS = ("swing", "orbit", "ellipse", "eight")
"""swing: to one side, to the other and back; orbit: 360°; ellipse and eight: both sideways and up and down."""
_SWEEP = 35.0
"""Degrees to either side where nothing is said: as far as generators know that saw faces from the front only."""
_RISE = 0.5
"""Extent of ellipse and eight upwards, in that sideways."""


def named_path(
    kind: str | None, spec: GeneratorSpec, frames: int, yaw_deg: float, pitch_deg: float, sweep_deg: float | None
) -> Camera:
    """Cameras of a loop without a jump around yaw and pitch.

    Args:
        kind: one of `PATHS`; None = orbit where the generator knows heads from all sides and no sweep is asked for,
            else swing.
        sweep_deg: degrees to either side; None = 35. An orbit has none.
    """
    if kind is None:
        kind = "orbit" if (spec.full_head and sweep_deg is None) or sweep_deg == 180 else "swing"
    phase = torch.arange(frames) / frames * 2 * math.pi
    reach = math.radians(_SWEEP if sweep_deg is None else sweep_deg)
    turn = phase if kind == "orbit" else reach * phase.sin()
    rise = torch.zeros_like(phase)
    if kind == "ellipse":
        rise = _RISE * reach * phase.cos()
    elif kind == "eight":
        rise = _RISE * reach * (2 * phase).sin()
    limit = math.radians(89.0)
    return spec.orbit(turn + math.radians(yaw_deg), (rise + math.radians(pitch_deg)).clamp(-limit, limit))


def read_path(path: Path) -> tuple[Camera, tuple[int, int] | None]:
    """Cameras of a file as `Camera.load` takes it, in its order, and (width, height) of its pictures where a
    ``transforms.json`` says so.

    Raises:
        InputError: missing, unreadable, or pictures of several sizes.
    """
    cameras, size = Camera(*read_cameras(path)), _picture_size(path)
    # cameras of a wide picture are no square one's, and only these can be told from nonsense
    (cameras if size is None else _squared(cameras, *size)).validate(str(path))
    return cameras, size


def _picture_size(path: Path) -> tuple[int, int] | None:
    """(width, height) of the pictures that a ``transforms.json`` is of; None for other files."""
    if path.is_dir() or path.suffix != ".json":
        return None
    data = json.loads(path.read_text(encoding="utf-8"))
    frames = data.get("frames")
    if not frames:
        return None
    # that they are numbers is known since the cameras could be read
    sizes = {(float({**data, **frame}["w"]), float({**data, **frame}["h"])) for frame in frames}
    if len(sizes) != 1:
        raise InputError(f"{path}: its frames have {len(sizes)} sizes; give a path whose pictures have one")
    width, height = sizes.pop()
    if not (1 <= width < math.inf and 1 <= height < math.inf):
        raise InputError(f"{path}: its frames are {width:g}×{height:g} pixels; write their size as whole numbers")
    return round(width), round(height)


def reshaped(cameras: Camera, width: int, height: int) -> Camera:
    """Cameras of a square picture as those of a wider or higher one in the middle of which it lies.

    What is unused stays in the unit square: a square render of theirs is to be stretched to width × height.
    """
    return _scaled(cameras, min(height / width, 1.0), min(width / height, 1.0))


def _squared(cameras: Camera, width: int, height: int) -> Camera:
    """The inverse of `reshaped`."""
    return _scaled(cameras, max(width / height, 1.0), max(height / width, 1.0))


def _scaled(cameras: Camera, across: float, down: float) -> Camera:
    """Cameras that see less or more beside the middle of their picture."""
    intrinsics = cameras.intrinsics.clone()
    for row, factor in ((0, across), (1, down)):
        intrinsics[:, row, row] *= factor
        intrinsics[:, row, 2] = 0.5 + (intrinsics[:, row, 2] - 0.5) * factor
    return Camera(cameras.cam2world, intrinsics)


def resize_transforms(path: Path, width: int, height: int) -> None:
    """A ``transforms.json`` of square pictures rewritten for the same ones stretched to width × height."""
    data = json.loads(path.read_text(encoding="utf-8"))
    across, down = width / data["w"], height / data["h"]
    for frame in data["frames"]:
        frame |= {"fl_x": frame["fl_x"] * across, "cx": frame["cx"] * across}
        frame |= {"fl_y": frame["fl_y"] * down, "cy": frame["cy"] * down}
    data |= {"w": width, "h": height}
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
