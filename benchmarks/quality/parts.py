"""Which part of a true view the photo shows too, and which it does not: judged by the true depth, for every method
alike."""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.quality.truth import Truth
from pmv.geometry.scene import SeenFrom, surface_points
from pmv.geometry.visibility import Cuts, visibility_confidence
from pmv.pictures.masks import dilate, erode, without_specks

CUTS = Cuts(tolerance=0.01, max_degrees=70.0, view_max_degrees=80.0)
"""Two true depths of one surface differ a little in hair and at edges. What the photo shows more obliquely than at 70°
is too stretched to be told, as the stage `visibility` and `pmv.fitting.metrics.cross_view_consistency` have it."""
_OUTLINE = 0.006
"""Part of the picture's width along the outline of the photo's head where its pixels mix with what is behind."""
_SPECK = 0.0003


@dataclass(frozen=True)
class Parts:
    """visible, occluded: [V,1,S,S] of 0 and 1; they do not overlap, and leave a thin seam between them. In the input
    view all that is not grazing is visible."""

    visible: Tensor
    occluded: Tensor

    def named(self) -> dict[str, Tensor]:
        return {"visible": self.visible, "occluded": self.occluded}


def find_parts(truth: Truth) -> Parts:
    """The parts of all views; the first view of the truth is the photo."""
    size = truth.depth.shape[-1]
    points, normals, surface = surface_points(truth.depth, truth.solid, truth.cameras, size)
    source = SeenFrom(truth.cameras[0], truth.depth[:1], truth.solid[:1], erode(truth.alpha[:1], _OUTLINE))
    confidence = visibility_confidence(points, normals, views=truth.cameras, source=source, cuts=CUTS)
    visible = without_specks(confidence * surface, _SPECK) * truth.solid
    occluded = truth.solid * (1 - dilate(visible, 2.0 / size))
    return Parts(visible, without_specks(occluded, _SPECK) * truth.solid)


def share(mask: Tensor) -> float:
    """Part of a picture that a mask [1,1,S,S] covers."""
    return float(torch.mean(mask))
