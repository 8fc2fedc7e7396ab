"""Hair meshes prepared for drawing strands without textures.

MakeHuman's hair textures are not part of the CC0 data that can be relied on, so a strand coordinate and the distance
to the
mesh's open boundary take their place: the shader makes strands from the one and frays the hairline and the tips by
the other.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import KDTree

from pmv.training.heads.formats import Binding, ObjMesh
from pmv.training.heads.meshes import adjacency, normalise, scatter_to_vertices, split_at_seams, triangulate, weld

SKULL_CENTRE = np.array([0.0, 7.35, 0.35])
"""Middle of the skull on the base mesh."""
_CROWN_BACK = (0.0, 0.85, -0.45)
CROWN = np.array(_CROWN_BACK) / np.linalg.norm(_CROWN_BACK)
"""Axis that short hair runs away from."""
_TAIL = (0.0, 0.25, -1.0)
# Strands of these styles run away from a pole on the skull; of the others along the texture's v or the card's long
# axis.
_POLES: dict[str, tuple[float, float, float]] = {
    "short01": _CROWN_BACK, "short02": _CROWN_BACK, "short03": (-0.35, 1.0, 0.35), "short04": _CROWN_BACK,
    "ponytail01": _TAIL, "braid01": _TAIL, "afro01": _CROWN_BACK,
}  # fmt: skip


@dataclass(frozen=True)
class Hairstyle:
    """One hairstyle on the base mesh.

    Attributes:
        binding: how its vertices hang on the body.
        quads: int [F,4] over the binding's vertices, for normals.
        place: int [V] welded place of each vertex, so that normals are smooth across seams.
        source: int [W] the binding's vertex behind each drawn vertex.
        triangles: int32 [T,3] over drawn vertices.
        rest: float32 [W,3] position on the base mesh.
        strand: float32 [W,4]: across, along the strand (decimetres), distance to the open boundary, 1 where polar.
        tangent: float32 [W,3] direction of the strands on the base mesh.
        skin_gap: float32 [W] distance to the skin of the base mesh.
        pole: float32 [3] unit axis of the polar strands.
        skin_distance: float32 [S] distance of each skin vertex to the hair, at most 0.4: the scalp is painted by it.
    """

    binding: Binding
    quads: NDArray
    place: NDArray
    source: NDArray
    triangles: NDArray
    rest: NDArray
    strand: NDArray
    tangent: NDArray
    skin_gap: NDArray
    pole: NDArray
    skin_distance: NDArray


def _boundary_distance(positions: NDArray, place: NDArray, quads: NDArray) -> NDArray:
    """Geodesic distance [V] along edges to the open boundary of the welded mesh, at most 2."""
    count = int(place.max()) + 1
    welded = place[quads]
    edges = np.sort(np.stack([welded, np.roll(welded, -1, 1)], 2).reshape(-1, 2), 1)
    edges, faces_at_edge = np.unique(edges[edges[:, 0] != edges[:, 1]], axis=0, return_counts=True)
    where = np.zeros((count, 3))
    where[place] = positions
    lengths = np.linalg.norm(where[edges[:, 0]] - where[edges[:, 1]], axis=1) + 1e-6
    graph = sp.coo_matrix((lengths, (edges[:, 0], edges[:, 1])), shape=(count, count)).tocsr()
    boundary = np.unique(edges[faces_at_edge == 1])
    if not len(boundary):
        return np.ones(len(place))
    return np.minimum(dijkstra(graph, directed=False, indices=boundary, min_only=True), 2.0)[place]


def _strand_coordinates(name: str, rest: NDArray, uv: NDArray, quads: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Coordinates across [W] and along [W] the strands, and whether the strands are polar [W], per island of the
    texture."""
    count = len(rest)
    islands, island_of = connected_components(adjacency(quads, count), directed=False)
    across, along, polar = np.zeros(count), np.zeros(count), np.zeros(count)
    for island in range(islands):
        chosen = island_of == island
        centred = uv[chosen] - uv[chosen].mean(0)
        spread, axes = np.linalg.eigh(centred.T @ centred / len(centred))
        thin = spread[1] > 6 * spread[0] + 1e-12
        plait = name == "braid01" and uv[chosen][:, 0].mean() > 0.4
        if name in _POLES and not (thin and chosen.sum() < 400) and not plait:
            polar[chosen] = 1
            continue
        if thin:
            direction = axes[:, 1] if axes[1, 1] >= 0 else -axes[:, 1]
        else:
            direction = np.array([1.0, 0.0]) if name == "braid01" else np.array([0.0, 1.0])
        sideways = np.array([direction[1], -direction[0]])
        faces = quads[chosen[quads].all(1)]
        long, wide = _stretch(rest[faces], uv[faces] @ direction, uv[faces] @ sideways)
        along[chosen] = centred @ direction * long
        # 7.3 sets the islands apart, so that neighbouring cards do not share their strands
        across[chosen] = centred @ sideways * wide + island * 7.3
    return across, along, polar


def _stretch(corners: NDArray, along: NDArray, across: NDArray) -> tuple[float, float]:
    """Decimetres per unit of two texture coordinates [F,4] over faces [F,4,3]: median |∂position/∂along| and
    |∂position/∂across|. Textures of hair are often squeezed across the strands."""
    one, two = corners[:, 1] - corners[:, 0], corners[:, 3] - corners[:, 0]
    a, b = (along[:, k] - along[:, 0] for k in (1, 3))
    c, d = (across[:, k] - across[:, 0] for k in (1, 3))
    determinant = a * d - b * c
    proper = np.abs(determinant) > 1e-10
    if not proper.any():
        return 1.0, 1.0
    by_along = (one * d[:, None] - two * c[:, None])[proper] / determinant[proper, None]
    by_across = (two * a[:, None] - one * b[:, None])[proper] / determinant[proper, None]
    return float(np.median(np.linalg.norm(by_along, axis=1))), float(np.median(np.linalg.norm(by_across, axis=1)))


def _tangents(rest: NDArray, quads: NDArray, across: NDArray, along: NDArray, polar: NDArray, pole: NDArray) -> NDArray:
    """Unit strand directions [W,3]: ∂position/∂along, or away from the pole."""
    corner = rest[quads]
    edge_one, edge_two = corner[:, 1] - corner[:, 0], corner[:, 3] - corner[:, 0]
    along_one, along_two = (along[quads[:, k]] - along[quads[:, 0]] for k in (1, 3))
    across_one, across_two = (across[quads[:, k]] - across[quads[:, 0]] for k in (1, 3))
    determinant = along_one * across_two - along_two * across_one
    determinant = np.where(np.abs(determinant) < 1e-9, 1e-9, determinant)
    per_face = (edge_one * across_two[:, None] - edge_two * across_one[:, None]) / determinant[:, None]
    tangent = scatter_to_vertices(quads, per_face, len(rest))
    tangent[polar > 0] = (rest - SKULL_CENTRE - pole)[polar > 0]
    return normalise(tangent)


def scalp_distance(rest: NDArray) -> NDArray:
    """How far [V] places on the base mesh's skin lie inside the part of the scalp that grows hair, decimetres (negative
    outside); the shaders' scalp_hair without its noise."""
    x, y, z = rest.T
    line = y + 1.2 * np.maximum(0.0, 1.05 - z) - 7.95
    sideburn = np.minimum(0.14 - np.abs(z - 0.70), np.minimum(y - 7.02, 8.0 - y))
    grown = np.minimum(np.maximum(line, sideburn), y - 6.76 + 0.2 * np.maximum(0.0, z))
    from_ear = 0.3 * (np.hypot((y - 7.09) / 0.29, (z - 0.49) / 0.19) - 1.0)
    return np.where(np.abs(x) > 0.62, np.minimum(grown, from_ear), grown)


def prepare_hairstyle(name: str, mesh: ObjMesh, binding: Binding, base: NDArray, skin: NDArray) -> Hairstyle:
    """Work out everything of a hairstyle that does not depend on the head.

    Args:
        name: MakeHuman's name.
        mesh: its OBJ; only topology and texture coordinates are used, as it was authored on another morph.
        binding: its `.mhclo`.
        base: [B,3] base mesh, all vertices.
        skin: [S,3] subdivided skin of the base mesh.
    """
    quads, uv_quads = mesh.quads, mesh.uv_quads
    if name == "afro01":  # the big cap cards make no sense without their texture
        kept = mesh.uvs[uv_quads].mean(1)[:, 1] > 0.48
        quads, uv_quads = quads[kept], uv_quads[kept]
    positions = binding.fit(base)
    place = weld(positions)
    boundary = _boundary_distance(positions, place, quads)
    source, uv, drawn_quads = split_at_seams(quads, mesh.uvs[uv_quads])
    rest = positions[source]
    pole = normalise(np.array(_POLES.get(name, (0.0, 1.0, 0.0))))
    across, along, polar = _strand_coordinates(name, rest, uv, drawn_quads)
    skin_distance, _ = KDTree(positions[np.unique(quads)]).query(skin, distance_upper_bound=0.4)
    return Hairstyle(
        binding=binding,
        quads=quads,
        place=place,
        source=source,
        triangles=triangulate(drawn_quads),
        rest=rest.astype(np.float32),
        strand=np.stack([across, along, boundary[source], polar], 1).astype(np.float32),
        tangent=_tangents(rest, drawn_quads, across, along, polar, pole).astype(np.float32),
        skin_gap=KDTree(skin).query(rest)[0].astype(np.float32),
        pole=pole.astype(np.float32),
        skin_distance=np.minimum(skin_distance, 0.4).astype(np.float32),
    )
