"""What the encoders are trained on. The paper (arXiv:2409.20530, eq. 5) had the input view alone: 1.0 L2, 0.8 LPIPS,
0.5 identity. Here the truth of other views, of depth, alpha and, for heads that the generator drew itself, of the
planes is known, and every view counts alike."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.encoders.network import Encoded
from pmv.fitting.efficientnet import EfficientNetDistance
from pmv.fitting.identity import IdentityNetwork, frontal_weight
from pmv.generators import Render
from pmv.geometry.camera import Camera
from pmv.pictures.chips import face_chips
from pmv.portrait.five_points import camera_points
from pmv.training.encoder.lessons import Lesson
from pmv.training.objective import Weights, supervised

_STEEPEST = 2.0
"""Error of a slope beyond which it counts no more: it is an outline's, half a pixel beside its place."""


@dataclass(frozen=True)
class EncoderWeights:
    """Weights of the terms beside `pmv.training.objective.Weights`.

    Attributes:
        perceptual: distance of ImageNet features (`pmv/fitting/efficientnet.py`), all views.
        identity: squared distance of face descriptors, views of at most 45° of yaw.
        surface: likelihood of the true depth of the input view, see `surface_loss`.
        relief: error of its slopes, see `relief_loss`.
        pose: L1 error of the camera that was put right, in degrees and hundredths of a world unit.
        planes: L1 distance of the planes, in their deviations, where they are known.
        residual: mean square of the residual, in the same unit: what the latent can say it should.
    """

    perceptual: float = 0.8
    identity: float = 0.5
    surface: float = 0.1
    relief: float = 0.5
    pose: float = 0.1
    planes: float = 0.2
    residual: float = 0.02


@dataclass(frozen=True)
class Judges:
    """Networks that compare pictures.

    Attributes:
        perceptual: see `EncoderWeights`. identity: None = not asked. anchors: [5,3] world, where a mean head has the
            points of `pmv.pictures.chips.face_chips`.
    """

    perceptual: EfficientNetDistance
    identity: IdentityNetwork | None
    anchors: Tensor


class Surface(Protocol):
    """Who tells the visible surface: `Look` and `Encoded`."""

    @property
    def depth(self) -> Tensor: ...
    @property
    def scale(self) -> Tensor: ...
    @property
    def camera(self) -> Camera: ...


def surface_loss(encoded: Surface, depth: Tensor) -> Tensor:
    """Negative log-likelihood of the true z-depth [B,1,r,r] (NaN = unknown, as is a cell of which any is) under a
    Laplace distribution of the predicted place and scale: |e| / s + log s (Kendall and Gal 2017, arXiv:1703.04977, eq.
    8), less log of a thousandth."""
    depth = F.interpolate(depth, encoded.depth.shape[-2:], mode="area")
    known = ~depth.isnan()
    error = torch.where(known, encoded.depth - depth, torch.zeros_like(depth)).abs()
    terms = (error / encoded.scale + encoded.scale.log() - math.log(1e-3)) * known
    return terms.sum() / known.sum().clamp_min(1)


def relief_loss(found: Tensor, depth: Tensor, focal: Tensor) -> Tensor:
    """Mean absolute error of the slopes of z-depth maps [B,1,r,r] (NaN in `depth` = unknown), across 1, 2, 4 and 8
    pixels, each at most `_STEEPEST`: a surface may be right in its places and wrong in its shape (gradient matching at
    several scales, as MegaDepth, arXiv:1804.00607, eq. 4).

    Args:
        focal: [B] of the cameras, in widths of the picture.
    """
    depth = F.interpolate(depth, found.shape[-2:], mode="area")
    known = ~depth.isnan()
    error = torch.where(known, found - depth, torch.zeros_like(depth))
    pixel = depth.nan_to_num(0.0).amax((1, 2, 3)) / (focal * depth.shape[-1])  # its side in the world
    pixel = pixel.clamp_min(1e-6)[:, None, None, None]
    terms = []
    for step in (1, 2, 4, 8):
        for axis in (2, 3):
            length = depth.shape[axis] - step
            both = known.narrow(axis, 0, length) & known.narrow(axis, step, length)
            slope = (error.narrow(axis, step, length) - error.narrow(axis, 0, length)) / (step * pixel)
            terms.append((slope.abs().clamp_max(_STEEPEST) * both).sum() / both.sum().clamp_min(1))
    return torch.stack(terms).mean()


def look_losses(found: Surface, depth: Tensor, true: Camera, weights: EncoderWeights) -> dict[str, Tensor]:
    """The weighted terms of what is seen before a head is drawn: surface, relief, pose.

    Args:
        depth: [B,1,r,r] z-depth of the pictures, NaN = unknown. true: B, the cameras that took them.
    """
    degrees, moved = pose_error(found.camera, true)
    return {
        "surface": weights.surface * surface_loss(found, depth),
        "relief": weights.relief * relief_loss(found.depth, depth, true.intrinsics[:, 0, 0]),
        "pose": weights.pose * (degrees + 100 * moved).mean(),
    }


def pose_error(found: Camera, true: Camera) -> tuple[Tensor, Tensor]:
    """Degrees by which a camera's rotation is wrong, as the root of a sum that has a gradient at 0, and world units by
    which its position is: [N] each."""
    difference = (found.cam2world[:, :3, :3] - true.cam2world[:, :3, :3]).square().sum((1, 2))
    degrees = (difference / 2 + 1e-10).sqrt() * (180 / math.pi)  # |R − S|² = 8 sin²(θ/2)
    return degrees, (found.position - true.position).norm(dim=1)


def identity_term(judges: Judges, drawn: Tensor, true: Tensor, cameras: Camera) -> Tensor:
    """Mean squared distance of descriptors over the views that show a face."""
    weight = frontal_weight(cameras)
    points = camera_points(cameras, judges.anchors)
    assert judges.identity is not None
    with torch.no_grad():
        wanted = judges.identity(face_chips(true, points, samples=2))
    found = judges.identity(face_chips(drawn, points, samples=2))
    return ((found - wanted).square().sum(1) * weight).sum() / weight.sum().clamp_min(1)


def encoder_losses(
    encoded: Encoded, drawn: Render, lesson: Lesson, judges: Judges, weights: EncoderWeights, plane_scale: float
) -> dict[str, Tensor]:
    """The weighted terms of a step, scalars by name.

    Args:
        drawn: the lesson's B·V views of what was encoded.
    """
    truth = lesson.truth
    terms = supervised(drawn, truth, Weights())
    if drawn.image.shape == truth.image.shape:
        terms["perceptual"] = weights.perceptual * judges.perceptual(drawn.image, truth.image).mean()
        if judges.identity is not None and weights.identity:
            terms["identity"] = weights.identity * identity_term(judges, drawn.image, truth.image, truth.cameras)
    terms |= look_losses(encoded, lesson.first(truth.depth), lesson.taken_from, weights)
    terms["residual"] = weights.residual * (encoded.residual / plane_scale).square().mean()
    if lesson.planes is not None:
        terms["planes"] = weights.planes * (encoded.planes - lesson.planes).abs().mean() / plane_scale
    return terms
