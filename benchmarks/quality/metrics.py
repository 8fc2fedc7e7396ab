"""The figures of one picture against the true one, each a row of `METRICS`: a new one is added as one line.

Figures of depth, normals and alpha are in `benchmarks/quality/surface.py`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.fitting.identity import IdentityNetwork, describe, frontal_weight, identity_distance, load_identity
from pmv.fitting.metrics import psnr, ssim
from pmv.fitting.perceptual import PerceptualLoss, load_perceptual
from pmv.geometry.camera import Camera
from pmv.pictures.masks import erode
from pmv.portrait.five_points import anchor_points, camera_points

_DETAIL = 0.008
"""Standard deviation of the Gaussian that a high-pass takes away, as a fraction of the picture's width (2 pixels of
256): strokes, pores, strands."""
_RIM = 0.012
"""Part of the width along a mask's border that a high-pass does not look at: there it sees the border."""


@dataclass(frozen=True)
class Pair:
    """One view of an inversion and of the truth.

    Attributes:
        image, truth: [1,3,S,S] in [-1,1]. mask: [1,1,S,S], the part that is judged. camera: one, of the true world.
    """

    image: Tensor
    truth: Tensor
    mask: Tensor
    camera: Camera


@dataclass(frozen=True)
class Metric:
    """One figure.

    Attributes:
        name: its key in the results.
        measure: gives the figure of a pair; None = it means nothing there.
        higher: True if more is better; None where neither is (1 is right).
        whole: measured on whole pictures, once a view, with the head's alpha as mask, instead of on each part.
    """

    name: str
    measure: Callable[[Pair], float | None]
    higher: bool | None
    whole: bool = False


def high_pass(image: Tensor, mask: Tensor) -> Tensor:
    """What is finer than `_DETAIL` in the brightness of a picture [1,3,S,S] inside a mask [1,1,S,S]: [1,1,S,S].

    The low-pass is normalised by the blurred mask, so that nothing outside the mask takes part.
    """
    sigma = _DETAIL * image.shape[-1]
    grey = image.mean(1, keepdim=True)
    weight = _blur(mask, sigma).clamp_min(1e-6)
    return (grey - _blur(grey * mask, sigma) / weight) * mask


def _blur(image: Tensor, sigma: float) -> Tensor:
    reach = math.ceil(3 * sigma)
    line = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (line / sigma) ** 2)
    kernel = kernel / kernel.sum()
    image = F.conv2d(image, kernel[None, None, None], padding=(0, reach))
    return F.conv2d(image, kernel[None, None, :, None], padding=(reach, 0))


def _details(image: Tensor, truth: Tensor, mask: Tensor) -> tuple[Tensor, Tensor] | None:
    inner = erode(mask, _RIM)
    if inner.sum() < 64:
        return None
    return high_pass(image, mask) * inner, high_pass(truth, mask) * inner


def detail_correlation(image: Tensor, truth: Tensor, mask: Tensor) -> float | None:
    """Correlation of the high-passes: 1 = all detail is there and in its place, 0 = none of it is."""
    pair = _details(image, truth, mask)
    if pair is None:
        return None
    a, b = pair
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-9))


def detail_energy(image: Tensor, truth: Tensor, mask: Tensor) -> float | None:
    """Standard deviation of the high-pass over the truth's: 1 = as sharp, less = blurred, wherever the detail lies."""
    pair = _details(image, truth, mask)
    return None if pair is None else float(pair[0].norm() / pair[1].norm().clamp_min(1e-9))


PERCEPTUAL = "lpips-random-squeeze"
"""The perceptual distance of the figures, of whatever `pmv.fitting.perceptual` offers by name; the same for all
methods."""


@cache
def _perceptual(name: str) -> PerceptualLoss:
    return load_perceptual(name)


def perceptual(image: Tensor, truth: Tensor, mask: Tensor) -> float:
    """`PERCEPTUAL` inside the mask; outside both show the truth."""
    with torch.no_grad():
        return float(_perceptual(PERCEPTUAL)(torch.lerp(truth, image, mask), truth, mask))


@cache
def _faces() -> tuple[IdentityNetwork, Tensor]:
    return load_identity(), anchor_points("heads")


def identity(image: Tensor, truth: Tensor, camera: Camera) -> float | None:
    """Distance of the identities in two pictures, cut out at the place of a mean face; None from 45° of yaw on, where
    the network cannot tell persons apart. See `pmv.fitting.identity`: 0.6 and less is the same person."""
    if frontal_weight(camera)[0] == 0:
        return None
    network, anchors = _faces()
    points = camera_points(camera, anchors)
    # one by one, so that both are looked at by the same crops
    return float(identity_distance(*(describe(network, picture, points) for picture in (image, truth))))


METRICS = (
    Metric("psnr", lambda p: float(psnr(p.image, p.truth, p.mask)), higher=True),
    Metric("ssim", lambda p: float(ssim(p.image, p.truth, p.mask)), higher=True),
    Metric("detail_correlation", lambda p: detail_correlation(p.image, p.truth, p.mask), higher=True),
    Metric("detail_energy", lambda p: detail_energy(p.image, p.truth, p.mask), higher=None),
    Metric("perceptual", lambda p: perceptual(p.image, p.truth, p.mask), higher=False),
    Metric("identity", lambda p: identity(p.image, p.truth, p.camera), higher=False, whole=True),
)
"""All figures of pictures."""

ALIGNED = ("psnr", "detail_correlation")
"""Of these also the value after the best shift, as ``aligned_…``."""
