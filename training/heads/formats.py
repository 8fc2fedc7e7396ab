"""Readers of MakeHuman's text formats: OBJ meshes, `.target` morphs and `.mhclo` bindings (all in MakeHuman
decimetres)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pmv.errors import AssetsError


@dataclass(frozen=True)
class ObjMesh:
    """An OBJ of quads; a triangle is stored as a quad that repeats its last corner.

    Attributes:
        vertices: float64 [V,3].
        uvs: float64 [T,2].
        quads: int [F,4] into `vertices`.
        uv_quads: int [F,4] into `uvs`.
        groups: the name of each face's group [F].
    """

    vertices: NDArray
    uvs: NDArray
    quads: NDArray
    uv_quads: NDArray
    groups: NDArray


@dataclass(frozen=True)
class Binding:
    """How a clothing-like mesh hangs on the body (`.mhclo`): vertex = Σ weights · body[indices] + offsets · scale.

    Attributes:
        indices: int [V,3] body vertices.
        weights: float [V,3].
        offsets: float [V,3].
        scale_pairs: int [3,2], per axis the two body vertices whose distance scales the offsets of that axis.
        scale_lengths: float [3], their distance on the base mesh; 0 where the file gives none (no scaling).
    """

    indices: NDArray
    weights: NDArray
    offsets: NDArray
    scale_pairs: NDArray
    scale_lengths: NDArray

    def fit(self, body: NDArray) -> NDArray:
        """Vertices [V,3] of the mesh on a morphed body [B,3]."""
        axes = np.arange(3)
        reach = np.abs(body[self.scale_pairs[:, 0], axes] - body[self.scale_pairs[:, 1], axes])
        known = self.scale_lengths > 0
        scale = np.where(known, reach / np.where(known, self.scale_lengths, 1.0), 1.0)
        return np.einsum("vkc,vk->vc", body[self.indices], self.weights) + self.offsets * scale


_MAKEHUMAN = (
    "point at the data folder of a MakeHuman checkout that also holds the makehuman-assets (git clone "
    "makehumancommunity/makehuman and makehumancommunity/makehuman-assets)"
)


def _lines(path: Path, advice: str = _MAKEHUMAN) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise AssetsError(f"{path}: {error.strerror}; {advice}") from None


def read_obj(path: Path) -> ObjMesh:
    """Read an OBJ. Raises AssetsError when the file is missing or holds no faces."""
    vertices, uvs, quads, uv_quads, groups = [], [], [], [], []
    group = ""
    for line in _lines(path):
        kind, _, rest = line.partition(" ")
        if kind == "v":
            vertices.append([float(number) for number in rest.split()[:3]])
        elif kind == "vt":
            uvs.append([float(number) for number in rest.split()[:2]])
        elif kind == "g":
            group = rest.strip()
        elif kind == "f":
            corners = [corner.split("/") for corner in rest.split()]
            vertex_ids = [int(corner[0]) - 1 for corner in corners]
            uv_ids = [int(corner[1]) - 1 if len(corner) > 1 and corner[1] else 0 for corner in corners]
            quads.append((vertex_ids + vertex_ids[-1:])[:4])
            uv_quads.append((uv_ids + uv_ids[-1:])[:4])
            groups.append(group)
    if not quads:
        raise AssetsError(f"{path}: no faces in this OBJ (a Git LFS pointer instead of the file?)")
    return ObjMesh(
        np.array(vertices), np.array(uvs or [[0.0, 0.0]]), np.array(quads), np.array(uv_quads), np.array(groups)
    )


def read_obj_vertices(path: Path, advice: str = _MAKEHUMAN) -> NDArray:
    """The vertices float64 [V,3] of an OBJ alone, an order faster than `read_obj`.

    Args:
        path: the OBJ.
        advice: what the error says where the file cannot be read.
    """
    rows = [line[2:] for line in _lines(path, advice) if line.startswith("v ")]
    return np.array(" ".join(rows).split(), dtype=np.float64).reshape(len(rows), -1)[:, :3]


def read_target(path: Path) -> tuple[NDArray, NDArray]:
    """Read a morph: (vertex indices int [K], displacements float64 [K,3])."""
    rows = [line.split()[:4] for line in _lines(path) if line.strip() and not line.startswith("#")]
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return table[:, 0].astype(np.int64), table[:, 1:]


def read_binding(path: Path) -> Binding:
    """Read the fitting part of an `.mhclo`. A row of one index is an exact copy of that body vertex."""
    indices, weights, offsets = [], [], []
    scale_pairs, scale_lengths = np.zeros((3, 2), np.int64), np.zeros(3)
    in_vertices = False
    for line in _lines(path):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] in ("x_scale", "y_scale", "z_scale"):
            axis = "xyz".index(words[0][0])
            scale_pairs[axis], scale_lengths[axis] = (int(words[1]), int(words[2])), float(words[3])
        elif words[0] == "verts":
            in_vertices = True
        elif in_vertices and words[0] in ("delete_verts", "weights"):
            break
        elif in_vertices and words[0].isdigit():
            numbers = [float(word) for word in words]
            if len(numbers) == 1:
                numbers = [numbers[0]] * 3 + [1.0, 0.0, 0.0]
            indices.append([int(number) for number in numbers[:3]])
            weights.append(numbers[3:6])
            offsets.append((numbers[6:9] + [0.0] * 3)[:3])
    if not indices:
        raise AssetsError(f"{path}: no vertices in this .mhclo")
    return Binding(np.array(indices), np.array(weights), np.array(offsets), scale_pairs, scale_lengths)
