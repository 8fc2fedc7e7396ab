"""The surface that texels are carried along: the coarse generator's, with the face that the photo's landmarks tell of.

A generator of heads gives a plausible face; a statistical face fitted to the landmarks (`pmv.portrait.face_fit`) gives
the relief of this one. Its depth is blended into the coarse depth where it is sure (`pmv.geometry.blend`), and the
pseudo-views' depths follow. Outlines, hair and everything behind stay the generator's. A photo whose landmarks cannot
be found keeps the coarse surface.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pmv.geometry.blend import blend_surface, carry_surface
from pmv.geometry.camera import Camera
from pmv.geometry.scene import edge_step
from pmv.pipeline.context import Context
from pmv.portrait import landmarks
from pmv.portrait.align import find_faces, shipped_model
from pmv.portrait.face_depth import face_depth
from pmv.portrait.face_fit import fit_face
from pmv.portrait.photo import Photo

log = logging.getLogger("pmv")


@dataclass(frozen=True)
class SurfaceInputs:
    """original [1,3,S,S]; camera: 1, pseudo_cameras: P; coarse_input_depth, input_alpha [1,1,D,D]; coarse_view_depths,
    view_alphas [P,1,D,D]."""

    original: Tensor
    camera: Camera
    pseudo_cameras: Camera
    coarse_input_depth: Tensor
    input_alpha: Tensor
    coarse_view_depths: Tensor
    view_alphas: Tensor


@dataclass(frozen=True)
class SurfaceConfig:
    """Knobs of the surface stage.

    Attributes:
        face_weight: what the fitted face's confidence is multiplied by; 0 = the coarse surface stays as it is.
        outlier: world units; see `pmv.geometry.blend.blend_surface`.
        least_presence: probability that the landmark network gives to there being a face, below which it is not asked
            further.
    """

    face_weight: float = 1.0
    outlier: float = 0.06
    least_presence: float = 0.5


@dataclass(frozen=True)
class SurfaceOutputs:
    """input_depth [1,1,D,D], view_depths [P,1,D,D]; surface_confidence [1,1,D,D] in [0,1], how far the fitted face is
    believed."""

    input_depth: Tensor
    view_depths: Tensor
    surface_confidence: Tensor


def run(inputs: SurfaceInputs, config: SurfaceConfig, context: Context) -> SurfaceOutputs:
    """See the dataclasses for shapes and units."""
    coarse, alpha = inputs.coarse_input_depth, inputs.input_alpha
    kept = SurfaceOutputs(coarse, inputs.coarse_view_depths, torch.zeros_like(coarse))
    uv = _landmarks(inputs.original, config.least_presence) if config.face_weight > 0 else None
    if uv is None:
        return kept
    size = coarse.shape[-1]
    known = torch.where(alpha > 0.9, coarse, torch.zeros_like(coarse))[0, 0].double().cpu().numpy()
    fit = fit_face(uv, inputs.camera.intrinsics[0].double().cpu().numpy(), depth=known)
    face = face_depth(fit, inputs.camera, size)
    confidence = config.face_weight * face.confidence
    edge = edge_step(inputs.camera, size)
    depth = blend_surface(coarse, alpha, face.depth, confidence, edge, config.outlier)
    changed = (confidence > 0) & (alpha > 0.5)
    views = carry_surface(
        depth, changed, inputs.camera, inputs.pseudo_cameras, inputs.coarse_view_depths, inputs.view_alphas, edge
    )
    moved = (depth - coarse).abs()[changed]
    context.record(residual=fit.residual, surprise=fit.surprise, moved=float(moved.mean()) if moved.numel() else 0.0)
    context.preview("confidence", confidence)
    return SurfaceOutputs(depth, views, confidence)


def _landmarks(original: Tensor, least_presence: float) -> np.ndarray | None:
    """[468,2] in picture widths, or None where no face is found."""
    pixels = ((original[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    photo = Photo(np.ascontiguousarray(pixels))
    faces = find_faces(photo)
    found = landmarks.find_landmarks(photo, faces[0], shipped_model().partner) if faces else None
    if found is None or found.presence < least_presence:
        log.warning("surface: the coarse surface stays, no face was found in the picture")
        return None
    return found.points / photo.width
