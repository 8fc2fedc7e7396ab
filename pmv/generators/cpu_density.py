"""Densities of one latent's tri-planes on a CPU, without gradients, several times faster than through
`sample_planes` and the decoder: what the pass needs that finds out which samples matter.

Texels are fetched as the rows of an embedding, all channels of a texel at once and already weighted and summed over
corners and planes; the softplus is log(1 + eˣ), whose logarithm PyTorch computes eight times faster than log1p; and
points are taken in pieces whose hidden layer stays in a core's cache.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_PIECE = 8192
_HIDDEN_PIECE = 2048
_LINEAR_FROM = 20.0
"""Where softplus is the identity to single precision, as in PyTorch's own."""


def texel_rows(planes: Tensor) -> Tensor:
    """[1,3,C,H,W] → [3·H·W,C]."""
    return planes[0].permute(0, 2, 3, 1).reshape(-1, planes.shape[2])


@torch.no_grad()
def densities(
    rows: Tensor,
    size: tuple[int, int],
    points: Tensor,
    decoder: tuple[Tensor, Tensor, Tensor, Tensor],
    axes: tuple[tuple[int, int], ...],
    box: float,
) -> Tensor:
    """Raw density [P,1] at points [P,3] world.

    Args:
        rows: of `texel_rows`, planes of `size` (height, width).
        decoder: weights and biases of both layers, [D,C], [D], [1+C,D], [1+C].
        axes: of a plane convention.
    """
    first, first_bias, last, last_bias = decoder
    found = []
    for piece in points.split(_PIECE):
        around, weights = _corners(piece, size, axes, box)
        sampled = F.embedding_bag(around, rows, per_sample_weights=weights, mode="sum")
        for part in sampled.split(_HIDDEN_PIECE):
            hidden = F.linear(part, first, first_bias)
            hidden = torch.maximum(hidden, hidden.clamp(max=_LINEAR_FROM).exp_().add_(1.0).log_())
            found.append(F.linear(hidden, last[:1], last_bias[:1]))
    return torch.cat(found) if found else points.new_zeros(0, 1)


def _corners(
    points: Tensor, size: tuple[int, int], axes: tuple[tuple[int, int], ...], box: float
) -> tuple[Tensor, Tensor]:
    """Of every point the twelve rows around its places on the planes, [P,12], and their weights, zero outside."""
    height, width = size
    places = points.t() * (2.0 / box)
    rows, weights = [], []
    for plane, (across, down) in enumerate(axes):
        columns, column_weights = _pair(places[across], width)
        lines, line_weights = _pair(places[down], height)
        for line, a in zip(lines, line_weights, strict=True):
            start = (plane * height + line) * width
            rows += [start + column for column in columns]
            weights += [a * b for b in column_weights]
    return torch.stack(rows, 1), torch.stack(weights, 1) / len(axes)


def _pair(x: Tensor, size: int) -> tuple[list[Tensor], list[Tensor]]:
    """The two texels of an axis around places [P] in [-1,1], and their weights."""
    texel = (x + 1) * (size / 2) - 0.5
    low = texel.floor()
    beyond = texel - low
    weights = [(1 - beyond) * ((low >= 0) & (low < size)), beyond * ((low >= -1) & (low < size - 1))]
    return [(low + i).clamp(0, size - 1).to(torch.int32) for i in (0, 1)], weights
