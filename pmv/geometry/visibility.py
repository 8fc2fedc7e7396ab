"""Which pixels of a pseudo-view show a surface that the input view sees as well (HFGI3D, arXiv 2211.15662,
§3.2).

HFGI3D turns the input view's depth into points and tests them against the pseudo-view's z-buffer. Here the
test runs in both directions, because either depth map alone is a volume renderer's soft estimate: the pseudo-
view's surface must be where the input view sees its own, **and** the input view's surface, drawn into the
pseudo-view, must be where the pseudo-view sees it. Texels seen at a grazing angle are cut too: a depth error
moves them the furthest.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.geometry.camera import Camera
from pmv.geometry.raster import rasterize
from pmv.geometry.scene import SeenFrom, depth_edges, depth_mesh, resize_depth, sample_depth
from pmv.pictures.masks import SOLID, dilate, erode, smoothstep

_FADE_DEGREES = 5.0


def depth_agreement(difference: Tensor, tolerance: float) -> Tensor:
    """How well two depths agree: 1 up to half the tolerance, ½ at it, 0 from one and a half times it;
    element-wise, C¹.

    Args:
        difference: of two z-depths, world units.
        tolerance: world units, > 0.
    """
    return smoothstep(difference.abs(), 1.5 * tolerance, 0.5 * tolerance)


def facing(points: Tensor, normals: Tensor, position: Tensor, max_degrees: float) -> Tensor:
    """How squarely a camera sees a surface: 1 up to `max_degrees` − 5° between normal and viewing ray, ½ at
    it, 0 from + 5°.

    The step is taken in the cosine, so that it is differentiable at 0°.

    Args:
        points: [N,H,W,3] world.
        normals: [N,3,H,W] unit; zero (unknown) counts as unseen.
        position: [N,3] camera centres, or [1,3].
        max_degrees: in (0, 90].

    Returns:
        [N,1,H,W] in [0,1].
    """
    ray = F.normalize(position[:, None, None] - points, dim=-1)
    cosine = (ray.permute(0, 3, 1, 2) * normals).sum(1, keepdim=True)
    low, high = (math.cos(math.radians(max_degrees + s * _FADE_DEGREES)) for s in (1, -1))
    return smoothstep(cosine, max(low, 0.0), high)


def trusted_texels(source: SeenFrom, foreground: Tensor, *, silhouette_erode: float, edge_erode: float) -> Tensor:
    """The input view's texels that may be painted onto a pseudo-view.

    They lie inside the photo's foreground and the rendered surface, away from the outline of both, and away
    from depth discontinuities, where a small error of the geometry paints one surface's colour onto another.

    Args:
        source: what the generator shows at the input view.
        foreground: [1,1,S,S] of the photo.
        silhouette_erode: fraction of the image width removed along the outline.
        edge_erode: fraction of the image width removed along depth discontinuities inside.

    Returns:
        [1,1,S,S] float32, 0 or 1.
    """
    size, depth, solid = foreground.shape[-2:], source.depth, source.valid
    surface = F.interpolate(solid.float(), size, mode="bilinear", align_corners=False)
    inside = erode(torch.minimum(surface, (foreground > SOLID).float()), silhouette_erode)
    if edge_erode <= 0:
        return inside
    # the outline is not a discontinuity here: it has its own width
    filled = torch.where(solid, depth, depth[solid].mean() if solid.any() else depth)
    breaks = (depth_edges(filled, torch.ones_like(solid), source.edge) & solid).float()
    breaks = F.interpolate(dilate(breaks, edge_erode), size, mode="bilinear", align_corners=False)
    return inside * (breaks <= SOLID)


def mutual_depth(source: SeenFrom, views: Camera, size: int, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """The input view's surface as the pseudo-views see it.

    Args:
        source: what the input view sees, a batch of one.
        views: P cameras.
        size: pixels of the result.
        backend: of the rasteriser.

    Returns:
        z-depth [P,1,size,size] in the pseudo-views and hit, bool [P,1,size,size].
    """
    vertices, faces = depth_mesh(source.depth, source.valid, source.camera, source.edge)
    fragments = rasterize(vertices, faces, views, size, size, backend)
    return fragments.depth[:, None], fragments.face_index[:, None] >= 0


@dataclass(frozen=True)
class Cuts:
    """Beyond what a pseudo-view's pixel no longer counts as seen by the input view.

    Attributes:
        tolerance: largest difference of two depths of one surface, world units, > 0.
        max_degrees, view_max_degrees: largest angle between normal and viewing ray, of the input view and of the
            pseudo-view, in (0, 90].
    """

    tolerance: float
    max_degrees: float
    view_max_degrees: float


def visibility_confidence(points: Tensor, normals: Tensor, *, views: Camera, source: SeenFrom, cuts: Cuts) -> Tensor:
    """Soft visibility in the input view of what each pseudo-view pixel shows.

    Product of the depth test in the input view (`depth_agreement`), the grazing-angle cuts of both views
    (`facing`) and the input's trusted texels. Differentiable with respect to the points, normals and the
    input's depth; the test of `mutual_depth` is another `depth_agreement` that the caller multiplies in.

    Args:
        points: [P,H,W,3] world points of the pseudo-views' pixels.
        normals: [P,3,H,W] their unit normals, zero where there is no surface.
        views: the P pseudo-views' cameras.
        source: what the input view sees, a batch of one, and which of its texels are trusted.
        cuts: see there.

    Returns:
        [P,1,H,W] in [0,1]; visible from one half on.
    """
    count, height, width, _ = points.shape
    uv, z = source.camera.project(points.reshape(1, -1, 3))
    surface, found = sample_depth(source.depth, source.valid, uv, source.edge)
    agreement = depth_agreement(z - surface, cuts.tolerance) * (found & (z > 0))
    if source.trusted is not None:
        trusted, grid = source.trusted.to(uv.dtype), 2 * uv[None] - 1
        seen = F.grid_sample(trusted, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        agreement = agreement * seen.reshape(1, -1)
    result = agreement.reshape(count, 1, height, width)
    result = result * facing(points, normals, source.camera.position, cuts.max_degrees)
    return result * facing(points, normals, views.position, cuts.view_max_degrees)


def marked_surface(mask: Tensor, *, source: SeenFrom, views: SeenFrom, tolerance: float) -> Tensor:
    """Where other views see the part of the surface that a mask marks in one view, whether or not that view sees it
    squarely enough to say what is there: the depth test lets pass all that is not clearly behind it.

    Args:
        mask: [1,1,S,S] in [0,1], of the picture that `source` belongs to.
        source: what the mask's camera sees, a batch of one.
        views: what N other cameras see.
        tolerance: world units behind the surface from which a point belongs to another one.

    Returns:
        [N,1,S,S] in [0,1], 0 where a view sees no surface.
    """
    size = mask.shape[-2:]
    depths, found = resize_depth(views.depth, views.valid, (size[0], size[1]), views.edge)
    points = views.camera.unproject(torch.where(found, depths, torch.ones_like(depths)))
    uv, z = source.camera.project(points.reshape(1, -1, 3))
    surface, known = sample_depth(source.depth, source.valid, uv, source.edge)
    marked = F.grid_sample(mask, 2 * uv[None] - 1, mode="bilinear", padding_mode="zeros", align_corners=False)
    marked = marked.reshape(1, -1) * (z > 0) * ~(known & (z - surface > tolerance))
    return marked.reshape(len(views), 1, *size) * found


def view_confidence(camera: Camera, pseudo_cameras: Camera, falloff_degrees: float, least: float) -> Tensor:
    """How far to trust each pseudo-view: it falls with the angle between its axis and the input view's.

    Args:
        camera: of the input view. pseudo_cameras: P cameras.
        falloff_degrees: sigma of the fall, exp(−½ (angle / falloff)²).
        least: in [0,1]: what is left far away from the input view.

    Returns:
        [P] in [least,1].
    """
    angle = pseudo_cameras.angle_to(camera)
    return least + (1 - least) * torch.exp(-0.5 * (angle / math.radians(falloff_degrees)) ** 2)
