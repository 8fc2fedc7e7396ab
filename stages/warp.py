"""Stage 06: pseudo-views that hold the input photo's own texels (see `pmv.geometry.warping`)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pmv.geometry.camera import Camera
from pmv.geometry.scene import SeenFrom
from pmv.geometry.warping import inverse_warp
from pmv.pictures.masks import SOLID
from pmv.pipeline.context import Context


@dataclass(frozen=True)
class WarpInputs:
    """original [1,3,S,S]; image [1,3,S,S] with the edit; edit_mask [1,1,S,S]; camera: 1, pseudo_cameras: P;
    view_depths, view_alphas [P,1,D,D]; visible_masks [P,1,S,S]; edited_visible_masks [P,1,S,S] for the edit, None =
    there is none."""

    original: Tensor
    image: Tensor
    edit_mask: Tensor
    camera: Camera
    pseudo_cameras: Camera
    view_depths: Tensor
    view_alphas: Tensor
    visible_masks: Tensor
    edited_visible_masks: Tensor | None = None


@dataclass(frozen=True)
class WarpConfig:
    """Knobs of the warp stage.

    Attributes:
        antialias: average 2×2 samples where one pseudo-view pixel covers several texels of the photo; off:
            plain bicubic everywhere.
    """

    antialias: bool = True


@dataclass(frozen=True)
class WarpOutputs:
    """warped_views [P,3,S,S]: the unedited photo's texels where visible, elsewhere the generator's plain background, or
    mid grey where it has none; warped_edit_masks [P,1,S,S] in [0,1], where the edit is visible; warped_edits [P,3,S,S]:
    the edited picture's texels, 0 where nothing is edited, None = there is no edit."""

    warped_views: Tensor
    warped_edit_masks: Tensor
    warped_edits: Tensor | None = None


def run(inputs: WarpInputs, config: WarpConfig, context: Context) -> WarpOutputs:
    """See the dataclasses for shapes."""
    pictures = [inputs.original]
    if inputs.edited_visible_masks is not None:
        pictures += [inputs.image, inputs.edit_mask]
    picture = torch.cat(pictures, 1)
    count = len(inputs.pseudo_cameras)
    seen = SeenFrom(inputs.pseudo_cameras, inputs.view_depths, inputs.view_alphas > SOLID)
    views = []
    with context.progress(count, "warp") as bar, torch.no_grad():
        for i in range(count):
            warped, _ = inverse_warp(picture, inputs.camera, seen[i], config.antialias)
            views.append(warped)
            bar.update(1)
    warped = torch.cat(views)
    visible = inputs.visible_masks > SOLID
    background = torch.full_like(warped[:, :3], context.generator.spec.background or 0.0)
    outputs = WarpOutputs(
        torch.where(visible, warped[:, :3].clamp(-1, 1), background), torch.zeros_like(inputs.visible_masks)
    )
    context.preview("warped", outputs.warped_views)
    if inputs.edited_visible_masks is not None:
        masks = warped[:, 6:].clamp(0, 1) * (inputs.edited_visible_masks > SOLID)
        outputs = replace(outputs, warped_edit_masks=masks, warped_edits=warped[:, 3:6].clamp(-1, 1) * (masks > 0))
        context.preview("warped_edit", masks)
    return outputs
