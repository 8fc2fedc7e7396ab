"""Camera files: EG3D labels (`dataset.json`), `.npy`, nerfstudio `transforms.json`, COLMAP text.

The axes differ: EG3D, `.npy` and COLMAP use OpenCV axes, nerfstudio uses OpenGL's (y up, looking along −z); COLMAP
stores world-to-camera. All are turned into the one convention of `pmv/geometry/camera.py` in
`pmv/geometry/camera_formats` and nowhere else. What is read and written are the matrices of a `Camera`, which itself is
made by `Camera.load` alone.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pmv.errors import InputError
from pmv.geometry.camera_formats.colmap import find_model, rows_of_colmap, write_colmap
from pmv.geometry.camera_formats.labels import rows_of_json, rows_of_npy
from pmv.geometry.camera_formats.matching import ambiguous_rows, matching_rows, no_row
from pmv.geometry.camera_formats.nerfstudio import GL_TO_CV, rows_of_frames
from pmv.geometry.camera_formats.parsing import Row, Rows, read_json

_SAME_ASPECT = 0.01
"""Part by which the aspect ratios of a photo and of the picture that a camera is of may differ."""


_MOST_ALIKE = 100
"""Rows of one name beyond this are not compared."""


def read_cameras(
    path: Path, image_name: str | None = None, picture: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """Cameras of a file or folder, not yet checked for being any.

    Args:
        path: a file, or a COLMAP folder (also the one above its `sparse/0`).
        image_name: pick the one camera of this image where the file lists several; a whole path tells apart those
            whose files are called alike.
        picture: width and height of that image in pixels, for files that say which size they are of.

    Returns:
        cam2world [N,4,4], OpenCV axes, and intrinsics [N,3,3], normalised by the image width; float32.

    Raises:
        InputError: missing, unreadable, of an unknown format, without the image or with several that may be it, of a
            lens that is no pinhole, or of a picture of another aspect ratio; the message names the file.
    """
    try:
        rows = _rows(path)
        with np.errstate(all="ignore"):  # what becomes infinite is refused by whoever asked
            if image_name is None or rows.names is None:
                chosen = [rows.read(i) for i in range(rows.count)]
            else:
                chosen = [_row_of(rows, rows.names, image_name)]
        if picture is not None:
            for row in chosen:
                _check_picture(row, picture)
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: not a readable camera file ({error.strerror or type(error).__name__})") from error
    cam2world = np.stack([row.cam2world for row in chosen])
    intrinsics = np.stack([row.intrinsics for row in chosen])
    with np.errstate(over="ignore"):
        return torch.from_numpy(cam2world.astype(np.float32)), torch.from_numpy(intrinsics.astype(np.float32))


def _rows(path: Path) -> Rows:
    """The cameras of a file of any kind, told by its name."""
    kind = path.suffix.lower()
    if not path.exists():
        raise InputError(
            f"{path}: no such camera file; give an EG3D dataset.json, a .npy of 25 floats, a transforms.json "
            "or a COLMAP folder"
        )
    if path.is_dir():
        return rows_of_colmap(find_model(path))
    if kind == ".npy":
        return rows_of_npy(path)
    if kind == ".json":
        data = read_json(path)
        return rows_of_frames(data) if isinstance(data, dict) and "frames" in data else rows_of_json(data)
    if path.name in ("cameras.txt", "images.txt", "cameras.bin", "images.bin"):
        raise InputError(f"{path}: a part of a COLMAP model; give its folder")
    raise InputError(f"{path}: unknown camera format; give .json, .npy or a COLMAP folder")


def _row_of(rows: Rows, names: Sequence[str], image_name: str) -> Row:
    matches = matching_rows(names, image_name)
    if not matches:
        raise no_row(names, image_name)
    first, *others = [rows.read(i) for i in matches[:_MOST_ALIKE]]
    for other in others:  # the same camera twice is no question
        if not (
            np.array_equal(other.cam2world, first.cam2world) and np.array_equal(other.intrinsics, first.intrinsics)
        ):
            raise ambiguous_rows([names[i] for i in matches], image_name)
    return first


def _check_picture(row: Row, picture: tuple[int, int]) -> None:
    """InputError where a camera is of a picture of another shape than the photo."""
    if row.picture is None:
        return
    (width, height), (photo_width, photo_height) = row.picture, picture
    if abs(width / height * photo_height / photo_width - 1) > _SAME_ASPECT:
        raise InputError(
            f"the camera is of a picture of {width:g}×{height:g} pixels, the photo has {photo_width}×{photo_height}; "
            "give the camera of the photo as it was cropped"
        )


def write_cameras(
    path: Path, cam2world: Tensor, intrinsics: Tensor, image_names: Sequence[str] | None, resolution: int
) -> None:
    """Writes the format that the name asks for, see `Camera.save`.

    Args:
        cam2world: [N,4,4]; intrinsics: [N,3,3].
        image_names: N names, None = numbers.
        resolution: pixels a side of the images that intrinsics in pixels are of.

    Raises:
        InputError: another number of names than cameras, or a name that asks for no format.
    """
    names = list(image_names) if image_names is not None else [f"{i:05d}.png" for i in range(len(cam2world))]
    if len(names) != len(cam2world):
        raise InputError(f"{path}: {len(cam2world)} cameras but {len(names)} image names")
    labels = torch.cat([cam2world.flatten(1), intrinsics.flatten(1)], 1).detach().cpu().numpy()
    poses, pixels = (m.detach().cpu().double().numpy() for m in (cam2world, intrinsics))
    kind = path.suffix.lower()
    if kind == ".npy":
        with path.open("wb") as file:  # `np.save` would put another suffix behind an upper-case one
            np.save(file, labels[0] if len(labels) == 1 else labels)
    elif path.name == "transforms.json" or path.name.endswith("_transforms.json"):
        path.write_text(json.dumps(_nerfstudio(poses, pixels * resolution, names, resolution), indent=1) + "\n")
    elif kind == ".json":
        rows = [[name, label] for name, label in zip(names, labels.tolist(), strict=True)]
        path.write_text(json.dumps({"labels": rows}, indent=1) + "\n")
    elif kind == "":
        write_colmap(poses, pixels * resolution, path, names, resolution)
    else:
        raise InputError(f"{path}: unknown camera format; name it .json, .npy, transforms.json or a folder")


def _nerfstudio(poses: np.ndarray, pixels: np.ndarray, names: list[str], resolution: int) -> dict:
    frames = []
    for name, pose, k in zip(names, poses @ GL_TO_CV, pixels, strict=True):
        frame = {
            "file_path": name,
            "fl_x": k[0, 0],
            "fl_y": k[1, 1],
            "cx": k[0, 2],
            "cy": k[1, 2],
            "transform_matrix": pose.tolist(),
        }
        frames.append(frame)
    return {"camera_model": "OPENCV", "w": resolution, "h": resolution, "frames": frames}
