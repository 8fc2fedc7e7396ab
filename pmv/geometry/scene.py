"""Depth maps as surfaces: sampling and resizing without mixing across silhouettes, normals, and triangle
meshes.

All depth is z-depth in world units (docs/conventions.md). A depth map comes with a `valid` mask, because a
renderer's depth means nothing where no surface was hit.

**Discontinuities.** Two neighbouring pixels belong to one surface when their depths differ by at most `edge`
times the nearer depth. `edge` is the relative step that a plane at a given angle to the viewing ray makes
between two pixels (`edge_step`), so one angle describes the threshold at every resolution.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from torch import Tensor

from pmv.geometry.camera import Camera
from pmv.pictures.images import pixel_grid

EDGE_DEGREES = 75.0
"""Surfaces inclined more than this to the image plane count as a discontinuity between two surfaces."""
_NORMAL_BLUR = 0.008  # sigma as a fraction of the image width


@dataclass(frozen=True)
class SeenFrom:
    """The surfaces that N cameras see.

    Attributes:
        camera: N cameras.
        depth: [N,1,D,D] z-depth, world units; it means nothing where it is not valid.
        valid: bool [N,1,D,D], where there is a surface.
        trusted: [N,1,S,S] in [0,1], texels of the cameras' pictures that may be painted onto what others see; None =
            all of them. See `pmv.geometry.visibility.trusted_texels`.
    """

    camera: Camera
    depth: Tensor
    valid: Tensor
    trusted: Tensor | None = None

    def __post_init__(self) -> None:
        _check_depth(self.depth, self.valid)
        if len(self.camera) != len(self.depth):
            raise ValueError(f"{len(self.camera)} cameras cannot have seen {len(self.depth)} depth maps")

    def __len__(self) -> int:
        return len(self.camera)

    def __getitem__(self, index: int) -> "SeenFrom":
        """What one of the cameras sees, a batch of one."""
        part = slice(index, index + 1)
        trusted = None if self.trusted is None else self.trusted[part]
        return SeenFrom(self.camera[index], self.depth[part], self.valid[part], trusted)

    @property
    def edge(self) -> float:
        """Relative depth step between neighbours of `depth` that tells two surfaces apart."""
        return edge_step(self.camera, self.depth.shape[-1])


def edge_step(camera: Camera, width: int, degrees: float = EDGE_DEGREES) -> float:
    """Relative depth step per pixel of a surface inclined by `degrees` to the image plane: tan(angle) /
    (focal · width).

    Args:
        camera: its (mean) focal length is used.
        width: pixels of the depth map.
        degrees: in (0, 90).
    """
    if not 0.0 < degrees < 90.0:
        raise ValueError(f"the angle of a depth edge lies between 0 and 90 degrees, got {degrees}")
    return math.tan(math.radians(degrees)) / (float(camera.intrinsics[:, 0, 0].mean()) * width)


def depth_edges(depth: Tensor, valid: Tensor, edge: float) -> Tensor:
    """Pixels at a discontinuity: a 4-neighbour is not surface, or is further away than `edge` allows.

    Args:
        depth: [N,1,H,W].
        valid: bool [N,1,H,W], surface.
        edge: relative depth step, see the module's text.

    Returns:
        bool [N,1,H,W]; False where `valid` is. The image border is no edge.
    """
    _check_depth(depth, valid)
    right, down = _continuous(depth, valid, edge)
    result = torch.zeros_like(valid)
    result[..., :-1] |= ~right
    result[..., 1:] |= ~right
    result[..., :-1, :] |= ~down
    result[..., 1:, :] |= ~down
    return result & valid


def sample_depth(depth: Tensor, valid: Tensor, uv: Tensor, edge: float) -> tuple[Tensor, Tensor]:
    """Bilinear depth that never mixes two surfaces.

    Of the four texels around a point, those that are not surface, or are on another surface than the
    (bilinearly) nearest valid one, get no weight; the rest are normalised. Differentiable with respect to
    `depth` and `uv`.

    Args:
        depth: [N,1,H,W].
        valid: bool [N,1,H,W].
        uv: [N,...,2] in [0,1], pixel centre i at (i + ½)/W.
        edge: relative depth step between neighbours, see the module's text.

    Returns:
        depth [N,...] (0 where nothing was found) and found, bool [N,...].
    """
    _check_depth(depth, valid)
    n, _, height, width = depth.shape
    if uv.shape[0] != n or uv.shape[-1] != 2:
        raise ValueError(f"uv is [N,...,2] with N = {n}, got {tuple(uv.shape)}")
    shape = uv.shape[:-1]
    inside = ((uv >= 0) & (uv <= 1)).all(-1).reshape(n, -1)
    position = uv.reshape(n, -1, 2) * uv.new_tensor([width, height]) - 0.5
    # points far outside (or behind the camera) must not overflow the integer index
    position = position.nan_to_num(-1.0).clamp(min=-1.0)
    position = torch.minimum(position, position.new_tensor([width, height]))
    corner = position.detach().floor()
    fraction = position - corner
    # a renderer's depth may be infinite where there is no surface, and 0·inf is not 0
    flat_depth = torch.where(valid, depth, torch.zeros_like(depth)).reshape(n, -1)
    flat_valid = valid.reshape(n, -1)
    depths, weights = [], []
    for dy in (0, 1):
        for dx in (0, 1):
            x = (corner[..., 0] + dx).long().clamp(0, width - 1)
            y = (corner[..., 1] + dy).long().clamp(0, height - 1)
            index = y * width + x
            wx = fraction[..., 0] if dx else 1 - fraction[..., 0]
            wy = fraction[..., 1] if dy else 1 - fraction[..., 1]
            depths.append(flat_depth.gather(1, index))
            weights.append(wx * wy * flat_valid.gather(1, index))
    stacked, weight = torch.stack(depths), torch.stack(weights)
    nearest = weight.argmax(0, keepdim=True)
    anchor = stacked.gather(0, nearest)
    # corners are numbered 2·dy + dx: the one opposite to the nearest is two pixel steps away from it
    corners = torch.arange(4, device=depth.device).reshape(4, 1, 1)
    steps = 1 + (corners ^ nearest == 3).to(depth.dtype)
    weight = weight * ((stacked - anchor).abs() <= edge * steps * torch.minimum(stacked.abs(), anchor.abs()))
    total = weight.sum(0)
    found = inside & (total > 1e-6)
    value = (stacked * weight).sum(0) / torch.where(found, total, torch.ones_like(total))
    return (value * found).reshape(shape), found.reshape(shape)


def resize_depth(depth: Tensor, valid: Tensor, size: tuple[int, int], edge: float) -> tuple[Tensor, Tensor]:
    """Resamples a depth map; smooth inside a surface, and never a mean of two surfaces.

    Inside a surface the interpolation is Catmull-Rom (Keys 1981, a = −½: exact for planes, continuous
    normals); within two texels of a discontinuity it is `sample_depth`.

    Args:
        depth: [N,1,h,w].
        valid: bool [N,1,h,w].
        size: (H, W).
        edge: relative depth step between neighbours of the *source*.

    Returns:
        depth [N,1,H,W] (0 where there is no surface) and valid, bool [N,1,H,W]. The outline is that of the
        nearest source texel, as a bilinear mask cut at one half would draw it.
    """
    _check_depth(depth, valid)
    n, _, height, width = depth.shape
    if (height, width) == tuple(size):
        return torch.where(valid, depth, torch.zeros_like(depth)), valid.clone()
    rows, columns = _catmull_rom(height, size[0], depth), _catmull_rom(width, size[1], depth)
    smooth = rows @ torch.where(valid, depth, torch.zeros_like(depth)) @ columns.T
    broken = (~valid | depth_edges(depth, valid, edge)).to(depth.dtype)
    interior = (rows.abs() > 1e-6).to(depth.dtype) @ broken @ (columns.abs() > 1e-6).to(depth.dtype).T == 0
    uv = pixel_grid(size[0], size[1], depth).expand(n, -1, -1, -1)
    sampled, found = sample_depth(depth, valid, uv, edge)
    solid = F.interpolate(valid.to(depth.dtype), size, mode="bilinear", align_corners=False) >= 0.5
    result_valid = found[:, None] & solid
    return torch.where(interior, smooth, sampled[:, None]) * result_valid, result_valid


def depth_normals(depth: Tensor, valid: Tensor, camera: Camera, edge: float) -> tuple[Tensor, Tensor]:
    """World normals of a depth map by differences of its unprojected points.

    Each tangent is the mean of the forward and backward difference, or the one of them that stays on the
    surface.

    Args:
        depth: [N,1,H,W].
        valid: bool [N,1,H,W].
        camera: N cameras, or one for all.
        edge: relative depth step.

    Returns:
        normals [N,3,H,W], unit, turned towards the camera (zero where unknown), and known, bool [N,1,H,W].
    """
    _check_depth(depth, valid)
    camera = camera.expand(depth.shape[0])
    # invalid depths may be infinite; they are never used, but 0·inf would still poison gradients
    points = camera.unproject(torch.where(valid, depth, torch.ones_like(depth))).permute(0, 3, 1, 2)
    right, down = _continuous(depth, valid, edge)
    tangent_x, known_x = _tangent(points, right, -1)
    tangent_y, known_y = _tangent(points, down, -2)
    known = known_x & known_y & valid
    normal = torch.linalg.cross(tangent_x, tangent_y, dim=1)
    length = normal.norm(dim=1, keepdim=True)
    known = known & (length > 1e-12)
    normal = normal / torch.where(known, length, torch.ones_like(length))
    outward = camera.position[:, :, None, None] - points
    sign = torch.where((normal * outward).sum(1, keepdim=True) < 0, -1.0, 1.0).to(normal.dtype)
    return normal * sign * known, known


def surface_points(depth: Tensor, valid: Tensor, camera: Camera, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The surface that views see, at the resolution of their images.

    Args:
        depth: [N,1,D,D]; valid: bool [N,1,D,D]. camera: N cameras.
        size: S, pixels of the result.

    Returns:
        points [N,S,S,3] in the world, unit normals [N,3,S,S] (zero where unknown), surface, bool [N,1,S,S].
        The normals are averaged over about 2 % of the width: hair and a renderer's noise would scatter them.
    """
    fine, surface = resize_depth(depth, valid, (size, size), edge_step(camera, depth.shape[-1]))
    normals, known = depth_normals(fine, surface, camera, edge_step(camera, size))
    sigma = _NORMAL_BLUR * size
    window = 2 * math.ceil(2 * sigma) + 1
    if window <= size:
        normals = gaussian_blur2d(normals, (window, window), (sigma, sigma), border_type="constant")
    normals = F.normalize(normals, dim=1) * known
    return camera.unproject(fine), normals, surface & known


def depth_mesh(depth: Tensor, valid: Tensor, camera: Camera, edge: float) -> tuple[Tensor, Tensor]:
    """Triangulates the surface that one view sees: two triangles for each 2×2 pixels on one surface.

    Args:
        depth: [1,1,H,W].
        valid: bool [1,1,H,W].
        camera: one camera.
        edge: relative depth step; a triangle with a longer step on any of its sides is dropped.

    Returns:
        vertices [H·W,3] in the world, one for each pixel row by row, and faces [F,3] int64, counter-clockwise
        for the camera.
    """
    _check_depth(depth, valid)
    if depth.shape[0] != 1 or len(camera) != 1:
        raise ValueError(
            f"the mesh of a view takes one view, got {depth.shape[0]} depth maps and {len(camera)} cameras"
        )
    height, width = depth.shape[-2:]
    vertices = camera.unproject(torch.where(valid, depth, torch.ones_like(depth))).reshape(-1, 3)
    index = torch.arange(height * width, device=depth.device).reshape(height, width)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    # the right angle comes first, so that the two legs (one pixel step each) are corners 0-1 and 0-2
    faces = torch.stack([torch.stack([a, c, b], -1), torch.stack([d, b, c], -1)], -2).reshape(-1, 3)
    corner_depth = depth.detach().reshape(-1)[faces]
    steps = (corner_depth[:, 1:] - corner_depth[:, :1]).abs().amax(1)
    keep = valid.reshape(-1)[faces].all(1) & (steps <= edge * corner_depth.amin(1))
    return vertices, faces[keep]


def _continuous(depth: Tensor, valid: Tensor, edge: float) -> tuple[Tensor, Tensor]:
    """Whether each pixel and its right neighbour [N,1,H,W-1], its lower neighbour [N,1,H-1,W] are on one
    surface."""

    def joined(a: Tensor, b: Tensor, valid_a: Tensor, valid_b: Tensor) -> Tensor:
        return valid_a & valid_b & ((a - b).abs() <= edge * torch.minimum(a.abs(), b.abs()))

    d = depth.detach()
    return (
        joined(d[..., :-1], d[..., 1:], valid[..., :-1], valid[..., 1:]),
        joined(d[..., :-1, :], d[..., 1:, :], valid[..., :-1, :], valid[..., 1:, :]),
    )


def _tangent(points: Tensor, joined: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Mean of the forward and backward differences that stay on the surface, and where there is at least one."""
    size = points.shape[axis]
    step = points.narrow(axis, 1, size - 1) - points.narrow(axis, 0, size - 1)
    step = torch.where(joined, step, torch.zeros_like(step))
    before, after = (1, 0) if axis == -1 else (3, 2)
    weight = joined.to(points.dtype)

    def padded(x: Tensor, side: int) -> Tensor:
        return F.pad(x, [int(side == k) for k in range(4)])

    count = padded(weight, before) + padded(weight, after)
    total = padded(step, before) + padded(step, after)
    return total / count.clamp(min=1.0), count > 0


def _catmull_rom(source: int, target: int, like: Tensor) -> Tensor:
    """Interpolation matrix [target, source] of the Catmull-Rom kernel between pixel centres, borders
    repeated."""
    position = (torch.arange(target, dtype=torch.float64) + 0.5) * (source / target) - 0.5
    corner = position.floor()
    matrix = torch.zeros(target, source, dtype=torch.float64)
    for offset in range(-1, 3):
        index = (corner + offset).clamp(0, source - 1).long()
        distance = (position - corner - offset).abs()
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        matrix.scatter_add_(1, index[:, None], torch.where(distance <= 1, near, far)[:, None])
    return matrix.to(like.dtype).to(like.device)


def _check_depth(depth: Tensor, valid: Tensor) -> None:
    if depth.ndim != 4 or depth.shape[1] != 1 or valid.shape != depth.shape or valid.dtype != torch.bool:
        raise ValueError(
            f"depth is [N,1,H,W] and valid a bool of the same shape, got {tuple(depth.shape)} and "
            f"{tuple(valid.shape)} {valid.dtype}"
        )
