"""Pictures and films of a finished inversion from other sides."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from pmv.errors import InputError, disk_errors
from pmv.files.artifacts import check_output
from pmv.inversion import load_inversion
from pmv.pictures.images import to_uint8, write_png
from pmv.pictures.sheets import tile
from pmv.pictures.video import write_mp4

_FPS = 30
_SWEEP = 35.0
"""Degrees to either side for generators that know only faces from the front."""


@torch.no_grad()
def write_sheet(
    run: Path, out: Path, yaws_deg: Sequence[float], pitch_deg: float, device: str | torch.device = "cpu"
) -> None:
    """Write a PNG of the inversion in the folder `run`: one picture a yaw, side by side.

    Args:
        yaws_deg, pitch_deg: degrees, on the generator's orbit; yaw > 0 moves the camera towards +x, pitch > 0 upwards.

    Raises:
        PmvError: no finished inversion there, no place to write to, or an angle that is none.
    """
    check_output(out)
    _check_angles(pitch_deg, *yaws_deg)
    inversion = load_inversion(run, device)
    planes = inversion.generator.planes(inversion.w, inversion.noise)
    spec, pictures = inversion.generator.spec, []
    for yaw in yaws_deg:
        camera = spec.orbit(math.radians(yaw), math.radians(pitch_deg)).to(device)
        pictures.append(to_uint8(inversion.generator.render(planes, inversion.w, camera).image)[0])
    with disk_errors(out):
        write_png(out, tile(pictures, columns=len(pictures)))


@torch.no_grad()
def write_turn(
    run: Path,
    out: Path,
    yaw_deg: float,
    pitch_deg: float,
    sweep_deg: float | None,
    frames: int,
    device: str | torch.device = "cpu",
) -> None:
    """Write an MP4 that loops: a whole turn where `sweep_deg` is 180, else a swing to both sides of `yaw_deg` and back.

    Args:
        sweep_deg: degrees to either side; None = 180 for generators of full heads, else 35.

    Raises:
        PmvError: no finished inversion there, no place to write to, or an angle that is none.
    """
    check_output(out)
    _check_angles(pitch_deg, yaw_deg, sweep_deg or 0.0)
    inversion = load_inversion(run, device)
    spec = inversion.generator.spec
    sweep = sweep_deg if sweep_deg is not None else 180.0 if spec.full_head else _SWEEP
    phase = torch.arange(frames) / frames * 2 * math.pi
    turn = phase if sweep == 180 else math.radians(sweep) * phase.sin()
    cameras = spec.orbit(turn + math.radians(yaw_deg), torch.full_like(turn, math.radians(pitch_deg))).to(device)
    planes = inversion.generator.planes(inversion.w, inversion.noise)
    pictures = (to_uint8(inversion.generator.render(planes, inversion.w, cameras[i]).image)[0] for i in range(frames))
    with disk_errors(out):
        write_mp4(out, pictures, _FPS)


def _check_angles(pitch_deg: float, *others_deg: float) -> None:
    if not all(map(math.isfinite, (pitch_deg, *others_deg))) or abs(pitch_deg) >= 90:
        raise InputError(f"angles are finite degrees, the pitch between -90 and 90, not {pitch_deg:g}, {others_deg}")
