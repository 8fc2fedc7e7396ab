"""The best shift between two pictures, taken out: what is in the right shape but a little beside its place.

A head that is drawn one pixel to the side has lost several decibels and nothing that an eye would miss. The rows
"aligned" say what is left when that is forgiven, as a whole picture, not piece by piece.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 0.024
"""Largest shift that is tried, as a fraction of the picture's width (6 pixels of 256)."""


def shifted(image: Tensor, dx: float, dy: float) -> Tensor:
    """A picture [1,C,S,S] moved right by dx and down by dy pixels, bicubic; the border's colour comes in."""
    size = image.shape[-1]
    if dx == round(dx) and dy == round(dy):
        reach = int(max(abs(dx), abs(dy)))
        padded = F.pad(image, (reach,) * 4, mode="replicate")
        top, left = reach - round(dy), reach - round(dx)
        return padded[..., top : top + size, left : left + size]
    line = (torch.arange(size, dtype=image.dtype, device=image.device) + 0.5) / size
    grid = torch.stack(torch.meshgrid(line - dx / size, line - dy / size, indexing="xy"), -1)[None] * 2 - 1
    return F.grid_sample(image, grid, mode="bicubic", padding_mode="border", align_corners=False)


def best_shift(image: Tensor, target: Tensor, mask: Tensor, reach: float = REACH) -> tuple[float, float]:
    """The shift (dx, dy) of `image` in pixels at which it comes nearest to `target` inside a mask, in the mean of
    squares.

    All whole shifts are tried; then the minimum of the parabolas through the best one's neighbours, which is taken only
    where it is better.

    Args:
        image, target: [1,3,S,S]. mask: [1,1,S,S]; empty: no shift.
        reach: see `REACH`.
    """
    most = max(1, round(reach * image.shape[-1]))
    if not mask.any():
        return 0.0, 0.0

    def error(dx: float, dy: float) -> float:
        return float(((shifted(image, dx, dy) - target) ** 2 * mask).sum())

    errors = {(dx, dy): error(dx, dy) for dx in range(-most, most + 1) for dy in range(-most, most + 1)}
    x, y = min(errors, key=lambda at: (errors[at], abs(at[0]) + abs(at[1])))

    def vertex(low: tuple[int, int], high: tuple[int, int]) -> float:
        if low not in errors or high not in errors:
            return 0.0
        bend = errors[low] + errors[high] - 2 * errors[x, y]
        return 0.5 * (errors[low] - errors[high]) / bend if bend > 0 else 0.0

    fine = x + vertex((x - 1, y), (x + 1, y)), y + vertex((x, y - 1), (x, y + 1))
    return fine if error(*fine) < errors[x, y] else (float(x), float(y))
