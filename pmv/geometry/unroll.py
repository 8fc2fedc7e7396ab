"""Coordinates on a surface that is seen as a depth map: unrolled around one of its points onto the tangent plane there.

What is drawn in such coordinates neither stretches on a cheek that turns away nor slides over a nose. Projecting along
the anchor's normal would stretch by 1/cos of every other slope; the discrete exponential map (Schmidt et al. 2006,
*Interactive decal compositing with discrete exponential maps*, doi:10.1145/1141911.1141930) does not, but adds up a
depth map's noise along its paths. Here the same local frames (every tangent plane turned onto the anchor's by the
smallest rotation) give the step that each pair of neighbours ought to make, and all steps are met at once in the
least-squares sense: the global step of as-rigid-as-possible parameterisation (Liu et al. 2008, *A local/global approach
to mesh parameterization*, doi:10.1111/j.1467-8659.2008.01290.x), one sparse linear system. It is exact on planes and
cylinders.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from torch import Tensor

from pmv.errors import InputError
from pmv.geometry.camera import Camera
from pmv.geometry.scene import edge_step, surface_points

_REACH = 1.15
"""The surface is unrolled up to this multiple of the rectangle's half diagonal."""
_FURTHEST_TURN = -0.5
"""Cosine between the anchor's normal and others beyond which the smallest rotation is no longer well defined."""


def unrolled(
    depth: Tensor, valid: Tensor, camera: Camera, *, at: tuple[float, float], width: float, aspect: float, side: int
) -> tuple[Tensor, Tensor]:
    """The surface around an anchor unrolled onto its tangent plane there, see the module's text.

    Args:
        depth: [1,1,D,D] z-depth; valid: bool [1,1,D,D]; camera: one.
        at: the anchor, (x, y) in fractions of the picture from its top left corner.
        width: of the rectangle that is to be drawn around the anchor, turned any way, in widths that the picture has at
            the anchor's depth.
        aspect: the rectangle's height / its width.
        side: pixels S of the result.

    Returns:
        coordinates [S,S,2] of the surface at every pixel, measured along the surface from the anchor, in widths that
        the picture has at the anchor's depth, x to the picture's right and y down as seen along the normal; and known,
        bool [S,S].

    Raises:
        InputError: there is no surface at the anchor.
    """
    points, normals, surface = surface_points(depth, valid, camera, side)
    xyz = points[0].double().cpu().numpy()
    normal = normals[0].permute(1, 2, 0).double().cpu().numpy()
    surface = surface[0, 0].cpu().numpy()
    column, row = (min(max(math.floor(c * side), 0), side - 1) for c in at)
    if not surface[row, column]:
        raise InputError(
            f"the overlay's middle {at[0]:g},{at[1]:g} does not lie on the head; move it, or leave out --follow-surface"
        )
    z = float(camera.project(points[:, row, column][None])[1])
    picture_width = z / float(camera.intrinsics[0, 0, 0])
    reach = _REACH * width * picture_width * math.hypot(1.0, aspect) / 2
    domain = surface & (np.linalg.norm(xyz - xyz[row, column], axis=-1) < reach)
    domain &= normal @ normal[row, column] > _FURTHEST_TURN
    pairs = _neighbours(domain, xyz @ camera.forward[0].double().cpu().numpy(), edge_step(camera, side) * z)
    down = camera.cam2world[0, :3, 1].double().cpu().numpy()
    flat, reached = _unroll(xyz.reshape(-1, 3), normal.reshape(-1, 3), pairs, row * side + column, down)
    inside = domain & reached.reshape(side, side)
    # the anchor's pixel has its centre beside the overlay's middle
    offset = np.array([column + 0.5, row + 0.5]) / side - at
    coordinates = flat.reshape(side, side, 2) / picture_width + offset
    return torch.from_numpy(coordinates).to(depth), torch.from_numpy(inside).to(depth.device)


def _neighbours(domain: NDArray, z: NDArray, step: float) -> NDArray:
    """Index pairs [E,2] of pixels of a domain [H,W] that touch by a side and whose depths differ by at most `step`."""
    index = np.arange(domain.size).reshape(domain.shape)
    pairs = []
    for first, second in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        joined = domain[first] & domain[second] & (np.abs(z[first] - z[second]) <= step)
        pairs.append(np.stack([index[first][joined], index[second][joined]], 1))
    return np.concatenate(pairs)


def _unroll(points: NDArray, normals: NDArray, pairs: NDArray, anchor: int, down: NDArray) -> tuple[NDArray, NDArray]:
    """Least-squares coordinates in the anchor's tangent plane.

    Args:
        points, normals: [P,3] float64, normals of unit length.
        pairs: [E,2] indices of neighbours.
        anchor: index of the point that gets (0, 0).
        down: [3], the direction whose projection on the tangent plane is the second axis.

    Returns:
        coordinates [P,2] in the points' unit, and bool [P]: those that are joined to the anchor (0 elsewhere).
    """
    count, pole = len(points), normals[anchor]
    edges = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, piece = connected_components(edges, directed=False)
    reached = piece == piece[anchor]
    pairs = pairs[reached[pairs[:, 0]]]
    # the step lies in the tangent plane half-way, which is then turned onto the anchor's by the smallest rotation
    step = points[pairs[:, 1]] - points[pairs[:, 0]]
    normal = normals[pairs[:, 0]] + normals[pairs[:, 1]]
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    step -= (step * normal).sum(1, keepdims=True) * normal
    cosine, axis = (normal @ pole)[:, None], np.cross(normal, pole)
    turned = step * cosine + np.cross(axis, step) + axis * (axis * step).sum(1, keepdims=True) / (1 + cosine)
    second = down - (down @ pole) * pole
    second /= np.linalg.norm(second)
    wanted = turned @ np.stack([np.cross(second, -pole), second], 1)
    # normal equations of Σ |u_b − u_a − wanted|², the anchor's column left out
    free = reached.copy()
    free[anchor] = False
    number = np.cumsum(free) - 1
    rows = np.repeat(np.arange(len(pairs)), 2)
    signs = np.tile([-1.0, 1.0], len(pairs))
    kept = free[pairs.ravel()]
    difference = coo_matrix(
        (signs[kept], (rows[kept], number[pairs.ravel()[kept]])), shape=(len(pairs), int(free.sum()))
    ).tocsc()
    coordinates = np.zeros((count, 2))
    if free.any():
        coordinates[free] = splu((difference.T @ difference).tocsc()).solve(difference.T @ wanted)
    return coordinates, reached
