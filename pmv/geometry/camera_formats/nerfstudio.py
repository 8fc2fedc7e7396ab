"""``transforms.json`` of nerfstudio, instant-ngp and Blender's NeRF scenes: OpenGL axes (y up, looking along −z)."""

import math
from typing import Any

import numpy as np

from pmv.errors import InputError, shown
from pmv.geometry.camera_formats.parsing import Row, Rows, number, pose, positive

GL_TO_CV = np.diag([1.0, -1.0, -1.0, 1.0])
_PINHOLE = {"PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", "PERSPECTIVE", "PERSP"}
"""Camera models that are a pinhole where their coefficients are zero."""
_COEFFICIENTS = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2", "s1", "s2", "s3", "s4", "distortion_params")
_FLAGS = ("is_fisheye", "fisheye", "is_equirectangular", "equirectangular", "orthographic", "is_orthographic")
UNDISTORT = "undistort the picture first (ns-process-data, colmap image_undistorter) and give its camera"
_AGREE = 0.02
"""Part by which two statements of one focal length may differ."""


def rows_of_frames(data: dict[str, Any]) -> Rows:
    """Rows of a file with "frames"; InputError where it is none."""
    frames = data["frames"]
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise InputError("not a readable camera file (it lists no frames)")
    names: list[str] = []
    for frame in frames:
        name = frame.get("file_path")
        if not isinstance(name, str):
            raise InputError(f'a frame\'s file_path is {shown(name, 40)}; make it a text, such as "photo.png"')
        names.append(name)
    shared = {key: value for key, value in data.items() if key != "frames"}
    return Rows(names, lambda i: _row({**shared, **frames[i]}, f"the frame {shown(names[i])}"), len(frames))


def _row(value: dict[str, Any], what: str) -> Row:
    _check_lens(value, what)
    if "transform_matrix" not in value:
        raise InputError(f"not a readable camera file ({what} has no transform_matrix)")
    cam2world = pose(value["transform_matrix"], f"the transform_matrix of {what}") @ GL_TO_CV
    width, height = (positive(value[key], f"{key} of {what}") if key in value else None for key in ("w", "h"))
    width, height = width or height, height or width  # one of them alone: a square
    focal = [_focal(value, axis, side, what) for axis, side in (("x", width), ("y", height))]
    fx, fy = focal[0] or focal[1], focal[1] or focal[0]
    if fx is None or fy is None:
        raise InputError(f"{what} has no focal length; add fl_x with w and h, or camera_angle_x")
    if focal[1] is None and width and height:
        fy = fx * width / height  # square pixels
    if focal[0] is None and width and height:
        fx = fy * height / width
    centre = [_centre(value, key, side, what) for key, side in (("cx", width), ("cy", height))]
    intrinsics = np.array([[fx, 0, centre[0]], [0, fy, centre[1]], [0, 0, 1]])
    return Row(cam2world, intrinsics, (width, height) if width and height else None)


def _check_lens(value: dict[str, Any], what: str) -> None:
    """InputError where the lens bends straight lines."""
    model = value.get("camera_model", "PINHOLE")
    if not isinstance(model, str) or model.upper() not in _PINHOLE:
        raise InputError(f"{what} has the camera model {shown(model, 40)}, which is no pinhole; {UNDISTORT}")
    for flag in _FLAGS:
        if value.get(flag):
            raise InputError(f"{what} says {flag}, which is no pinhole; {UNDISTORT}")
    for name in _COEFFICIENTS:
        given = value.get(name)
        for coefficient in given if isinstance(given, list) else [] if given is None else [given]:
            if number(coefficient, f"{name} of {what}") != 0:
                raise InputError(f"{what} has the lens distortion {name}; {UNDISTORT}")


def _focal(value: dict[str, Any], axis: str, side: float | None, what: str) -> float | None:
    """The focal length in picture sides, from pixels or from the angle of view; None where neither is there."""
    key, angle_key = f"fl_{axis}", f"camera_angle_{axis}"
    focal = angle = None
    if value.get(angle_key) is not None:
        radians = positive(value[angle_key], f"{angle_key} of {what}")
        if not 1e-3 <= radians <= 3.1:
            raise InputError(f"{angle_key} of {what} is {radians:g}; it is the whole angle of view in radians, below π")
        angle = 0.5 / math.tan(radians / 2)
    if value.get(key) is not None:
        if side is None:
            raise InputError(f"{what} has {key} in pixels and not of how many; add w and h")
        focal = positive(value[key], f"{key} of {what}") / side
    if focal is not None and angle is not None and abs(focal / angle - 1) > _AGREE:
        raise InputError(f"{what}: {key} and {angle_key} say two focal lengths; take out the one that is wrong")
    return focal if focal is not None else angle


def _centre(value: dict[str, Any], key: str, side: float | None, what: str) -> float:
    """The principal point in picture sides: the middle where nothing is said."""
    if value.get(key) is None:
        return 0.5
    if side is None:
        raise InputError(f"{what} has {key} in pixels and not of how many; add w and h")
    return number(value[key], f"{key} of {what}") / side
