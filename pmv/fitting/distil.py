"""The residual of a generator's planes fitted to another volume, so that its planes show that volume.

A mixture of two volumes point by point is no planes of anything. Point by point it can also be learned: what a decoder
says at random places is compared with what the volume says there, without a ray being marched.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.fitting.optimise import Group, Ramp, optimise
from pmv.generators.base import PLANE_AXES, Field, Generator

_POINTS, _POOL = 24_000, 400_000
"""Places a step, and all that are asked for."""
_NEAR, _ANYWHERE = 0.015, 0.15
"""Of the box's side: standard deviation of places about the surface; and the part of all places that lies anywhere."""
_STEPS_OF_RAY = 48
"""A density counts by how opaque this part of the box makes it."""
_RATE = 0.01
"""Learning rate, standard deviations of the planes."""
_OPACITY = 0.4
"""Weight of opacity against features."""
_FRONT = 10.0
"""How much more the front half of a head counts where a texel is shared by both."""
_KEPT = 6.0
"""Weight of what is to stay as it was, against what is new."""


def opacity(density: Tensor, box: float) -> Tensor:
    """How opaque raw densities make a short stretch of a ray, in [0,1]."""
    return 1 - torch.exp(-F.softplus(density - 1) * (box / _STEPS_OF_RAY))


def _projected(values: Tensor, convention: str, reduced: Callable[..., Tensor]) -> Tensor:
    """[3,1,G,G]: a volume [G,G,G] along z, y, x, reduced along each plane's normal."""
    parts = []
    for u, v in PLANE_AXES[convention]:
        flat = reduced(values, u + v - 1)  # the normal is the axis 3 − u − v, and the volume's first is z
        parts.append(flat if v > u else flat.T)  # of the two that are left, the higher one is in front
    return torch.stack(parts)[:, None]


def touched_texels(values: Tensor, convention: str, shape: tuple[int, ...]) -> Tensor:
    """Which texels of planes are read for any place where a volume is not 0.

    Args:
        values: [G,G,G] along z, y, x. convention: a key of `PLANE_AXES`. shape: of one latent's planes, [3,C,H,W] or
            [3,C,D,H,W].

    Returns: bool [3,1,H,W] or [3,1,1,H,W].
    """
    # a texel further, since reading is linear
    wide = F.max_pool2d(_projected(values, convention, torch.amax), 3, 1, 1)
    found = F.interpolate(wide, shape[-2:], mode="bilinear", align_corners=False) > 1e-3
    return found.reshape(3, *[1] * (len(shape) - 3), *shape[-2:])


@torch.no_grad()
def share_of_texels(volume: Tensor, target: Field, box: float, convention: str, shape: tuple[int, ...]) -> Tensor:
    """How much of what lies over a texel belongs to a volume: a start for planes that show two heads' parts.

    Args:
        volume: [G,G,G] in [0,1] along z, y, x. target: what is solid. The rest as in `touched_texels`.

    Returns: [3,1,H,W] or [3,1,1,H,W] in [0,1].
    """
    along = ((torch.arange(len(volume), device=volume.device) + 0.5) / len(volume) - 0.5) * box
    z, y, x = torch.meshgrid(along, along, along, indexing="ij")
    slabs = torch.stack([x, y, z], -1).flatten(1, 2)
    solid = torch.cat([opacity(target.density(slab[None], False)[0], box) for slab in slabs])
    # a texel of the plane that faces the camera is shared by front and back, and what photos tell is in front
    facing = torch.where(z > 0, _FRONT, 1.0)
    solid = facing * (solid.reshape(volume.shape) + 1e-3)  # where nothing is, all places count
    whole, ours = (_projected(values, convention, torch.sum) for values in (solid, solid * volume))
    found = F.interpolate(ours / whole, shape[-2:], mode="bilinear", align_corners=False)
    return found.reshape(3, *[1] * (len(shape) - 3), *shape[-2:])


def fit_to_field(
    generator: Generator,
    base: Tensor,
    start: Tensor,
    target: Field,
    part: Callable[[Tensor], Tensor],
    surface: Tensor,
    texels: Tensor,
    steps: int,
    rng: torch.Generator,
) -> Tensor:
    """A residual with which the generator's volume becomes another one.

    Args:
        generator: only its decoder is asked. base: [1,...], what it makes of the latent without any residual.
        start: [1,...], the residual to begin with; how it changes is what is fitted.
        target: what the volume is to become; its features are those of this generator's decoder.
        part: points [N,P,3] → [N,P] in [0,1], 1 where the target is new; elsewhere it counts `_KEPT` times as much.
        surface: [M,3], places on all that is to be seen of the target. texels: bool, of `touched_texels`: others stay
            to the bit. rng: on the CPU.

    Returns: the residual, [1,...].
    """
    box = generator.spec.box
    places = _places(surface, box, rng).to(base.device)
    with torch.no_grad():
        told = [target.density(some[None], True) for some in places.split(_POINTS)]
        solid, wanted = (torch.cat([pair[i][0] for pair in told]) for i in (0, 1))
        solid = opacity(solid, box)
        weight = 1 + (_KEPT - 1) * (1 - part(places[None])[0, :, None])
        spread = base.std().item()
    change = torch.zeros_like(start, requires_grad=True)
    gate = texels.to(base.device)

    def terms(step: int) -> dict[str, Tensor]:
        which = torch.randint(len(places), (_POINTS,), generator=rng).to(base.device)
        planes = base + start + change * gate
        density, features = generator.field(planes).density(places[which][None], True)
        share, counts = solid[which], weight[which]
        return {
            "opacity": _OPACITY * (counts * (opacity(density[0], box) - share).square()).mean(),
            "features": (counts * share * (features[0] - wanted[which]).square()).mean(),
        }

    optimise([Group([change], _RATE * spread)], terms, steps, ramp=Ramp(0.05, 0.7))
    return (start + change * gate).detach()


def _places(surface: Tensor, box: float, rng: torch.Generator) -> Tensor:
    """[_POOL,3]: most of them about the surface, the others anywhere in the box."""
    free = int(_ANYWHERE * _POOL)
    chosen = surface[torch.randint(len(surface), (_POOL - free,), generator=rng)]
    near = chosen + _NEAR * box * torch.randn(_POOL - free, 3, generator=rng)
    anywhere = (torch.rand(free, 3, generator=rng) - 0.5) * box
    return torch.cat([near, anywhere]).clamp(-box / 2, box / 2)
