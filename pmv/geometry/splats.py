"""3D Gaussians: flat ones on a surface, and a plain renderer of them.

A Gaussian is an ellipsoid with a colour; a picture is made by projecting each to an ellipse and laying them over one
another from far to near: elliptical weighted averaging (Zwicker et al. 2001, "EWA volume splatting") with the opacities
of Kerbl et al. 2023, "3D Gaussian splatting for real-time radiance field rendering". The renderer is there to say what
viewers will show, not to be fast; all of it is plain tensors and differentiable.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.spatial import KDTree
from torch import Tensor

from pmv.geometry.camera import Camera

_BLUR = 0.3
"""Pixels², added to the variances of every ellipse: no splat falls between pixel centres (Kerbl et al.)."""
_LEAST, _MOST = 1 / 255, 0.99
"""Opacity of a pixel below which a splat is left out there, and the largest that one has (Kerbl et al.)."""
_NEAR = 1e-2
"""World units before the camera within which nothing is drawn."""
_BAND = 64
"""Rows drawn at once, which bounds memory."""
_NEIGHBOURS = 4


@dataclass(frozen=True)
class Splats:
    """N Gaussians.

    Attributes:
        means: [N,3] in the world.
        scales: [N,3] > 0, standard deviations along their own axes, world units.
        rotations: [N,4] unit quaternions (w, x, y, z) from their own axes to the world's.
        opacities: [N] in (0,1), at the mean.
        colours: [N,3] in [-1,1], the same from all sides.
    """

    means: Tensor
    scales: Tensor
    rotations: Tensor
    opacities: Tensor
    colours: Tensor

    @property
    def axes(self) -> Tensor:
        """[N,3,3], their own axes as columns, in the world."""
        w, x, y, z = self.rotations.unbind(-1)
        rows = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
        return torch.stack([torch.stack(row, -1) for row in rows], -2)


def flat_splats(
    points: Tensor, normals: Tensor, colours: Tensor, opacity: float, width: float, thickness: float
) -> Splats:
    """A disc for each point of a surface, its third axis the normal.

    Args:
        points: [N,3], spread evenly; normals: [N,3], unit; colours: [N,3] in [-1,1].
        opacity: in (0,1), of all.
        width: standard deviation along the surface in distances to the nearest four points.
        thickness: standard deviation along the normal, in the same.
    """
    places = points.cpu().numpy()
    distances, _ = KDTree(places).query(places, k=min(_NEIGHBOURS + 1, len(places)))
    near = torch.from_numpy(distances).to(points).reshape(len(places), -1)[:, 1:].mean(1)
    near = torch.where(near > 0, near, near.median())  # points on one another, or a single one
    scales = torch.stack([near * width, near * width, near * thickness], 1).clamp(min=1e-6)
    return Splats(points, scales, _turned_to(normals), torch.full_like(near, opacity), colours)


def _turned_to(normals: Tensor) -> Tensor:
    """Quaternions [N,4] of the shortest turns that take +z to unit normals [N,3]."""
    x, y, z = normals.unbind(-1)
    turn = torch.stack([1 + z, -y, x, torch.zeros_like(x)], -1)
    # straight back every half turn is as short as any other
    back = turn.new_tensor([0.0, 1.0, 0.0, 0.0])
    return F.normalize(torch.where((z < -1 + 1e-6)[:, None], back, turn), dim=-1)


def render_splats(splats: Splats, camera: Camera, size: int) -> tuple[Tensor, Tensor]:
    """A picture of splats: premultiplied colours [1,3,size,size] in [-1,1] and alpha [1,1,size,size] in [0,1], so that
    ``colours + (1 - alpha) · ground`` is the picture before a ground.

    The covariance of an ellipse is J W Σ Wᵀ Jᵀ with the projection's Jacobian J at the mean (Zwicker et al., eq. 29 to
    31; Kerbl et al., eq. 5); colours are Σ cᵢ αᵢ Π (1 − αⱼ) over all j before i, by the z-depth of the means (Kerbl et
    al., eq. 3).

    Args:
        camera: one.
        size: pixels a side.
    """
    ellipses = _ellipses(splats, camera, size)
    bands = [_composited(ellipses, top, min(top + _BAND, size), size) for top in range(0, size, _BAND)]
    flat = torch.cat(bands).T.reshape(1, 4, size, size)
    return flat[:, :3], flat[:, 3:]


@dataclass(frozen=True)
class _Ellipses:
    """Splats on a picture, from near to far.

    Attributes:
        centre: [N,2] pixels; inverse: [N,3], of the covariance: xx, xy, yy.
        half: [N,2] pixels, half the sides of the box beyond which they are fainter than `_LEAST`.
        opacities: [N]; colours: [N,3].
    """

    centre: Tensor
    inverse: Tensor
    half: Tensor
    opacities: Tensor
    colours: Tensor


def _ellipses(splats: Splats, camera: Camera, size: int) -> _Ellipses:
    turn = camera.cam2world[0, :3, :3]
    local = (splats.means - camera.position) @ turn
    order = local[:, 2].detach().argsort()
    order = order[(local[order, 2] > _NEAR) & (splats.opacities[order] > _LEAST)]
    x, y, z = local[order].unbind(1)
    k = camera.intrinsics[0] * size
    u, v = k[0, 0] * x + k[0, 1] * y, k[1, 1] * y
    zero = torch.zeros_like(z)
    rows = [[k[0, 0] / z, k[0, 1] / z, -u / z**2], [zero, k[1, 1] / z, -v / z**2]]
    jacobian = torch.stack([torch.stack(row, -1) for row in rows], -2)
    root = jacobian @ (turn.T @ (splats.axes[order] * splats.scales[order, None]))
    covariance = root @ root.mT
    xx, xy, yy = covariance[:, 0, 0] + _BLUR, covariance[:, 0, 1], covariance[:, 1, 1] + _BLUR
    inverse = torch.stack([yy, -xy, xx], 1) / (xx * yy - xy**2)[:, None]
    opacities = splats.opacities[order]
    reach = (2 * (opacities.detach() / _LEAST).log()).sqrt()
    half = torch.stack([xx.detach().sqrt(), yy.detach().sqrt()], 1) * reach[:, None]
    centre = torch.stack([u / z + k[0, 2], v / z + k[1, 2]], 1)
    return _Ellipses(centre, inverse, half, opacities, splats.colours[order])


def _composited(ellipses: _Ellipses, top: int, bottom: int, width: int) -> Tensor:
    """Colours and alpha [rows · width, 4] of the rows `top` to `bottom`."""
    low, high = ellipses.centre.detach() - ellipses.half - 0.5, ellipses.centre.detach() + ellipses.half - 0.5
    left, right = low[:, 0].ceil().clamp(min=0).long(), high[:, 0].floor().clamp(max=width - 1).long()
    above, below = low[:, 1].ceil().clamp(min=top).long(), high[:, 1].floor().clamp(max=bottom - 1).long()
    columns, rows = (right - left + 1).clamp(min=0), (below - above + 1).clamp(min=0)
    count = columns * rows
    which = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    step = torch.arange(len(which), device=count.device) - (count.cumsum(0) - count)[which]
    column, row = left[which] + step % columns[which], above[which] + step // columns[which]
    dx = column + 0.5 - ellipses.centre[which, 0]
    dy = row + 0.5 - ellipses.centre[which, 1]
    xx, xy, yy = ellipses.inverse[which].unbind(1)
    alpha = ellipses.opacities[which] * (-0.5 * (xx * dx * dx + 2 * xy * dx * dy + yy * dy * dy)).exp()
    alpha = alpha.clamp(max=_MOST)
    seen = (alpha >= _LEAST).nonzero()[:, 0]
    pixel, order = ((row - top) * width + column)[seen].sort(stable=True)  # splats stay from near to far
    alpha, which = alpha[seen][order], which[seen][order]
    weight = alpha * _let_through(alpha, pixel)
    values = torch.cat([ellipses.colours[which], torch.ones_like(weight[:, None])], 1) * weight[:, None]
    return values.new_zeros((bottom - top) * width, 4).index_add(0, pixel, values)


def _let_through(alpha: Tensor, pixel: Tensor) -> Tensor:
    """Part of the light [P] that gets past all before it in its pixel; both [P], sorted by pixel and then depth."""
    passed = torch.log1p(-alpha.double())
    before = passed.cumsum(0) - passed
    first = torch.ones_like(pixel, dtype=torch.bool)
    first[1:] = pixel[1:] != pixel[:-1]
    return (before - before[first][first.cumsum(0) - 1]).exp().to(alpha)
