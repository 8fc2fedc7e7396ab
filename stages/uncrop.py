"""`pmv render --uncrop`: what a run's folder holds, back into the photo."""

from pathlib import Path

import numpy as np
import torch

from pmv.artifacts import load_fields
from pmv.errors import InputError, disk_errors
from pmv.images import read_bytes
from pmv.uncrop import write_uncropped
from stages.folder import RunFolder
from stages.table import TABLE, find


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
    prepared = load_fields(folder.outputs(TABLE[find(TABLE, "prepare")]), ["crop", "foreground", "valid"])
    photo = np.ascontiguousarray(read_bytes(folder.sources().photo)[0][0].permute(1, 2, 0).numpy())
    with disk_errors(out):
        write_uncropped(run, out, photo, **prepared, yaw_deg=yaw_deg, pitch_deg=pitch_deg, device=device)
