"""A finished head in files of other programs: a mesh, Gaussians, pictures with cameras, or its latent."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pmv.apps.gaussians import SPLATS, gaussians, splat_agreement
from pmv.apps.head_model import ModelSettings, Surface, agreement, head_surface, textured
from pmv.apps.view_set import view_set_files, write_view_set
from pmv.errors import InputError, disk_errors
from pmv.files.artifacts import atomic_folder, atomic_path, check_replaceable
from pmv.geometry.atlas import vertex_texels
from pmv.geometry.mesh import write_ply
from pmv.geometry.model_files import write_glb, write_obj, write_stl
from pmv.geometry.splat_files import require_spz, write_splat_ply, write_spz
from pmv.inversion import load_inversion

MESHES = ("glb", "obj", "ply", "stl")
TEXTURED = ("glb", "obj")
GAUSSIANS = "gaussians"
FORMATS = (*MESHES, GAUSSIANS, "views", "npz")
_SUFFIX = {"glb": ".glb", "obj": "-obj", "ply": ".ply", "stl": ".stl", "views": "-views", "npz": "-projected_w.npz"}
_SUFFIX |= {GAUSSIANS: ".gs.ply"}
_OBJ = "head"
_MILLIMETRES = 1000.0
"""STL has no unit; programs that print take its numbers for millimetres."""

log = logging.getLogger(__name__)


def export_run(
    run: Path,
    kind: str,
    out: Path | None = None,
    settings: ModelSettings | None = None,
    *,
    metres: float | None = None,
    views: int = 60,
    splats: int = SPLATS,
    device: str | torch.device = "cpu",
    generator: str | None = None,
) -> Path:
    """Write the finished head in the folder `run`; returns where.

    Args:
        run: folder of a run, or one that `pmv edit` wrote.
        kind: one of `FORMATS`. "glb", "ply" and "stl" are files, "npz" (EG3D's ``projected_w.npz``, the pivot without
            what was tuned) too; "obj" and "views" folders; "gaussians" a file whose name says its kind, .ply or .spz,
            and one beside it, with .json at the end, that says how well they show the volume.
        out: None = beside `run`, named after it.
        settings: of the meshes; None = the usual ones, all but "glb" and "obj" with all their faces.
        metres: in a world unit; None = a mean adult's head is assumed (`pmv.apps.head_model.metres_per_unit`).
        views: pictures of "views".
        splats: Gaussians of "gaussians", about.
        generator: name or path of the pretrained generator, where it is no longer where the run found it.

    Raises:
        PmvError: no finished inversion there, nothing to show, or no place to write to.
    """
    if kind not in FORMATS:
        raise InputError(f"no format is called {kind!r}; there are {', '.join(FORMATS)}")
    folder = run if run.is_dir() else run.parent
    path = out or folder.resolve().with_name(folder.resolve().name + _SUFFIX[kind])
    _check_place(path, kind)
    if kind == "views":
        write_view_set(run, path, views, device, generator)
    elif kind == "npz":
        inversion = load_inversion(run, device, generator)
        with disk_errors(path), atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, w=inversion.w.cpu().numpy())
    else:
        surface = head_surface(run, settings or usual_settings(kind), device, generator)
        if metres is not None:
            surface = replace(surface, metres=metres)
        if kind == GAUSSIANS:
            _write_gaussians(surface, path, splats)
        else:
            _write_mesh(surface, kind, path, settings or usual_settings(kind))
    return path


def usual_settings(kind: str) -> ModelSettings:
    """What a format is written with: colours of vertices are as fine as the mesh, a texture does not need one."""
    return ModelSettings() if kind in TEXTURED else ModelSettings(faces=None)


def _check_place(path: Path, kind: str) -> None:
    if kind == "obj":
        check_replaceable(path, _obj_files(), "an exported OBJ")
    elif kind == "views":
        check_replaceable(path, view_set_files(), "exported views")
    elif path.is_dir():
        raise InputError(f"{path}: is a folder; give a file as --out")
    elif not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; make it first")
    elif kind == GAUSSIANS and path.suffix.lower() not in (".ply", ".spz"):
        raise InputError(f"{path}: Gaussians are written as .ply or .spz; end --out in one of them")
    elif kind == GAUSSIANS and path.suffix.lower() == ".spz":
        require_spz()


def _obj_files() -> Sequence[str]:
    return [f"{_OBJ}.{suffix}" for suffix in ("obj", "mtl", "png")]


def _write_mesh(surface: Surface, kind: str, path: Path, settings: ModelSettings) -> None:
    metres = _metres(surface, path)
    height = float(surface.vertices[:, 1].max() - surface.vertices[:, 1].min()) * metres
    unit = "mm" if kind == "stl" else "m"
    size = f"{height * 1000:.0f} mm" if kind == "stl" else f"{height:.2f} m"
    log.info("%s: %d faces, in %s, %s high (%.3f m a world unit)", path, len(surface.faces), unit, size, metres)
    if kind != "stl":
        _say_whose(surface, path)
    with disk_errors(path):
        if kind == "stl":
            write_stl(path, surface.vertices, surface.faces, metres * _MILLIMETRES)
        elif kind == "ply":
            colours = surface.colours(vertex_texels(surface.vertices, surface.normals))
            pixels = ((colours + 1) * 127.5).round().to(torch.uint8)
            write_ply(path, surface.vertices * metres, surface.faces, pixels)
        else:
            model = textured(surface, settings.texture)
            found = agreement(model, surface.front)
            inside = f", {found['edit']:.1f} dB inside what was painted" if "edit" in found else ""
            log.info("%s: %.1f dB against the volume from the photo's view%s", path, found["front"], inside)
            if kind == "glb":
                write_glb(path, model.atlas, model.texture, metres, {"metres_per_world_unit": metres})
            else:
                with atomic_folder(path) as temporary:
                    write_obj(temporary, _OBJ, model.atlas, model.texture, metres)


def _write_gaussians(surface: Surface, path: Path, count: int) -> None:
    metres = _metres(surface, path)
    _say_whose(surface, path)
    splats = gaussians(surface, count)
    found = {view: round(value, 2) for view, value in splat_agreement(splats, surface).items()}
    said = ", ".join(f"{value:.1f} dB {_place(view)}" for view, value in found.items())
    log.info("%s: %d Gaussians (%.3f m a world unit); against the volume %s", path, len(splats.means), metres, said)
    about = {"splats": len(splats.means), "metres_per_world_unit": metres, "psnr_against_volume_db": found}
    beside = path.with_name(path.name + ".json")
    with disk_errors(path):
        (write_spz if path.suffix.lower() == ".spz" else write_splat_ply)(path, splats, metres)
        with atomic_path(beside) as temporary:
            temporary.write_text(json.dumps(about, indent=1) + "\n")


def _place(view: str) -> str:
    return "from the photo's view" if view == "photo" else f"at {view}°"


def _metres(surface: Surface, path: Path) -> float:
    """In a world unit; says where that is not known."""
    if surface.metres is None:
        log.warning("%s: how large it is is not known, a world unit is written as 1 m; --metres says otherwise", path)
    return 1.0 if surface.metres is None else surface.metres


def _say_whose(surface: Surface, path: Path) -> None:
    if surface.photo is None:
        log.info("%s: the colours are the generator's alone, an edited head is no longer the photo's", path)
