"""Which pixels of a pseudo-view show a surface that the input view sees as well (HFGI3D, arXiv 2211.15662,
§3.2).

HFGI3D turns the input view's depth into points and tests them against the pseudo-view's z-buffer. Here the
test runs in both directions, because either depth map alone is a volume renderer's soft estimate: the pseudo-
view's surface must be where the input view sees its own, **and** the input view's surface, drawn into the
pseudo-view, must be where the pseudo-view sees it. Texels seen at a grazing angle are cut too: a depth error
moves them the furthest.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.geometry.camera import Camera
from pmv.geometry.raster import rasterize
from pmv.geometry.scene import depth_edges, depth_mesh, edge_step, resize_depth, sample_depth
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


def trusted_texels(
    foreground: Tensor, depth: Tensor, alpha: Tensor, edge: float, silhouette_erode: float, edge_erode: float
) -> Tensor:
    """The input view's texels that may be painted onto a pseudo-view.

    They lie inside the photo's foreground and the rendered surface, away from the outline of both, and away
    from depth discontinuities, where a small error of the geometry paints one surface's colour onto another.

    Args:
        foreground: [1,1,S,S] of the photo.
        depth, alpha: [1,1,D,D] of the generator at the input view.
        edge: relative depth step of `depth` (see `pmv.geometry.scene`).
        silhouette_erode: fraction of the image width removed along the outline.
        edge_erode: fraction of the image width removed along depth discontinuities inside.

    Returns:
        [1,1,S,S] float32, 0 or 1.
    """
    size = foreground.shape[-2:]
    solid = alpha > SOLID
    surface = F.interpolate(solid.float(), size, mode="bilinear", align_corners=False)
    inside = erode(torch.minimum(surface, (foreground > SOLID).float()), silhouette_erode)
    if edge_erode <= 0:
        return inside
    # the outline is not a discontinuity here: it has its own width
    breaks = depth_edges(
        torch.where(solid, depth, depth[solid].mean() if solid.any() else depth), torch.ones_like(solid), edge
    )
    breaks = (breaks & solid).float()
    breaks = F.interpolate(dilate(breaks, edge_erode), size, mode="bilinear", align_corners=False)
    return inside * (breaks <= SOLID)


def mutual_depth(
    camera: Camera,
    depth: Tensor,
    valid: Tensor,
    pseudo_cameras: Camera,
    size: int,
    edge: float,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """The input view's surface as the pseudo-views see it.

    Args:
        camera: of the input view.
        depth: [1,1,D,D]; valid: bool [1,1,D,D].
        pseudo_cameras: P cameras.
        size: pixels of the result.
        edge: relative depth step of `depth`.
        backend: of the rasteriser.

    Returns:
        z-depth [P,1,size,size] in the pseudo-views and hit, bool [P,1,size,size].
    """
    vertices, faces = depth_mesh(depth, valid, camera, edge)
    fragments = rasterize(vertices, faces, pseudo_cameras, size, size, backend)
    return fragments.depth[:, None], fragments.face_index[:, None] >= 0


def visibility_confidence(
    points: Tensor,
    normals: Tensor,
    pseudo_cameras: Camera,
    camera: Camera,
    input_depth: Tensor,
    input_valid: Tensor,
    trusted: Tensor,
    edge: float,
    tolerance: float,
    max_degrees: float,
    view_max_degrees: float,
) -> Tensor:
    """Soft visibility in the input view of what each pseudo-view pixel shows.

    Product of the depth test in the input view (`depth_agreement`), the grazing-angle cuts of both views
    (`facing`) and the input's trusted texels. Differentiable with respect to the points, normals and the
    input's depth; the test of `mutual_depth` is another `depth_agreement` that the caller multiplies in.

    Args:
        points: [P,H,W,3] world points of the pseudo-views' pixels.
        normals: [P,3,H,W] their unit normals, zero where there is no surface.
        pseudo_cameras: P cameras. camera: of the input view.
        input_depth: [1,1,D,D]; input_valid: bool [1,1,D,D].
        trusted: [1,1,S,S], from `trusted_texels`.
        edge: relative depth step of `input_depth`.
        tolerance: world units.
        max_degrees, view_max_degrees: largest angle between normal and viewing ray, of the input view and of
            the pseudo-view.

    Returns:
        [P,1,H,W] in [0,1]; visible from one half on.
    """
    count, height, width, _ = points.shape
    uv, z = camera.project(points.reshape(1, -1, 3))
    surface, found = sample_depth(input_depth, input_valid, uv, edge)
    agreement = depth_agreement(z - surface, tolerance) * (found & (z > 0))
    seen = F.grid_sample(
        trusted.to(uv.dtype), 2 * uv[None] - 1, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    result = (agreement * seen.reshape(1, -1)).reshape(count, 1, height, width)
    result = result * facing(points, normals, camera.position, max_degrees)
    return result * facing(points, normals, pseudo_cameras.position, view_max_degrees)


def surface_mask(
    mask: Tensor,
    camera: Camera,
    depth: Tensor,
    valid: Tensor,
    views: Camera,
    view_depths: Tensor,
    view_valid: Tensor,
    tolerance: float,
) -> Tensor:
    """Where other views see the part of the surface that a mask marks in one view, whether or not that view sees it
    squarely enough to say what is there: the depth test lets pass all that is not clearly behind it.

    Args:
        mask: [1,1,S,S] in [0,1].
        camera: of the mask. depth: [1,1,D,D] from it; valid: bool [1,1,D,D].
        views: N cameras. view_depths: [N,1,D,D]; view_valid: bool [N,1,D,D].
        tolerance: world units behind the surface from which a point belongs to another one.

    Returns:
        [N,1,S,S] in [0,1], 0 where a view sees no surface.
    """
    size = mask.shape[-2:]
    depths, found = resize_depth(view_depths, view_valid, (size[0], size[1]), edge_step(views, view_depths.shape[-1]))
    points = views.unproject(torch.where(found, depths, torch.ones_like(depths)))
    uv, z = camera.project(points.reshape(1, -1, 3))
    surface, known = sample_depth(depth, valid, uv, edge_step(camera, depth.shape[-1]))
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
