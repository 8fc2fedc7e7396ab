"""The camera of an aligned portrait from its landmarks: maximum a posteriori under `pmv.portrait.face_model`.

As in EG3D's labels the camera lies on a sphere around the origin and has three angles and two shifts. It is found by
robust least squares (soft L1) together with the face's own coefficients: landmarks that turn away from the camera do
not count, and those that vary between people count little.

**Turned heads.** Face Mesh follows a head to about 40° of yaw and then lags behind: it was trained on frontal pictures
of phones. How far it lags was measured on renders of the embedded generator, whose yaw is known
(benchmarks/portrait_camera.py), and is put right by the model's `turn_table`. Beyond 70° it says nothing any more.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from pmv.geometry.camera import EG3D_FOCAL, EG3D_RADIUS, Camera
from pmv.portrait.face_model import FaceModel, project

_PIVOT = np.array([0.0, 0.0, 0.175])  # EG3D's cameras look about there; only the start and the shifts are told from it
_STARTS = (0.0, 45.0, -45.0)  # degrees of yaw
_FEW = slice(None, None, 6)  # landmarks that are enough to tell the starts apart
_COEFFICIENT_WEIGHT = 0.3  # of a ~ N(0,1), against residuals that are far from independent
_SOFT = 3.0  # standard deviations from which a residual counts linearly


@dataclass(frozen=True)
class Pose:
    """A camera found from landmarks.

    Attributes:
        camera: batch of 1.
        residual: root mean square of the residuals of the landmarks that count, in picture widths.
        surprise: the same in standard deviations of the model: about 1 for a face like those it was learned from.
        yaw: degrees as the landmarks had it, before the correction for turned heads.
    """

    camera: Camera
    residual: float
    surprise: float
    yaw: float


def find_camera(
    uv: np.ndarray, model: FaceModel, focal: float = EG3D_FOCAL, radius: float = EG3D_RADIUS, correct: bool = True
) -> Pose:
    """The camera from which the model's landmarks appear at `uv`.

    Args:
        uv: [468,2] in picture widths of the aligned picture.
        focal: of the camera, in picture widths.
        radius: of the sphere that it lies on.
        correct: apply the model's correction for turned heads.
    """
    modes = model.modes.shape[-1]

    def residuals(values: np.ndarray, weight: np.ndarray, some: slice) -> np.ndarray:
        rotation, position = _camera(values[:5], radius)
        error = uv[some] - project(model.points[some], rotation, position, focal) - model.modes[some] @ values[5:]
        error = error / model.sigma[some] * weight[some, None]
        return np.concatenate([error.ravel(), values[5:] * np.sqrt(len(error)) * _COEFFICIENT_WEIGHT])

    def refined(values: np.ndarray, weight: np.ndarray, some: slice, rounds: int) -> tuple[np.ndarray, float]:
        cost = np.inf
        for _ in range(rounds):
            result = least_squares(residuals, values, args=(weight, some), loss="soft_l1", f_scale=_SOFT)
            values = result.x
            weight = model.visibility(_camera(values[:5], radius)[1])
            cost = result.cost / max(weight[some].sum(), 1.0)
        return values, cost

    def start(yaw: float) -> tuple[np.ndarray, float]:
        values = np.zeros(5 + modes)
        values[0] = np.radians(yaw)
        weight = np.maximum(model.visibility(_camera(values[:5], radius)[1]), 0.05)
        return refined(values, weight, _FEW, 2)

    best, _ = min((start(yaw) for yaw in _STARTS), key=lambda found: found[1])
    best, _ = refined(best, model.visibility(_camera(best[:5], radius)[1]), slice(None), 3)
    rotation, position = _camera(best[:5], radius)
    weight = model.visibility(position)
    plain = uv - project(model.points, rotation, position, focal) - model.modes @ best[5:]
    count = max(2 * weight.sum(), 1.0)
    residual = float(np.sqrt((plain**2 * weight[:, None]).sum() / count))
    surprise = float(np.sqrt((((plain / model.sigma) ** 2) * weight[:, None]).sum() / count))
    yaw = float(np.degrees(np.arctan2(-rotation[0, 2], -rotation[2, 2])))
    if correct and len(model.turn_table):
        rotation, position = _turned(rotation, position, yaw, model.turn_table)
    cam2world = np.eye(4)
    cam2world[:3, :3], cam2world[:3, 3] = rotation, position
    intrinsics = np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])
    camera = Camera(torch.from_numpy(cam2world).float()[None], torch.from_numpy(intrinsics).float()[None])
    return Pose(camera, residual, surprise, yaw)


def _camera(values: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and position from yaw, pitch, roll (radians) and the pivot's shifts in the camera's frame."""
    (sy, cy), (sp, cp), (sr, cr) = ((np.sin(a), np.cos(a)) for a in values[:3])
    right, down = np.array([cy, 0, -sy]), np.array([sy * sp, -cp, cy * sp])
    right, down = cr * right + sr * down, cr * down - sr * right
    forward = -np.array([sy * cp, sp, cy * cp])
    foot = _PIVOT - right * values[3] - down * values[4]
    along = foot @ forward
    # the point of the viewing axis that lies on the sphere, on the near side of the head
    distance = along + np.sqrt(max(along**2 - foot @ foot + radius**2, 1e-12))
    return np.stack([right, down, forward], 1), foot - distance * forward


def _turned(rotation: np.ndarray, position: np.ndarray, yaw: float, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The camera turned about the head by what the table says for this yaw, its distance kept."""
    turn = np.array([np.interp(abs(yaw), table[:, 0], table[:, k]) for k in (1, 2, 3)])
    if yaw < 0:  # the mirrored head: turns about x stay, those about y and z change sign
        turn = turn * [1, -1, -1]
    step = rotation @ Rotation.from_rotvec(turn, degrees=True).as_matrix() @ rotation.T
    moved = step @ (position - _PIVOT) + _PIVOT
    return step @ rotation, moved * (np.linalg.norm(position) / np.linalg.norm(moved))
