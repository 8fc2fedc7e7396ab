"""Stage 07: where the occluded parts get filled, with the generator's own render (HFGI3D §3.3; see
`pmv.pictures.inpainting`)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from pmv.pictures.inpainting import blend, colour_shift
from pmv.pictures.masks import feather
from pmv.pipeline.context import Context
from pmv.pipeline.ranges import Range, Width


@dataclass(frozen=True)
class InpaintInputs:
    """warped_views, view_renders [P,3,S,S]; visible_masks, warped_edit_masks [P,1,S,S]; view_alphas
    [P,1,D,D]; warped_edits [P,3,S,S], None = there is no edit."""

    warped_views: Tensor
    visible_masks: Tensor
    warped_edit_masks: Tensor
    view_renders: Tensor
    view_alphas: Tensor
    warped_edits: Tensor | None = None


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

    feather: Width = 0.02
    harmonize: bool = True
    harmonize_blur: Width = 0.02
    harmonize_reach: Annotated[float, Range(0, 10)] = 0.08


@dataclass(frozen=True)
class InpaintOutputs:
    """pseudo_views [P,3,S,S], complete, without edits; blend_masks [P,1,S,S] in [0,1], 1 = the photo's texel;
    edited_views [P,3,S,S]: the pseudo-views with the edits on them, None = there are none."""

    pseudo_views: Tensor
    blend_masks: Tensor
    edited_views: Tensor | None = None


def run(inputs: InpaintInputs, config: InpaintConfig, context: Context) -> InpaintOutputs:
    """See the dataclasses for shapes."""
    count, size = len(inputs.warped_views), inputs.warped_views.shape[-2:]
    weights = feather(inputs.visible_masks, config.feather)
    head = torch.nn.functional.interpolate(inputs.view_alphas, size, mode="bilinear", align_corners=False)
    views = []
    with context.progress(count, "inpaint") as bar, torch.no_grad():
        for i in range(count):
            part = slice(i, i + 1)
            warped, render, known = inputs.warped_views[part], inputs.view_renders[part], inputs.visible_masks[part]
            shift = None
            if config.harmonize:
                widths = {"blur": config.harmonize_blur, "reach": config.harmonize_reach}
                shift = colour_shift(warped, render, known=known, domain=head[part], **widths)
            views.append(blend(warped, render, weights[part], shift))
            bar.update(1)
    pseudo_views = torch.cat(views)
    context.preview("pseudo_views", pseudo_views)
    context.preview("blend_weights", weights)
    if inputs.warped_edits is None:
        return InpaintOutputs(pseudo_views, weights)
    # an edit keeps its full weight up to the border of what is visible, and its colours tint nothing beside it
    edited = torch.lerp(pseudo_views, inputs.warped_edits, inputs.warped_edit_masks)
    context.preview("edited_views", edited)
    return InpaintOutputs(pseudo_views, weights, edited)
