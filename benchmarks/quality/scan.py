"""Subjects from a folder of real scans: views of one head from known sides, in EG3D's world.

Such a folder holds for each portrait NAME ``NAME_VIEW.png`` (RGBA, not premultiplied), the front among them;
``dataset.json`` with the views' EG3D labels; ``NAME_found.json``, the camera that `pmv prepare` finds for the front;
``mesh.npz`` (v [V,3], f [F,3]) in the world of the views; and a README that says whose it is. Depth is drawn from the
mesh: maps in half precision step by .002 units at this distance, too coarse for normals.
"""

import re
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.quality.truth import Subject, Truth, is_written, write_subject
from benchmarks.quality.views import INPUT, View
from pmv.errors import InputError
from pmv.files.artifacts import file_hash, value_hash
from pmv.geometry.camera import Camera
from pmv.geometry.raster import rasterize
from pmv.pictures.images import read_image

GROUP = "scan"
_FRONT = "front"


def view_of(name: str) -> View:
    """The view that a file's suffix names: ``yawm30`` → −30°, ``yaw45``, ``up20``, ``down20``, ``back``.

    Raises:
        InputError: the suffix says no direction.
    """
    if name == _FRONT:
        return INPUT
    if name == "back":
        return View("yaw180", "180°", 180)
    found = re.fullmatch(r"(yaw|yawm|up|down)(\d+)", name)
    if not found:
        raise InputError(f"a view of a scan is called yaw30, yawm30, up20, down20 or back, not {name}")
    kind, angle = found[1], int(found[2])
    if kind in ("up", "down"):
        pitch = angle if kind == "up" else -angle
        return View(f"pitch{pitch:+d}", "pitch ±20°", 0, pitch)
    yaw = -angle if kind == "yawm" else angle
    group = "±15°" if angle < 22 else "±30°" if angle < 38 else "45–60°" if angle < 75 else "±90°"
    return View(f"yaw{yaw:+d}", group, yaw)


def scan_subjects(scans: Path, folder: Path, size: int) -> list[Subject]:
    """Every portrait of a scan, written into `folder`.

    Raises:
        InputError: there is no scan at `scans`.
    """
    labels = scans / "dataset.json"
    if not labels.exists():
        raise InputError(f"{scans}: holds no scan (it lacks dataset.json)")
    names = sorted(path.name.removesuffix("_found.json") for path in scans.glob("*_found.json"))
    return [_subject(scans, name, folder / name, size) for name in names]


def _subject(scans: Path, name: str, folder: Path, size: int) -> Subject:
    files = {view_of(path.stem.removeprefix(name + "_")): path for path in scans.glob(f"{name}_*.png")}
    views = tuple(sorted(files, key=lambda view: (view is not INPUT, abs(view.pitch), abs(view.yaw), view.yaw)))
    key = value_hash([size, file_hash(scans / "mesh.npz"), *(file_hash(files[view]) for view in views)])
    if not is_written(folder, key):
        paths = [files[view] for view in views]
        cameras = Camera.cat([Camera.load(scans / "dataset.json", path.name) for path in paths])
        pictures = [read_image(path) for path in paths]
        rgb = torch.cat([picture for picture, _ in pictures])
        alpha = torch.cat([torch.ones_like(picture[:, :1]) if a is None else a for picture, a in pictures])
        depth = mesh_depth(scans / "mesh.npz", cameras, rgb.shape[-1])
        found = Camera.load(scans / f"{name}_found.json", paths[0].name)
        write_subject(folder, Truth.of(rgb, alpha, depth, cameras, size), found, key)
    return Subject(name, GROUP, folder, views, partial(mesh_depth, scans / "mesh.npz"))


def mesh_depth(path: Path, cameras: Camera, size: int) -> Tensor:
    """z-depth [V,1,size,size] of a mesh (.npz with v, f) from cameras, 0 where empty."""
    mesh = np.load(path)
    vertices, faces = torch.from_numpy(mesh["v"]).float(), torch.from_numpy(mesh["f"].astype(np.int64))
    views = [rasterize(vertices, faces, cameras[i].to("cpu"), size, size, "torch").depth for i in range(len(cameras))]
    return torch.cat(views)[:, None]
