"""`pmv edit`: a finished inversion with attributes changed, in a folder of its own."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pmv.errors import InputError
from pmv.files.artifacts import atomic_folder, check_replaceable, write_json
from pmv.generators.directions import edit, load_directions, parse_amounts
from pmv.inversion import Inversion, inversion_header, load_inversion, save_inversion
from pmv.pictures.images import to_uint8, write_png
from pmv.pictures.sheets import tile
from pmv.pipeline.packing import load_fields

INVERSION, SHEET, RECORD = "inversion.safetensors", "edit.png", "edit.json"
_FILES = {INVERSION, SHEET, RECORD}
RESIDUAL = "plane_residual"
"""State-dict name of what tuning left on the planes."""
_YAWS = (-30.0, 0.0, 30.0)
_LABELS = [f"{what}, {yaw:+.0f}°" if yaw else what for what in ("before", "after") for yaw in _YAWS]

log = logging.getLogger(__name__)


def edit_run(run: Path, settings: Sequence[str], out: Path | None, device: str | torch.device = "cpu") -> Path:
    """Write a folder with the inversion of `run` after changing attributes of its head.

    An edit of an edit starts from the head before the first one, which the file keeps (``unedited``), with the sum of
    both, so that +1 and −1 give back that head to the bit.

    Args:
        run: folder of a finished inversion, or one that this function wrote.
        settings: ``ATTRIBUTE=NUMBER``, in standard deviations; the same one twice adds up.
        out: the new folder; None = beside `run`, named after it and the edit.

    Returns: the folder: ``inversion.safetensors`` as `load_inversion` reads it, `SHEET` (before over after at yaw −30,
        0, 30) and `RECORD`.

    Raises:
        InputError: nothing or too much to change, an unknown attribute, no finished inversion, no directions for its
            generator, or a folder in the way.
        CheckpointError: the generator or the directions are not those that belong together.
    """
    asked = parse_amounts(settings)
    inversion = load_inversion(run, device)  # first, since it says best what is wrong with the folder
    path = run / INVERSION if run.is_dir() else run
    header: Any = inversion_header(path)
    directions = load_directions(header["generator"], header["generator_hash"], device)
    if not asked:
        known = ", ".join(f"{direction.name} ({direction.plus})" for direction in directions.about)
        raise InputError(f"nothing to change; give --set ATTRIBUTE=NUMBER of {known}")
    directions.offset(asked)  # the user's own numbers are judged before their sums with what was there
    amounts = _sum(header.get("attributes", {}), asked)
    directions.offset(amounts)
    run = path.parent.resolve()
    folder = out or run.with_name(run.name + _label(amounts))
    check_replaceable(folder, _FILES, "an edit")
    if far := directions.far(amounts):
        log.warning("%s: more than any two heads differ by; expect artefacts", ", ".join(far))

    before = head_views(inversion)
    generator, noise = inversion.generator, inversion.noise
    tuned = load_fields(path, ["tuned_state"], device)["tuned_state"]
    if "unedited" in header["kinds"]:
        unedited = load_fields(path, ["unedited"], device)["unedited"]
        if not isinstance(unedited, dict) or getattr(unedited.get("w"), "shape", None) != inversion.w.shape:
            raise InputError(f"{path}: damaged (it does not hold the head before its edits)")
    else:
        unedited = {"w": inversion.w} | {name: tuned[name] for name in (RESIDUAL,) if name in tuned}
    if RESIDUAL in unedited:
        generator.load_tuned({RESIDUAL: unedited[RESIDUAL]})
    w, residual = edit(generator, unedited["w"], noise, directions, amounts)
    if residual is not None:
        tuned = {**tuned, RESIDUAL: residual}
    origin = header.get("edited_from", str(run))
    header = {name: value for name, value in header.items() if name != "kinds"}
    header |= {"attributes": amounts, "edited_from": origin}
    record = {"run": origin, "attributes": amounts}
    write_edit(folder, tuned, inversion._replace(w=w), header, before, record, unedited)
    return folder


def write_edit(
    folder: Path,
    tuned: Mapping[str, Tensor],
    inversion: Inversion,
    header: Mapping[str, Any],
    before: Sequence[np.ndarray],
    record: Mapping[str, Any],
    unedited: Mapping[str, Tensor] | None = None,
) -> None:
    """Write an edited head's folder: its inversion, `SHEET` and `RECORD`.

    Args:
        tuned: the edited weights. inversion: whose latent, noise and camera are the edited head's. header, unedited:
            see `save_inversion`. before: `head_views` of the head before. record: what was done.
    """
    with atomic_folder(folder) as temporary:
        path = temporary / INVERSION
        save_inversion(path, tuned, inversion.w, inversion.noise, inversion.camera, header, unedited)
        after = head_views(load_inversion(temporary, inversion.w.device))
        write_png(temporary / SHEET, tile([*before, *after], _LABELS, len(_YAWS)))
        write_json(temporary / RECORD, dict(record))


def _sum(earlier: Mapping[str, float], more: Mapping[str, float]) -> dict[str, float]:
    """What both edits together change; what they take back is left out."""
    total = {name: earlier.get(name, 0.0) + more.get(name, 0.0) for name in {**earlier, **more}}
    return {name: amount for name, amount in total.items() if amount != 0}


def _label(amounts: Mapping[str, float]) -> str:
    """What an edit is called in its folder's name: "-smile+2-age-1"."""
    return "".join(f"-{name}{amount:+g}" for name, amount in amounts.items()) or "-unedited"


@torch.no_grad()
def head_views(inversion: Inversion) -> list[np.ndarray]:
    """A head from the sides that `SHEET` shows, each uint8 [R,R,3]."""
    generator, w = inversion.generator, inversion.w
    planes = generator.planes(w, inversion.noise)
    cameras = [generator.spec.orbit(math.radians(yaw), 0.0).to(w.device) for yaw in _YAWS]
    return [to_uint8(generator.render(planes, w, camera).image)[0] for camera in cameras]
