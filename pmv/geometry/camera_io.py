"""Camera files: EG3D labels (`dataset.json`), `.npy`, nerfstudio `transforms.json`, COLMAP text.

The axes differ: EG3D, `.npy` and COLMAP use OpenCV axes, nerfstudio uses OpenGL's (y up, looking along −z); COLMAP
stores world-to-camera. All are turned into the one convention of `pmv/geometry/camera.py` here and nowhere else. What
is read and written are the matrices of a `Camera`, which itself is made by `Camera.load` alone.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pmv.errors import InputError

_GL_TO_CV = np.diag([1.0, -1.0, -1.0, 1.0])


def read_cameras(path: Path, image_name: str | None = None) -> tuple[Tensor, Tensor]:
    """Cameras of a file or folder, not yet checked for being any.

    Args:
        image_name: pick the one camera of this image where the file lists several.

    Returns:
        cam2world [N,4,4], OpenCV axes, and intrinsics [N,3,3], normalised by the image width; float32.

    Raises:
        InputError: missing, unreadable, of an unknown format, or without the image; the message names the file.
    """
    if not path.exists():
        raise InputError(
            f"{path}: no such camera file; give an EG3D dataset.json, a .npy of 25 floats, a transforms.json "
            "or a COLMAP folder"
        )
    try:
        if path.is_dir():
            names, *camera = _read_colmap(path)
        elif path.suffix == ".npy":
            names, *camera = None, *_read_npy(path)
        elif path.suffix == ".json":
            names, *camera = _read_json(path)
        else:
            raise InputError(f"{path}: unknown camera format; give .json, .npy or a COLMAP folder")
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
        raise InputError(f"{path}: not a readable camera file ({type(error).__name__}: {error})") from error
    if image_name is not None and names is not None and not (len(names) == 1 and names[0] == ""):
        wanted = Path(image_name)
        matches = [i for i, n in enumerate(names) if n == image_name or Path(n).name == wanted.name]
        matches = matches or [i for i, n in enumerate(names) if Path(n).stem == wanted.stem]
        if not matches:
            raise InputError(
                f"{path}: no camera for {wanted.name}; it lists {', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
            )
        camera = [matrices[matches[0]][None] for matrices in camera]
    cam2world, intrinsics = (torch.from_numpy(matrices).float() for matrices in camera)
    return cam2world, intrinsics


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
    if path.suffix == ".npy":
        np.save(path, labels[0] if len(labels) == 1 else labels)
    elif path.name == "transforms.json" or path.name.endswith("_transforms.json"):
        path.write_text(json.dumps(_nerfstudio(poses, pixels * resolution, names, resolution), indent=1) + "\n")
    elif path.suffix == ".json":
        rows = [[name, label] for name, label in zip(names, labels.tolist(), strict=True)]
        path.write_text(json.dumps({"labels": rows}, indent=1) + "\n")
    elif path.suffix == "":
        _write_colmap(poses, pixels * resolution, path, names, resolution)
    else:
        raise InputError(f"{path}: unknown camera format; name it .json, .npy, transforms.json or a folder")


_Named = tuple[list[str], np.ndarray, np.ndarray]
"""Image names, cam2world [N,4,4], intrinsics [N,3,3]."""


def _from_labels(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if labels.ndim != 2 or labels.shape[1] != 25:
        raise InputError(f"a camera label has 25 numbers, got an array of shape {labels.shape}")
    return labels[:, :16].reshape(-1, 4, 4), labels[:, 16:].reshape(-1, 3, 3)


def _read_npy(path: Path) -> tuple[np.ndarray, np.ndarray]:
    array = np.load(path, allow_pickle=False)
    return _from_labels(np.asarray(array, np.float32).reshape(-1, 25))


def _read_json(path: Path) -> _Named:
    data = json.loads(path.read_text())
    if "frames" in data:
        return _read_nerfstudio(data)
    if "label" in data:  # `camera.json`: one label
        return [""], *_from_labels(np.asarray(data["label"], np.float32).reshape(-1, 25))
    rows = data["labels"]
    if not rows:
        raise ValueError("it lists no labels")
    return [row[0] for row in rows], *_from_labels(np.asarray([row[1] for row in rows], np.float32))


def _read_nerfstudio(data: dict) -> _Named:
    names, poses, intrinsics = [], [], []
    for frame in data["frames"]:
        value = {**data, **frame}
        width, height = value["w"], value["h"]
        names.append(frame["file_path"])
        poses.append(np.asarray(frame["transform_matrix"], np.float64) @ _GL_TO_CV)
        fy = value.get("fl_y", value["fl_x"])
        intrinsics.append(
            [[value["fl_x"] / width, 0, value["cx"] / width], [0, fy / height, value["cy"] / height], [0, 0, 1]]
        )
    return names, np.stack(poses), np.asarray(intrinsics, np.float64)


def _nerfstudio(poses: np.ndarray, pixels: np.ndarray, names: list[str], resolution: int) -> dict:
    frames = []
    for name, pose, k in zip(names, poses @ _GL_TO_CV, pixels, strict=True):
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


def _rows(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]


def _read_colmap(folder: Path) -> _Named:
    intrinsics = {}
    for row in _rows(folder / "cameras.txt"):
        model, width, height, values = row[1], float(row[2]), float(row[3]), [float(x) for x in row[4:]]
        if model == "PINHOLE":
            fx, fy, cx, cy = values
        elif model == "SIMPLE_PINHOLE":
            fx, cx, cy = values
            fy = fx
        else:
            raise ValueError(f"camera model {model} has distortion; undistort to PINHOLE first")
        intrinsics[row[0]] = [[fx / width, 0, cx / width], [0, fy / height, cy / height], [0, 0, 1]]
    names, poses, chosen = [], [], []
    # images.txt has two lines an image, the second listing 2D points that may be empty: every image row has 10 fields
    lines = [line for line in (folder / "images.txt").read_text().splitlines() if not line.startswith("#")]
    for row in (line.split() for line in lines[::2] if line.strip()):
        world2cam = np.eye(4)
        world2cam[:3, :3] = _quaternion_to_matrix(np.asarray([float(x) for x in row[1:5]]))
        world2cam[:3, 3] = [float(x) for x in row[5:8]]
        poses.append(np.linalg.inv(world2cam))
        chosen.append(intrinsics[row[8]])
        names.append(row[9])
    return names, np.stack(poses), np.asarray(chosen, np.float64)


def _write_colmap(poses: np.ndarray, k: np.ndarray, folder: Path, names: list[str], resolution: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    cameras, images = [], []
    world2cam = np.linalg.inv(poses)
    for i, name in enumerate(names, 1):
        fx, fy, cx, cy = k[i - 1, 0, 0], k[i - 1, 1, 1], k[i - 1, 0, 2], k[i - 1, 1, 2]
        cameras.append(f"{i} PINHOLE {resolution} {resolution} {fx!s} {fy!s} {cx!s} {cy!s}")
        pose = [*_matrix_to_quaternion(world2cam[i - 1, :3, :3]), *world2cam[i - 1, :3, 3]]
        images.append(f"{i} {' '.join(str(x) for x in pose)} {i} {name}\n")  # the empty line: no 2D points
    (folder / "cameras.txt").write_text("# camera_id model width height fx fy cx cy\n" + "\n".join(cameras) + "\n")
    (folder / "images.txt").write_text("# image_id qw qx qy qz tx ty tz camera_id name\n" + "\n".join(images) + "\n")
    (folder / "points3D.txt").write_text("# no points\n")


def _quaternion_to_matrix(q: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_quat(q[[1, 2, 3, 0]]).as_matrix()


def _matrix_to_quaternion(matrix: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(matrix).as_quat()[[3, 0, 1, 2]]
