"""What of a volume one picture sees: by texel of the tri-planes, as the paper has it, and by point.

The paper (arXiv:2409.20530, eq. 3) throws the depth map's points into the planes and marks where they land, which
leaves holes and says nothing of rays that hit no head. Here it is the other way round, as in
`pmv/geometry/visibility.py`: points are projected into the depth map.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.encoders.lifting import nearness
from pmv.generators.base import Field
from pmv.generators.mixing import MixedField
from pmv.geometry.camera import Camera


def visible_points(points: Tensor, camera: Camera, depth: Tensor, solid: Tensor, seam: float) -> Tensor:
    """How far a picture tells what is at points: 1 in front of the surface that it shows, on it, and along rays that
    pass the head (they are seen to be empty); 0 behind it and outside the picture.

    Args:
        points: [N,P,3] or [1,P,3], world. camera: N. depth, solid: [N,1,D,D], as in `nearness`. seam: world units
            behind the surface over which it falls to 0, after as much in which it is 1.

    Returns: [N,P] in [0,1].
    """
    points = points.expand(len(camera), -1, -1)
    uv, z = camera.project(points)
    grid = (uv * 2 - 1).clamp(-4, 4)[:, None]
    seen = F.grid_sample(torch.cat([depth * solid, solid], 1), grid, align_corners=False)[:, :, 0]
    surface = seen[:, 0] / seen[:, 1].clamp_min(1e-4)
    before = (2 - (z - surface) / seam).clamp(0, 1)
    known = torch.lerp(torch.ones_like(before), before, seen[:, 1].clamp(0, 1))
    inside = ((uv >= 0) & (uv <= 1)).all(-1) & (z > 0)
    return known * inside


def visible_texels(
    points: Tensor, camera: Camera, depth: Tensor, solid: Tensor, reach: float, layers: int = 1
) -> Tensor:
    """Which texels of the planes hold something of the surface that a picture shows.

    Args:
        points: [3,K,S,S,3] of `lifting.texel_points`; K as many that neighbours lie no further than `reach` apart. The
            rest as in `nearness`. layers: of a tri-grid, along each plane's normal.

    Returns: [N,3,layers,S,S] in [0,1]. A texel of the plane that faces the camera is shared by face and back of the
        head, and counts as visible: a plane's texel cannot tell them apart, `visible_points` can.
    """
    near, _ = nearness(points.reshape(1, -1, 3), camera, depth, solid, reach)
    planes, samples, *sides = points.shape[:-1]
    # a layer's own points; between two layers a tri-grid mixes both, which the seam makes up for
    bounds = [samples * layer // layers for layer in range(layers + 1)]
    near = near.reshape(len(camera), planes, samples, *sides)
    most = torch.stack([near[:, :, a:b].amax(2) for a, b in itertools.pairwise(bounds)], 2)
    return (2 * most).clamp_max(1)


class StitchedField(MixedField):
    """Two volumes in one: the first where a picture sees, the second elsewhere, point by point."""

    def __init__(self, seen: Field, unseen: Field, camera: Camera, depth: Tensor, solid: Tensor, seam: float) -> None:
        """Args: see `visible_points`; one camera."""

        def weight(points: Tensor) -> Tensor:
            return visible_points(points, camera, depth, solid, seam)

        super().__init__(seen, unseen, weight)
