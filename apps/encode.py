"""`pmv encode`: a head in one forward pass, as a run that went no further than its seed."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pmv
from pmv.apps.invert import Request, configure, invert
from pmv.errors import InputError, disk_errors
from pmv.files.artifacts import tensors_hash
from pmv.fitting.tuning import snapshot, start_from_planes
from pmv.inversion import FILE_NAME, inversion_header, save_inversion
from pmv.pipeline.config import load_config
from pmv.pipeline.context import never
from pmv.pipeline.folder import CONFIG, RunFolder
from pmv.pipeline.packing import load_fields
from pmv.stages.table import TABLE


def encode(
    request: Request, image: Path, out: Path | None = None, generator: Any = None, stop: Callable[[], bool] = never
) -> Path:
    """Write a run folder with the head that encoders make of a photo, and return it.

    The folder is a run up to the stage `seed`: ``pmv invert --resume`` goes on from there. The encoded head is its
    ``inversion.safetensors``, as everything takes it that takes a finished one.

    Args:
        request: as for `invert`; settings may choose the encoders.
        out: None = below ``runs``, named after the photo.
        generator: a loaded one instead of the one that the config names.

    Raises:
        PmvError: something cannot be used, or the folder holds an inversion that took longer.
        Stopped: `stop` said so.
    """
    if out is not None and (out / FILE_NAME).is_file() and not inversion_header(out / FILE_NAME).get("encoded"):
        raise InputError(f"{out}: holds a finished inversion, which an encoded head is less than; give another --out")
    request = replace(request, settings=("seed.kind=encoder", *request.settings), until="seed")
    _, generator = configure(request, TABLE, generator)
    folder = RunFolder(invert(request, image, out, generator=generator, stop=stop), TABLE)
    with disk_errors(folder.path), folder.locked():
        _write_inversion(folder, generator)
    return folder.path


def _write_inversion(folder: RunFolder, generator: Any) -> None:
    config = load_config(TABLE, path=folder / CONFIG)
    seed = TABLE[TABLE.find("seed")]
    found = load_fields(folder.outputs(seed), ["encoded_w", "encoded_planes", "encoded_camera"], follow=False)
    device = generator.mean_w(1).device
    w, planes = (found[name].to(device) for name in ("encoded_w", "encoded_planes"))
    noise = generator.noise_buffers()
    state = snapshot(start_from_planes(copy.deepcopy(generator), planes, w, noise))
    header = {
        "generator": config.run.generator,
        "generator_hash": tensors_hash(generator.state_dict()),
        "resolution": generator.spec.resolution,
        "config": config.as_dict(),
        "encoded": True,
        "code": pmv.__version__,
    }
    save_inversion(folder / FILE_NAME, state, w, noise, found["encoded_camera"], header)
