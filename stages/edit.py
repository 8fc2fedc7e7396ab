"""04 edit: what the user painted, between the geometry and the pictures that are carried along it.

The latent and the coarse generator take the unedited picture, so an edit on a finished run leaves pivot and geometry as
they are: an edit is out of the generator's distribution by definition, and a latent that chases it bends the face.
"""

from dataclasses import dataclass

import torch
from scipy import ndimage
from torch import Tensor

from pmv.errors import InputError
from pmv.images import resize
from pmv.masks import dilate, feather
from stages.context import Context


@dataclass(frozen=True)
class EditInputs:
    """photo [1,3,H,W]; photo_edit [1,3,h,w] or None; original [1,3,S,S], the aligned picture without edits."""

    photo: Tensor
    photo_edit: Tensor | None
    original: Tensor


@dataclass(frozen=True)
class EditConfig:
    """Knobs of the edit stage.

    Attributes:
        threshold: smallest difference from the photo, image units [-1,1], that counts as an edit.
        margin: how far the edit mask reaches beyond the difference, as a fraction of the image width.
    """

    threshold: float = 0.04
    margin: float = 0.006


@dataclass(frozen=True)
class EditOutputs:
    """image [1,3,S,S] with the edit; edit_mask [1,1,S,S] in [0,1]."""

    image: Tensor
    edit_mask: Tensor


def run(inputs: EditInputs, config: EditConfig, context: Context) -> EditOutputs:
    """See the dataclasses for shapes.

    Raises:
        InputError: the edit has neither the photo's size nor the aligned picture's.
    """
    original, size = inputs.original, inputs.original.shape[-1]
    image, edit_mask = original, torch.zeros_like(original[:, :1])
    if inputs.photo_edit is not None:
        height, width = inputs.photo.shape[-2:]
        shape = tuple(inputs.photo_edit.shape[-2:])
        if shape not in ((height, width), (size, size)):
            sizes = " or ".join(f"{w}×{h}" for h, w in dict.fromkeys([(height, width), (size, size)]))
            raise InputError(f"the edit is {shape[1]}×{shape[0]} pixels; make it {sizes}, the same frame as the photo")
        image, edit_mask = apply_edit(resize(inputs.photo_edit, size), resize(inputs.photo, size), original, config)
    context.record(edited=float(edit_mask.mean()))
    context.preview("image", image)
    context.preview("edit_mask", edit_mask)
    return EditOutputs(image, edit_mask)


def apply_edit(edit: Tensor, photo: Tensor, original: Tensor, config: EditConfig) -> tuple[Tensor, Tensor]:
    """Take over what was retouched, and nothing else.

    A user may retouch the photo or the aligned picture of it (on the generator's background): the edit is
    compared with the one it differs from in fewer pixels.

    Args:
        edit, photo, original: [1,3,S,S].

    Returns:
        the original with the edit in [1,3,S,S]; the edit mask [1,1,S,S] in [0,1], which reaches a little beyond the
        edit and falls off softly.
    """
    changes = [((edit - base).abs().amax(1, keepdim=True) > config.threshold).float() for base in (photo, original)]
    changed = min(changes, key=lambda mask: float(mask.mean()))
    if not changed.any():
        return original, torch.zeros_like(changed)
    # a single pixel is noise of the file format
    kept = ndimage.binary_opening(changed[0, 0].cpu().numpy() > 0.5, torch.ones(2, 2).numpy())
    changed = torch.as_tensor(kept).float()[None, None].to(edit.device)
    if not changed.any():
        return original, torch.zeros_like(changed)
    mask = feather(dilate(changed, 2 * config.margin), config.margin)
    return torch.lerp(original, edit, mask), mask
