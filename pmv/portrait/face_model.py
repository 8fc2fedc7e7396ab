"""A statistical face in EG3D's world frame: where landmarks lie, how they differ between people, how sure they are.

EG3D's camera labels come from a face reconstruction network (Deep3DFaceRecon), so "the front of the face" is whatever
that network takes for it; nothing but portraits with labels can tell. The model is learned from such portraits
(`fit_face_model`, driven by benchmarks/portrait_camera.py) and shipped as numbers, without any photo.

A portrait's landmarks in the picture, given its camera, are taken as

    p = project(X) + B a + ε,    a ~ N(0, 1),    ε ~ N(0, diag(σ²)),

with X the mean face (468 points, symmetric), B a few modes (people, expressions and the network's habits: what differs
from portrait to portrait in the picture), σ what is left for every landmark. Landmarks that move with the mouth or
drown in a beard get a large σ or a mode, and with it little say in the pose.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from pmv import data_path
from pmv.errors import InputError
from pmv.geometry.camera import EG3D_FOCAL

MIRROR = np.array([-1.0, 1.0, 1.0])
"""A mirrored world: x turned."""
_TURN_LIMIT = 45.0  # degrees of yaw beyond which Face Mesh no longer follows; such portraits teach nothing of the shape
_HIDDEN, _SEEN = 0.0, 0.3  # cosine between normal and direction to the camera: no weight, full weight
_ROBUST = 0.01  # picture widths; residuals beyond this count less


@dataclass(frozen=True)
class FaceModel:
    """See the module's text; lengths of the picture are in picture widths.

    Attributes:
        points: [468,3] the mean face in the world.
        normals: [468,3] its outward unit normals.
        modes: [468,2,K] shift of the landmarks in the picture, one standard deviation each.
        sigma: [468,2] standard deviation of what the modes leave.
        partner: [468] int, the landmark at the mirrored place.
        turn_table: [T,4]: yaw found (degrees, rising from 0), and the mean turn (axis-angle in the camera's axes,
            degrees) by which the found camera must then be corrected; see `pmv.portrait.pose`.
    """

    points: np.ndarray
    normals: np.ndarray
    modes: np.ndarray
    sigma: np.ndarray
    partner: np.ndarray
    turn_table: np.ndarray

    def save(self, path: Path) -> None:
        values: dict[str, Any] = {f.name: getattr(self, f.name).astype(np.float32) for f in fields(self)}
        np.savez_compressed(path, **values)

    @classmethod
    def load(cls, path: Path | None = None) -> "FaceModel":
        """The shipped model, or another.

        Raises:
            InputError: the file is not a face model.
        """
        path = path or data_path("portrait", "face_model.npz")
        try:
            with np.load(path, allow_pickle=False) as file:
                values = {f.name: file[f.name].astype(np.float64) for f in fields(cls)}
        except (OSError, KeyError, ValueError) as error:
            raise InputError(f"{path}: not a face model ({error}); reinstall pmv") from error
        return cls(**{**values, "partner": values["partner"].astype(np.int64)})

    def visibility(self, position: np.ndarray) -> np.ndarray:
        """[468] weight in [0,1] of each landmark for a camera at `position` [3]: 0 where the face turns away."""
        return visibility(self.points, self.normals, position)


@dataclass(frozen=True)
class Sample:
    """A portrait with a known camera.

    Attributes:
        uv: [468,2] landmarks in picture widths.
        rotation: [3,3] and position: [3] of cam2world, OpenCV axes.
    """

    uv: np.ndarray
    rotation: np.ndarray
    position: np.ndarray

    def mirrored(self, partner: np.ndarray) -> "Sample":
        """The sample of the mirrored picture."""
        turn = np.diag(MIRROR)
        uv = self.uv[partner] * [-1, 1] + [1, 0]
        return Sample(uv, turn @ self.rotation @ turn, turn @ self.position)

    @property
    def yaw(self) -> float:
        """Degrees, of the viewing axis."""
        return float(np.degrees(np.arctan2(-self.rotation[0, 2], -self.rotation[2, 2])))


def project(points: np.ndarray, rotation: np.ndarray, position: np.ndarray, focal: float = EG3D_FOCAL) -> np.ndarray:
    """World points [P,3] → [P,2] in picture widths."""
    local = (points - position) @ rotation
    return focal * local[:, :2] / local[:, 2:] + 0.5


def visibility(points: np.ndarray, normals: np.ndarray, position: np.ndarray) -> np.ndarray:
    """See `FaceModel.visibility`."""
    towards = position - points
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    return np.clip(((normals * towards).sum(1) - _HIDDEN) / (_SEEN - _HIDDEN), 0.0, 1.0)


def fit_face_model(
    samples: Sequence[Sample], partner: np.ndarray, modes: int = 3, floor: float = 0.004, focal: float = EG3D_FOCAL
) -> FaceModel:
    """Learn a model from portraits with known cameras; each also counts mirrored.

    Args:
        samples: portraits; those turned further than 45° are left out.
        partner: [468], see `FaceModel`.
        modes: K.
        floor: added to σ, picture widths: what a landmark is never better than.

    Returns:
        a model without corrections for turned heads (`turn_table` empty).
    """
    used = [s for s in samples if abs(s.yaw) <= _TURN_LIMIT]
    if len(used) < 3:
        raise InputError(f"a face model is learned from at least 3 portraits within {_TURN_LIMIT:g}°, not {len(used)}")
    used += [s.mirrored(partner) for s in used]
    weights = np.ones((len(used), len(partner)))
    points = _triangulate(used, weights, None, focal)
    for _ in range(2):
        normals = _normals(points)
        weights = np.stack([visibility(points, normals, s.position) for s in used])
        points = _triangulate(used, weights, points, focal)
    normals = _normals(points)
    seen = np.stack([visibility(points, normals, s.position) for s in used])
    residual = np.stack([s.uv - project(points, s.rotation, s.position, focal) for s in used]).reshape(len(used), -1)
    known = np.repeat(seen, 2, axis=1)
    basis, filled = principal_directions(residual, known, modes)
    left = (filled - (filled @ np.linalg.pinv(basis).T) @ basis.T if modes else filled) * known
    freedom = len(used) / max(len(used) - 2 * modes, 1)
    variance = (left**2).sum(0) / np.maximum(known.sum(0), 1e-3) * freedom + floor**2
    n = len(partner)
    return FaceModel(
        points, normals, basis.reshape(n, 2, modes), np.sqrt(variance).reshape(n, 2), partner, np.zeros((0, 4))
    )


def principal_directions(residual: np.ndarray, known: np.ndarray, modes: int) -> tuple[np.ndarray, np.ndarray]:
    """Principal directions [2P,K] (one standard deviation each) of rows with gaps, and the rows with gaps filled."""
    filled = residual * known
    basis = np.zeros((residual.shape[1], modes))
    for _ in range(10 if modes else 0):
        _, values, rows = np.linalg.svd(filled / np.sqrt(len(filled)), full_matrices=False)
        predicted = (filled @ rows[:modes].T) @ rows[:modes]
        filled = np.where(known > 0.5, residual, predicted)
        basis = rows[:modes].T * values[:modes]
    return basis, filled


def _triangulate(samples: Sequence[Sample], weights: np.ndarray, start: np.ndarray | None, focal: float) -> np.ndarray:
    """Points [P,3] nearest (robustly) to the rays of all samples through their landmarks."""
    points = start
    ridge = 1e-4
    for _ in range(4):
        matrix = np.zeros((weights.shape[1], 3, 3))
        vector = np.zeros((weights.shape[1], 3))
        if points is not None:
            matrix += ridge * np.eye(3)
            vector += ridge * points
        for sample, weight in zip(samples, weights, strict=True):
            if points is not None:
                error = np.linalg.norm(sample.uv - project(points, sample.rotation, sample.position, focal), axis=1)
                weight = weight / np.sqrt(1 + (error / _ROBUST) ** 2)
            direction = (sample.uv - 0.5) / focal
            for k in range(2):
                row = sample.rotation.T[k] - direction[:, k : k + 1] * sample.rotation.T[2]
                matrix += weight[:, None, None] * row[:, :, None] * row[:, None]
                vector += weight[:, None] * row * (row @ sample.position)[:, None]
        points = np.linalg.solve(matrix, vector[..., None])[..., 0]
    assert points is not None
    return points


def _normals(points: np.ndarray, neighbours: int = 24) -> np.ndarray:
    """Outward normals [P,3] of the planes through each point's neighbours."""
    _, index = KDTree(points).query(points, neighbours)
    around = points[index] - points[index].mean(1, keepdims=True)
    normals = np.linalg.svd(around, full_matrices=False)[2][:, 2]
    inside = np.array([0.0, points[:, 1].mean(), points[:, 2].min() - 0.05])
    return normals * np.sign((normals * (points - inside)).sum(1, keepdims=True))
