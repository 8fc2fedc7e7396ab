"""What the generator is trained on: the true pictures, alpha and depth of heads whose latent is known, then a judge's
opinion."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.generators import EG3DGenerator, Render
from pmv.generators.volume import Jitter
from pmv.geometry.camera import Camera
from pmv.training.batches import Batch


@dataclass(frozen=True)
class Weights:
    """Weights of the supervised terms, each a mean over pixels.

    Attributes:
        image, raw: L1 distance of the pictures in [-1,1].
        gradient: L1 distance of their finite differences, summed over three scales.
        alpha: L1 distance of the opacities.
        depth: L1 distance of z-depth, in world units, where the true one is known.
        features: how much more than other pixels one in the middle of an eye or of the mouth counts in the picture
            terms: people look there first, and they cover a fiftieth of a picture.
    """

    image: float = 1.0
    raw: float = 1.0
    gradient: float = 0.5
    alpha: float = 1.0
    depth: float = 4.0
    features: float = 3.0


FEATURE_PLACES = ((0.072, 0.024, 0.19), (-0.072, 0.024, 0.19), (0.0, -0.121, 0.22))
"""Where FFHQ's alignment puts the eyes and the mouth of every head, world units."""
FEATURE_RADII = (0.04, 0.04, 0.055)
"""Distance from there at which a point counts 1/e of the middle, world units."""


def feature_emphasis(batch: Batch) -> Tensor:
    """[B·V,1,R/2,R/2] in [0,1]: how near the surface that a pixel shows is to an eye or the mouth.

    Hidden features count nothing, and neither do pixels without a known depth.
    """
    points = batch.cameras.unproject(batch.depth)
    emphasis = torch.zeros_like(points[..., 0])
    for place, radius in zip(FEATURE_PLACES, FEATURE_RADII, strict=True):
        away = torch.stack([points[..., axis] - place[axis] for axis in range(3)], -1)
        emphasis = emphasis + torch.exp(-away.square().sum(-1) / radius**2)
    return emphasis.nan_to_num(0.0).clamp(0.0, 1.0).reshape(batch.depth.shape)


def weighted_l1(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Mean over pixels and channels of weight [N,1,R,R] times the distance of a and b [N,C,R,R]."""
    return ((a - b).abs() * weight).mean()


def gradient_difference(a: Tensor, b: Tensor, weight: Tensor | None = None, scales: int = 3) -> Tensor:
    """Sum over scales (each half of the one before) of the mean L1 distance of horizontal and vertical differences,
    each times the weight [N,1,R,R] of its pixel.

    Sees blur and displaced edges, which a plain L1 distance hardly does (Mathieu et al. 2016, eq. 6, with exponent 1).
    """
    difference = a - b
    total = difference.new_zeros(())
    for _ in range(scales):
        down, right = difference.diff(dim=2).abs(), difference.diff(dim=3).abs()
        if weight is not None:
            down, right = down * weight[:, :, 1:], right * weight[..., 1:]
            weight = F.avg_pool2d(weight, 2)
        total = total + down.mean() + right.mean()
        difference = F.avg_pool2d(difference, 2)
    return total


def render_batch(
    generator: EG3DGenerator,
    batch: Batch,
    condition: Camera,
    resolution: int,
    jitter: Jitter,
    enlarge: bool,
    mixed: bool = False,
    keep: int | None = None,
) -> Render:
    """The batch's views as the generator sees them.

    Args:
        condition: a camera for the mapping (it ignores it; on the batch's device, which spares a copy).
        resolution: rays a side.
        enlarge: run the super-resolution; without it `image` is the raw image.
        mixed: bfloat16 for the convolutions; the mapping and the ray marching, whose densities span six orders of
            magnitude, stay in single precision.
        keep: samples a ray that get gradients; see `pmv.generators.volume.march`.
    """
    views = len(batch.cameras) // len(batch.z)
    w = generator.map(batch.z, condition)
    with torch.autocast(batch.z.device.type, torch.bfloat16, enabled=mixed):
        planes = generator.planes(w)
    rows = planes.float().repeat_interleave(views, 0), w.repeat_interleave(views, 0)
    return render_planes(generator, *rows, batch.cameras, resolution, jitter, enlarge, mixed, keep)


def render_planes(
    generator: EG3DGenerator,
    planes: Tensor,
    w: Tensor,
    cameras: Camera,
    resolution: int,
    jitter: Jitter,
    enlarge: bool,
    mixed: bool = False,
    keep: int | None = None,
) -> Render:
    """Views of planes [N,3,C,H,W] with their latents, one camera each; the rest as in `render_batch`."""
    features, depth, alpha = generator.march(planes, cameras, resolution, jitter, keep)
    image = raw = features[:, :3]
    if enlarge:
        with torch.autocast(planes.device.type, torch.bfloat16, enabled=mixed):
            image, raw = generator.superresolution(raw, features, w)
    return Render(image.float(), raw.float(), depth, alpha)


def supervised(render: Render, batch: Batch, weights: Weights) -> dict[str, Tensor]:
    """The weighted supervised terms by name; without super-resolution (image of the raw image's size) only the raw
    ones.

    Every term is a distance between what was drawn and the truth; a perceptual one belongs here, under a name of its
    own, with its weight in `Weights`.
    """
    image, alpha, depth = batch.raw(render.raw.shape[-1])
    known = ~depth.isnan()
    emphasis = 1 + weights.features * feature_emphasis(batch)
    coarse = F.interpolate(emphasis, image.shape[-2:], mode="area")
    error = torch.where(known, render.depth - depth, torch.zeros_like(depth)).abs().sum() / known.sum().clamp_min(1)
    terms = {
        "raw": weights.raw * weighted_l1(render.raw, image, coarse),
        "raw_gradient": weights.gradient * gradient_difference(render.raw, image, coarse),
        "alpha": weights.alpha * F.l1_loss(render.alpha, alpha),
        "depth": weights.depth * error,
    }
    if render.image.shape == batch.image.shape:
        fine = F.interpolate(emphasis, scale_factor=2.0, mode="nearest")
        terms["image"] = weights.image * weighted_l1(render.image, batch.image, fine)
        terms["gradient"] = weights.gradient * gradient_difference(render.image, batch.image, fine)
    return terms


def first_views(render: Render, batch: Batch, count: int) -> tuple[Render, Batch]:
    """The first `count` views of a batch as drawn and as they are, whole heads: those whose truth is known."""
    heads = count * len(batch.z) // len(batch.cameras)
    truth = Batch(batch.z[:heads], batch.cameras[:count], batch.image[:count], batch.alpha[:count], batch.depth[:count])
    return Render(render.image[:count], render.raw[:count], render.depth[:count], render.alpha[:count]), truth


def learn(
    generator: EG3DGenerator,
    batch: Batch,
    condition: Camera,
    resolution: int,
    jitter: Jitter,
    enlarge: bool,
    mixed: bool,
    keep: int | None,
    known: int,
) -> tuple[Render, dict[str, Tensor], Tensor]:
    """What a step computes for the generator, in one piece so that a compiler sees all of it: the batch's views (see
    `render_batch`), the supervised terms of the first `known` of them and the sum of these."""
    render = render_batch(generator, batch, condition, resolution, jitter, enlarge, mixed, keep)
    terms = supervised(*first_views(render, batch, known), Weights())
    return render, terms, torch.stack(list(terms.values())).sum()


def gradient_share(reference: Tensor, term: Tensor, image: Tensor, known: int | None = None) -> Tensor:
    """The factor that gives `term` a gradient of the same norm at the first `known` images (None: at all) as
    `reference` has (Esser et al. 2021, eq. 7)."""
    (wanted,) = torch.autograd.grad(reference, image, retain_graph=True)
    (given,) = torch.autograd.grad(term, image, retain_graph=True)
    return (wanted[:known].norm() / (given[:known].norm() + 1e-12)).clamp(0.0, 1e4).detach()
