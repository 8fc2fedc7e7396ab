"""The kinds of things that compiled heads consist of: morph targets, the skin, meshes that hang on the body, scans."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pmv.training.heads.formats import Binding

LASHES = ("eyelashes01", "eyelashes02", "eyelashes03", "eyelashes04")


@dataclass(frozen=True)
class Targets:
    """Sparse morph targets, quantised to 16 bits (steps of a 32767th of the target's largest displacement).

    Attributes:
        names: [T] str. starts: int [T+1] row offsets. vertices: uint16 [K]. deltas: int16 [K,3]. scales: float32 [T].
    """

    names: NDArray
    starts: NDArray
    vertices: NDArray
    deltas: NDArray
    scales: NDArray

    def morph(self, base: NDArray, weights: dict[str, float]) -> NDArray:
        """The body [B,3] with the named targets added by their weights."""
        index = {str(name): row for row, name in enumerate(self.names)}
        body = base.astype(np.float64).copy()
        for name, weight in weights.items():
            row = index[name]
            chosen = slice(self.starts[row], self.starts[row + 1])
            body[self.vertices[chosen]] += self.deltas[chosen] * (float(self.scales[row]) * weight)
        return body


@dataclass(frozen=True)
class Skin:
    """Head, neck and shoulders, subdivided once.

    Attributes:
        vertices: int [C] body vertices of the coarse mesh.
        weights, columns, row_starts: the Catmull–Clark matrix [S,C] in CSR form.
        quads: int [F,4] over the S fine vertices.
        rest: float32 [S,3] on the base mesh.
        mouth_cavity: float32 [S] 1 inside the mouth.
        source: int [W] the fine vertex behind each drawn one (split at texture seams).
        atlas: float32 [W,2] place in the baked texture.
        triangles, bake_triangles, coarse_triangles: int32 [·,3] over drawn vertices: all, those with a place of their
            own in
            the atlas, and the unsubdivided mesh for shadow and occlusion maps.
    """

    vertices: NDArray
    weights: NDArray
    columns: NDArray
    row_starts: NDArray
    quads: NDArray
    rest: NDArray
    mouth_cavity: NDArray
    source: NDArray
    atlas: NDArray
    triangles: NDArray
    bake_triangles: NDArray
    coarse_triangles: NDArray

    def subdivide(self, body: NDArray) -> NDArray:
        """Fine vertices [S,3] of a morphed body."""
        matrix = sp.csr_matrix(
            (self.weights, self.columns, self.row_starts), shape=(len(self.row_starts) - 1, len(self.vertices))
        )
        return matrix @ body[self.vertices]


@dataclass(frozen=True)
class FittedPart:
    """A mesh that hangs on the body: eyes, lashes, teeth, tongue.

    Attributes:
        binding: how its vertices hang on the body.
        quads: int [F,4]. source: int [W] vertex behind each drawn one. triangles: int32 [T,3] over drawn vertices.
        rest: float32 [W,3] what the shader wants: texture coordinate (eyes), else zeros.
        extra: float32 [W,4] more of it: lashes (way to the tip, |x|, upper lid, 0); teeth (1 = gum or tongue).
    """

    binding: Binding
    quads: NDArray
    source: NDArray
    triangles: NDArray
    rest: NDArray
    extra: NDArray


@dataclass(frozen=True)
class ScanShapes:
    """Faces learned from scans, on the vertices of the base mesh; empty arrays where no scans were given.

    Attributes:
        mean: float32 [B,3] (or [0,3]) from `shape.average_weights`' head to the scans' mean, decimetres.
        modes: float16 [M,B,3] (or [0,0,3]) displacement of one standard deviation of each mode, decimetres.
        rotation: float32 [3,3] from the scans' own axes.
    """

    mean: NDArray
    modes: NDArray
    rotation: NDArray

    @classmethod
    def none(cls) -> "ScanShapes":
        """No scans."""
        return cls(np.zeros((0, 3), np.float32), np.zeros((0, 0, 3), np.float16), np.eye(3, dtype=np.float32))

    def __bool__(self) -> bool:
        return len(self.modes) > 0

    def displacement(self, coefficients: NDArray) -> NDArray:
        """Mean and modes by their coefficients [M]: float32 [B,3], decimetres."""
        return self.mean + np.tensordot(coefficients.astype(np.float32), self.modes.astype(np.float32), 1)
