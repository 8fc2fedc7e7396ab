"""A finished head back in its photo: at its place, at the photo's resolution, before the photo's own background."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pmv.errors import InputError, disk_errors
from pmv.files.artifacts import load_fields
from pmv.inversion import load_inversion
from pmv.pictures.images import read_bytes, resize, write_png
from pmv.pictures.uncrop import paste, soft_cover, turned
from pmv.pipeline.folder import RunFolder
from pmv.stages.sources import run_sources
from pmv.stages.table import TABLE

_EDGE = 0.4
"""Opacity below which a render's soft edge is left out."""


def uncrop_run(
    run: Path, out: Path, yaw_deg: float = 0.0, pitch_deg: float = 0.0, device: str | torch.device = "cpu"
) -> None:
    """Write the photo of the finished run in the folder `run` with the head as the run renders it.

    Args:
        out: the PNG.
        yaw_deg, pitch_deg: degrees by which the camera is moved from the photo's; small ones, since the body stays.

    Raises:
        PmvError: no finished run there, or no place to write to.
    """
    if not out.parent.is_dir():
        raise InputError(f"{out}: the folder {out.parent} does not exist; make it first")
    folder = RunFolder(run, TABLE)
    folder.require_run()
    prepared = load_fields(folder.outputs(TABLE[TABLE.find("prepare")]), ["crop", "foreground", "valid"])
    photo = np.ascontiguousarray(read_bytes(run_sources(folder).photo)[0][0].permute(1, 2, 0).numpy())
    with disk_errors(out):
        write_uncropped(run, out, photo, **prepared, yaw_deg=yaw_deg, pitch_deg=pitch_deg, device=device)


@torch.no_grad()
def write_uncropped(
    run: Path,
    out: Path,
    photo: np.ndarray,
    crop: Tensor,
    foreground: Tensor,
    valid: Tensor | None,
    yaw_deg: float = 0.0,
    pitch_deg: float = 0.0,
    device: str | torch.device = "cpu",
) -> None:
    """Write the photo with its head rendered by the inversion in the folder `run`.

    Args:
        photo: uint8 [H,W,3].
        crop: [2,3], foreground, valid [1,1,S,S]: of the run's stage `prepare`.
        yaw_deg, pitch_deg: degrees by which the camera is moved from the input view; small ones, since the body stays.
    """
    inversion = load_inversion(run, device)
    generator, spec = inversion.generator, inversion.generator.spec
    camera = turned(inversion.camera, math.radians(yaw_deg), math.radians(pitch_deg), spec.pivot)
    view = generator.render(generator.planes(inversion.w, inversion.noise), inversion.w, camera)
    size = foreground.shape[-1]
    picture = resize(view.image, size).clamp(-1, 1).cpu()
    cover = foreground.cpu()
    if (yaw_deg, pitch_deg) != (0, 0) and spec.has_alpha:
        cover = resize(view.alpha, size).clamp(0, 1).cpu()
    if spec.stands_alone:
        # what shines through a soft edge is the generator's plain ground: take it out again, where enough is left
        edge = cover.clamp_min(_EDGE)
        picture = ((picture - (1 - edge) * spec.background) / edge).clamp(-1, 1)
        cover = (cover - _EDGE) / (1 - _EDGE)
    write_png(out, paste(photo, picture, soft_cover(cover, valid), crop.double().cpu().numpy()))
