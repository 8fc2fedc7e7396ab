"""Colours of surface points from pictures that cameras took of them.

One picture, the photo, is believed wherever it sees a surface well; the rest is filled from other pictures, each
weighted by how squarely it sees a point, so steeply that in most places one of them decides and nothing is averaged
soft. What none of them sees takes the colours of the nearest points that are seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.spatial import KDTree
from torch import Tensor

from pmv.geometry.atlas import Texels
from pmv.geometry.scene import SeenFrom, sample_depth
from pmv.geometry.visibility import depth_agreement, facing
from pmv.geometry.warping import sample_image

_POWER = 6.0
"""Of the cosine between normal and viewing ray: how steeply the squarest of the filling pictures is preferred."""
_SEEN = 1e-3
"""Weight below which a picture does not count as showing a point."""
_LITTLE = 0.1
"""Part of the largest weight below which a filling picture is left out."""
_NEAREST = 4


@dataclass(frozen=True)
class Painted:
    """A picture of a surface.

    Attributes:
        picture: [1,3,S,S] in [-1,1].
        seen: what its one camera sees of that surface; `trusted` in [0,1] scales its texels' weights.
        max_degrees: largest angle between normal and viewing ray, in (0,90].
    """

    picture: Tensor
    seen: SeenFrom
    max_degrees: float


def seen_weight(points: Tensor, normals: Tensor, view: Painted, tolerance: float) -> Tensor:
    """How far a picture shows points: the depth test, the angle and the trusted texels of `pmv.geometry.visibility`.

    Args:
        points, normals: [M,3].
        tolerance: of two depths of one surface, world units.

    Returns:
        [M] in [0,1].
    """
    seen = view.seen
    uv, z = seen.camera.project(points[None])
    depth, found = sample_depth(seen.depth, seen.valid, uv, seen.edge)
    weight = depth_agreement(z - depth, tolerance) * (found & (z > 0))
    weight = weight * facing(points[None, None], normals.T[None, :, None], seen.camera.position, view.max_degrees)[0, 0]
    if seen.trusted is not None:
        grid = (2 * uv - 1)[:, None]
        trusted = F.grid_sample(seen.trusted, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        weight = weight * trusted[0, 0]
    return weight[0]


@torch.no_grad()
def fill_weights(vertices: Tensor, normals: Tensor, fills: Sequence[Painted], tolerance: float) -> Tensor:
    """How much each of several pictures says of a mesh's vertices; the faces between them follow linearly.

    Args:
        vertices, normals: [V,3].
        fills: N pictures.
        tolerance: of two depths of one surface, world units.

    Returns:
        [V,N], the sum of each row 1, or 0 where none of them shows the vertex. Pictures that would add little are left
        out, so that few are left anywhere.
    """
    weights = vertices.new_zeros(len(vertices), len(fills))
    for i, view in enumerate(fills):
        ray = F.normalize(view.seen.camera.position - vertices, dim=-1)
        cosine = (ray * normals).sum(-1).clamp(min=0)
        weights[:, i] = seen_weight(vertices, normals, view, tolerance) * cosine**_POWER
    weights[weights < _SEEN] = 0
    weights[weights < _LITTLE * weights.amax(1, keepdim=True)] = 0
    return weights / weights.sum(1, keepdim=True).clamp(min=_SEEN)


@torch.no_grad()
def paint(texels: Texels, photo: Painted | None, fills: Sequence[Painted], weights: Tensor, tolerance: float) -> Tensor:
    """Colours of surface points.

    Args:
        texels: M of them.
        photo: believed first, where there is one.
        fills: N pictures for what it does not show.
        weights: [V,N], see `fill_weights`.
        tolerance: of two depths of one surface, world units.

    Returns:
        [M,3] in [-1,1]; mid grey where nothing shows any point.
    """
    colours = torch.zeros_like(texels.points)
    total = colours.new_zeros(len(colours))
    for i, view in enumerate(fills):
        weight = (weights[:, i][texels.corners] * texels.barycentric).sum(1)
        part = (weight > 0).nonzero()[:, 0]
        colours[part] += _colours(view, texels.points[part]) * weight[part, None]
        total += weight
    seen = total > _SEEN
    colours /= total.clamp(min=_SEEN)[:, None]
    if photo is not None:
        weight = seen_weight(texels.points, texels.normals, photo, tolerance)
        # where nothing else shows a point, a photo that sees it poorly is better than a neighbour's colour
        weight = torch.where(seen, weight, (weight > _SEEN).to(weight))
        part = (weight > 0).nonzero()[:, 0]
        colours[part] = torch.lerp(colours[part], _colours(photo, texels.points[part]), weight[part, None])
        seen |= weight > _SEEN
    if not seen.any():
        return torch.zeros_like(colours)
    if not seen.all():
        # a sample of what is seen is enough: its neighbours are alike, and a tree of millions of texels is slow
        known = seen.nonzero()[:: max(int(seen.sum()) // 100_000, 1), 0]
        tree = KDTree(texels.points[known].cpu().numpy())
        _, nearest = tree.query(texels.points[~seen].cpu().numpy(), k=min(_NEAREST, len(known)))
        index = torch.from_numpy(nearest.reshape(int((~seen).sum()), -1)).to(known.device)
        colours[~seen] = colours[known[index]].mean(1)
    return colours


def _colours(view: Painted, points: Tensor) -> Tensor:
    """Bicubic colours [M,3] of a picture where it shows points."""
    uv, _ = view.seen.camera.project(points[None])
    return sample_image(view.picture, uv[:, None])[0, :, 0].T.clamp(-1, 1)
