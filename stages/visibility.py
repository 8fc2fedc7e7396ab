"""Stage 05: which pixels of every pseudo-view show a surface that the input view sees (HFGI3D §3.2; see
`pmv.geometry.visibility`)."""

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from pmv.geometry.camera import Camera
from pmv.geometry.scene import SeenFrom, surface_points
from pmv.geometry.visibility import (
    Cuts,
    depth_agreement,
    mutual_depth,
    trusted_texels,
    view_confidence,
    visibility_confidence,
)
from pmv.pictures.masks import SOLID, erode, without_specks
from pmv.pipeline.context import Context
from pmv.pipeline.ranges import Part, Range, Width


@dataclass(frozen=True)
class VisibilityInputs:
    """camera: 1, pseudo_cameras: P; input_depth, input_alpha [1,1,D,D]; view_depths, view_alphas [P,1,D,D];
    foreground, edit_mask [1,1,S,S]; valid [1,1,S,S], 0 in the photo's mirrored border, None = there is none."""

    camera: Camera
    pseudo_cameras: Camera
    input_depth: Tensor
    input_alpha: Tensor
    view_depths: Tensor
    view_alphas: Tensor
    foreground: Tensor
    edit_mask: Tensor
    valid: Tensor | None = None


@dataclass(frozen=True)
class VisibilityConfig:
    """Knobs of the visibility stage.

    Attributes:
        tolerance: largest difference of two depths of one surface, as a fraction of the generator's box.
        mutual: also draw the input view's surface into the pseudo-view and compare there; off: test in the
            input view only, as HFGI3D does.
        max_angle: degrees between surface normal and the input view's ray beyond which texels are too
            stretched to use.
        view_max_angle: the same for the pseudo-view's ray.
        silhouette_erode: width removed along the input view's silhouette, as a fraction of the image width
            (HFGI3D: 51 px kernel at 512², 0.05).
        edge_erode: width removed on both sides of depth discontinuities in the input view, as a fraction of
            the image width.
        edit_erode: the two widths above are multiplied by this where the photo is edited: what was painted up to the
            outline is meant to be seen there.
        speck: islands and holes of a visible mask below this fraction of the image area are removed and filled.
        mask_erode: width removed along each visible mask's outline, as a fraction of the image width (HFGI3D:
            3 px at 512²).
        confidence_angle: degrees from the input view at which a pseudo-view's confidence has fallen to
            exp(−½) = 0.61 (Gaussian).
        confidence_least: confidence that is left far away, where a pseudo-view is the generator's own fill alone.
    """

    tolerance: Part = 0.02
    mutual: bool = True
    max_angle: Annotated[float, Range(0, 90)] = 70.0
    view_max_angle: Annotated[float, Range(0, 90)] = 80.0
    silhouette_erode: Width = 0.012
    edge_erode: Width = 0.006
    edit_erode: Part = 0.25
    speck: Part = 0.0003
    mask_erode: Width = 0.006
    confidence_angle: Annotated[float, Range(0, 100_000, above=True)] = 40.0
    confidence_least: Part = 0.2


@dataclass(frozen=True)
class VisibilityOutputs:
    """visible_masks [P,1,S,S], 0 or 1, whatever is edited; confidences [P] in (0,1]; edited_visible_masks [P,1,S,S],
    for edited texels, None = there is no edit."""

    visible_masks: Tensor
    confidences: Tensor
    edited_visible_masks: Tensor | None = None


def run(inputs: VisibilityInputs, config: VisibilityConfig, context: Context) -> VisibilityOutputs:
    """See the dataclasses for shapes and units."""
    size = inputs.foreground.shape[-1]
    count = len(inputs.pseudo_cameras)
    cuts = Cuts(config.tolerance * context.generator.spec.box, config.max_angle, config.view_max_angle)
    source = SeenFrom(inputs.camera, inputs.input_depth, inputs.input_alpha > SOLID)
    views = SeenFrom(inputs.pseudo_cameras, inputs.view_depths, inputs.view_alphas > SOLID)
    trusted = trusted_photo(source, inputs.foreground, inputs.edit_mask, inputs.valid, config)
    context.preview("trusted_texels", trusted[-1])
    sources = [replace(source, trusted=texels) for texels in trusted]
    masks: list[list[Tensor]] = [[] for _ in sources]
    with context.progress(count, "visibility") as bar, torch.no_grad():
        for i in range(count):
            view = views[i]
            points, normals, surface = surface_points(view.depth, view.valid, view.camera, size)
            agreement = surface
            if config.mutual:
                seen, hit = mutual_depth(source, view.camera, size)
                own = (points - view.camera.position[:, None, None]) @ view.camera.forward[:, :, None]
                agreement = agreement * depth_agreement(own.permute(0, 3, 1, 2) - seen, cuts.tolerance) * hit
            for which, kept in zip(sources, masks):
                confidence = visibility_confidence(points, normals, views=view.camera, source=which, cuts=cuts)
                kept.append(erode(without_specks(confidence * agreement, config.speck), config.mask_erode))
            bar.update(1)
    visible, *edited = (torch.cat(views) for views in masks)
    confidences = view_confidence(
        inputs.camera, inputs.pseudo_cameras, config.confidence_angle, config.confidence_least
    )
    context.preview("visible", visible)
    if edited:
        context.preview("edited_visible", edited[0])
    for i in range(count):
        context.record(view=i, visible_fraction=visible[i].mean().item(), confidence=confidences[i].item())
    return VisibilityOutputs(visible, confidences, edited[0] if edited else None)


def trusted_photo(
    source: SeenFrom, foreground: Tensor, edit_mask: Tensor, valid: Tensor | None, config: VisibilityConfig
) -> list[Tensor]:
    """Trusted texels [1,1,S,S] of the photo, and, where there is an edit, those of the edited photo.

    Args:
        source: what the generator shows at the input view, a batch of one.
        foreground, edit_mask: [1,1,S,S].
        valid: [1,1,S,S], 0 in the photo's mirrored border, None = there is none.
    """

    def trust(part: float) -> Tensor:
        widths = {"silhouette_erode": part * config.silhouette_erode, "edge_erode": part * config.edge_erode}
        return trusted_texels(source, foreground, **widths)

    trusted = [trust(1.0)]
    if edit_mask.any():
        trusted.append(torch.where(edit_mask > SOLID, trust(config.edit_erode), trusted[0]))
    return trusted if valid is None else [texels * valid for texels in trusted]
