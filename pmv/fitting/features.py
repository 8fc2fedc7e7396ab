"""How two lists of feature maps are compared: as LPIPS does (Zhang et al. 2018, arXiv:1801.03924, eq. 1), for any
network.

At every level the features of a pixel are made unit length over the channels; the distance is the squared difference,
summed over channels, averaged over pixels and weighted by level.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.fitting.losses import masked_mean


def unit_length(features: Tensor, softness: float) -> Tensor:
    """[N,C,H,W] of unit length over C, or a little less: x / √(|x|² + softness · C).

    Args:
        softness: added to the mean square of a pixel's features, so that one with next to none does not turn rounding
            into a direction; in units of the features' own mean square, > 0.
    """
    # in single precision at least: the mean square of an autocast's half-precision features loses what softness adds
    wide = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
    scale = (wide.square().mean(1, keepdim=True) + softness).mul(features.shape[1]).rsqrt()
    return wide * scale


def level_distances(a: Sequence[Tensor], b: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
    """Squared distance of unit features at each level: [N,levels], each in [0,4].

    Args:
        a, b: a tensor [N,C,H,W] for each level, of unit length over C.
        mask: [N,1,S,S] in [0,1], of the pictures' size or another: it weights the pixels of every level by the part of
            them that it covers. An empty one gives 0.
    """
    rows = []
    for f, g in zip(a, b, strict=True):
        inside = None if mask is None else F.adaptive_avg_pool2d(mask, (f.shape[-2], f.shape[-1]))
        rows.append(masked_mean((f - g).square().sum(1, keepdim=True), inside))
    return torch.stack(rows, 1)


def feature_distance(a: Sequence[Tensor], b: Sequence[Tensor], weights: Tensor, mask: Tensor | None = None) -> Tensor:
    """The distances of `level_distances` times the levels' `weights` [levels], summed: [N].

    The features of a picture that stays the same need to be computed only once so. No branch hangs on a value: a
    compiler takes it whole.
    """
    return level_distances(a, b, mask) @ weights
