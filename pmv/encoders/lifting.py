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
    grid = (uv * 2 - 1).clamp(-4, 4)
    count, channels = len(features), features.shape[1]
    # one plane at a time: a row of the points of all three would hold every feature K times over
    rows = []
    per = samples * size * size
    for plane in range(planes):
        part = slice(plane * per, (plane + 1) * per)
        weight = near[:, part].reshape(count, 1, samples, size * size)
        found = F.grid_sample(features, grid[:, None, part], align_corners=False)
        found = found.reshape(count, channels, samples, size * size)
        total = weight.sum(2)
        mean = (found * weight).sum(2) / total.clamp_min(1e-4)
        rows.append(torch.cat([mean * total.clamp_max(1), total.clamp_max(1)], 1).reshape(count, -1, size, size))
    return torch.stack(rows, 1)
