"""Triangle meshes of a generator's density, their colours from renders, and PLY files."""

from collections.abc import Callable
from pathlib import Path

import fast_simplification
import numpy as np
import torch
import trimesh
import trimesh.smoothing
from scipy.spatial import KDTree
from skimage.measure import marching_cubes
from torch import Tensor
from trimesh.visual.color import ColorVisuals

from pmv.errors import InputError
from pmv.files.artifacts import atomic_path
from pmv.geometry.camera import Camera
from pmv.geometry.raster import rasterize
from pmv.geometry.scene import edge_step, sample_depth
from pmv.geometry.warping import sample_image

_CHUNK = 1 << 17  # points a density query: tens of MB of plane features


@torch.no_grad()
def extract_mesh(
    density: Callable[[Tensor], Tensor], box: float, resolution: int, level: float, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Marching cubes (Lewiner et al. 2003) over a cube centred at the origin; the largest piece is kept.

    Args:
        density: points [1,P,3] in the world → density [1,P,1]; larger means denser.
        box: side of the cube, world units.
        resolution: samples along each side, both faces of the cube included; at least 2.
        level: density of the surface.
        device: where the density is asked.

    Returns:
        vertices [V,3] float32 in the world and faces [F,3] int64, counter-clockwise from outside, on the CPU.
        Both are empty where nothing is denser than the level. The mesh is closed: outside the cube is nothing.
    """
    if resolution < 2:
        raise ValueError(f"a density grid has at least 2 samples a side, got {resolution}")
    axis = torch.linspace(-box / 2, box / 2, resolution, device=device)
    total = resolution**3
    values = torch.empty(total)
    for start in range(0, total, _CHUNK):
        index = torch.arange(start, min(start + _CHUNK, total), device=device)
        x, rest = index // resolution**2, index % resolution**2
        points = torch.stack([axis[x], axis[rest // resolution], axis[rest % resolution]], -1)
        values[start : start + len(index)] = density(points[None])[0, :, 0].float().cpu()
    volume = values.reshape(resolution, resolution, resolution).numpy()
    if not volume.max() > level:
        return torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long)
    # a border as far below the level as the densest sample is above it closes the mesh just outside the cube
    volume = np.pad(volume, 1, constant_values=2 * level - volume.max())
    spacing = box / (resolution - 1)
    corners, faces, _, _ = marching_cubes(volume, level, spacing=(spacing,) * 3)
    corners = corners - (box / 2 + spacing)
    mesh = trimesh.Trimesh(corners, faces, process=False)
    labels = trimesh.graph.connected_component_labels(mesh.face_adjacency, node_count=len(faces))
    mesh.update_faces(labels == np.bincount(labels).argmax())
    mesh.remove_unreferenced_vertices()
    if mesh.volume < 0:
        mesh.invert()
    return (
        torch.from_numpy(np.asarray(mesh.vertices, dtype=np.float32).copy()),
        torch.from_numpy(np.asarray(mesh.faces, dtype=np.int64).copy()),
    )


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals [V,3] of vertices [V,3], the mean of their faces' [F,3] weighted by area; zero without a face."""
    corner = vertices[faces]
    face_normal = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normals = torch.zeros_like(vertices).index_add(0, faces.reshape(-1), face_normal.repeat_interleave(3, 0))
    return torch.nn.functional.normalize(normals, dim=-1)


@torch.no_grad()
def vertex_colours(vertices: Tensor, faces: Tensor, images: Tensor, cameras: Camera, tolerance: float) -> Tensor:
    """Colours of vertices from the views that see them, each weighted by how squarely it does (cosine squared).

    A vertex that no view sees takes the colour of the nearest one that is seen.

    Args:
        vertices: [V,3]; faces: [F,3].
        images: [T,3,S,S] in [-1,1]; cameras: T.
        tolerance: of the depth test, world units: about two cells of the marching cubes.

    Returns:
        uint8 [V,3] on the CPU; mid grey where no view sees any vertex.
    """
    size = images.shape[-1]
    vertices, faces = vertices.to(images), faces.to(images.device)
    normals = vertex_normals(vertices, faces)
    total = vertices.new_zeros(len(vertices), 4)
    for i in range(len(cameras)):
        camera = cameras[i]
        fragments = rasterize(vertices, faces, camera, size, size)
        uv, z = camera.project(vertices[None])
        hit = fragments.face_index[:, None] >= 0
        depth, found = sample_depth(fragments.depth[:, None], hit, uv, edge_step(camera, size))
        ray = torch.nn.functional.normalize(camera.position - vertices, dim=-1)
        weight = (ray * normals).sum(-1).clamp(min=0) ** 2 * (found & (z - depth < tolerance))[0]
        colour = sample_image(images[i : i + 1], uv[:, None])[0, :, 0].T.clamp(-1, 1)
        total += torch.cat([colour, torch.ones_like(colour[:, :1])], -1) * weight[:, None]
    seen = (total[:, 3] > 1e-4).cpu().numpy()
    colours = ((total[:, :3] / total[:, 3:].clamp(min=1e-4) + 1) * 127.5).round().to(torch.uint8).cpu()
    if not seen.any():
        return torch.full_like(colours, 128)
    if not seen.all():
        place = vertices.cpu().numpy()
        _, nearest = KDTree(place[seen]).query(place[~seen])
        colours[torch.from_numpy(~seen)] = colours[torch.from_numpy(seen.nonzero()[0][nearest])]
    return colours


def surface_level(density: Callable[[Tensor], Tensor], points: Tensor) -> float:
    """The density whose isosurface lies where a volume is seen: the median over points of its depth maps.

    A volume's walls are soft and no wall is where the density begins: in the embedded generator's heads the surface of
    EG3D's own value, 10, lies 1.3 % of the box in front of the depth maps, this one .03 %.

    Args:
        density: as of `extract_mesh`.
        points: [P,3] of depth maps where next to nothing shines through, P > 0.
    """
    parts = [density(points[None, i : i + _CHUNK])[0, :, 0] for i in range(0, len(points), _CHUNK)]
    return float(torch.cat(parts).median())


def simplified(vertices: Tensor, faces: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The mesh with about `count` faces (quadric error metrics, Garland and Heckbert 1997); as it is where it has no
    more."""
    if len(faces) <= count:
        return vertices, faces
    corners, triangles = fast_simplification.simplify(
        vertices.cpu().double().numpy(), faces.cpu().numpy(), target_count=count
    )[:2]
    return torch.from_numpy(np.asarray(corners, np.float32)), torch.from_numpy(np.asarray(triangles, np.int64))


def smoothed(vertices: Tensor, faces: Tensor, steps: int) -> Tensor:
    """Vertices [V,3] after so many steps of Taubin's smoothing (1995), which does not shrink."""
    if steps == 0:
        return vertices
    mesh = trimesh.Trimesh(vertices.cpu().numpy(), faces.cpu().numpy(), process=False)
    # each step of trimesh's is one of the two half-steps, shrinking and growing
    trimesh.smoothing.filter_taubin(mesh, iterations=2 * steps)
    return torch.from_numpy(np.asarray(mesh.vertices, dtype=np.float32).copy())


def write_ply(path: str | Path, vertices: Tensor, faces: Tensor, colours: Tensor | None = None) -> None:
    """Writes a binary PLY atomically: vertices [V,3] in world units, faces [F,3], colours uint8 [V,3] or None."""
    mesh = trimesh.Trimesh(
        np.asarray(vertices.cpu()),
        np.asarray(faces.cpu()),
        vertex_colors=None if colours is None else np.asarray(colours.cpu()),
        process=False,
    )
    with atomic_path(path) as temporary:
        mesh.export(temporary, file_type="ply")


def read_ply(path: str | Path) -> tuple[Tensor, Tensor, Tensor | None]:
    """The inverse of `write_ply`: vertices float32 [V,3], faces int64 [F,3], colours uint8 [V,3] or None.

    Raises:
        InputError: the file is missing or no triangle mesh in PLY.
    """
    try:
        mesh = trimesh.load(path, file_type="ply", process=False, force="mesh")
    except Exception as error:  # trimesh's reader raises whatever its parser meets
        raise InputError(f"{path}: cannot be read as a PLY mesh; write it with pmv or as binary PLY") from error
    if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.vertices):
        raise InputError(f"{path}: holds no triangle mesh")
    visual, colours = mesh.visual, None
    if isinstance(visual, ColorVisuals) and visual.kind == "vertex":
        colours = torch.from_numpy(np.asarray(visual.vertex_colors)[:, :3].copy())
    return (
        torch.from_numpy(np.asarray(mesh.vertices, dtype=np.float32).copy()),
        torch.from_numpy(np.asarray(mesh.faces, dtype=np.int64).copy()),
        colours,
    )
