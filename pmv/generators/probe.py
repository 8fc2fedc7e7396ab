"""Which plane convention a generator's weights were trained with, told from what they draw.

Read along wrong axes, tri-planes still give *something*: a head smeared along an axis, or with a neck that leaves it
forwards. Heads (and cats and cars) are left-right symmetric, and touch their box nowhere but below. Weights that draw
nothing of the kind under any convention, such as random ones, are not judged.
"""

import copy
import logging
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.generators.base import PLANE_AXES

log = logging.getLogger("pmv")

_SIDE = 32
"""Points along each side of the box: 4 cm a voxel if the box is a head and shoulders."""
_LIKE_A_HEAD = 0.1
"""Score above which nothing was drawn that convinces."""
_CLEARLY = 4.0
"""Factor by which the second best must be worse."""
_LEAST = 0.02
"""Score that the second best must have."""


@dataclass(frozen=True)
class PlaneProbe:
    """What a probe found.

    Attributes:
        scores: plane convention → how unlike a head the mean latent's volume is, 0 = like one.
        convention: the convention that is clearly the best; None: inconclusive.
    """

    scores: dict[str, float]
    convention: str | None


@torch.no_grad()
def probe_planes(generator: Any) -> PlaneProbe:
    """Reads the mean latent's planes by every convention, and compares how much like a head the volumes are.

    A score is 1 − correlation of the opacity with its mirror image in x, plus the part of the box's walls, all but the
    lower one, that is solid. One pass of the backbone and 3·32³ points: a fraction of a second for a small generator.

    Args:
        generator: of the EG3D kind, with `config`, `spec`, `mean_w`, `planes`, `density`.
    """
    planes = generator.planes(generator.mean_w())
    box = generator.spec.box
    axis = ((torch.arange(_SIDE) + 0.5) / _SIDE - 0.5) * box
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(1, -1, 3).to(planes.device)
    scores = {}
    for convention in PLANE_AXES:
        reader = copy.copy(generator)  # shares the weights
        reader.config = replace(generator.config, plane_convention=convention)
        density = reader.density(points, planes)[0].reshape(_SIDE, _SIDE, _SIDE)
        scores[convention] = _unlikeness(1 - torch.exp(-F.softplus(density - 1) * (box / _SIDE)))
    best, second = sorted(scores, key=scores.__getitem__)[:2]
    sure = scores[best] < _LIKE_A_HEAD and scores[second] > max(_LEAST, _CLEARLY * scores[best])
    return PlaneProbe(scores, best if sure else None)


def warn_if_misread(generator: Any, convention: str) -> None:
    """Says in the log that a generator draws a head only by another convention than the one that was asked for."""
    best = probe_planes(generator).convention
    if best not in (None, convention):
        log.warning(
            "the generator's planes are read as %r, as asked, but it draws a head only when they are read as %r",
            convention,
            best,
        )


def _unlikeness(opacity: Tensor) -> float:
    """See `probe_planes`; opacity [X,Y,Z] of the voxels. A volume of nothing is unlike a head."""
    centred = opacity - opacity.mean()
    symmetry = (centred * centred.flip(0)).sum() / centred.square().sum().clamp_min(1e-6)
    solid = (opacity > 0.5).float()
    walls = torch.stack([solid[0], solid[-1], solid[:, -1], solid[:, :, 0], solid[:, :, -1]])
    return (1 - symmetry + walls.mean()).item()
