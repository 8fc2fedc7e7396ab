"""One surface out of two: a depth that is known everywhere, and a better one that is known in a part of the picture.

Of the better one, its relief is taken, its place is not: seen from one camera, a surface and the same one scaled about
the camera's centre are the same picture. It is first scaled to the other's median, then the depth d is sought that
minimises

    Σ_p c (d − better)² + (1 − c) (d − coarse)² + κ Σ_pq (Δd − c Δbetter − (1 − c) Δcoarse)²

over pixels p and neighbours p, q on one surface, c the confidence: Poisson image editing (Pérez et al. 2003) with a
screen (Bhat et al. 2008), so that no step and no crease appears where the better one ends.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from scipy.sparse.linalg import spsolve
from torch import Tensor

from pmv.geometry.camera import Camera
from pmv.geometry.raster import rasterize
from pmv.geometry.scene import SeenFrom, depth_mesh, sample_depth

_RELIEF = 16.0  # κ: over some four pixels, slopes count for more than places
_SOLID = 0.5  # alpha from which a pixel is surface


def blend_surface(
    coarse_depth: Tensor,
    coarse_alpha: Tensor,
    better_depth: Tensor,
    confidence: Tensor,
    edge: float,
    outlier: float = 0.06,
) -> Tensor:
    """The coarse depth with the better one's relief where that is sure.

    Args:
        coarse_depth, coarse_alpha: [1,1,D,D] z-depth and alpha.
        better_depth: [1,1,D,D] z-depth in any scale; read where `confidence` is not 0.
        confidence: [1,1,D,D] in [0,1].
        edge: relative depth step between neighbours from which they lie on two surfaces, see
            `pmv.geometry.scene.edge_step`.
        outlier: world units by which the two differ where half as much is believed: hair, glasses or a hand lie before
            the skin.

    Returns:
        [1,1,D,D]; the coarse depth where confidence or alpha is 0, and everywhere where nothing is sure.
    """
    if not coarse_depth.shape == coarse_alpha.shape == better_depth.shape == confidence.shape:
        shapes = [tuple(a.shape) for a in (coarse_depth, coarse_alpha, better_depth, confidence)]
        raise ValueError(f"depths, alpha and confidence are [1,1,D,D] of one D, got {shapes}")
    if coarse_depth.shape[:2] != (1, 1):
        raise ValueError(f"one view is blended at a time, got {tuple(coarse_depth.shape)}")
    coarse, alpha, better, sure = (
        a[0, 0].detach().double().cpu().numpy() for a in (coarse_depth, coarse_alpha, better_depth, confidence)
    )
    solid = (alpha > _SOLID) & np.isfinite(coarse)
    coarse = np.where(solid, coarse, 1.0)
    known = solid & (sure > 0) & (better > 0) & np.isfinite(better)
    if not (known & (sure > 0.3)).any():
        return coarse_depth.clone()
    better = np.where(known, better, 1.0)
    better = better * np.median((coarse / better)[known & (sure > 0.3)])
    share = np.where(known, sure / (1 + (np.abs(better - coarse) / outlier) ** 4), 0.0)
    change = _solve(np.where(known, better - coarse, 0.0), share, solid, coarse, edge)
    result = torch.from_numpy(coarse + change).to(coarse_depth)
    return torch.where(torch.from_numpy(solid).to(coarse_depth.device), result, coarse_depth[0, 0])[None, None]


def carry_surface(
    depth: Tensor,
    changed: Tensor,
    camera: Camera,
    views: Camera,
    view_depths: Tensor,
    view_alphas: Tensor,
    edge: float,
    reach: float = 0.06,
) -> Tensor:
    """The depth maps of other views after the input view's surface has moved.

    Args:
        depth: [1,1,D,D] of the input view, blended. changed: bool [1,1,D,D], where it is new.
        camera: of the input view, 1. views: P cameras.
        view_depths, view_alphas: [P,1,E,E] of the old surface.
        edge: as of `blend_surface`, for the input view.
        reach: world units; a view's surface that lies further from the new one is another (hair before the cheek, the
            far side of the nose) and stays.

    Returns:
        [P,1,E,E]: the new surface where a view sees it and had the old one there; outlines stay.
    """
    vertices, faces = depth_mesh(depth, changed, camera, edge)
    if not len(faces):
        return view_depths.clone()
    height, width = view_depths.shape[-2:]
    drawn = [rasterize(vertices, faces, view, height, width) for view in (views[i] for i in range(len(views)))]
    new = torch.stack([fragments.depth[0] for fragments in drawn])[:, None]
    hit = torch.stack([fragments.face_index[0] >= 0 for fragments in drawn])[:, None]
    return torch.where(hit & (view_alphas > _SOLID) & ((new - view_depths).abs() < reach), new, view_depths)


def carry_trust(
    trust: Tensor, source: SeenFrom, views: Camera, view_depths: Tensor, view_alphas: Tensor, reach: float
) -> Tensor:
    """What is trusted of the surface that one view sees, where other views see it.

    Args:
        trust: [1,1,D,D] in [0,1]. source: the surface, a batch of one.
        views: P cameras; view_depths, view_alphas: [P,1,E,E].
        reach: world units of depth within which two surfaces are one.

    Returns: [P,1,E,E] in [0,1].
    """
    count, size = len(views), view_depths.shape[-2:]
    uv, z = source.camera.expand(count).project(views.unproject(view_depths).reshape(count, -1, 3))
    seen, found = sample_depth(
        source.depth.expand(count, -1, -1, -1), source.valid.expand(count, -1, -1, -1), uv, source.edge
    )
    same = found & ((z - seen).abs() < reach)
    carried = F.grid_sample(trust.expand(count, -1, -1, -1), uv[:, None] * 2 - 1, align_corners=False)[:, :, 0]
    return (carried * same[:, None]).reshape(count, 1, *size) * (view_alphas > _SOLID)


def _solve(wanted: np.ndarray, share: np.ndarray, solid: np.ndarray, coarse: np.ndarray, edge: float) -> np.ndarray:
    """What is added to the coarse depth [D,D]: the module's equation in d − coarse."""
    index = np.full(solid.shape, -1)
    index[solid] = np.arange(solid.sum())
    count = int(solid.sum())
    matrix = sparse.identity(count, format="csr")
    vector = (share * wanted)[solid]
    for here, there in (
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
    ):
        step = np.abs(coarse[there] - coarse[here])
        joined = solid[here] & solid[there] & (step <= edge * np.minimum(coarse[here], coarse[there]))
        a, b = index[here][joined], index[there][joined]
        both = np.minimum(share[here], share[there])[joined]
        slope = both * (wanted[there] - wanted[here])[joined]
        rows = np.arange(len(a))
        difference = sparse.csr_matrix(
            (np.repeat([-1.0, 1.0], len(a)), (np.tile(rows, 2), np.concatenate([a, b]))), (len(a), count)
        )
        matrix = matrix + _RELIEF * difference.T @ difference
        vector = vector + _RELIEF * difference.T @ slope
    change = np.zeros(solid.shape)
    change[solid] = np.asarray(spsolve(matrix.tocsc(), vector))
    return change
