"""Rasterising triangle meshes: one interface, a torch twin that runs anywhere and nvdiffrast where CUDA has
it.

A backend only decides *which face* each pixel sees. Barycentric coordinates and depth are then computed here
from that index, the same for all backends, and differentiably with respect to the vertices (the visibility
itself is piecewise constant and carries no gradient).

Conventions: a pixel is seen through its centre, (i + ½)/W; row 0 is the top; z-depth in world units; both
sides of a face are seen; a face with a corner at or behind the camera plane is not drawn (there is no
clipping).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pmv.errors import PmvError
from pmv.geometry.camera import Camera

BACKENDS = ("auto", "torch", "nvdiffrast")
_CANDIDATES = 1 << 21  # (pixel, face) pairs tested at once: about 200 MB of temporaries
_BEHIND = 1e-6  # z-depth up to which a corner counts as behind the camera
_SLACK = 1e-5  # barycentric slack, so that rounding leaves no cracks along shared edges


class Fragments(NamedTuple):
    """What each pixel of N views sees.

    face_index: int64 [N,H,W], −1 where empty. barycentric: [N,H,W,3], perspective-correct weights of the
        face's corners.
    depth: [N,H,W] z-depth. Both are 0 where empty.
    """

    face_index: Tensor
    barycentric: Tensor
    depth: Tensor


def rasterize(
    vertices: Tensor, faces: Tensor, camera: Camera, height: int, width: int, backend: str = "auto"
) -> Fragments:
    """The nearest face, its barycentric coordinates and z-depth at each pixel of each camera.

    Args:
        vertices: [V,3] in the world.
        faces: [F,3] integer.
        camera: N cameras.
        height, width: pixels.
        backend: "torch"; "nvdiffrast" (CUDA); "auto" takes nvdiffrast where it can be imported and the
            vertices are on CUDA.

    Raises:
        PmvError: nvdiffrast was asked for by name and cannot be used.
    """
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(
            f"a mesh is vertices [V,3] and faces [F,3], got {tuple(vertices.shape)} and {tuple(faces.shape)}"
        )
    if backend not in BACKENDS:
        raise PmvError(f"unknown rasteriser {backend!r}: choose one of {', '.join(BACKENDS)}")
    faces = faces.long()
    uv, z = camera.project(vertices.expand(len(camera), -1, -1))
    pixels = uv * uv.new_tensor([width, height])  # pixel i covers [i, i + 1]
    use_nvdiffrast = backend == "nvdiffrast" or (
        backend == "auto" and vertices.is_cuda and _import_nvdiffrast() is not None
    )
    with torch.no_grad():
        if use_nvdiffrast:
            views = [_nvdiffrast_faces(p, d, faces, height, width) for p, d in zip(uv, z)]
        else:
            views = [_torch_faces(p, d, faces, height, width) for p, d in zip(pixels, z)]
        face_index = torch.stack(views)
    return _fragments(pixels, z, faces, face_index)


def interpolate(attributes: Tensor, fragments: Fragments, faces: Tensor) -> Tensor:
    """Vertex attributes at each pixel: [V,C] → [N,H,W,C], 0 where empty. Differentiable in attributes and
    barycentrics."""
    if attributes.ndim != 2:
        raise ValueError(f"attributes are [V,C], got {tuple(attributes.shape)}")
    seen = fragments.face_index >= 0
    result = attributes.new_zeros(*seen.shape, attributes.shape[1])
    corners = attributes[faces.long()[fragments.face_index[seen]]]
    result[seen] = (corners * fragments.barycentric[seen][..., None]).sum(-2)
    return result


def _fragments(pixels: Tensor, z: Tensor, faces: Tensor, face_index: Tensor) -> Fragments:
    """Barycentrics and depth at the pixel centres: [N,V,2], [N,V], [F,3], [N,H,W] → Fragments."""
    n, height, width = face_index.shape
    view, row, column = (face_index >= 0).nonzero(as_tuple=True)
    corner = faces[face_index[view, row, column]]
    point = torch.stack([column, row], -1).to(pixels.dtype) + 0.5
    weights = _edge_weights(pixels[view[:, None], corner], point)[0]
    # 1/z is linear on the screen (perspective-correct interpolation)
    weights = weights / z[view[:, None], corner]
    depth = 1.0 / weights.sum(-1)
    barycentric = torch.zeros(n, height, width, 3, dtype=z.dtype, device=z.device)
    full_depth = torch.zeros(n, height, width, dtype=z.dtype, device=z.device)
    index = (view, row, column)
    return Fragments(
        face_index,
        barycentric.index_put(index, weights * depth[:, None]),
        full_depth.index_put(index, depth),
    )


def _edge_weights(corner: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
    """Screen-space barycentrics [K,3] of points [K,2] in triangles [K,3,2], and twice the signed areas [K]."""
    # all relative to the first corner: large pixel coordinates would cost float32 its last digits
    b, c, p = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0], point - corner[:, 0]
    area = b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0]
    safe = torch.where(area == 0, torch.ones_like(area), area)
    weight_b = (p[:, 0] * c[:, 1] - p[:, 1] * c[:, 0]) / safe
    weight_c = (b[:, 0] * p[:, 1] - b[:, 1] * p[:, 0]) / safe
    return torch.stack([1 - weight_b - weight_c, weight_b, weight_c], -1), area


def _torch_faces(pixels: Tensor, z: Tensor, faces: Tensor, height: int, width: int) -> Tensor:
    """Face index [H,W] of one view, from pixels [V,2] and z [V].

    Every (pixel, face) pair of every face's bounding box is a candidate; candidates inside their face compete
    for the pixel by scatter-min of depth, and at equal depth by the lower face index, so that the result is
    deterministic.
    """
    corner = pixels[faces]
    low = (corner.amin(1) - 0.5).ceil()
    high = (corner.amax(1) - 0.5).floor()
    limit = pixels.new_tensor([width - 1, height - 1])
    drawn = (z[faces] > _BEHIND).all(1) & torch.isfinite(corner).all(-1).all(-1)
    low = torch.where(drawn[:, None], low, torch.zeros_like(low)).clamp(min=0)
    high = torch.where(drawn[:, None], torch.minimum(high, limit), -torch.ones_like(high))
    extent = (high - low + 1).clamp(min=0).long()
    drawn_faces = ((extent > 0).all(1)).nonzero()[:, 0]
    low, extent = low[drawn_faces].long(), extent[drawn_faces]
    count = extent[:, 0] * extent[:, 1]
    nearest = pixels.new_full((height * width,), float("inf"))
    owner = torch.full((height * width,), -1, dtype=torch.long, device=pixels.device)
    end = count.cumsum(0)
    start_face, total = 0, int(end[-1]) if len(end) else 0
    done = 0
    while done < total:
        # as many whole faces as fit into one chunk, at least one
        stop_face = max(int(torch.searchsorted(end, done + _CANDIDATES, right=True)), start_face + 1)
        part = slice(start_face, stop_face)
        n = count[part]
        local = torch.repeat_interleave(torch.arange(len(n), device=n.device), n)
        rank = torch.arange(int(n.sum()), device=n.device) - (n.cumsum(0) - n)[local]
        w = extent[part, 0][local]
        x, y = low[part, 0][local] + rank % w, low[part, 1][local] + rank // w
        face = drawn_faces[part][local]
        vertex = faces[face]
        weights, area = _edge_weights(pixels[vertex], torch.stack([x, y], -1).to(pixels.dtype) + 0.5)
        hit = (weights >= -_SLACK).all(1) & (area != 0)
        face, pixel = face[hit], (y * width + x)[hit]
        depth = 1.0 / (weights[hit] / z[vertex[hit]]).sum(-1)
        updated = nearest.scatter_reduce(0, pixel, depth, "amin")
        wins = (depth == updated[pixel]) & (depth < nearest[pixel])
        best = torch.full_like(owner, len(faces)).scatter_reduce(0, pixel[wins], face[wins], "amin")
        owner = torch.where(best < len(faces), best, owner)
        nearest, done, start_face = updated, int(end[stop_face - 1]), stop_face
    return owner.reshape(height, width)


def _import_nvdiffrast():
    try:
        import nvdiffrast.torch as dr  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    return dr


def _nvdiffrast_faces(uv: Tensor, z: Tensor, faces: Tensor, height: int, width: int) -> Tensor:
    """Face index [H,W] of one view by nvdiffrast's CUDA rasteriser, from uv [V,2] and z [V]."""
    dr = _import_nvdiffrast()
    if dr is None:
        raise PmvError(
            "the rasteriser nvdiffrast is not installed: pip install --no-build-isolation "
            "git+https://github.com/NVlabs/nvdiffrast, or choose the backend torch"
        )
    if not uv.is_cuda:
        raise PmvError(
            "the rasteriser nvdiffrast needs CUDA tensors: run with --device cuda, or choose the backend torch"
        )
    # nvdiffrast clips faces that cross the camera plane; the twin does not draw them, and both must agree
    drawn = (z[faces] > _BEHIND).all(1).nonzero()[:, 0]
    if not len(drawn):
        return faces.new_full((height, width), -1)
    used = z[faces[drawn]]
    near, far = 0.5 * used.min(), 2.0 * used.max()
    # OpenGL clip space with w = z; nvdiffrast's row 0 is the bottom (y = −1), ours is the top (v = 0), so y
    # needs no flip
    clip_z = z * (far + near) / (far - near) - 2 * far * near / (far - near)
    clip = torch.cat([(2 * uv - 1) * z[:, None], clip_z[:, None], z[:, None]], -1).float().contiguous()
    raster, _ = dr.rasterize(
        dr.RasterizeCudaContext(uv.device),
        clip[None],
        faces[drawn].int().contiguous(),
        resolution=[height, width],
    )
    hit = raster[0, ..., 3].long() - 1
    return torch.where(hit >= 0, drawn[hit.clamp(min=0)], hit)
