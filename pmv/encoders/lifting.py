"""Features of a picture carried to where they lie on a generator's tri-planes.

A convolution from a picture to tri-planes (TriPlaneNet, arXiv:2303.13497) has no way to know where on the planes a
pixel lies: only for a frontal camera does the first of them look like the picture. With a surface and a camera it is
geometry: points are spread along each texel's normal, projected into the picture, and those that lie on the surface
give the texel their features (as the local features of E3DGE, arXiv:2212.07409, which are looked up for every point of
a ray).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.generators.base import PLANE_AXES
from pmv.geometry.camera import Camera


def texel_points(convention: str, box: float, size: int, samples: int) -> Tensor:
    """World points over the texels of three planes.

    Args:
        convention: a key of `PLANE_AXES`. box: side of the cube that the planes span. size: texels a side. samples:
            points along each texel's normal.

    Returns: [3,samples,size,size,3]; of a plane, rows and columns run along its own two axes as the generator reads
    them.
    """
    across = ((torch.arange(size) + 0.5) / size - 0.5) * box
    along = ((torch.arange(samples) + 0.5) / samples - 0.5) * box
    planes = []
    for u, v in PLANE_AXES[convention]:
        axes: list[Tensor] = [torch.empty(0)] * 3
        axes[3 - u - v], axes[v], axes[u] = torch.meshgrid(along, across, across, indexing="ij")
        planes.append(torch.stack(axes, -1))
    return torch.stack(planes)


def nearness(points: Tensor, camera: Camera, depth: Tensor, solid: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """How near points are to the surface that a camera sees.

    Args:
        points: [N,P,3] or [1,P,3], world. camera: N. depth: [N,1,D,D] z-depth. solid: [N,1,D,D] in [0,1], where there
            is a surface. reach: distance along the view at which nearness has fallen to 0, world units.

    Returns: nearness [N,P] in [0,1], and uv [N,P,2] of the points in the picture.
    """
    points = points.expand(len(camera), -1, -1)
    uv, z = camera.project(points)
    grid = (uv * 2 - 1).clamp(-4, 4)[:, None]
    # premultiplied: what lies beside the head has no depth that could be mixed into its outline's
    seen = F.grid_sample(torch.cat([depth * solid, solid], 1), grid, align_corners=False)[:, :, 0]
    surface = seen[:, 0] / seen[:, 1].clamp_min(1e-4)
    near = (1 - (z - surface).abs() / reach).clamp_min(0)
    return near * seen[:, 1].clamp(0, 1) * (z > 0), uv


def lift(
    features: Tensor, camera: Camera, depth: Tensor, solid: Tensor, points: Tensor, reach: float, mirrored: bool = False
) -> Tensor:
    """Features of a picture on the planes' texels, along the surface that the picture shows.

    Args:
        features: [N,C,h,w]. camera, depth, solid, reach: see `nearness`. points: [3,K,S,S,3] of `texel_points`.
        mirrored: of the surface's mirror image in x = 0 instead: heads are nearly symmetric, so the half that is hidden
            is told by the one that is seen.

    Returns: [N,3,C+1,S,S]; the last channel says how far anything was found, and all are 0 where nothing was.
    """
    planes, samples, size = points.shape[:3]
    flat = points.reshape(1, -1, 3)
    if mirrored:
        flat = flat * flat.new_tensor([-1.0, 1.0, 1.0])
    near, uv = nearness(flat, camera, depth, solid, reach)
    count, channels = len(features), features.shape[1]
    # a tenth of the points lie near the surface, and only these look anything up
    picture, point = near.nonzero(as_tuple=True)
    weight = near[picture, point]
    found = weight[:, None] * _looked_up(features, picture, uv[picture, point])
    plane, within = point // (samples * size * size), point % (size * size)
    texel = (picture * planes + plane) * size * size + within
    total = weight.new_zeros(count * planes * size * size).index_add(0, texel, weight)
    sums = found.new_zeros(len(total), channels).index_add(0, texel, found)
    share = total.clamp_max(1)[:, None]
    rows = torch.cat([sums / total.clamp_min(1e-4)[:, None] * share, share], 1)
    return rows.reshape(count, planes, size, size, channels + 1).permute(0, 1, 4, 2, 3).contiguous()


def _looked_up(features: Tensor, picture: Tensor, uv: Tensor) -> Tensor:
    """[M,C]: features [N,C,h,w] of the M-th point's picture [M] at uv [M,2], bilinear, 0 outside; whole pixels at a
    time, so that their gradients are added up a row and not a number at a time."""
    channels, height, width = features.shape[1:]
    pixels = features.permute(0, 2, 3, 1).reshape(-1, channels)
    place = uv * uv.new_tensor([width, height]) - 0.5
    corner = place.floor()
    x, y = (place - corner).unbind(1)
    column, row = corner.long().unbind(1)
    result = features.new_zeros(len(picture), channels)
    for i, across in ((0, 1 - x), (1, x)):
        for j, down in ((0, 1 - y), (1, y)):
            inside = (column + i >= 0) & (column + i < width) & (row + j >= 0) & (row + j < height)
            at = (row + j).clamp(0, height - 1) * width + (column + i).clamp(0, width - 1)
            result = result + (across * down * inside)[:, None] * pixels.index_select(0, picture * height * width + at)
    return result
