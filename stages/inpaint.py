"""Stage 07: where the occluded parts get filled, with the generator's own render (HFGI3D §3.3; see
`pmv.pictures.inpainting`), or with the head that the seed says is there."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from pmv.generators.views import render_planes
from pmv.geometry.camera import Camera
from pmv.pictures.images import resize
from pmv.pictures.inpainting import blend, colour_shift
from pmv.pictures.masks import feather
from pmv.pipeline.context import Context
from pmv.pipeline.ranges import Range, Width


@dataclass(frozen=True)
class InpaintInputs:
    """warped_views, view_renders [P,3,S,S]; visible_masks, warped_edit_masks [P,1,S,S]; view_depths, view_alphas
    [P,1,D,D]; camera: batch of 1, pseudo_cameras: batch of P; warped_edits [P,3,S,S], None = there is no edit;
    fill_planes, encoded_w [1,num_ws,w_dim], encoded_camera: the head that fills, and the photo's camera before it, None
    = the coarse generator's renders fill."""

    warped_views: Tensor
    visible_masks: Tensor
    warped_edit_masks: Tensor
    view_renders: Tensor
    view_depths: Tensor
    view_alphas: Tensor
    camera: Camera
    pseudo_cameras: Camera
    warped_edits: Tensor | None = None
    fill_planes: Tensor | None = None
    encoded_w: Tensor | None = None
    encoded_camera: Camera | None = None


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
    edited_views [P,3,S,S]: the pseudo-views with the edits on them, None = there are none; filled_depths, filled_alphas
    [P,1,D,D]: the geometry of the completed views, None = all of it is the coarse generator's."""

    pseudo_views: Tensor
    blend_masks: Tensor
    edited_views: Tensor | None = None
    filled_depths: Tensor | None = None
    filled_alphas: Tensor | None = None


def run(inputs: InpaintInputs, config: InpaintConfig, context: Context) -> InpaintOutputs:
    """See the dataclasses for shapes."""
    count, size = len(inputs.warped_views), inputs.warped_views.shape[-2:]
    weights = feather(inputs.visible_masks, config.feather)
    fill = _fill(inputs, weights, context)
    alphas = inputs.view_alphas if fill.alphas is None else fill.alphas
    head = torch.nn.functional.interpolate(alphas, size, mode="bilinear", align_corners=False)
    views = []
    with context.progress(count, "inpaint") as bar, torch.no_grad():
        for i in range(count):
            part = slice(i, i + 1)
            warped, render, known = inputs.warped_views[part], fill.images[part], inputs.visible_masks[part]
            shift = None
            if config.harmonize:
                widths = {"blur": config.harmonize_blur, "reach": config.harmonize_reach}
                shift = colour_shift(warped, render, known=known, domain=head[part], **widths)
            views.append(blend(warped, render, weights[part], shift))
            bar.update(1)
    pseudo_views = torch.cat(views)
    context.preview("pseudo_views", pseudo_views)
    context.preview("blend_weights", weights)
    geometry = {"filled_depths": fill.depths, "filled_alphas": fill.alphas}
    if inputs.warped_edits is None:
        return InpaintOutputs(pseudo_views, weights, **geometry)
    # an edit keeps its full weight up to the border of what is visible, and its colours tint nothing beside it
    edited = torch.lerp(pseudo_views, inputs.warped_edits, inputs.warped_edit_masks)
    context.preview("edited_views", edited)
    return InpaintOutputs(pseudo_views, weights, edited, **geometry)


@dataclass(frozen=True)
class _Fill:
    """What fills P views: images [P,3,S,S]; depths and alphas [P,1,D,D] of the completed views, None = the coarse
    generator's."""

    images: Tensor
    depths: Tensor | None = None
    alphas: Tensor | None = None


@torch.no_grad()
def _fill(inputs: InpaintInputs, weights: Tensor, context: Context) -> _Fill:
    """Args: weights: [P,1,S,S] of the photo's texels."""
    if inputs.fill_planes is None or inputs.encoded_w is None or inputs.encoded_camera is None:
        return _Fill(inputs.view_renders)
    # the head stands before its own camera as the coarse one does before the refined
    cameras = inputs.pseudo_cameras.relative_to(inputs.camera, inputs.encoded_camera)
    depth_size, generator = inputs.view_depths.shape[-1], context.generator
    drawn = render_planes(generator, inputs.fill_planes, inputs.encoded_w, cameras)
    shape = render_planes(generator, inputs.fill_planes, inputs.encoded_w, cameras, depth_size)
    images = resize(drawn.image, inputs.view_renders.shape[-1])
    context.preview("fill", images)
    photo = torch.nn.functional.interpolate(weights, shape.depth.shape[-2:], mode="area")
    depths = torch.lerp(shape.depth, inputs.view_depths, photo)
    return _Fill(images, depths, torch.lerp(shape.alpha, inputs.view_alphas, photo))
