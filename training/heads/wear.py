"""What people wear on the head: glasses made of tubes, and caps and headbands cut from the scalp's own surface."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pmv.training.heads.meshes import triangulate, vertex_normals
from pmv.training.heads.parameters import HeadParameters

_AROUND, _ALONG = 6, 40
_NO_HAT = (100.0, 101.0)


@dataclass(frozen=True)
class WornMesh:
    """A mesh in decimetres of the body's space.

    Attributes:
        positions, normals: float [V,3]. rest: [V,3] the same on the base mesh, or the positions again.
        extra: float [V,4], what the material wants: glasses (1 = dark lens); caps (0).
        triangles: int32 [T,3].
    """

    positions: NDArray
    normals: NDArray
    rest: NDArray
    extra: NDArray
    triangles: NDArray


def hat_heights(parameters: HeadParameters) -> tuple[float, float]:
    """Between which heights on the base mesh (as `hat_height` measures them, decimetres) a cap or headband covers the
    head; above every head where there is none."""
    low = 7.62 + 0.22 * parameters["wear/hat-height"]
    if parameters["wear/hat"] > 0.5:
        return low, 100.0
    if parameters["wear/headband"] > 0.5:
        return low, low + 0.16 + 0.16 * parameters["wear/hat-height"]
    return _NO_HAT


def hat_height(rest: NDArray) -> NDArray:
    """Height [V] of places on the base mesh along the tilted axis that caps are pulled down, decimetres; the shaders'
    hat_height."""
    return rest[..., 1] - 0.28 * (rest[..., 2] - 1.0)


def pressed(parameters: HeadParameters, positions: NDArray, normals: NDArray, rest: NDArray, gap: NDArray) -> NDArray:
    """Hair [V,3] flattened towards the skin at the edge of a cap, decimetres.

    Args:
        parameters: the head.
        positions, normals: the hair.
        rest: its place on the base mesh.
        gap: [V] distance to the skin there.
    """
    low, high = hat_heights(parameters)
    height = hat_height(rest)
    near = np.clip(1 - np.maximum(low - height, height - high) / 0.5, 0, 1) * (gap < 0.5)
    return positions - normals * (0.85 * gap * near * near * (3 - 2 * near))[:, None]


def cap(parameters: HeadParameters, positions: NDArray, normals: NDArray, rest: NDArray, quads: NDArray) -> WornMesh:
    """A cap or a headband over the skin [S,3] and whatever hair lies flat beneath it.

    Args:
        parameters: the head, wearing one.
        positions, normals: the fine skin.
        rest: the same on the base mesh.
        quads: int [F,4] of the fine skin.
    """
    low, high = hat_heights(parameters)
    height = hat_height(rest)
    inside = ((height > low) & (height < high))[quads].any(1)  # the shader cuts the edge smoothly
    inside &= (np.abs(rest[quads, 0]).max(1) < 0.79) & (rest[quads, 1].min(1) > 6.9)  # the ears stay outside
    used, corners = np.unique(quads[inside], return_inverse=True)
    faces = corners.reshape(-1, 4)
    edge = np.clip(np.minimum(height[used] - low, high - height[used]) / 0.05, 0, 1)
    crown = np.clip((height[used] - low) / 0.8, 0, 1) if high > 50 else 0.0
    thickness = 0.035 + 0.035 * np.sqrt(edge) + 0.10 * crown
    moved = positions[used] + normals[used] * np.asarray(thickness)[:, None]
    return WornMesh(moved, vertex_normals(moved, faces), rest[used], np.zeros((len(used), 4)), triangulate(faces))


def _tube(path: NDArray, radius: float, closed: bool) -> tuple[NDArray, NDArray, NDArray]:
    """Positions, normals and triangles of a tube around a path [P,3] that is closed in a plane of constant z, or open
    and never straight up."""
    tangent = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.cross(tangent, [0.0, 0.0, 1.0] if closed else [0.0, 1.0, 0.0])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(side, tangent)
    turn = 2 * np.pi * np.arange(_AROUND) / _AROUND
    normals = np.cos(turn)[None, :, None] * side[:, None] + np.sin(turn)[None, :, None] * up[:, None]
    positions = path[:, None] + radius * normals
    rings = len(path) if closed else len(path) - 1
    ring, step = np.mgrid[0:rings, 0:_AROUND].reshape(2, -1)
    after, beside = (ring + 1) % len(path), (step + 1) % _AROUND
    quads = np.stack(
        [ring * _AROUND + step, after * _AROUND + step, after * _AROUND + beside, ring * _AROUND + beside], 1
    )
    return positions.reshape(-1, 3), normals.reshape(-1, 3), triangulate(quads)


def glasses(parameters: HeadParameters, eyes: NDArray, ears: NDArray, bridge: NDArray) -> WornMesh:
    """Glasses of two rims, a bridge and temples that end behind the ears.

    Args:
        parameters: the head.
        eyes: [2,3] centres of the left (+x) and right eyeball.
        ears: [2,3] where the left and right ear joins the head at its top.
        bridge: [3] the nose between the eyes.
    """
    width = (0.20 + 0.06 * parameters["wear/glasses-width"]) * np.linalg.norm(eyes[0] - eyes[1]) / 0.6
    height = 0.11 + 0.10 * parameters["wear/glasses-height"]
    power = 2.0 / (2.0 + 4.0 * parameters["wear/glasses-squareness"])
    thick = 0.010 + 0.020 * parameters["wear/glasses-thickness"]
    front = max(float(eyes[:, 2].max()) + 0.24, float(bridge[2]) + 0.02)
    middle = float(eyes[:, 0].mean())
    angle = 2 * np.pi * np.arange(_ALONG) / _ALONG
    shape = np.stack([np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power,
                      np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power], 1)  # fmt: skip
    pieces: list[tuple[NDArray, NDArray, NDArray, float]] = []
    dark = parameters["wear/glasses-dark"] > 0.5
    inner = []
    for side, eye, ear in ((1.0, eyes[0], ears[0]), (-1.0, eyes[1], ears[1])):
        centre = np.array([eye[0] + side * 0.01, eye[1] - 0.03, front])

        def rim(scale: float, centre: NDArray = centre) -> NDArray:
            place = centre + np.column_stack([shape * [width, height], np.zeros(_ALONG)]) * [scale, scale, 1]
            wrap = np.abs(place[:, 0] - middle)
            return place - [[0, 0, 1]] * (0.22 * np.maximum(wrap - 0.05, 0) ** 2)[:, None]

        outline = rim(1.0)
        pieces.append((*_tube(outline, thick, True), 0.0))
        if dark:
            disc = np.concatenate([outline, outline.mean(0)[None]])
            fan = np.stack([np.full(_ALONG, _ALONG), np.arange(_ALONG), np.roll(np.arange(_ALONG), -1)], 1)
            pieces.append((disc, np.tile([0.0, 0.0, 1.0], (len(disc), 1)), fan.astype(np.int32), 1.0))
        hinge = outline[np.argmax(side * outline[:, 0])] + [0, 0.35 * height, 0]
        hinge[2] -= 0.01
        over = ear + np.array([side * 0.02, 0.02, 0.0])
        straight = np.linspace(hinge, over, 14)
        bend = over + np.linspace(0, 1, 6)[1:, None] * np.array([-side * 0.02, -0.16, -0.14])
        pieces.append((*_tube(np.concatenate([straight, bend]), 0.8 * thick, False), 0.0))
        inner.append(outline[np.argmin(side * outline[:, 0])] + [0, 0.25 * height, 0])
    way = np.linspace(0, 1, 9)[:, None]
    arch = inner[0] * (1 - way) + inner[1] * way + [[0, 0.03, 0.03]] * np.sin(np.pi * way)
    pieces.append((*_tube(arch, thick, False), 0.0))
    starts = np.cumsum([0, *(len(piece[0]) for piece in pieces)])
    lens = np.concatenate([np.full(len(piece[0]), piece[3]) for piece in pieces])
    positions = np.concatenate([piece[0] for piece in pieces])
    return WornMesh(
        positions,
        np.concatenate([piece[1] for piece in pieces]),
        positions,
        np.repeat(lens[:, None], 4, 1),
        np.concatenate([piece[2] + start for piece, start in zip(pieces, starts)]).astype(np.int32),
    )
