"""Two volumes in one, point by point."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.generators.base import Field


class MixedField:
    """Two volumes of generators whose features mean the same, mixed by a weight that every place has.

    Densities are mixed as what they stand for, softplus(density − 1) (EG3D's activation), so that half of solid and
    empty is half as dense, not empty.
    """

    def __init__(self, first: Field, second: Field, weight: Callable[[Tensor], Tensor]) -> None:
        """Args: weight: points [N,P,3] → [N,P] in [0,1], how far the first counts."""
        self.first, self.second, self.weight = first, second, weight

    def density(self, points: Tensor, features: bool) -> tuple[Tensor, Tensor]:
        """See `pmv.generators.base.Field.density`."""
        weight = self.weight(points)[..., None]
        (near, first), (far, second) = (field.density(points, features) for field in (self.first, self.second))
        mixed = torch.lerp(F.softplus(far - 1), F.softplus(near - 1), weight)
        # the inverse of softplus; what is all but empty stays so
        density = mixed + torch.log(-torch.expm1(-mixed.clamp_min(1e-6))) + 1
        return density, torch.lerp(second, first, weight) if features else first
