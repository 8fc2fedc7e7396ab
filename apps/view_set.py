"""A finished head as pictures with cameras, in the layouts that nerfstudio, gsplat and Brush read."""

import json
import math
from pathlib import Path

import numpy as np
import torch
import trimesh
from torch import Tensor

from pmv.apps.layers import DEPTH_UNIT, TRANSPARENT, Look, shape_from
from pmv.files.artifacts import atomic_folder
from pmv.generators.base import GeneratorSpec
from pmv.geometry.camera import Camera
from pmv.inversion import load_inversion
from pmv.pictures.layers import depth_bits, normal_bits, write_layer

_POINTS = 20_000
_PITCHES_ALL, _PITCHES_FRONT = (-20.0, 5.0, 30.0), (-15.0, 0.0, 15.0)
_YAW_FRONT = 35.0
_IMAGES, _DEPTH, _NORMALS, _SPARSE = "images", "depth", "normals", "sparse"
_TRANSFORMS, _CLOUD = "transforms.json", "points.ply"


def view_set_files() -> set[str]:
    """What lies in such a folder."""
    return {_IMAGES, _DEPTH, _NORMALS, _SPARSE, _TRANSFORMS, _CLOUD}


def around(spec: GeneratorSpec, count: int) -> Camera:
    """`count` cameras on three rings: all around a full head, else over the front."""
    rings = _PITCHES_ALL if spec.full_head else _PITCHES_FRONT
    yaws, pitches = [], []
    for i, pitch in enumerate(rings):
        here = count // len(rings) + (i < count % len(rings))
        for j in range(here):
            # rings are turned against one another, so that no two cameras stand above each other
            turn = (j + i / len(rings)) / max(here, 1)
            yaws.append(360 * turn if spec.full_head else _YAW_FRONT * (2 * turn - 1))
            pitches.append(pitch)
    return spec.orbit(torch.tensor(yaws) * math.pi / 180, torch.tensor(pitches) * math.pi / 180)


@torch.no_grad()
def write_view_set(
    run: Path, out: Path, count: int, device: str | torch.device = "cpu", generator: str | None = None
) -> None:
    """Write a folder: `images` (PNG with straight alpha), `depth` (16-bit PNG of z-depth in `DEPTH_UNIT`, 0 = nothing),
    `normals` (16-bit PNG, world axes, (n + 1)/2), ``transforms.json`` (nerfstudio), ``sparse/0`` (COLMAP text) and
    ``points.ply`` (surface points to start splats from). Lengths are world units.

    Args:
        run: folder of a run, or one that `pmv edit` wrote.
        count: pictures; the first is the photo's own view, the others lie around it.
        generator: see `load_inversion`.

    Raises:
        PmvError: no finished inversion there, or no place to write to.
    """
    inversion = load_inversion(run, device, generator)
    model, w = inversion.generator, inversion.w
    spec, size = model.spec, model.spec.resolution
    planes = model.planes(w, inversion.noise)
    look = Look(ground=TRANSPARENT if spec.has_alpha else None)
    cameras = inversion.camera.to(w.device)
    if count > 1:
        cameras = Camera.cat([cameras, around(spec, count - 1).to(w.device)])
    names = [f"{i:05d}.png" for i in range(count)]
    places, colours = [], []
    with atomic_folder(out) as folder:
        for name in (_IMAGES, _DEPTH, _NORMALS):
            (folder / name).mkdir()
        for i, name in enumerate(names):
            shape = shape_from(inversion, planes, cameras[i], (size, size))
            pixels = look.pixels(shape.render, spec)
            write_layer(folder / _IMAGES / name, pixels)
            write_layer(folder / _DEPTH / name, depth_bits(shape.depth, DEPTH_UNIT))
            write_layer(folder / _NORMALS / name, normal_bits(shape.normals))
            shown = shape.surface.cpu()
            places.append(shape.points.cpu()[shown])
            colours.append(torch.from_numpy(pixels[..., :3].copy())[shown])
        cloud, paint = _sample(torch.cat(places), torch.cat(colours))
        trimesh.PointCloud(cloud, paint).export(folder / _CLOUD)
        cameras.save(folder / _SPARSE / "0", names, size)
        _write_points(folder / _SPARSE / "0" / "points3D.txt", cloud, paint)
        cameras.save(folder / _TRANSFORMS, [f"{_IMAGES}/{name}" for name in names], size)
        _complete(folder / _TRANSFORMS, names)


def _sample(points: Tensor, colours: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """At most `_POINTS` of the points, spread evenly over all pictures."""
    chosen = torch.linspace(0, len(points) - 1, min(_POINTS, len(points))).round().long()
    return points[chosen].numpy(), colours[chosen].numpy()


def _write_points(path: Path, points: np.ndarray, colours: np.ndarray) -> None:
    """COLMAP's points3D.txt; no point was triangulated, so there are no tracks and no errors."""
    rows = [
        f"{i} {x:.6g} {y:.6g} {z:.6g} {r} {g} {b} 0"
        for i, ((x, y, z), (r, g, b)) in enumerate(zip(points.tolist(), colours.tolist()), 1)
    ]
    path.write_text("# point_id x y z r g b error\n" + "\n".join(rows) + "\n")


def _complete(path: Path, names: list[str]) -> None:
    """What nerfstudio reads beside cameras: depth maps and points; and the depth's unit, which it is to be told."""
    data = json.loads(path.read_text())
    for frame, name in zip(data["frames"], names, strict=True):
        frame["depth_file_path"] = f"{_DEPTH}/{name}"
        frame["normal_file_path"] = f"{_NORMALS}/{name}"
    data |= {"ply_file_path": _CLOUD, "depth_unit_scale_factor": DEPTH_UNIT}
    path.write_text(json.dumps(data, indent=1) + "\n")
