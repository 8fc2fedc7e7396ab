"""A finished head back in its photo: at its place, at the photo's resolution, before the photo's own background."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.errors import InputError, disk_errors, shown
from pmv.files.artifacts import check_output, read_header
from pmv.generators.base import Render
from pmv.inversion import FILE_NAME, load_inversion
from pmv.pictures.images import read_bytes, resize, without_ground, write_png
from pmv.pictures.masks import SOLID
from pmv.pictures.uncrop import paste, soft_cover
from pmv.pipeline.folder import RunFolder
from pmv.pipeline.packing import load_fields
from pmv.stages.sources import run_sources
from pmv.stages.table import TABLE

_MOST_PIXELS = 4096
"""Side of an aligned picture."""
log = logging.getLogger(__name__)

_BARE = 0.01
"""Part of the photo's head that a turned one may leave bare before a warning."""
_HALVINGS = 4
_EDGE = 0.4
"""Opacity below which a render's soft edge is left out."""


def uncrop_run(
    run: Path,
    out: Path,
    yaw_deg: float = 0.0,
    pitch_deg: float = 0.0,
    device: str | torch.device = "cpu",
    generator: str | None = None,
) -> None:
    """Write the photo of the finished run in the folder `run` with the head as the run renders it.

    Args:
        run: folder of a run, or one that `pmv edit` wrote: its head then stands in the photo of the run before it.
        out: the PNG.
        yaw_deg, pitch_deg: degrees by which the camera is moved from the photo's; small ones, since the body stays.
            Beyond what the turned head covers of the old one, a warning says how far is honest.
        generator: see `load_inversion`.

    Raises:
        PmvError: no finished run there, or no place to write to.
    """
    check_output(out)
    folder = RunFolder(_photo_run(run), TABLE)
    folder.require_run()
    path = folder.outputs(TABLE[TABLE.find("prepare")])
    cropped = _checked(Cropped(**load_fields(path, ["crop", "foreground", "valid"], follow=False)), path)
    photo = np.ascontiguousarray(read_bytes(run_sources(folder).photo)[0][0].permute(1, 2, 0).numpy())
    with disk_errors(out):
        write_uncropped(
            run, out, photo, cropped, yaw_deg=yaw_deg, pitch_deg=pitch_deg, device=device, generator=generator
        )


def _photo_run(run: Path) -> Path:
    """The run whose photo a folder's head belongs to: itself, or the one that an edited head was made from."""
    path = run / FILE_NAME if run.is_dir() else run
    if RunFolder(path.parent, TABLE).is_run or not path.is_file():
        return path.parent
    origin = read_header(path).get("edited_from")
    if not isinstance(origin, str):
        raise InputError(f"{run}: no run and no edit of one, so it has no photo; give the folder of a run")
    if not RunFolder(origin, TABLE).is_run:
        raise InputError(f"{run}: the run with its photo is gone from {shown(origin, 300)}; put it back there")
    return Path(origin)


def _header(run: Path) -> dict[str, Any]:
    return read_header(run / FILE_NAME if run.is_dir() else run)


def honest_part(before: Tensor, alpha: Callable[[float], Tensor]) -> tuple[float, float]:
    """How much of the photo's head a turned one leaves bare, and how far a turn is before that is more than `_BARE`.

    Args:
        before: [1,1,S,S], the photo's head.
        alpha: [1,1,R,R] of the head at a part in [0,1] of the turn.

    Returns:
        the bare part of the photo's head at the end, less what the head leaves bare without a turn; and the part of the
        turn up to which that is at most `_BARE`, 1 where it always is.
    """

    def bare(part: float) -> float:
        cover = F.interpolate(alpha(part).cpu(), before.shape[-2:], mode="bilinear", align_corners=False)
        return float(((before > SOLID) & (cover <= SOLID)).sum() / (before > SOLID).sum().clamp(min=1))

    still = bare(0.0)  # soft outlines leave a little bare without any turn
    found = bare(1.0) - still
    if found <= _BARE:
        return found, 1.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if bare(middle) - still <= _BARE else (low, middle)
    return found, low


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


def _checked(cropped: Cropped, path: Path) -> Cropped:
    """InputError unless what a run says of its crop can be one: the run may be somebody else's."""
    crop, foreground, valid = cropped.crop, cropped.foreground, cropped.valid
    is_crop = isinstance(crop, Tensor) and crop.shape == (2, 3) and bool(crop.isfinite().all())
    if not is_crop or not 1e-6 < abs(float(torch.linalg.det(crop[:, :2].double()))) < 1e6:
        raise InputError(f"{path}: damaged (its crop is none); make it again with --resume, --from prepare")
    if not isinstance(foreground, Tensor):
        raise InputError(f"{path}: damaged (without a foreground); make it again with --resume, --from prepare")
    size = foreground.shape[-1] if foreground.ndim else 0
    for mask in (foreground, valid):
        if mask is not None and (mask.shape != (1, 1, size, size) or not 1 < size <= _MOST_PIXELS):
            raise InputError(f"{path}: damaged (masks of another size); make it again with --resume, --from prepare")
    return cropped


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
    generator: str | None = None,
) -> None:
    """Write the photo with its head rendered by the inversion in the folder `run`.

    Args:
        photo: uint8 [H,W,3].
        cropped: how the run's stage `prepare` cropped it.
        yaw_deg, pitch_deg: degrees by which the camera is moved from the input view; small ones, since the body stays.
    """
    inversion = load_inversion(run, device, generator)
    model, spec = inversion.generator, inversion.generator.spec
    planes = model.planes(inversion.w, inversion.noise)
    size = cropped.foreground.shape[-1]

    def turned(part: float) -> Render:
        camera = inversion.camera.turned(math.radians(part * yaw_deg), math.radians(part * pitch_deg), spec.pivot)
        return model.render(planes, inversion.w, camera)

    view = turned(1.0)
    picture = resize(view.image, size).clamp(-1, 1).cpu()
    before = cropped.foreground.cpu()
    cover = before
    is_turned, is_edited = (yaw_deg, pitch_deg) != (0, 0), "attributes" in _header(run)
    if (is_turned or is_edited) and spec.has_alpha:
        cover = resize(view.alpha, size).clamp(0, 1).cpu()
    if is_turned and spec.has_alpha:
        bare, part = honest_part(before, lambda part: turned(part).alpha)
        if part < 1:
            degrees = math.hypot(yaw_deg, pitch_deg)
            log.warning(
                "turned by %.0f degrees, the head leaves %.0f %% of the photo's own bare, which shows beside it as an "
                "old ear or old hair; up to %.0f degrees in this direction it is at most %.0f %%",
                *(degrees, 100 * bare, part * degrees, 100 * _BARE),
            )
    if spec.stands_alone and spec.background is not None:
        # what shines through a soft edge is the generator's plain ground: take it out again, where enough is left
        picture = without_ground(picture, cover, spec.background, _EDGE)
        cover = (cover - _EDGE) / (1 - _EDGE)
    write_png(out, paste(photo, picture, soft_cover(cover, cropped.valid), cropped.crop.double().cpu().numpy()))
