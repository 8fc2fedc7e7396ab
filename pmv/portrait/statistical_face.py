"""The shape of human faces as statistics: a mean, how people differ from it, and how an expression moves it.

The numbers are ICT-FaceKit's (Li et al., *Learning Formation of Physically-Based Face Attributes*, arXiv:2004.03458;
MIT, see assets/face/NOTICE): principal components of light-stage scans and blend shapes. A face is

    X(a, b) = mean + Σ_k a_k identity_k + Σ_e b_e expression_e,     a ~ N(0, 1),  0 ≤ b ≤ 1,

a 3D morphable model (Blanz and Vetter 1999). `pmv.training.face` makes the shipped file and says where MediaPipe's 468
landmarks lie on it. Unlike `pmv.portrait.face_model`, which learned where landmarks of twelve portraits appear, it
knows the surface between the landmarks.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from pmv import data_path
from pmv.errors import InputError

LEVELS = 127
"""Modes are stored as whole numbers up to this, each mode with a scale of its own."""


@dataclass(frozen=True)
class Anchor:
    """The similarity from the face's own frame (centimetres, y up, looking along +z) to EG3D's world:
    world = scale · R_x(turn) · x + offset.

    Attributes:
        scale: world units a centimetre.
        turn: degrees about the x axis.
        offset: [3], world units; x is 0, heads are symmetric.
    """

    scale: float
    turn: float
    offset: np.ndarray

    @property
    def rotation(self) -> np.ndarray:
        """[3,3] of `turn`."""
        c, s = np.cos(np.radians(self.turn)), np.sin(np.radians(self.turn))
        return np.array([[1.0, 0, 0], [0, c, -s], [0, s, c]])

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Points [...,3] of the face's frame in the world."""
        return self.scale * points @ self.rotation.T + self.offset


@dataclass(frozen=True)
class StatisticalFace:
    """See the module's text. V vertices, F triangles, K modes of identity, E expressions; lengths are centimetres.

    Attributes:
        mean: [V,3] float64, y up, the face looks along +z.
        identity: [V,3,K] float32 displacements of one standard deviation each.
        expression: [V,3,E] float32 displacements of the full expression.
        expression_names: E names; the two sides of a face end in "_L" and "_R".
        triangles: [F,3] int64, counter-clockwise from outside.
        skin: [V] in [0,1]: 1 on the face's skin, falling to 0 where hair, ears, neck or eyeballs begin.
        landmark_vertices: [468,3] int64 and landmark_weights: [468,3] float64: where MediaPipe's landmarks lie.
        landmark_modes: [468,2,M] ways in which the landmark network errs at all landmarks at once, one standard
            deviation each, and landmark_sigma: [468,2] standard deviation of what they leave; x right, y down, in
            widths of the face (`face_width`).
        landmark_offset: [468,3] by how much the landmarks of photos, taken together, lie off those places.
        anchor: where the mean lies in EG3D's world.
    """

    mean: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    expression_names: tuple[str, ...]
    triangles: np.ndarray
    skin: np.ndarray
    landmark_vertices: np.ndarray
    landmark_weights: np.ndarray
    landmark_modes: np.ndarray
    landmark_sigma: np.ndarray
    landmark_offset: np.ndarray
    anchor: Anchor

    def shape(self, identity: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """Vertices [V,3] in centimetres of coefficients [K'] and [E]; modes beyond K' are left out."""
        return self.mean + self.identity[..., : len(identity)] @ identity + self.expression @ expression

    def at_landmarks(self, values: np.ndarray) -> np.ndarray:
        """What vertices have [V,...] at the landmarks [468,...]."""
        return np.einsum("lc,lc...->l...", self.landmark_weights, values[self.landmark_vertices])

    def normals(self, vertices: np.ndarray) -> np.ndarray:
        """Outward unit normals [V,3] of vertices [V,3], by area."""
        a, b, c = (vertices[self.triangles[:, k]] for k in range(3))
        flat = np.cross(b - a, c - a)
        total = np.stack(
            [np.bincount(self.triangles.ravel(), np.repeat(flat[:, k], 3), minlength=len(vertices)) for k in range(3)],
            1,
        )
        return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)

    def save(self, path: Path) -> None:
        """Write the compressed file that `load` reads; modes are rounded to `LEVELS` steps of their largest part."""

        def coded(modes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            scale = np.abs(modes).max((0, 1)) / LEVELS
            steps = np.round(modes / np.maximum(scale, 1e-12)).astype(np.int8)
            # neighbours run along the last axis, where the compressor finds their likeness
            return np.ascontiguousarray(steps.transpose(2, 1, 0)), scale

        identity, identity_scale = coded(self.identity)
        expression, expression_scale = coded(self.expression)
        np.savez_compressed(
            path,
            mean=self.mean.astype(np.float32),
            identity=identity,
            identity_scale=identity_scale.astype(np.float32),
            expression=expression,
            expression_scale=expression_scale.astype(np.float32),
            expression_names=np.array(self.expression_names),
            triangles=self.triangles.astype(np.uint16),
            skin=np.round(self.skin * 255).astype(np.uint8),
            landmark_vertices=self.landmark_vertices.astype(np.uint16),
            landmark_weights=self.landmark_weights.astype(np.float32),
            landmark_modes=self.landmark_modes.astype(np.float16),
            landmark_sigma=self.landmark_sigma.astype(np.float32),
            landmark_offset=self.landmark_offset.astype(np.float32),
            anchor=np.array([self.anchor.scale, self.anchor.turn, *self.anchor.offset]),
        )

    @classmethod
    def load(cls, path: Path | None = None) -> "StatisticalFace":
        """The shipped face, or another.

        Raises:
            InputError: the file is not a statistical face.
        """
        path = path or data_path("assets", "face", "face.npz")
        try:
            with np.load(path, allow_pickle=False) as file:
                values = {name: file[name] for name in file.files}

            def modes(name: str) -> np.ndarray:
                scale = values[f"{name}_scale"][:, None, None]
                return np.ascontiguousarray((values[name].astype(np.float32) * scale).transpose(2, 1, 0))

            scale, turn, *offset = values["anchor"]
            return cls(
                mean=values["mean"].astype(np.float64),
                identity=modes("identity"),
                expression=modes("expression"),
                expression_names=tuple(str(name) for name in values["expression_names"]),
                triangles=values["triangles"].astype(np.int64),
                skin=values["skin"] / 255.0,
                landmark_vertices=values["landmark_vertices"].astype(np.int64),
                landmark_weights=values["landmark_weights"].astype(np.float64),
                landmark_modes=values["landmark_modes"].astype(np.float64),
                landmark_sigma=values["landmark_sigma"].astype(np.float64),
                landmark_offset=values["landmark_offset"].astype(np.float64),
                anchor=Anchor(float(scale), float(turn), np.array(offset)),
            )
        except (OSError, KeyError, ValueError) as error:
            raise InputError(f"{path}: not a statistical face ({error}); reinstall pmv") from error


def face_width(uv: np.ndarray) -> float:
    """Mean of width and height of landmarks [468,2], in their own unit."""
    return float(np.ptp(uv, axis=0).mean())


@lru_cache(maxsize=1)
def shipped_face() -> StatisticalFace:
    """The statistical face that comes with pmv, read once."""
    return StatisticalFace.load()
