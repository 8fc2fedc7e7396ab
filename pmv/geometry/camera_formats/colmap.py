"""COLMAP's text models: ``cameras.txt`` and ``images.txt``, which store world-to-camera with OpenCV axes."""

import math
from pathlib import Path

import numpy as np

from pmv.errors import InputError, shown
from pmv.geometry.camera_formats.nerfstudio import UNDISTORT
from pmv.geometry.camera_formats.parsing import Row, Rows, read_text

_PLACES = (".", "sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse")
"""Where a model lies below the folder that people give."""
_MODELS = {
    "SIMPLE_PINHOLE": (1, 0),
    "PINHOLE": (2, 0),
    "SIMPLE_RADIAL": (1, 1),
    "RADIAL": (1, 2),
    "OPENCV": (2, 4),
    "FULL_OPENCV": (2, 8),
}
"""Camera model → how many focal lengths and how many coefficients stand around its principal point; those that are no
pinhole even with coefficients of zero (fisheyes) are not among them."""
_UNIT = 0.02
"""How far the norm of a rotation's quaternion may lie from 1."""


def find_model(folder: Path) -> Path:
    """The folder that holds the text model that a user means by `folder`.

    Raises:
        InputError: there is none, or several.
    """
    for place in _PLACES:
        if (folder / place / "images.txt").exists() and (folder / place / "cameras.txt").exists():
            found = folder / place
            others = [p for p in found.parent.glob("[0-9]*/images.txt") if p.parent != found]
            if place.endswith("/0") and others:
                names = ", ".join(sorted(p.parent.name for p in [*others, found / "images.txt"])[:5])
                raise InputError(f"{folder}: {found.parent.name} holds the models {names}; give the folder of one")
            return found
    for place in _PLACES:
        if (folder / place / "images.bin").exists():
            where = folder / place if place != "." else folder
            raise InputError(
                f"{folder}: a binary COLMAP model; write it as text: colmap model_converter "
                f"--input_path {where} --output_path {where} --output_type TXT"
            )
    raise InputError(f"{folder}: no COLMAP model is in it; it has cameras.txt and images.txt, there or in sparse/0")


def rows_of_colmap(folder: Path) -> Rows:
    """Rows of the text model in `folder`; InputError where it is none."""
    cameras: dict[str, list[str]] = {}
    for line in read_text(folder / "cameras.txt").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            fields = line.split()
            cameras[fields[0]] = fields[1:]
    images = _image_lines(folder / "images.txt", cameras)
    if not images:
        raise InputError(f"{folder / 'images.txt'}: not a readable camera file (it lists no images)")
    return Rows([fields[9].strip() for fields in images], lambda i: _row(images[i], cameras, folder), len(images))


def _image_lines(path: Path, cameras: dict[str, list[str]]) -> list[list[str]]:
    """The ten fields of every image.

    Each is followed by a line of 2D points, which may be empty, and which some programs leave out.
    """
    found: list[list[str]] = []
    points_may_follow = False
    for i, line in enumerate(read_text(path).splitlines(), 1):
        if line.lstrip().startswith("#"):
            continue
        if not line.strip():
            points_may_follow = False
            continue
        if points_may_follow and _is_points(line):
            points_may_follow = False
            continue
        fields = line.split(None, 9)  # the last is a name, which may have spaces
        if not _is_image(fields, cameras):
            raise InputError(f"{path}: not a readable camera file (line {i} is none of an image)")
        found.append(fields)
        points_may_follow = True
    return found


def _is_points(line: str) -> bool:
    """Whether a line lists 2D points: X, Y, POINT3D_ID and so on."""
    fields = line.split()
    return len(fields) % 3 == 0 and all(math.isfinite(_float(field)) for field in fields)


def _is_image(fields: list[str], cameras: dict[str, list[str]]) -> bool:
    if len(fields) != 10 or fields[8] not in cameras:
        return False
    values = np.array([_float(field) for field in fields[1:8]])
    return bool(np.isfinite(values).all()) and abs(float(np.linalg.norm(values[:4])) - 1) < _UNIT


def _float(text: str) -> float:
    """A number, NaN where it is none."""
    try:
        return float(text) if len(text) < 100 else math.nan
    except ValueError:
        return math.nan


def _row(fields: list[str], cameras: dict[str, list[str]], folder: Path) -> Row:
    values = np.array([_float(field) for field in fields[1:8]])
    world2cam = np.eye(4)
    world2cam[:3, :3] = _quaternion_to_matrix(values[:4])
    world2cam[:3, 3] = values[4:]
    intrinsics, picture = _intrinsics(cameras[fields[8]], f"{folder / 'cameras.txt'}: camera {shown(fields[8], 20)}")
    return Row(np.linalg.inv(world2cam), intrinsics, picture)


def _intrinsics(fields: list[str], what: str) -> tuple[np.ndarray, tuple[float, float]]:
    """Normalised intrinsics [3,3] and the picture's size from the fields behind a camera's number."""
    if not fields or fields[0] not in _MODELS:
        model = shown(fields[0], 40) if fields else "none"
        raise InputError(f"{what} has the model {model}, which is no pinhole; {UNDISTORT}")
    values = [_float(field) for field in fields[1:]]
    focals, coefficients = _MODELS[fields[0]]
    if len(values) != 4 + focals + coefficients or not np.isfinite(values).all():
        raise InputError(f"{what}: {fields[0]} has {4 + focals + coefficients} numbers: width, height, focal length …")
    if any(values[4 + focals :]):
        raise InputError(f"{what} has lens distortion ({fields[0]}); {UNDISTORT}")
    width, height = values[:2]
    if width <= 0 or height <= 0:
        raise InputError(f"{what} is of {width:g}×{height:g} pixels; write the picture's size")
    fx, fy = values[2], values[1 + focals]
    cx, cy = values[2 + focals : 4 + focals]
    return np.array([[fx / width, 0, cx / width], [0, fy / height, cy / height], [0, 0, 1]]), (width, height)


def write_colmap(poses: np.ndarray, k: np.ndarray, folder: Path, names: list[str], resolution: int) -> None:
    """Writes a text model without points.

    Args:
        poses: cam2world [N,4,4]; k: intrinsics [N,3,3] in pixels of a `resolution`² picture.

    Raises:
        InputError: a name with a line break.
    """
    for name in names:
        if not name.strip() or len(name.splitlines()) != 1:
            raise InputError(f"{folder}: COLMAP cannot name an image {shown(name)!r}; give names of one line")
    folder.mkdir(parents=True, exist_ok=True)
    cameras, images = [], []
    world2cam = np.linalg.inv(poses)
    for i, name in enumerate(names, 1):
        fx, fy, cx, cy = k[i - 1, 0, 0], k[i - 1, 1, 1], k[i - 1, 0, 2], k[i - 1, 1, 2]
        cameras.append(f"{i} PINHOLE {resolution} {resolution} {fx!s} {fy!s} {cx!s} {cy!s}")
        pose = [*_matrix_to_quaternion(world2cam[i - 1, :3, :3]), *world2cam[i - 1, :3, 3]]
        images.append(f"{i} {' '.join(str(x) for x in pose)} {i} {name}\n")  # the empty line: no 2D points
    (folder / "cameras.txt").write_text("# camera_id model width height fx fy cx cy\n" + "\n".join(cameras) + "\n")
    (folder / "images.txt").write_text(
        "# image_id qw qx qy qz tx ty tz camera_id name\n" + "\n".join(images) + "\n", encoding="utf-8"
    )
    (folder / "points3D.txt").write_text("# no points\n")


def _quaternion_to_matrix(q: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_quat(q[[1, 2, 3, 0]]).as_matrix()


def _matrix_to_quaternion(matrix: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(matrix).as_quat()[[3, 0, 1, 2]]
