"""Warping: a textured sphere seen from one camera, painted onto what another camera sees."""

import pytest
import torch

from pmv.fitting.metrics import psnr
from pmv.geometry.camera import Camera
from pmv.geometry.scene import SeenFrom
from pmv.geometry.warping import inverse_warp, sample_image, texels_per_pixel
from pmv.pictures.images import pixel_grid
from tests.scenes import sphere_view, steps_view

INPUT = Camera.orbit(0.0, 0.0)
VIEWS = Camera.orbit(torch.tensor([-0.35, 0.3]), torch.tensor([0.1, -0.1]))


def seen_cap(size: int) -> torch.Tensor:
    """Pixels of VIEWS whose sphere point surely faces both cameras."""
    _, depth, alpha = sphere_view(VIEWS, size)
    normal = torch.nn.functional.normalize(VIEWS.unproject(depth), dim=-1)
    towards = torch.stack(
        [torch.nn.functional.normalize(c, dim=-1) for c in (INPUT.position.expand(2, 3), VIEWS.position)]
    )
    cosine = (normal * towards[:, :, None, None]).sum(-1).amin(0)
    return ((cosine > 0.45)[:, None] & (alpha > 0)).float()


@pytest.mark.parametrize("depth_size", [64, 128])
def test_warped_view_is_the_true_view(depth_size):
    size = 128
    image, _, _ = sphere_view(INPUT, size)
    truth, _, _ = sphere_view(VIEWS, size)
    _, depth, alpha = sphere_view(VIEWS, depth_size)
    warped, surface = inverse_warp(image, INPUT, SeenFrom(VIEWS, depth, alpha > 0))
    assert warped.shape == truth.shape and surface.shape == (2, 1, size, size)
    mask = seen_cap(size)
    assert mask.mean() > 0.1
    assert psnr(warped, truth, mask).min() > 42
    assert psnr(image.expand_as(truth), truth, mask).max() < 25  # unwarped
    assert not warped[~surface.expand_as(warped)].any()


def test_texels_are_sampled_at_full_resolution():
    """A one-texel check at depth 32² survives warping onto the input's own view at 128²."""
    size = 128
    grid = torch.arange(size)
    image = ((grid[:, None] + grid) % 2 * 2.0 - 1).expand(1, 3, size, size)
    _, depth, alpha = steps_view(INPUT, 32)
    warped, _ = inverse_warp(image, INPUT, SeenFrom(INPUT, depth, alpha > 0))
    assert torch.allclose(warped, image, atol=2e-2)


def test_antialiasing_acts_on_minified_texels_only():
    size = 64
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, size, size, generator=generator) * 2 - 1
    side = Camera.orbit(1.1, 0.0)
    _, depth, alpha = steps_view(side, size)
    seen = SeenFrom(side, depth, alpha > 0)
    plain, _ = inverse_warp(image, INPUT, seen, antialias=False)
    smooth, _ = inverse_warp(image, INPUT, seen)
    assert smooth.var() < 0.8 * plain.var()
    same, _ = inverse_warp(image, side, seen)
    assert torch.allclose(same, inverse_warp(image, side, seen, antialias=False)[0], atol=1e-4)


def test_sampling_at_pixel_centres_returns_the_image():
    image = torch.rand(2, 3, 9, 12, generator=torch.Generator().manual_seed(0))
    grid = pixel_grid(9, 12, image)
    assert torch.allclose(sample_image(image, grid.expand(2, -1, -1, -1)), image, atol=1e-5)
    one_for_all = sample_image(image[:1], grid.expand(3, -1, -1, -1))
    assert one_for_all.shape == (3, 3, 9, 12)
    assert torch.allclose(one_for_all, image[:1].expand(3, -1, -1, -1), atol=1e-5)


def test_footprint_of_a_scaled_grid():
    image = torch.zeros(1, 1, 10, 20)
    uv = pixel_grid(10, 20, image)
    assert torch.allclose(texels_per_pixel(uv, 10, 20), torch.ones(1), atol=1e-3)
    assert torch.allclose(texels_per_pixel(uv * torch.tensor([1.0, 2.5]), 10, 20), torch.tensor(2.5), atol=1e-3)


def test_gradcheck():
    camera, view = INPUT.to(torch.float64), VIEWS[:1].to(torch.float64)
    image = sphere_view(camera, 5, radius=0.42)[0][:, :1]
    _, depth, alpha = sphere_view(view, 2, radius=0.42)
    assert alpha.all()

    def warp(i, d):
        return inverse_warp(i, camera, SeenFrom(view, d, alpha > 0))[0]

    assert torch.autograd.gradcheck(warp, (image.requires_grad_(), depth.requires_grad_()))


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"uv \[N,H,W,2\]"):
        sample_image(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 2))


def test_gradcheck_of_sampling():
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(1, 2, 5, 5, generator=rng, dtype=torch.float64).requires_grad_()
    uv = (0.1 + 0.8 * torch.rand(2, 2, 2, 2, generator=rng, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(sample_image, (image, uv))
    assert torch.autograd.gradcheck(lambda place: texels_per_pixel(place, 8, 8), uv)
