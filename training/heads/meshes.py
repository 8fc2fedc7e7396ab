"""Small mesh operations on quads: welding, splitting at texture seams, normals, triangles, one Catmull–Clark step."""

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray


def weld(positions: NDArray) -> NDArray:
    """For each vertex [V,3] the number of its place: vertices at the same position share one."""
    _, place = np.unique(np.round(positions, 4), axis=0, return_inverse=True)
    return place.ravel()


def split_at_seams(quads: NDArray, corner_uvs: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Make vertices unique by (position, texture coordinate).

    Args:
        quads: int [F,4].
        corner_uvs: float [F,4,2].

    Returns:
        the source vertex of each new vertex [W], its texture coordinate [W,2], the quads in new vertices [F,4].
    """
    key = np.concatenate([quads.reshape(-1, 1), np.round(corner_uvs.reshape(-1, 2) * 1e5)], 1)
    _, first, inverse = np.unique(key, axis=0, return_index=True, return_inverse=True)
    return quads.ravel()[first], corner_uvs.reshape(-1, 2)[first], inverse.reshape(quads.shape)


def scatter_to_vertices(quads: NDArray, face_values: NDArray, count: int) -> NDArray:
    """Sum of face values [F,C] over the faces around each of `count` vertices: [count,C]."""
    corners = quads.ravel()
    sums = [np.bincount(corners, np.repeat(column, 4), count) for column in face_values.T]
    return np.stack(sums, 1)


def normalise(vectors: NDArray) -> NDArray:
    """Unit vectors [V,3]; a zero vector stays zero."""
    return vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-12)


def vertex_normals(positions: NDArray, quads: NDArray) -> NDArray:
    """Area-weighted unit normals [V,3] from the quads' diagonals."""
    corner = positions[quads]
    return normalise(
        scatter_to_vertices(quads, np.cross(corner[:, 2] - corner[:, 0], corner[:, 3] - corner[:, 1]), len(positions))
    )


def triangulate(quads: NDArray) -> NDArray:
    """Two triangles a quad, without the degenerate ones: int32 [T,3]."""
    both = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    proper = (both[:, 0] != both[:, 1]) & (both[:, 1] != both[:, 2]) & (both[:, 0] != both[:, 2])
    return both[proper].astype(np.int32)


def adjacency(quads: NDArray, count: int) -> sp.coo_matrix:
    """Directed edges of the quads as a sparse [count,count] matrix of ones."""
    return sp.coo_matrix((np.ones(quads.size), (quads.ravel(), np.roll(quads, -1, 1).ravel())), shape=(count, count))


def catmull_clark(quads: NDArray, corner_uvs: NDArray, count: int) -> tuple[sp.csr_matrix, NDArray, NDArray]:
    """One Catmull–Clark step (Catmull and Clark 1978) as a matrix, so that it costs one product a head.

    Args:
        quads: int [F,4] over `count` vertices, all of them proper quads.
        corner_uvs: float [F,4,2]; subdivided linearly.
        count: number of vertices.

    Returns:
        matrix [count + edges + F, count], the new quads [4F,4], their corner texture coordinates [4F,4,2].
    """
    faces = np.arange(len(quads))
    directed = np.stack([quads, np.roll(quads, -1, 1)], 2).reshape(-1, 2)
    edges, edge_of_corner, faces_at_edge = np.unique(
        np.sort(directed, 1), axis=0, return_inverse=True, return_counts=True
    )
    edge_of_corner = edge_of_corner.reshape(quads.shape)
    edge_count = len(edges)
    on_boundary = faces_at_edge != 2

    face_points = sp.csr_matrix(
        (np.full(quads.size, 0.25), (np.repeat(faces, 4), quads.ravel())), shape=(len(quads), count)
    )
    ends = sp.csr_matrix(
        (np.full(2 * edge_count, 0.5), (np.repeat(np.arange(edge_count), 2), edges.ravel())),
        shape=(edge_count, count),
    )
    beside = sp.csr_matrix(
        (np.full(quads.size, 0.5), (edge_of_corner.ravel(), np.repeat(faces, 4))), shape=(edge_count, len(quads))
    )
    edge_points = (
        sp.diags(np.where(on_boundary, 1.0, 0.5)) @ ends
        + sp.diags(np.where(on_boundary, 0.0, 0.5)) @ beside @ face_points
    )

    vertex_faces = sp.csr_matrix((np.ones(quads.size), (quads.ravel(), np.repeat(faces, 4))), shape=(count, len(quads)))
    vertex_edges = sp.csr_matrix(
        (np.ones(2 * edge_count), (edges.ravel(), np.repeat(np.arange(edge_count), 2))), shape=(count, edge_count)
    )
    valence = np.maximum(np.asarray(vertex_faces.sum(1)).ravel(), 1.0)
    edge_valence = np.maximum(np.asarray(vertex_edges.sum(1)).ravel(), 1.0)
    inner_rule = (
        sp.diags(1 / valence**2) @ vertex_faces @ face_points
        + sp.diags(2 / (valence * edge_valence)) @ vertex_edges @ ends
        + sp.diags((valence - 3) / valence)
    )
    boundary_edges = vertex_edges @ sp.diags(on_boundary.astype(float))
    boundary_valence = np.asarray(boundary_edges.sum(1)).ravel()
    boundary_rule = 0.5 * sp.identity(count) + 0.5 * sp.diags(1 / np.maximum(boundary_valence, 1)) @ (
        boundary_edges @ ends
    )
    at_boundary = boundary_valence > 0
    vertex_points = (
        sp.diags((~at_boundary).astype(float)) @ inner_rule + sp.diags(at_boundary.astype(float)) @ boundary_rule
    )

    edge_ids, face_ids = count + edge_of_corner, count + edge_count + faces
    middle, centre = (corner_uvs + np.roll(corner_uvs, -1, 1)) / 2, corner_uvs.mean(1)
    new_quads, new_uvs = [], []
    for corner in range(4):
        new_quads.append(np.stack([quads[:, corner], edge_ids[:, corner], face_ids, edge_ids[:, corner - 1]], 1))
        new_uvs.append(np.stack([corner_uvs[:, corner], middle[:, corner], centre, middle[:, corner - 1]], 1))
    matrix = sp.csr_matrix(sp.vstack([vertex_points, edge_points, face_points]))
    return matrix, np.concatenate(new_quads), np.concatenate(new_uvs)
