"""`pmv prepare`: the first stage alone, into a folder of plain files that `pmv invert` and other programs take."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pmv.apps.invert import Request, configure
from pmv.errors import InputError, PhotoError
from pmv.files.artifacts import atomic_folder, check_replaceable
from pmv.pictures.images import write_png
from pmv.pipeline.context import Context
from pmv.stages.prepare import PrepareInputs, framing_name, run
from pmv.stages.prepared import FILES, Prepared, write_prepared_folder
from pmv.stages.sources import PhotoSources
from pmv.stages.table import TABLE

_FACES, _MEAN_HEAD = "faces.png", "camera_mean_head.png"


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
    ``faces.png`` where there was a choice; a copy of the photo; and ``exact.safetensors``, the same without rounding.
    They appear together or not at all.

    Args:
        generator: a loaded one instead of the one that the config names.

    Raises:
        PmvError: something cannot be used; nothing is left behind.
    """
    copies = [path.name for path in out.glob("photo.*")]
    check_replaceable(out, (*FILES, _FACES, _MEAN_HEAD, *copies), "a prepared photo")
    sources = PhotoSources(image, request.mask, request.camera)
    values = sources.read()
    config, generator = configure(Request(request.presets, request.settings), TABLE, generator)
    pictures: dict[str, Tensor] = {}

    def keep(name: str, picture: Tensor) -> None:
        if f"{name}.png" in (_FACES, _MEAN_HEAD):
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
    prepared = Prepared(
        outputs.original,
        outputs.foreground,
        outputs.valid,
        outputs.crop,
        outputs.label_camera,
        outputs.camera_confidence,
        framing_name(config.stages["prepare"], generator.spec),
    )
    with atomic_folder(out) as temporary:
        for name, picture in pictures.items():
            write_png(temporary / name, picture)
        write_prepared_folder(temporary, prepared, image, (width, height))
    return out


def _no_perceptual(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    raise TypeError("the stage prepare compares no pictures")
