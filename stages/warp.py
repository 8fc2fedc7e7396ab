"""Stage 06: pseudo-views that hold the input photo's own texels (see `pmv.warping`)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pmv.camera import Camera
from pmv.masks import SOLID
from pmv.warping import inverse_warp
from stages.context import Context


@dataclass(frozen=True)
class WarpInputs:
    """image [1,3,S,S] with the edit; edit_mask [1,1,S,S]; camera: 1, pseudo_cameras: P; view_depths,
    view_alphas [P,1,D,D]; visible_masks [P,1,S,S]."""

    image: Tensor
    edit_mask: Tensor
    camera: Camera
    pseudo_cameras: Camera
    view_depths: Tensor
    view_alphas: Tensor
    visible_masks: Tensor


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
    """warped_views [P,3,S,S]: the photo's texels where visible, elsewhere the generator's plain background, or mid grey
    where it has none;
    warped_edit_masks [P,1,S,S] in [0,1]."""

    warped_views: Tensor
    warped_edit_masks: Tensor


def run(inputs: WarpInputs, config: WarpConfig, context: Context) -> WarpOutputs:
    """See the dataclasses for shapes."""
    both = torch.cat([inputs.image, inputs.edit_mask], 1)
    count = len(inputs.pseudo_cameras)
    views = []
    with context.progress(count, "warp") as bar, torch.no_grad():
        for i in range(count):
            warped, _ = inverse_warp(
                both,
                inputs.camera,
                inputs.pseudo_cameras[i],
                inputs.view_depths[i : i + 1],
                inputs.view_alphas[i : i + 1] > SOLID,
                config.antialias,
            )
            views.append(warped)
            bar.update(1)
    warped = torch.cat(views)
    visible = inputs.visible_masks > SOLID
    background = torch.full_like(warped[:, :3], context.generator.spec.background or 0.0)
    outputs = WarpOutputs(
        torch.where(visible, warped[:, :3].clamp(-1, 1), background), warped[:, 3:].clamp(0, 1) * visible
    )
    context.preview("warped", outputs.warped_views)
    if inputs.edit_mask.any():
        context.preview("warped_edit", outputs.warped_edit_masks)
    return outputs
