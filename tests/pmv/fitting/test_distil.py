"""Planes fitted to a mixture of two volumes."""

import torch
from torch import Tensor

from pmv.fitting.distil import fit_to_field, opacity, share_of_texels, touched_texels
from pmv.generators import EG3DGenerator
from pmv.generators.base import PLANE_AXES, Field
from pmv.generators.mixing import MixedField
from pmv.generators.volume import sample_planes


def test_texels_that_no_place_of_the_volume_reads_are_not_touched():
    values = torch.zeros(8, 8, 8)
    values[6, 1, 3] = 1  # z, y, x
    place = (torch.tensor([3.0, 1.0, 6.0]) + 0.5) / 8 - 0.5
    for convention in PLANE_AXES:
        touched = touched_texels(values, convention, (3, 4, 16, 16))
        assert touched.shape == (3, 1, 16, 16) and 0 < touched.float().mean() < 0.3
        one_hot = sample_planes(touched[None].float(), place[None, None], 1.0, convention)
        assert one_hot.item() == 1, convention
        mirrored = sample_planes(touched[None].float(), -place[None, None], 1.0, convention)
        assert mirrored.item() == 0, convention
    assert touched_texels(values, "panohead", (3, 4, 2, 16, 16)).shape == (3, 1, 1, 16, 16)


class Ball:
    """A solid ball."""

    def density(self, points: Tensor, features: bool) -> tuple[Tensor, Tensor]:
        density = torch.where(points.norm(dim=-1, keepdim=True) < 0.3, 100.0, -100.0)
        return density, points.new_zeros(*points.shape[:2], 3 * features)


def test_a_texel_shows_by_how_much_the_part_lies_over_it():
    values = torch.zeros(16, 16, 16)
    values[:8] = 1  # the back
    share = share_of_texels(values, Ball(), 1.0, "fixed", (3, 4, 16, 16))
    front, above, side = share[:, 0]
    assert front[8, 8] < 0.2, "the front counts more"
    assert above[4, 8] > 0.99 and above[12, 8] < 0.01  # XZ: rows along z
    assert side[8, 4] > 0.99 and side[8, 12] < 0.01  # ZY: columns along z
    assert opacity(torch.tensor([-100.0, 1000.0]), 1.0).tolist() == [0, 1]


def test_the_planes_become_the_mixture_and_the_rest_stays_to_the_bit(tiny_generator: EG3DGenerator):
    generator, rng = tiny_generator, torch.Generator().manual_seed(0)
    base = generator.planes(generator.mean_w(8)).detach()
    other = generator.field(base + 0.5 * base.std() * torch.randn(base.shape, generator=rng))

    def above(points: Tensor) -> Tensor:
        return (points[..., 1] > 0.05).float()

    target: Field = MixedField(other, generator.field(base), above)
    texels = torch.zeros(3, 1, 16, 16, dtype=torch.bool)
    texels[0, :, 9:] = texels[2, :, 9:] = True  # XY and ZY: rows along y
    surface = torch.randn(500, 3, generator=rng)
    surface = 0.2 * surface / surface.norm(dim=1, keepdim=True)
    start = torch.zeros_like(base)
    residual = fit_to_field(generator, base, start, target, above, surface, texels, 40, rng)
    assert not (residual * ~texels).any() and residual.any()

    def error(planes: Tensor) -> float:
        (_, found), (_, wanted) = (f.density(surface[None], True) for f in (generator.field(planes), target))
        return (found - wanted).square().mean().item()

    with torch.no_grad():
        assert error(base + residual) < 0.5 * error(base)
