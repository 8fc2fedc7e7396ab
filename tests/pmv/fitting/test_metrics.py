"""Metrics: values known by hand, skimage as the judge of SSIM, and consistency on a scene that is consistent."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from pmv.fitting.metrics import cross_view_consistency, psnr, ssim
from pmv.geometry.camera import Camera
from pmv.geometry.scene import SeenFrom
from tests.scenes import sphere_view

GENERATOR = torch.Generator().manual_seed(0)


def test_psnr_of_a_known_error():
    a = torch.zeros(2, 3, 8, 8)
    b = a.clone()
    b[1] = 0.2
    mask = torch.ones(2, 1, 8, 8)
    assert psnr(a, b).tolist() == pytest.approx([100.0, 20.0], abs=1e-4)
    b[:, :, 4:] = 1.0
    mask[:, :, 4:] = 0
    assert psnr(a, b, mask).tolist() == pytest.approx([100.0, 20.0], abs=1e-4)


def test_empty_masks_give_nan():
    a, mask = torch.zeros(2, 3, 16, 16), torch.ones(2, 1, 16, 16)
    mask[1] = 0
    assert torch.isnan(psnr(a, a, mask)).tolist() == [False, True]
    assert torch.isnan(ssim(a, a, mask)).tolist() == [False, True]


def test_ssim_is_skimages():
    a = torch.rand(1, 3, 48, 48, generator=GENERATOR) * 2 - 1
    b = (a + 0.3 * torch.randn(a.shape, generator=GENERATOR)).clamp(-1, 1)
    x, y = (np.asarray((i[0].permute(1, 2, 0) + 1) / 2) for i in (a, b))
    expected = structural_similarity(
        x, y, channel_axis=2, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    inside = torch.zeros(1, 1, 48, 48)
    inside[..., 5:-5, 5:-5] = 1  # skimage leaves the border out
    assert ssim(a, b, inside).item() == pytest.approx(float(expected), abs=2e-3)
    assert ssim(a, a).item() == pytest.approx(1.0)


def test_consistency_knows_the_right_texture_from_a_wrong_one():
    camera = Camera.orbit(0.0, 0.0)
    views = Camera.orbit(torch.tensor([-0.3, 0.3]), 0.0)
    image, depth, alpha = sphere_view(camera, 64)
    truth, view_depth, view_alpha = sphere_view(views, 64)
    seen, seen_in_others = SeenFrom(camera, depth, alpha > 0), SeenFrom(views, view_depth, view_alpha > 0)
    right, covisible = cross_view_consistency(image, seen, truth, seen_in_others, tolerance=0.01)
    wrong, _ = cross_view_consistency(image, seen, truth.flip(3), seen_in_others, tolerance=0.01)
    assert right.min() > 35
    assert wrong.max() < 20
    assert 0.4 < covisible.min() and covisible.max() < 0.95


def test_nothing_covisible_is_nan():
    camera, back = Camera.orbit(0.0, 0.0), Camera.orbit(torch.pi, 0.0)
    image, depth, alpha = sphere_view(camera, 32)
    other, view_depth, view_alpha = sphere_view(back, 32)
    seen, seen_in_other = SeenFrom(camera, depth, alpha > 0), SeenFrom(back, view_depth, view_alpha > 0)
    value, covisible = cross_view_consistency(image, seen, other, seen_in_other, 0.01)
    assert torch.isnan(value).all() and not covisible.any()
