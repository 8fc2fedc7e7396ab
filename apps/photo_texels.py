"""The photo of a run as a source of texels: at its own resolution, with the run's edits on it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pmv.generators.base import GeneratorSpec
from pmv.pictures.images import resize
from pmv.pipeline.config import Config
from pmv.pipeline.folder import RunFolder
from pmv.pipeline.packing import load_fields
from pmv.portrait.photo import crop_tensor
from pmv.stages.edit import EditInputs, lay_edit
from pmv.stages.sources import run_sources


@dataclass(frozen=True)
class PhotoTexels:
    """What the input view's camera saw.

    Attributes:
        picture: [1,3,S,S] in [-1,1], S between the side of the run's picture and that of the photo's crop.
        foreground, edit_mask: [1,1,S,S] in [0,1].
        valid: [1,1,S,S], 0 in the photo's mirrored border, None = there is none.
    """

    picture: Tensor
    foreground: Tensor
    edit_mask: Tensor
    valid: Tensor | None


def photo_texels(folder: RunFolder, config: Config, spec: GeneratorSpec, most: int) -> PhotoTexels:
    """The run's picture, drawn again from the photo where that is finer.

    Edits are laid again too, except a retouched picture that has the size of the run's picture: that one is enlarged.

    Args:
        most: largest side of the result.
    """
    prepared = load_fields(_outputs(folder, "prepare"), ["original", "foreground", "valid", "crop"])
    original, crop = prepared["original"], prepared["crop"]
    edited = {"image": original, "edit_mask": torch.zeros_like(prepared["foreground"])}
    is_edited = folder.record(folder.table[folder.table.find("edit")]) is not None  # not in a run that is encoded alone
    if is_edited:
        edited = load_fields(_outputs(folder, "edit"), ["image", "edit_mask"])
    size = original.shape[-1]
    shrink = math.sqrt(abs(float(torch.linalg.det(crop[:, :2].double()))))  # pixels of the picture in one of the photo
    side = max(size, min(round(size / shrink), most))
    if side == size:
        return PhotoTexels(edited["image"], prepared["foreground"], edited["edit_mask"], prepared["valid"])
    given = run_sources(folder).read()
    crop = crop * (side / size)
    foreground = resize(prepared["foreground"], side)
    picture = crop_tensor(given["photo"], crop, side)
    if spec.stands_alone and spec.background is not None and config.stages["prepare"].composite == "auto":
        picture = foreground * picture + (1 - foreground) * spec.background
    valid = None if prepared["valid"] is None else resize(prepared["valid"], side)
    edits = given["photo_edits"] if is_edited else ()
    if not edits:
        return PhotoTexels(picture, foreground, torch.zeros_like(foreground), valid)
    if any(edit.placement is None and tuple(edit.picture.shape[-2:]) == (size, size) for edit in edits):
        # which of the two it was is known of the mask alone: both are drawn at the run's size
        mask = resize(edited["edit_mask"], side).clamp(0, 1)
        return PhotoTexels(torch.lerp(picture, resize(edited["image"], side), mask), foreground, mask, valid)
    geometry = load_fields(_outputs(folder, "coarse"), ["input_depth", "input_alpha"])
    geometry |= load_fields(_outputs(folder, "latent"), ["camera"])
    inputs = EditInputs(given["photo"], edits, picture, foreground, **geometry, crop=crop)
    edit_mask = torch.zeros_like(foreground)
    for edit in edits:
        picture, mask = lay_edit(edit, picture, inputs, config.stages["edit"])
        edit_mask = torch.maximum(edit_mask, mask)
    return PhotoTexels(picture, foreground, edit_mask, valid)


def _outputs(folder: RunFolder, stage: str):
    return folder.outputs(folder.table[folder.table.find(stage)])
