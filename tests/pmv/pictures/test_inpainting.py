"""Inpainting: blends are complete, seams disappear."""

import pytest
import torch

from pmv.pictures.inpainting import blend, colour_shift
from pmv.pictures.masks import feather

SIZE = 64


def halves() -> torch.Tensor:
    visible = torch.zeros(1, 1, SIZE, SIZE)
    visible[..., : SIZE // 2] = 1
    return visible


def test_blend_is_complete_whatever_the_unseen_texels_hold():
    visible = halves()
    warped = torch.where(visible > 0, torch.full((1, 3, SIZE, SIZE), 0.5), torch.tensor(float("nan")))
    render = torch.full((1, 3, SIZE, SIZE), -0.25)
    result = blend(warped, render, feather(visible, 0.1))
    assert torch.isfinite(result).all()
    assert torch.equal(result[..., :16], torch.full((1, 3, SIZE, 16), 0.5))
    assert torch.equal(result[..., 32:], render[..., 32:])
    assert result.min() >= -0.25 and result.max() <= 0.5
    assert blend(warped, render, visible, torch.full_like(render, 9.0)).max() <= 1


def test_shift_joins_the_seam_and_decays_exponentially():
    """In one dimension the screened Laplace equation has the solution value · exp(−distance / reach)."""
    visible, render = halves(), torch.zeros(1, 3, SIZE, SIZE)
    warped = torch.full_like(render, 0.05)
    shift = colour_shift(warped, render, known=visible, domain=torch.ones_like(visible), blur=0.02, reach=0.125)
    row = shift[0, 0, 32]
    value = 0.3 * torch.tanh(torch.tensor(0.05 / 0.3)).item()
    assert torch.allclose(row[:32], torch.tensor(value), atol=1e-4)
    distance = torch.arange(1.0, 25.0)
    assert torch.allclose(row[32:56], value * torch.exp(-distance / (0.125 * SIZE)), atol=0.06 * value)
    joined = blend(warped, render, feather(visible, 0.05), shift)[0, 0, 32]
    plain = blend(warped, render, feather(visible, 0.05))[0, 0, 32]
    assert joined.diff().abs().max() < 0.35 * plain.diff().abs().max()


def test_shift_does_not_cross_the_background():
    visible, domain = torch.zeros(1, 1, SIZE, SIZE), torch.ones(1, 1, SIZE, SIZE)
    visible[..., :20] = 1
    domain[..., 28:34] = 0  # a gap between two islands
    warped = torch.full((1, 3, SIZE, SIZE), 0.2)
    shift = colour_shift(warped, torch.zeros_like(warped), known=visible, domain=domain, blur=0.02, reach=0.5)
    assert shift[..., 20:28].min() > 0.1
    assert not shift[..., 28:34].any()
    assert shift[..., 34:].abs().max() < 0.02 * shift[..., 27].mean()


def test_shift_is_smooth_and_limited():
    generator = torch.Generator().manual_seed(0)
    visible = halves()
    warped = torch.rand(1, 3, SIZE, SIZE, generator=generator) * 2 - 1
    render = torch.zeros_like(warped)
    shift = colour_shift(warped, render, known=visible, domain=torch.ones_like(visible), blur=0.05, reach=0.1)
    assert shift.diff(dim=-1)[..., :31].abs().max() < 0.2 * warped.diff(dim=-1).abs().max()
    bright = colour_shift(render + 2, render, known=visible, domain=torch.ones_like(visible), blur=0.05, reach=0.1)
    assert bright.max() <= 0.3


def test_nothing_known_shifts_nothing():
    empty = torch.zeros(2, 1, SIZE, SIZE)
    image = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    assert not colour_shift(image, 0 * image, known=empty, domain=empty + 1, blur=0.02, reach=0.1).any()
    with pytest.raises(ValueError, match="positive"):
        colour_shift(image, image, known=empty, domain=empty, blur=0.02, reach=0.0)


@pytest.mark.parametrize("size", [16, 33, 100])
def test_any_size(size):
    image, mask = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)), torch.ones(2, 1, size, size)
    mask[..., size // 2 :] = 0
    shift = colour_shift(image, 0 * image, known=mask, domain=torch.ones_like(mask), blur=0.02, reach=0.1)
    assert shift.shape == image.shape and torch.isfinite(shift).all()
