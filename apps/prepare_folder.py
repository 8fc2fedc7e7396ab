"""`pmv prepare`: the first stage alone, into a folder of plain files that `pmv invert` and other programs take."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pmv.apps.invert import Request, configure
from pmv.errors import InputError, PhotoError
from pmv.files.artifacts import atomic_folder, check_replaceable, write_json
from pmv.pictures.images import write_png
from pmv.pipeline.context import Context
from pmv.stages.prepare import PrepareInputs, run
from pmv.stages.sources import PhotoSources
from pmv.stages.table import TABLE

IMAGE, MASK, CAMERA, CROP, VALID, FACES = (
    "image.png",
    "mask.png",
    "camera.json",
    "crop.json",
    "valid.png",
    "faces.png",
)
_FILES = {IMAGE, MASK, CAMERA, CROP, VALID, FACES, "camera_mean_head.png"}


@dataclass(frozen=True)
class PrepareRequest:
    """What a user asks for, besides the photo and the folder.

    Args:
        presets, settings: laid over the base config, see `pmv.pipeline.config`.
        mask, camera: paths, see `pmv.stages.sources`.
    """

    presets: Sequence[str] = ()
    settings: Sequence[str] = ()
    mask: Path | None = None
    camera: Path | None = None


def prepare(request: PrepareRequest, image: Path, out: Path, generator: Any = None) -> Path:
    """Write an aligned portrait of the photo `image` into the folder `out`, and return it.

    The folder gets ``image.png``; ``mask.png``, its foreground; ``camera.json`` with ``label`` (25 floats) and
    ``confidence``; ``crop.json`` with ``matrix`` (2×3, pixels of the photo → pixels of image.png) and the photo's
    ``width`` and ``height``; ``valid.png`` where the picture reaches beyond the photo, black where it was made up;
    ``faces.png`` where there was a choice. They appear together or not at all.

    Args:
        generator: a loaded one instead of the one that the config names.

    Raises:
        PmvError: something cannot be used; nothing is left behind.
    """
    check_replaceable(out, _FILES, "a prepared photo")
    sources = PhotoSources(image, request.mask, request.camera)
    values = sources.read()
    config, generator = configure(Request(request.presets, request.settings), TABLE, generator)
    pictures: dict[str, Tensor] = {}

    def keep(name: str, picture: Tensor) -> None:
        if f"{name}.png" in _FILES:
            pictures[f"{name}.png"] = picture

    device = next(generator.parameters()).device
    context = Context(generator, device, torch.Generator(), _no_perceptual, preview=keep)
    inputs = PrepareInputs(values["photo"].to(device), values["photo_mask"], values["photo_camera"])
    try:
        # the picture keeps the photo's surroundings: what is cut away cannot be put back
        outputs = run(inputs, replace(config.stages["prepare"], composite="never"), context)
    except PhotoError as error:
        raise InputError(f"{image}: {error}") from error
    height, width = inputs.photo.shape[-2:]
    pictures |= {IMAGE: outputs.original, MASK: outputs.foreground}
    label = outputs.label_camera.labels()[0].tolist()
    with atomic_folder(out) as temporary:
        for name, picture in pictures.items():
            write_png(temporary / name, picture)
        write_json(temporary / CAMERA, {"label": label, "confidence": outputs.camera_confidence})
        write_json(temporary / CROP, {"matrix": outputs.crop.tolist(), "width": width, "height": height})
    return out


def _no_perceptual(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    raise TypeError("the stage prepare compares no pictures")
