"""MakeHuman's head fitted to the scans' mean head, and what the scans' modes move on it.

A non-rigid fit in the manner of Amberg, Romdhani and Vetter, "Optimal step nonrigid ICP algorithms for surface
registration" (CVPR 2007): a displacement of every vertex, stiff at first and softer step by step, is pulled by
landmarks and by the closest points of the other surface whose normals agree. The stiffness here is the Laplacian of
the displacement, so that each step is one sparse linear system. The same system then carries every mode: where a vertex
has a point of its own on the scans' surface it takes that point's displacement, elsewhere (inside of the mouth, behind
the lids, the ears' folds, the lower neck) the smoothest continuation.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import splu
from scipy.spatial import KDTree

from pmv.training.heads.meshes import adjacency, triangulate, vertex_normals
from pmv.training.heads.scans import EYEBALLS, LOWER_TEETH, MULTI_PIE, UPPER_TEETH, ScanModel

# MakeHuman's body vertices at Multi-PIE's numbered landmarks, left half and middle line.
_LANDMARK_VERTICES = {
    8: 5225, 27: 133, 30: 297, 33: 343, 42: 11486, 43: 11483, 44: 11466, 45: 6805, 46: 11478, 47: 11480, 54: 7185,
    62: 474, 66: 493,
}  # fmt: skip
# And where lips are painted: points (x,y) of the front of the base mesh, decimetres.
_LANDMARK_PLACES = {
    51: (0.0, 6.672), 52: (0.085, 6.694), 53: (0.165, 6.646), 55: (0.175, 6.518), 56: (0.10, 6.489), 57: (0.0, 6.477),
}  # fmt: skip
_STIFFNESS = (30.0, 10.0, 4.0, 1.5, 0.6, 0.3, 0.3)
_SCANS_END = (5.35, 5.95)
"""Heights on the base mesh, decimetres, between which the scans' neck fades out."""


@dataclass(frozen=True)
class CarriedModes:
    """What the scans say about MakeHuman's vertices.

    Attributes:
        mean: float32 [B,3] from the reference head to the scans' mean, decimetres.
        modes: float16 [M,B,3] displacement of one standard deviation of each mode, decimetres.
        matched: bool [C] which vertices of the skin have a point of their own on the scans.
        rotation: float32 [3,3] that turns the scans' axes into the head's (a nod: the two hold the head differently).
        distance: float32 [C] how far the fitted skin ends from the scans' surface, decimetres (matched ones).
    """

    mean: NDArray
    modes: NDArray
    matched: NDArray
    rotation: NDArray
    distance: NDArray


@dataclass(frozen=True)
class HeadMesh:
    """What the registration needs of MakeHuman's head.

    Attributes:
        reference: float64 [B,3] the average adult.
        base: float64 [B,3] the base mesh: landmarks and regions are told on it.
        quads: int [F,4] the unsubdivided skin.
        groups: name of a helper group → its vertices (left-eye, right-eye, upper-teeth, lower-teeth).
        number: body vertex of MakeHuman's OBJ → vertex here.
        eye_cubes: [2,8] vertices around the middle of the left and right eyeball.
        mouth_seam: vertices between the lips.
    """

    reference: NDArray
    base: NDArray
    quads: NDArray
    groups: dict[str, NDArray]
    number: NDArray
    eye_cubes: NDArray
    mouth_seam: NDArray


def _similarity(source: NDArray, target: NDArray) -> tuple[float, NDArray, NDArray]:
    """Scale, rotation [3,3] and translation [3] with target ≈ scale · source · rotationᵀ + translation (Umeyama
    1991)."""
    a, b = source - source.mean(0), target - target.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ flip @ vt
    scale = float((s * np.diag(flip)).sum() / (a**2).sum())
    return scale, rotation, target.mean(0) - scale * source.mean(0) @ rotation.T


def front_point(vertices: NDArray, triangles: NDArray, x: float, y: float) -> tuple[NDArray, NDArray]:
    """Corners [3] and weights [3] of the point at (x,y) of a surface [V,3], [T,3] with the largest z."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    e, f = (b - a)[:, :2], (c - a)[:, :2]
    determinant = e[:, 0] * f[:, 1] - e[:, 1] * f[:, 0]
    determinant = np.where(np.abs(determinant) < 1e-12, 1e-12, determinant)
    d = np.array([x, y]) - a[:, :2]
    v = (d[:, 0] * f[:, 1] - d[:, 1] * f[:, 0]) / determinant
    w = (e[:, 0] * d[:, 1] - e[:, 1] * d[:, 0]) / determinant
    inside = (v >= -1e-6) & (w >= -1e-6) & (v + w <= 1 + 1e-6)
    depth = np.where(inside, a[:, 2] + v * (b - a)[:, 2] + w * (c - a)[:, 2], -np.inf)
    best = int(depth.argmax())
    return triangles[best], np.array([1 - v[best] - w[best], v[best], w[best]])


def _landmarks(head: HeadMesh, scans: ScanModel, mirror: NDArray) -> tuple[sp.csr_matrix, NDArray]:
    """Rows that pick the landmarks of the head, [L,B], and the scans' landmarks [L,3], both halves."""
    rows: list[tuple[NDArray, NDArray]] = []
    triangles = triangulate(head.quads)
    targets = []
    for number, vertex in MULTI_PIE.items():
        if number in _LANDMARK_VERTICES:
            corners, weights = head.number[[_LANDMARK_VERTICES[number]]], np.ones(1)
        elif number in _LANDMARK_PLACES:
            corners, weights = front_point(head.base, triangles, *_LANDMARK_PLACES[number])
        else:
            continue
        rows.append((corners, weights))
        targets.append(scans.neutral[vertex])
        if abs(scans.neutral[vertex, 0]) > 1e-3:
            rows.append((mirror[corners], weights))
            targets.append(scans.neutral[vertex] * [-1, 1, 1])
    for side, ear in enumerate(_ear_points(scans.neutral)):
        for corners, target in zip(_ear_points_of_head(head, side), ear):
            rows.append((np.array([corners]), np.ones(1)))
            targets.append(target)
    matrix = sp.lil_matrix((len(rows), len(head.base)))
    for row, (corners, weights) in enumerate(rows):
        matrix[row, corners] = weights
    return sp.csr_matrix(matrix), np.array(targets)


def _ear_points(scan: NDArray) -> list[NDArray]:
    """Top, back and lobe of the left and right ear [3,3] of the scans."""
    points = []
    for sign in (1, -1):
        ear = scan[:11248]
        ear = ear[(sign * ear[:, 0] > 7.9) & (ear[:, 1] > -3) & (ear[:, 1] < 5) & (ear[:, 2] > -3) & (ear[:, 2] < 4)]
        points.append(np.stack([ear[ear[:, 1].argmax()], ear[ear[:, 2].argmin()], ear[ear[:, 1].argmin()]]))
    return points


def sphere(points: NDArray) -> tuple[NDArray, float]:
    """Centre [3] and radius of the sphere that lies nearest to points [P,3] (linear least squares)."""
    known = np.column_stack([2 * points, np.ones(len(points))])
    solution = np.linalg.lstsq(known, (points**2).sum(1), rcond=None)[0]
    centre = solution[:3]
    return centre, float(np.sqrt(solution[3] + centre @ centre))


def _in_ear(base: NDArray) -> NDArray:
    """Which vertices [B] of the base mesh belong to the ears' shells."""
    x, y, z = np.abs(base[:, 0]), base[:, 1], base[:, 2]
    return (x > 0.70) & (x < 0.95) & (y > 6.82) & (y < 7.40) & (z > 0.25) & (z < 0.72)


def _ear_points_of_head(head: HeadMesh, side: int) -> list[int]:
    sign = 1 if side == 0 else -1
    skin = np.unique(head.quads)
    ear = skin[_in_ear(head.base)[skin] & (sign * head.base[skin, 0] > 0.74)]
    place = head.base[ear]
    return [int(ear[k]) for k in (place[:, 1].argmax(), place[:, 2].argmin(), place[:, 1].argmin())]


def _affine(place: NDArray, value: NDArray, where: NDArray) -> NDArray:
    """Values [...,W,3] at `where` [W,3] of the affine map that best gives `value` [...,P,3] at `place` [P,3]."""
    centre = place.mean(0)
    known = np.column_stack([place - centre, np.ones(len(place))])
    asked = np.column_stack([where - centre, np.ones(len(where))])
    return asked @ (np.linalg.pinv(known) @ value)


def register(head: HeadMesh, scans: ScanModel, mirror: NDArray) -> CarriedModes:
    """Fit the head to the scans' mean and carry the modes over.

    Args:
        head: MakeHuman's head.
        scans: the model.
        mirror: int [B] the vertex at the mirrored place of each vertex.
    """
    picked, targets = _landmarks(head, scans, mirror)
    skin = np.unique(head.quads)
    local = np.full(len(head.base), -1)
    local[skin] = np.arange(len(skin))
    quads = local[head.quads]
    rest = head.base[skin]

    start = head.reference[skin]
    scale, rotation, shift = _similarity(targets, picked @ head.reference)
    corners, weights, outside = scans.dense()

    def to_head(points: NDArray) -> NDArray:
        return scale * points @ rotation.T + shift

    neutral = to_head(scans.neutral)
    surface = np.einsum("pkc,pk->pc", neutral[corners], weights)
    surface_normals = vertex_normals(neutral, scans.quads)
    normals = np.einsum("pkc,pk->pc", surface_normals[corners], weights)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    tree = KDTree(surface)

    laplacian = _laplacian(quads, len(skin))
    stiff = laplacian.T @ laplacian
    graph = sp.csr_matrix(abs(laplacian) > 0)
    shoulders = sp.diags(1e3 * (rest[:, 1] < _SCANS_END[0] - 0.6).astype(float))
    landmark_rows = sp.csr_matrix(picked[:, skin])
    landmark_goal = to_head(targets) - landmark_rows @ start
    may_match = ~_in_ear(rest)
    fading = np.clip((rest[:, 1] - _SCANS_END[0]) / (_SCANS_END[1] - _SCANS_END[0]), 0, 1)
    displacement = np.zeros_like(start)
    found = np.zeros(len(skin), int)
    weight = np.zeros(len(skin))
    for stiffness in _STIFFNESS:
        now = start + displacement
        distance, found = tree.query(now)
        agree = (vertex_normals(now, quads) * normals[found]).sum(1)
        reach = 0.35 if stiffness > 1 else 0.15
        weight = fading * may_match * outside[found] * (distance < reach) * np.clip((agree - 0.5) / 0.4, 0, 1)
        # a lone match among vertices without one is a chance hit through a lip or a lid
        weight *= (graph @ (weight > 0.2).astype(float)) > 4
        toward = surface[found] - now
        n = normals[found]
        along = (toward * n).sum(1)[:, None] * n
        goal = displacement + along + 0.1 * (toward - along)
        system = stiffness * stiff + sp.diags(weight) + 30.0 * landmark_rows.T @ landmark_rows + shoulders
        solver = splu(sp.csc_matrix(system))
        right = weight[:, None] * goal + 30.0 * landmark_rows.T @ landmark_goal
        displacement = np.stack([solver.solve(np.ascontiguousarray(column)) for column in right.T], 1)

    fitted = start + displacement
    distance, found = tree.query(fitted)
    matched = (weight > 0.3) & (distance < 0.05)
    in_ear = _in_ear(rest)
    modes = scale * scans.modes @ rotation.T
    carried = np.einsum("mpkc,pk->mpc", modes[:, corners[found]], weights[found])
    for sign in (1, -1):  # folds of two differently modelled ears have no common points: the shell moves as a whole
        ear = in_ear & (sign * rest[:, 0] > 0)
        scan_ear = (sign * scans.neutral[:, 0] > 7.6) & (np.abs(scans.neutral[:, 1] - 1) < 4)
        scan_ear &= np.abs(scans.neutral[:, 2] - 0.5) < 3.5
        scan_ear[11248:] = False
        carried[:, ear] = _affine(neutral[scan_ear], modes[:, scan_ear], fitted[ear])
    known = np.where(in_ear, 0.5, weight * matched)
    solver = splu(sp.csc_matrix(0.006 * stiff + sp.diags(known) + shoulders))
    right = (known[:, None] * carried).transpose(1, 0, 2).reshape(len(skin), -1)
    smooth = solver.solve(np.ascontiguousarray(right)).reshape(len(skin), len(modes), 3).transpose(1, 0, 2)

    mean_all, modes_all = _beyond_skin(head, skin, displacement, smooth, neutral, modes)
    return CarriedModes(
        mean_all.astype(np.float32),
        modes_all.astype(np.float16),
        matched,
        rotation.astype(np.float32),
        distance.astype(np.float32),
    )


def _laplacian(quads: NDArray, count: int) -> sp.csr_matrix:
    """Uniform graph Laplacian [V,V] of the quads' edges: the vertex less the mean of its neighbours."""
    one_way = adjacency(quads, count)
    graph = sp.csr_matrix(((one_way + one_way.T) > 0).astype(float))
    return sp.csr_matrix(sp.identity(count) - sp.diags(1 / np.asarray(graph.sum(1)).ravel()) @ graph)


def _beyond_skin(
    head: HeadMesh, skin: NDArray, displacement: NDArray, smooth: NDArray, neutral: NDArray, modes: NDArray
) -> tuple[NDArray, NDArray]:
    """Mean [B,3] and modes [M,B,3] of all vertices: helpers follow the skin beside them; eyes and teeth theirs."""
    count = len(head.base)
    # near ones count most, yet a dozen share, so that hair does not copy every bump of the skin
    distance, near = KDTree(head.base[skin]).query(head.base, k=12)
    share = 1 / (distance**2 + 1e-4)
    share /= share.sum(1, keepdims=True)
    spread = sp.csr_matrix((share.ravel(), (np.repeat(np.arange(count), 12), near.ravel())), shape=(count, len(skin)))
    mean = spread @ displacement
    moved = np.stack([spread @ mode for mode in smooth])
    mean[skin], moved[:, skin] = displacement, smooth
    for name, cube, part in zip(("left-eye", "right-eye"), head.eye_cubes, EYEBALLS):
        group = head.groups[name]
        there, here = neutral[part], head.reference[group]
        centre, radius = sphere(there)
        size = 2 * radius / np.ptp(here[:, 0])
        goal = centre + size * (here - head.reference[cube].mean(0))
        mean[group] = goal - here
        moved[:, group] = _scaled(there, modes[:, part], goal)
    for name, part in (("upper-teeth", UPPER_TEETH), ("lower-teeth", LOWER_TEETH)):
        group = head.groups[name]
        mean[group] = displacement[np.searchsorted(skin, head.mouth_seam)].mean(0)
        moved[:, group] = _scaled(neutral[part], modes[:, part], head.reference[group] + mean[group])
    return mean, moved


def _scaled(place: NDArray, value: NDArray, where: NDArray) -> NDArray:
    """Like `_affine`, of a translation and one scale alone: [M,W,3]."""
    centre = place.mean(0)
    arm = place - centre
    shift = value.mean(1)
    growth = np.einsum("mpc,pc->m", value - shift[:, None], arm) / (arm**2).sum()
    return shift[:, None] + growth[:, None, None] * (where - centre)
