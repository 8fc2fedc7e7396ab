"""Losses as pure functions: one value for each image of the batch, so that the caller weights views by their
confidence.

The perceptual distance is in `pmv/fitting/perceptual.py`.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_mean(value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of [N,C,H,W] over channels and pixels, weighted by a mask [N,1,H,W] (or [1,1,H,W]) in [0,1]: [N].

    An empty mask gives 0, with zero gradient: a view without a visible pixel asks for nothing.
    """
    if mask is None:
        return value.mean((1, 2, 3))
    if (
        mask.ndim != 4
        or mask.shape[1] != 1
        or mask.shape[-2:] != value.shape[-2:]
        or mask.shape[0] not in (1, len(value))
    ):
        raise ValueError(f"the mask of values {tuple(value.shape)} is [N,1,H,W], got {tuple(mask.shape)}")
    total = mask.sum((1, 2, 3)) * value.shape[1]
    return (value * mask).sum((1, 2, 3)) / torch.where(total > 0, total, torch.ones_like(total))


def masked_l2(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared difference Σ m (a − b)² / (C Σ m) of images [N,C,H,W]: [N]."""
    return masked_mean((a - b) ** 2, mask)


def depth_hold(depth: Tensor, reference: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Holds geometry to a reference while texture is tuned: Huber loss of (d − d_ref) / scale inside a mask.

    Quadratic below `scale`, linear above it, so that a few pixels that jump across a silhouette do not rule
    the loss.

    Args:
        depth, reference: z-depth [N,1,D,D].
        mask: [N,1,D,D] in [0,1]: where the reference has a surface.
        scale: world units, > 0.

    Returns:
        [N].
    """
    # a masked-out reference may be infinite, and 0·inf is not 0
    difference = torch.where(mask > 0, depth - reference, torch.zeros_like(depth)) / scale
    return masked_mean(F.huber_loss(difference, torch.zeros_like(difference), reduction="none"), mask)


def alpha_hold(alpha: Tensor, reference: Tensor) -> Tensor:
    """Holds the silhouette to a reference: mean squared difference of opacities [N,1,D,D]: [N]."""
    return masked_l2(alpha, reference)


def noise_regulariser(noise: Iterable[Tensor]) -> Tensor:
    """Keeps noise maps white, so that they cannot hide the picture (StyleGAN2, arXiv 1912.04958, appendix D):
    a scalar.

    Σ over maps and their pyramid levels (down to 8²) of E[n(x,y) n(x−1,y)]² + E[n(x,y) n(x,y−1)]².

    Args:
        noise: maps [H,W] or [1,1,H,W].
    """
    total = None
    for image in noise:
        level = image.reshape(1, 1, *image.shape[-2:])
        while True:
            term = (level * level.roll(1, -1)).mean() ** 2 + (level * level.roll(1, -2)).mean() ** 2
            total = term if total is None else total + term
            if level.shape[-1] <= 8:
                break
            level = F.avg_pool2d(level, 2)
    if total is None:
        raise ValueError("the noise regulariser needs at least one noise map")
    return total


def w_distance(w: Tensor) -> Tensor:
    """How far a W+ latent has left W: mean squared distance of its rows to their mean, [N,num_ws,w_dim] →
    [N].

    e4e (arXiv 2102.02766) calls it the delta regulariser: latents near W keep the generator's prior on unseen
    sides.
    """
    return (w - w.mean(1, keepdim=True)).square().mean((1, 2))
