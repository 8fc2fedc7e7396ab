"""`pmv edit`: a finished inversion with attributes changed, in a folder of its own."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pmv.artifacts import (
    Inversion,
    atomic_folder,
    check_replaceable,
    load_fields,
    load_inversion,
    read_header,
    save_inversion,
    write_json,
)
from pmv.directions import load_directions, parse_amounts
from pmv.errors import InputError
from pmv.images import to_uint8, write_png
from pmv.sheets import tile

INVERSION, SHEET, RECORD = "inversion.safetensors", "edit.png", "edit.json"
_FILES = {INVERSION, SHEET, RECORD}
_YAWS = (-30.0, 0.0, 30.0)

log = logging.getLogger(__name__)


def edit_run(run: Path, settings: Sequence[str], out: Path | None, device: str | torch.device = "cpu") -> Path:
    """Write a folder with the inversion of `run` after changing attributes of its head.

    An edit of an edit starts from the head before the first one with the sum of both, so that +1 and −1 give back that
    head to the bit.

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
    amounts = parse_amounts(settings)
    before = load_inversion(run, device)  # first, since it says best what is wrong with the folder
    path = run / INVERSION if run.is_dir() else run
    run = path.parent
    header = read_header(path)
    directions = load_directions(header["generator"], header["generator_hash"], device)
    if not amounts:
        known = ", ".join(f"{direction.name} ({direction.plus})" for direction in directions.about)
        raise InputError(f"nothing to change; give --set ATTRIBUTE=NUMBER of {known}")
    directions.offset(amounts)  # the user's own numbers are judged before sums with what was there
    earlier = header.get("attributes", {})
    total = {name: earlier.get(name, 0.0) + amounts.get(name, 0.0) for name in {**earlier, **amounts}}
    total = {name: amount for name, amount in total.items() if amount != 0}
    if far := directions.far(total):
        log.warning("%s: more than any two heads differ by; expect artefacts", ", ".join(far))
    names = ["tuned_state", "pivot_w", "noise", "camera"] + (["unedited_w"] if earlier else [])
    values = load_fields(path, names, device)
    unedited = values.get("unedited_w", values["pivot_w"])
    w = unedited + directions.offset(total)
    folder = out or run.resolve().with_name(run.resolve().name + _label(total))
    check_replaceable(folder, _FILES, "an edit")
    with atomic_folder(folder) as temporary:
        new = {**header, "attributes": total, "edited_from": header.get("edited_from", str(run.resolve()))}
        new.pop("kinds")
        parts = values["tuned_state"], w, values["noise"], values["camera"]
        save_inversion(temporary / INVERSION, *parts, new, unedited_w=unedited)
        write_png(temporary / SHEET, _sheet(before, w))
        write_json(temporary / RECORD, {"run": new["edited_from"], "attributes": total})
    return folder


def _label(amounts: Mapping[str, float]) -> str:
    """What an edit is called in its folder's name: "-smile+2-age-1"."""
    return "".join(f"-{name}{amount:+g}" for name, amount in amounts.items()) or "-unedited"


@torch.no_grad()
def _sheet(before: Inversion, w: Tensor) -> np.ndarray:
    """uint8 [H,W,3]: the head before and, below, after."""
    generator, pictures, labels = before.generator, [], []
    for title, latent in (("before", before.w), ("after", w)):
        planes = generator.planes(latent, before.noise)
        for yaw in _YAWS:
            camera = generator.spec.orbit(math.radians(yaw), 0.0).to(latent.device)
            pictures.append(to_uint8(generator.render(planes, latent, camera).image)[0])
            labels.append(f"{title}, {yaw:+.0f}°" if yaw else title)
    return tile(pictures, labels, columns=len(_YAWS))
