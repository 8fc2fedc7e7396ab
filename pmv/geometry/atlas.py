"""Texture atlases of triangle meshes: unwrapping (xatlas), the surface point behind every texel, and the border around
charts.

A texture is a picture [T,T]; uv (0,0) is its top left corner and (1,1) its bottom right one, as everywhere in pmv and
in glTF.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import trimesh
from scipy import ndimage
from torch import Tensor

from pmv.errors import AssetsError
from pmv.geometry.camera import Camera
from pmv.geometry.raster import rasterize

_MAX_COST = 8.0
"""xatlas' own, 2, cuts the rough surface of a volume into several times as many charts."""
_PADDING = 4
"""Texels between charts, so that a bilinear or mip-mapped look-up stays in its own."""
_CROWD, _APART = 4, 0.63
"""Random points for each that is wanted, and how far apart those that stay are at least, in mean distances."""


@dataclass(frozen=True)
class Atlas:
    """An unwrapped mesh: vertices on a seam between charts are there once for each chart.

    Attributes:
        vertices: [V,3] float32 in the world; normals: [V,3], unit.
        faces: [F,3] int64.
        uv: [V,2] in [0,1].
        source: int64 [V], the vertex of the mesh before.
    """

    vertices: Tensor
    normals: Tensor
    faces: Tensor
    uv: Tensor
    source: Tensor


@dataclass(frozen=True)
class Texels:
    """The surface points that M texels of an atlas show.

    Attributes:
        index: int64 [M], row · T + column.
        points, normals: [M,3] in the world.
        corners: int64 [M,3], the vertices of the face that each lies on, in the mesh before it was unwrapped.
        barycentric: [M,3], their weights.
    """

    index: Tensor
    points: Tensor
    normals: Tensor
    corners: Tensor
    barycentric: Tensor


def unwrap(vertices: Tensor, faces: Tensor, normals: Tensor, size: int) -> Atlas:
    """Cut a mesh into charts and pack them (xatlas: least-squares conformal maps, Lévy et al. 2002).

    Args:
        vertices: [V,3]; faces: [F,3], F > 0; normals: [V,3], unit.
        size: T of the texture that it is packed for.

    Raises:
        AssetsError: xatlas is not installed, as on Pythons that it is not built for.
    """
    try:
        import xatlas
    except ImportError as error:
        raise AssetsError("textured meshes need xatlas: pip install xatlas; or export ply or stl") from error
    atlas = xatlas.Atlas()
    atlas.add_mesh(
        vertices.cpu().numpy().astype(np.float32),
        faces.cpu().numpy().astype(np.uint32),
        normals.cpu().numpy().astype(np.float32),
    )
    packing = xatlas.PackOptions()
    packing.resolution, packing.padding, packing.create_image = size, _PADDING, False
    charts = xatlas.ChartOptions()
    charts.max_cost = _MAX_COST
    atlas.generate(charts, packing)
    source, corners, uv = atlas[0]
    # packing to a wanted resolution is approximate: the atlas may come out a little larger, never square
    uv = uv * np.array([atlas.width, atlas.height], np.float32) / max(atlas.width, atlas.height)
    chosen = torch.from_numpy(source.astype(np.int64))
    triangles = torch.from_numpy(corners.astype(np.int64))
    return Atlas(vertices.cpu()[chosen], normals.cpu()[chosen], triangles, torch.from_numpy(uv), chosen)


def texels(atlas: Atlas, size: int) -> Texels:
    """Where on the surface the texels of a texture of `size`² lie; those between the charts are left out."""
    # a chart is a flat mesh before a camera whose picture is the texture
    flat = torch.cat([atlas.uv, torch.ones_like(atlas.uv[:, :1])], 1)
    eye = Camera(torch.eye(4)[None], torch.eye(3)[None])
    seen = rasterize(flat, atlas.faces, eye, size, size)
    index = (seen.face_index.reshape(-1) >= 0).nonzero()[:, 0]
    corners = atlas.faces[seen.face_index.reshape(-1)[index]]
    weights = seen.barycentric.reshape(-1, 3)[index]
    return _on_surface(index, corners, weights, atlas.vertices, atlas.normals, atlas.source)


def vertex_texels(vertices: Tensor, normals: Tensor) -> Texels:
    """The vertices of a mesh themselves, with unit normals, both [V,3], as if each were a texel."""
    index = torch.arange(len(vertices))
    weights = torch.tensor([1.0, 0.0, 0.0]).expand(len(vertices), 3)
    return _on_surface(index, index[:, None].expand(-1, 3), weights, vertices, normals, index)


def spread_texels(vertices: Tensor, faces: Tensor, normals: Tensor, count: int, seed: int) -> Texels:
    """About `count` points spread evenly over a mesh, as if each were a texel: random ones of which those too close to
    another are left out (trimesh).

    Args:
        vertices: [V,3]; faces: [F,3], F > 0; normals: [V,3], unit.
    """
    mesh = trimesh.Trimesh(vertices.cpu().numpy(), faces.cpu().numpy(), process=False)
    spacing = math.sqrt(mesh.area / count)
    points, face = trimesh.sample.sample_surface(mesh, _CROWD * count, seed=seed)[:2]
    points, kept = trimesh.points.remove_close(points, _APART * spacing)
    weights = trimesh.triangles.points_to_barycentric(mesh.triangles[face[kept]], points)
    index = torch.arange(len(points))
    corners = faces.cpu()[torch.from_numpy(face[kept])]
    source = torch.arange(len(vertices))
    return _on_surface(index, corners, torch.from_numpy(weights).float(), vertices.cpu(), normals.cpu(), source)


def _on_surface(
    index: Tensor, corners: Tensor, weights: Tensor, vertices: Tensor, normals: Tensor, source: Tensor
) -> Texels:
    points = (vertices[corners] * weights[..., None]).sum(1)
    normal = (normals[corners] * weights[..., None]).sum(1)
    return Texels(index, points, torch.nn.functional.normalize(normal, dim=-1), source[corners], weights)


def as_texture(colours: Tensor, index: Tensor, size: int) -> np.ndarray:
    """A texture of texels' colours; texels between the charts take the nearest chart's.

    Args:
        colours: [M,3] in [-1,1]; index: of `Texels`.
        size: T.

    Returns:
        uint8 [T,T,3].
    """
    values = ((colours.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
    picture = np.zeros((size * size, 3), np.uint8)
    picture[index.cpu().numpy()] = values
    empty = np.ones(size * size, bool)
    empty[index.cpu().numpy()] = False
    picture, empty = picture.reshape(size, size, 3), empty.reshape(size, size)
    if not empty.any() or empty.all():
        return picture
    nearest = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
    assert nearest is not None
    return picture[nearest[0], nearest[1]]


def sample_texture(texture: np.ndarray, uv: Tensor) -> Tensor:
    """Bilinear colours [...,3] in [-1,1] of a texture uint8 [T,T,3] at uv [...,2]."""
    size = texture.shape[0]
    place = (uv.reshape(-1, 2).cpu().numpy() * size - 0.5).astype(np.float32)
    # cv2.remap takes at most 32767 rows
    width = 4096
    rows = -(-len(place) // width)
    padded = np.zeros((rows * width, 2), np.float32)
    padded[: len(place)] = place
    grid = padded.reshape(rows, width, 2)
    parts = [
        cv2.remap(
            texture,
            grid[i : i + 8192, :, 0],
            grid[i : i + 8192, :, 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for i in range(0, rows, 8192)
    ]
    colours = np.concatenate(parts).reshape(-1, 3)[: len(place)]
    return (torch.from_numpy(colours).float() / 127.5 - 1).reshape(*uv.shape[:-1], 3)
