"""Laying a picture (a logo, a tattoo) on a portrait: flat on the image, or on the surface that the image shows.

Colours are blended as image editors do it: on sRGB values, by the formulas of *Compositing and Blending Level 1* (W3C).

**On the surface.** The overlay must neither stretch on a cheek that turns away nor slide over a nose, so it is drawn in
coordinates of the surface itself. Projecting it along the anchor's normal would stretch it by 1/cos of every other
slope; the discrete exponential map (Schmidt et al. 2006, *Interactive decal compositing with discrete exponential
maps*, doi:10.1145/1141911.1141930) does not, but adds up a depth map's noise along its paths. Here the same local
frames (every tangent plane turned onto the anchor's by the smallest rotation) give the step that each pair of
neighbours ought to make, and all steps are met at once in the least-squares sense: the global step of as-rigid-as-
possible parameterisation (Liu et al. 2008, *A local/global approach to mesh parameterization*,
doi:10.1111/j.1467-8659.2008.01290.x), one sparse linear system. It is exact on planes and cylinders.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from torch import Tensor

from pmv.errors import InputError
from pmv.geometry.camera import Camera
from pmv.geometry.scene import edge_step, pixel_grid, surface_points
from pmv.pictures.images import resize

Blend = Literal["normal", "multiply", "screen", "overlay"]
BLENDS: tuple[str, ...] = get_args(Blend)

_SUPERSAMPLE = 4
_REACH = 1.15
"""The surface is unrolled up to this multiple of the overlay's half diagonal."""
_FURTHEST_TURN = -0.5
"""Cosine between the anchor's normal and others beyond which the smallest rotation is no longer well defined."""


@dataclass(frozen=True)
class Placement:
    """Where and how an overlay is laid on the aligned picture.

    Attributes:
        at: its middle, (x, y) in fractions of the picture's width and height from the top left corner.
        size: its width as a fraction of the picture's width, > 0; its height follows from its shape. On the surface it
            is as wide as this where the surface faces the camera at the anchor's depth.
        rotate: degrees, clockwise, as image editors count.
        blend: how its colours meet the picture's.
        opacity: in (0, 1].
        follow_surface: drawn on the surface that the picture shows, instead of flat on the picture.
    """

    at: tuple[float, float]
    size: float
    rotate: float = 0.0
    blend: Blend = "normal"
    opacity: float = 1.0
    follow_surface: bool = False

    def __post_init__(self) -> None:
        x, y = self.at
        if not (0.0 <= x <= 1.0 and 0.0 <= y <= 1.0):
            raise InputError(
                f"the overlay's middle {x:g},{y:g} lies outside the picture; give fractions of its width and height "
                "from the top left, such as 0.64,0.6"
            )
        if not (0.0 < self.size and math.isfinite(self.size)):
            raise InputError(
                f"the overlay's size is {self.size:g}; give its width as a fraction of the picture's, such as 0.2"
            )
        if not 0.0 < self.opacity <= 1.0:
            raise InputError(f"the overlay's opacity is {self.opacity:g}; give a number above 0 and up to 1")
        if not math.isfinite(self.rotate):
            raise InputError(f"the overlay's rotation is {self.rotate:g}; give degrees, clockwise")
        if self.blend not in BLENDS:
            raise InputError(f"no blend is called {self.blend!r}; there are {', '.join(BLENDS)}")


def blend_colours(backdrop: Tensor, source: Tensor, mode: Blend) -> Tensor:
    """B(Cb, Cs) of *Compositing and Blending Level 1* §10: colours in [0,1], sRGB-encoded, element-wise.

    Args:
        backdrop, source: of one shape.
        mode: "overlay" multiplies where the backdrop is dark and screens where it is light.
    """
    if mode == "multiply":
        return backdrop * source
    if mode == "screen":
        return backdrop + source - backdrop * source
    if mode == "overlay":
        dark, light = 2 * backdrop * source, 1 - 2 * (1 - backdrop) * (1 - source)
        return torch.where(backdrop <= 0.5, dark, light)
    return source


def draw_overlay(
    image: Tensor,
    picture: Tensor,
    alpha: Tensor | None,
    placement: Placement,
    depth: Tensor,
    valid: Tensor,
    camera: Camera,
) -> tuple[Tensor, Tensor]:
    """An image with a picture laid on it.

    Args:
        image: [1,3,S,S] in [-1,1].
        picture: [1,3,h,w] in [-1,1], not premultiplied; alpha: [1,1,h,w] in [0,1], None = opaque.
        placement: where and how.
        depth: [1,1,D,D] z-depth of the surface that the image shows; valid: bool [1,1,D,D]; camera: one, of the image.
            Only used with `placement.follow_surface`.

    Returns:
        the image [1,3,S,S], and the overlay's coverage times opacity [1,1,S,S] in [0,1].

    Raises:
        InputError: the overlay's middle does not lie on the surface that it is to follow.
    """
    size = image.shape[-1]
    if placement.follow_surface:
        aspect = picture.shape[-2] / picture.shape[-1]
        position, known = surface_coordinates(depth, valid, camera, placement, aspect, size)
        position = position.to(image)
    else:
        position = pixel_grid(size, size, image)[0] - image.new_tensor(placement.at)
        known = torch.ones(size, size, dtype=torch.bool, device=image.device)
    colour, cover = _sample(picture, alpha, position / placement.size, known, placement)
    backdrop = (image + 1) / 2
    # the source's colours where it covers nothing are arbitrary
    mixed = torch.lerp(backdrop, blend_colours(backdrop, colour, placement.blend), cover)
    return torch.where(cover > 0, mixed * 2 - 1, image).clamp(-1, 1), cover


def _sample(
    picture: Tensor, alpha: Tensor | None, position: Tensor, known: Tensor, placement: Placement
) -> tuple[Tensor, Tensor]:
    """An overlay's colours [1,3,S,S] in [0,1] and coverage times opacity [1,1,S,S] at every pixel, antialiased.

    Args:
        picture, alpha: as of `draw_overlay`.
        position: [S,S,2], offsets from the overlay's middle in widths of the overlay, x right and y down.
        known: bool [S,S], where a position means anything.
    """
    size = position.shape[0]
    turn = math.radians(placement.rotate)
    right = position.new_tensor([math.cos(turn), math.sin(turn)])
    down = position.new_tensor([-math.sin(turn), math.cos(turn)])
    aspect = picture.shape[-2] / picture.shape[-1]
    uv = torch.stack([position @ right, position @ down / aspect], -1) + 0.5
    colour, cover = position.new_zeros(1, 3, size, size), position.new_zeros(1, 1, size, size)
    border = 2.0 / (placement.size * size)  # two pixels, in widths of the overlay
    near = known & ((uv - 0.5).abs() < 0.5 + uv.new_tensor([border, border / aspect])).all(-1)
    if not near.any():
        return colour, cover
    rows, columns = near.any(1).nonzero()[:, 0], near.any(0).nonzero()[:, 0]
    part = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    fine = F.interpolate(
        uv[part].permute(2, 0, 1)[None], scale_factor=_SUPERSAMPLE, mode="bilinear", align_corners=False
    )
    visible = F.interpolate(near[part].to(uv)[None, None], scale_factor=_SUPERSAMPLE, mode="nearest")
    if alpha is None:
        alpha = torch.ones_like(picture[:, :1])
    layers = torch.cat([(picture + 1) / 2 * alpha, alpha], 1)  # premultiplied: clear pixels lend no colour
    # more texels than samples would alias
    width = max(1, math.ceil(placement.size * size * _SUPERSAMPLE))
    if width < layers.shape[-1]:
        layers = resize(layers, (max(1, round(width * aspect)), width))
    grid = 2 * fine.permute(0, 2, 3, 1) - 1
    sampled = F.grid_sample(layers, grid, mode="bilinear", padding_mode="border", align_corners=False)
    inside = ((fine >= 0) & (fine <= 1)).all(1, keepdim=True)
    sampled = F.avg_pool2d(sampled * inside * visible, _SUPERSAMPLE).clamp(0, 1)
    colour[(..., *part)] = (sampled[:, :3] / sampled[:, 3:].clamp_min(1e-6)).clamp(0, 1)
    cover[(..., *part)] = sampled[:, 3:] * placement.opacity
    return colour, cover


def surface_coordinates(
    depth: Tensor, valid: Tensor, camera: Camera, placement: Placement, aspect: float, side: int
) -> tuple[Tensor, Tensor]:
    """Unrolls the surface around an overlay's middle onto its tangent plane there, see the module's text.

    Args:
        depth: [1,1,D,D] z-depth; valid: bool [1,1,D,D]; camera: one.
        placement: `at` is the anchor, `size` says how far the surface is unrolled.
        aspect: height of the overlay / its width.
        side: pixels of the result.

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
    column, row = (min(max(math.floor(c * side), 0), side - 1) for c in placement.at)
    if not surface[row, column]:
        raise InputError(
            f"the overlay's middle {placement.at[0]:g},{placement.at[1]:g} does not lie on the head; move it, or leave "
            "out --follow-surface"
        )
    z = float(camera.project(points[:, row, column][None])[1])
    picture_width = z / float(camera.intrinsics[0, 0, 0])
    reach = _REACH * placement.size * picture_width * math.hypot(1.0, aspect) / 2
    domain = surface & (np.linalg.norm(xyz - xyz[row, column], axis=-1) < reach)
    domain &= normal @ normal[row, column] > _FURTHEST_TURN
    pairs = _neighbours(domain, xyz @ camera.forward[0].double().cpu().numpy(), edge_step(camera, side) * z)
    down = camera.cam2world[0, :3, 1].double().cpu().numpy()
    flat, reached = _unroll(xyz.reshape(-1, 3), normal.reshape(-1, 3), pairs, row * side + column, down)
    inside = domain & reached.reshape(side, side)
    # the anchor's pixel has its centre beside the overlay's middle
    offset = np.array([column + 0.5, row + 0.5]) / side - placement.at
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
