"""Stage 07: where the occluded parts get filled, with the generator's own render (HFGI3D §3.3; see
`pmv.inpainting`)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pmv.inpainting import blend, blend_weights, colour_shift
from pmv.masks import SOLID
from stages.context import Context


@dataclass(frozen=True)
class InpaintInputs:
    """warped_views, view_renders [P,3,S,S]; visible_masks, warped_edit_masks [P,1,S,S]; view_alphas
    [P,1,D,D]."""

    warped_views: Tensor
    visible_masks: Tensor
    warped_edit_masks: Tensor
    view_renders: Tensor
    view_alphas: Tensor


@dataclass(frozen=True)
class InpaintConfig:
    """Knobs of the inpaint stage.

    Attributes:
        feather: width over which the photo's texels fade out inside the visible region's border, as a
            fraction of the image width.
        harmonize: shift the render's colours towards the photo's at the seam; off: the render as it is, as
            HFGI3D does.
        harmonize_blur: sigma of the low-pass that makes the colour shift, as a fraction of the image width:
            finer detail is not carried over.
        harmonize_reach: distance from the seam at which the colour shift has fallen to 1/e, as a fraction of
            the image width.
    """

    feather: float = 0.02
    harmonize: bool = True
    harmonize_blur: float = 0.02
    harmonize_reach: float = 0.08


@dataclass(frozen=True)
class InpaintOutputs:
    """pseudo_views [P,3,S,S], complete; blend_masks [P,1,S,S] in [0,1], 1 = the photo's texel."""

    pseudo_views: Tensor
    blend_masks: Tensor


def run(inputs: InpaintInputs, config: InpaintConfig, context: Context) -> InpaintOutputs:
    """See the dataclasses for shapes."""
    count, size = len(inputs.warped_views), inputs.warped_views.shape[-2:]
    weights = blend_weights(inputs.visible_masks, inputs.warped_edit_masks, config.feather)
    head = torch.nn.functional.interpolate(inputs.view_alphas, size, mode="bilinear", align_corners=False)
    # the colours of an edit belong to the edit alone: they must not tint its surroundings
    known = inputs.visible_masks * (inputs.warped_edit_masks <= SOLID)
    views = []
    with context.progress(count, "inpaint") as bar, torch.no_grad():
        for i in range(count):
            part = slice(i, i + 1)
            warped, render = inputs.warped_views[part], inputs.view_renders[part]
            shift = None
            if config.harmonize:
                shift = colour_shift(
                    warped, render, known[part], head[part], config.harmonize_blur, config.harmonize_reach
                )
            views.append(blend(warped, render, weights[part], shift))
            bar.update(1)
    pseudo_views = torch.cat(views)
    context.preview("pseudo_views", pseudo_views)
    context.preview("blend_weights", weights)
    return InpaintOutputs(pseudo_views, weights)
