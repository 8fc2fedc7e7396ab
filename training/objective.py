"""What the generator is trained on: the true pictures, alpha and depth of heads whose latent is known, then a judge's
opinion."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.camera import Camera
from pmv.generators import EG3DGenerator, Render
from training.batches import Batch


@dataclass(frozen=True)
class Weights:
    """Weights of the supervised terms, each a mean over pixels.

    Attributes:
        image, raw: L1 distance of the pictures in [-1,1].
        gradient: L1 distance of their finite differences, summed over three scales.
        alpha: L1 distance of the opacities.
        depth: L1 distance of z-depth, in world units, where the true one is known.
    """

    image: float = 1.0
    raw: float = 1.0
    gradient: float = 0.5
    alpha: float = 1.0
    depth: float = 4.0


def gradient_difference(a: Tensor, b: Tensor, scales: int = 3) -> Tensor:
    """Sum over scales (each half of the one before) of the mean L1 distance of horizontal and vertical differences.

    Sees blur and displaced edges, which a plain L1 distance hardly does (Mathieu et al. 2016, eq. 6, with exponent 1).
    """
    difference = a - b
    total = difference.new_zeros(())
    for _ in range(scales):
        total = total + difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
        difference = F.avg_pool2d(difference, 2)
    return total


def render_batch(
    generator: EG3DGenerator, batch: Batch, condition: Camera, resolution: int, jitter: torch.Generator, enlarge: bool
) -> Render:
    """The batch's views as the generator sees them.

    Args:
        condition: a camera for the mapping (it ignores it; on the batch's device, which spares a copy).
        resolution: rays a side.
        enlarge: run the super-resolution; without it `image` is the raw image.
    """
    views = len(batch.cameras) // len(batch.z)
    w = generator.map(batch.z, condition)
    planes = generator.planes(w).repeat_interleave(views, 0)
    if enlarge:
        return generator.render(planes, w.repeat_interleave(views, 0), batch.cameras, resolution, jitter)
    features, depth, alpha = generator.march(planes, batch.cameras, resolution, jitter)
    return Render(features[:, :3], features[:, :3], depth, alpha)


def supervised(render: Render, batch: Batch, weights: Weights) -> dict[str, Tensor]:
    """The weighted supervised terms by name; without super-resolution (image of the raw image's size) only the raw
    ones."""
    image, alpha, depth = batch.raw(render.raw.shape[-1])
    known = ~depth.isnan()
    error = torch.where(known, render.depth - depth, torch.zeros_like(depth)).abs().sum() / known.sum().clamp_min(1)
    terms = {
        "raw": weights.raw * F.l1_loss(render.raw, image),
        "raw_gradient": weights.gradient * gradient_difference(render.raw, image),
        "alpha": weights.alpha * F.l1_loss(render.alpha, alpha),
        "depth": weights.depth * error,
    }
    if render.image.shape == batch.image.shape:
        terms["image"] = weights.image * F.l1_loss(render.image, batch.image)
        terms["gradient"] = weights.gradient * gradient_difference(render.image, batch.image)
    return terms


def gradient_share(reference: Tensor, term: Tensor, image: Tensor) -> Tensor:
    """The factor that gives `term` a gradient of the same norm at `image` as `reference` has (Esser et al. 2021, eq.
    7)."""
    (wanted,) = torch.autograd.grad(reference, image, retain_graph=True)
    (given,) = torch.autograd.grad(term, image, retain_graph=True)
    return (wanted.norm() / (given.norm() + 1e-12)).clamp(0.0, 1e4).detach()
