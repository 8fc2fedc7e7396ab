"""04 edit: what the user painted, between the geometry and the pictures that are carried along it.

The latent and the coarse generator take the unedited picture, so an edit on a finished run leaves pivot and geometry as
they are: an edit is out of the generator's distribution by definition, and a latent that chases it bends the face.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from pmv.errors import InputError
from pmv.geometry.camera import Camera
from pmv.geometry.unroll import unrolled
from pmv.pictures.masks import SOLID, dilate, feather
from pmv.pictures.overlay import draw_overlay
from pmv.pipeline.context import Context
from pmv.pipeline.ranges import Range, Width
from pmv.portrait.photo import crop_tensor
from pmv.stages.edit_list import LoadedEdit


@dataclass(frozen=True)
class EditInputs:
    """photo [1,3,H,W], uint8 or float32 in [-1,1]; photo_edits: laid over one another in their order; original
    [1,3,S,S], the aligned picture without edits; foreground [1,1,S,S]; camera: 1; input_depth, input_alpha [1,1,D,D] of
    the coarse geometry; crop [2,3], pixels of the photo → pixels of `original`, None = only scaled."""

    photo: Tensor
    photo_edits: tuple[LoadedEdit, ...]
    original: Tensor
    foreground: Tensor
    camera: Camera
    input_depth: Tensor
    input_alpha: Tensor
    crop: Tensor | None = None


@dataclass(frozen=True)
class EditConfig:
    """Knobs of the edit stage.

    Attributes:
        threshold: smallest difference from the photo, image units [-1,1], that counts as an edit.
        margin: how far the edit mask reaches beyond the difference, as a fraction of the image width.
    """

    threshold: Annotated[float, Range(0, 2)] = 0.04
    margin: Width = 0.006


@dataclass(frozen=True)
class EditOutputs:
    """image [1,3,S,S] with the edits; edit_mask [1,1,S,S] in [0,1]; edited: the part of the head that is edited."""

    image: Tensor
    edit_mask: Tensor
    edited: float


def run(inputs: EditInputs, config: EditConfig, context: Context) -> EditOutputs:
    """See the dataclasses for shapes.

    Raises:
        InputError: an edit has neither the photo's size nor the aligned picture's, or an overlay misses the head.
    """
    image, edit_mask = inputs.original, torch.zeros_like(inputs.foreground)
    with context.progress(len(inputs.photo_edits), "edit") as bar:
        for edit in inputs.photo_edits:
            image, mask = lay_edit(edit, image, inputs, config)
            edit_mask = torch.maximum(edit_mask, mask)
            bar.update(1)
    edited = float((edit_mask * inputs.foreground).sum() / inputs.foreground.sum().clamp_min(1e-6))
    context.preview("image", image)
    context.preview("edit_mask", edit_mask)
    return EditOutputs(image, edit_mask, edited)


def lay_edit(edit: LoadedEdit, image: Tensor, inputs: EditInputs, config: EditConfig) -> tuple[Tensor, Tensor]:
    """One edit on the picture so far.

    Args:
        image: [1,3,S,S], `EditInputs.original` with the edits before.

    Returns:
        the picture with the edit [1,3,S,S], and the edit's mask [1,1,S,S] in [0,1].

    Raises:
        InputError: see `run`.
    """
    return (_lay if edit.placement else _retouch)(edit, image, inputs, config)


def check_frame(edit: LoadedEdit, photo_shape: Sequence[int], size: int) -> None:
    """Refuse a retouched picture, or its paint mask, that has neither the photo's size nor the aligned picture's.

    Args:
        photo_shape: (H, W) of the photo.
        size: S of the aligned picture.

    Raises:
        InputError: names the file and the sizes that it may have.
    """
    if edit.placement is not None:
        return
    allowed = dict.fromkeys([tuple(photo_shape), (size, size)])
    for what, tensor in (("edit", edit.picture), ("paint mask of the edit", edit.mask)):
        if tensor is not None and tuple(tensor.shape[-2:]) not in allowed:
            height, width = tensor.shape[-2:]
            sizes = " or ".join(f"{w}×{h}" for h, w in allowed)
            raise InputError(
                f"the {what} {edit.name} is {width}×{height} pixels; make it {sizes}, the same frame as the photo or "
                "the run's picture of it"
            )


def _aligned(picture: Tensor, inputs: EditInputs, is_photo: bool = False) -> Tensor:
    """A picture or mask [1,C,h,w] in the photo's frame or the aligned one, in the aligned one [1,C,S,S].

    One that has the size of both is taken to be the aligned one, unless it is the photo itself.
    """
    size = inputs.original.shape[-1]
    is_photo = is_photo or tuple(picture.shape[-2:]) != (size, size)
    return crop_tensor(picture, inputs.crop if is_photo else None, size)


def _lay(edit: LoadedEdit, image: Tensor, inputs: EditInputs, config: EditConfig) -> tuple[Tensor, Tensor]:
    """An overlay on the picture so far: that [1,3,S,S], and the edit's mask [1,1,S,S]."""
    assert edit.placement is not None
    try:
        surface = None
        if edit.placement.follow_surface:
            surface = unrolled(
                inputs.input_depth,
                inputs.input_alpha > SOLID,
                inputs.camera,
                at=edit.placement.at,
                width=edit.placement.size,
                aspect=edit.picture.shape[-2] / edit.picture.shape[-1],
                side=image.shape[-1],
            )
        result, cover = draw_overlay(image, edit.picture, edit.alpha, edit.placement, surface)
    except InputError as error:
        raise InputError(f"the overlay {edit.name}: {error}") from error
    if not ((cover > 0.05) & (inputs.foreground > SOLID)).any():
        x, y = edit.placement.at
        raise InputError(f"the overlay {edit.name} at {x:g},{y:g} does not touch the head; move it or make it larger")
    return result, _soft((cover > 0.02).float(), config)


def _retouch(edit: LoadedEdit, image: Tensor, inputs: EditInputs, config: EditConfig) -> tuple[Tensor, Tensor]:
    """What was retouched on the picture so far, and nothing else: that [1,3,S,S], and the edit's mask [1,1,S,S].

    A user may have retouched the photo, the aligned picture of it (on the generator's background), or that with earlier
    edits: the edit is compared with the one from which it differs in fewest pixels. A transparent one lies over the
    picture so far.
    """
    check_frame(edit, inputs.photo.shape[-2:], image.shape[-1])
    picture = _aligned(edit.picture, inputs)
    if edit.alpha is not None:
        picture = torch.lerp(image, picture, _aligned(edit.alpha, inputs).clamp(0, 1))
    if edit.mask is not None:
        mask = _aligned(edit.mask, inputs).clamp(0, 1)
        return torch.lerp(image, picture, mask), mask
    bases = (_aligned(inputs.photo, inputs, is_photo=True), inputs.original, image)
    changes = [(picture - base).abs().amax(1, keepdim=True) > config.threshold for base in bases]
    changed = min(changes, key=lambda mask: int(mask.sum()))
    # a single pixel is noise of the file format
    kept = ndimage.binary_opening(changed[0, 0].cpu().numpy(), np.ones((2, 2)))
    mask = _soft(torch.as_tensor(kept).float()[None, None].to(image.device), config)
    return torch.lerp(image, picture, mask), mask


def _soft(changed: Tensor, config: EditConfig) -> Tensor:
    """A binary mask [1,1,S,S] grown by the margin, beyond which it falls off over another."""
    return feather(dilate(changed, 2 * config.margin), config.margin) if changed.any() else changed
