"""A finished head back in its photo: at its place, at the photo's resolution, before the photo's own background."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pmv.errors import InputError, disk_errors
from pmv.inversion import load_inversion
from pmv.pictures.images import read_bytes, resize, without_ground, write_png
from pmv.pictures.uncrop import paste, soft_cover
from pmv.pipeline.folder import RunFolder
from pmv.pipeline.packing import load_fields
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
        write_uncropped(run, out, photo, Cropped(**prepared), yaw_deg=yaw_deg, pitch_deg=pitch_deg, device=device)


@dataclass(frozen=True)
class Cropped:
    """How a run's stage `prepare` took the head out of the photo.

    Attributes:
        crop: [2,3], pixels of the photo → pixels of the aligned picture.
        foreground: [1,1,S,S] in [0,1] of that picture.
        valid: [1,1,S,S], 0 in the photo's mirrored border; None = there is none.
    """

    crop: Tensor
    foreground: Tensor
    valid: Tensor | None


@torch.no_grad()
def write_uncropped(
    run: Path,
    out: Path,
    photo: np.ndarray,
    cropped: Cropped,
    *,
    yaw_deg: float = 0.0,
    pitch_deg: float = 0.0,
    device: str | torch.device = "cpu",
) -> None:
    """Write the photo with its head rendered by the inversion in the folder `run`.

    Args:
        photo: uint8 [H,W,3].
        cropped: how the run's stage `prepare` cropped it.
        yaw_deg, pitch_deg: degrees by which the camera is moved from the input view; small ones, since the body stays.
    """
    inversion = load_inversion(run, device)
    generator, spec = inversion.generator, inversion.generator.spec
    camera = inversion.camera.turned(math.radians(yaw_deg), math.radians(pitch_deg), spec.pivot)
    view = generator.render(generator.planes(inversion.w, inversion.noise), inversion.w, camera)
    size = cropped.foreground.shape[-1]
    picture = resize(view.image, size).clamp(-1, 1).cpu()
    cover = cropped.foreground.cpu()
    if (yaw_deg, pitch_deg) != (0, 0) and spec.has_alpha:
        cover = resize(view.alpha, size).clamp(0, 1).cpu()
    if spec.stands_alone and spec.background is not None:
        # what shines through a soft edge is the generator's plain ground: take it out again, where enough is left
        picture = without_ground(picture, cover, spec.background, _EDGE)
        cover = (cover - _EDGE) / (1 - _EDGE)
    write_png(out, paste(photo, picture, soft_cover(cover, cropped.valid), cropped.crop.double().cpu().numpy()))
