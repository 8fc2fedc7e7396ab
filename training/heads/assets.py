"""What building a head needs: MakeHuman's data, and the scans' if given, compiled; kept in one `.npz`."""

from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, cast, get_type_hints

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pmv.errors import AssetsError
from pmv.training.heads.formats import Binding
from pmv.training.heads.hairstyles import Hairstyle

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


@dataclass(frozen=True)
class HeadAssets:
    """Everything that building a head needs; vertices are numbered among the `base` vertices that anything refers to.

    Attributes:
        base: float32 [B,3] base mesh in decimetres.
        flipped: int [B] the vertex at the mirrored place of each vertex.
        skin_flipped: int [S] the same for fine skin vertices.
        eye_cubes: int [2,8] vertices around the left and right eyeball.
        mouth_seam: int [6] vertices between the lips.
        landmarks: int [6]: the chin's lower front, the upper lip's lower edge, the lower lip's upper edge, the nose
            between the eyes, and where the left and right ear joins the head at its top.
        targets, skin, eyes, teeth, tongue, scans: see their classes.
        lashes, hairstyles: by MakeHuman name.
        eye_texture: uint8 [256,256,3].
    """

    base: NDArray
    flipped: NDArray
    skin_flipped: NDArray
    eye_cubes: NDArray
    mouth_seam: NDArray
    landmarks: NDArray
    targets: Targets
    skin: Skin
    eyes: FittedPart
    teeth: FittedPart
    tongue: FittedPart
    lashes: dict[str, FittedPart]
    hairstyles: dict[str, Hairstyle]
    eye_texture: NDArray
    scans: ScanShapes

    @classmethod
    def read(cls, path: str | Path) -> "HeadAssets":
        """Read a file written by `save`; `pmv.training.heads.compile.load_assets` reads checkouts as well.

        Raises:
            AssetsError: it is no such file, or damaged.
        """
        return _read_compiled(Path(path))

    def save(self, path: str | Path) -> None:
        """Write one compressed `.npz` that `read` reads without MakeHuman's data."""
        target = Path(path)
        temporary = target.with_name(target.name + ".tmp")
        with temporary.open("wb") as file:
            np.savez_compressed(file, **cast(Any, _flatten(self)))
        temporary.replace(target)


def _flatten(value: Any, prefix: str = "") -> dict[str, NDArray]:
    if isinstance(value, np.ndarray):
        return {prefix: value}
    members = value.items() if isinstance(value, dict) else ((f.name, getattr(value, f.name)) for f in fields(value))
    flat: dict[str, NDArray] = {}
    for name, member in members:
        flat |= _flatten(member, f"{prefix}/{name}" if prefix else name)
    return flat


def _unflatten(kind: Any, tree: Any) -> Any:
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{f.name: _unflatten(hints[f.name], tree[f.name]) for f in fields(kind)})  # type: ignore[operator]
    if isinstance(tree, dict):
        return {name: _unflatten(kind.__args__[1], branch) for name, branch in tree.items()}
    return tree


def _read_compiled(path: Path) -> HeadAssets:
    tree: dict[str, Any] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in archive.files:
                branch, *rest = key.split("/")
                node = tree
                for name in rest:
                    node = node.setdefault(branch, {})
                    branch = name
                node[branch] = archive[key]
        return _unflatten(HeadAssets, tree)
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise AssetsError(f"{path}: not compiled head assets ({error}); write it anew with HeadAssets.save") from None
