"""Losses: values known by hand, behaviour with masks, gradients."""

import pytest
import torch

from pmv.fitting.losses import alpha_hold, depth_hold, masked_l2, masked_mean, noise_regulariser, w_distance

GENERATOR = torch.Generator().manual_seed(0)


def rand(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=GENERATOR)


def test_masked_l2_counts_the_mask_only():
    a, b, mask = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4)
    b[:, :, 0] = 2.0
    b[:, :, 3] = 100.0
    mask[:, :, :2] = 1.0
    assert torch.equal(masked_l2(a, b, mask), torch.tensor([2.0, 2.0]))
    assert torch.allclose(masked_l2(a, b), ((b - a) ** 2).mean((1, 2, 3)))
    assert torch.equal(masked_l2(a, b, mask[:1]), torch.tensor([2.0, 2.0]))


def test_an_empty_mask_asks_for_nothing():
    a = rand(1, 3, 4, 4).requires_grad_()
    loss = masked_l2(a, rand(1, 3, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.float64))
    loss.sum().backward()
    assert loss.item() == 0
    assert not a.grad.any()


@pytest.mark.parametrize("shape", [(3, 1, 4, 4), (2, 3, 4, 4), (2, 1, 2, 2), (2, 4, 4)])
def test_a_mask_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"\[N,1,H,W\]"):
        masked_mean(torch.zeros(2, 3, 4, 4), torch.ones(shape))


def test_depth_hold_is_quadratic_then_linear():
    depth, mask = torch.tensor([0.0, 0.01, 0.1, 5.0]).reshape(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    values = [
        depth_hold(d.reshape(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), mask[..., :1, :1], 0.02).item()
        for d in depth.flatten()
    ]
    assert values == pytest.approx([0.0, 0.5 * 0.25, 5 - 0.5, 250 - 0.5], rel=1e-5)


def test_depth_hold_ignores_what_is_masked_out_even_when_infinite():
    depth = torch.zeros(1, 1, 1, 2, requires_grad=True)
    reference, mask = (
        torch.tensor([0.01, float("inf")]).reshape(1, 1, 1, 2),
        torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2),
    )
    loss = depth_hold(depth, reference, mask, 0.02)
    loss.sum().backward()
    assert loss.item() == pytest.approx(0.125)
    assert torch.isfinite(depth.grad).all()


def test_alpha_hold_is_zero_at_the_reference():
    alpha = rand(2, 1, 4, 4)
    assert not alpha_hold(alpha, alpha).any()
    assert torch.allclose(alpha_hold(alpha, alpha + 0.1), torch.full((2,), 0.01, dtype=torch.float64))


def test_noise_regulariser_prefers_white_noise():
    white = torch.randn(32, 32, generator=GENERATOR)
    smooth = torch.nn.functional.avg_pool2d(white[None, None], 5, 1, 2)
    smooth = smooth / smooth.std()
    assert noise_regulariser([smooth]) > 20 * noise_regulariser([white])
    ones = torch.ones(16, 16)
    assert noise_regulariser([ones]).item() == pytest.approx(4.0)  # two levels (16, 8), two directions, each 1
    assert noise_regulariser([ones, ones[None, None]]).item() == pytest.approx(8.0)
    with pytest.raises(ValueError, match="at least one"):
        noise_regulariser([])


def test_w_distance_is_zero_in_w():
    row = rand(2, 1, 8)
    assert w_distance(row.expand(-1, 5, -1)).max() < 1e-20
    w = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    assert w_distance(w).item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: masked_l2(x, torch.zeros_like(x), torch.linspace(0, 1, 64, dtype=x.dtype).reshape(1, 1, 8, 8)),
        lambda x: depth_hold(x[:, :1], torch.zeros_like(x[:, :1]), torch.ones_like(x[:, :1]), 0.37),
        lambda x: alpha_hold(x[:, :1], torch.full_like(x[:, :1], 0.5)),
        lambda x: noise_regulariser([x[0, 0], x[1, 1]]),
        lambda x: w_distance(x.flatten(2)),
    ],
    ids=["masked_l2", "depth_hold", "alpha_hold", "noise_regulariser", "w_distance"],
)
def test_gradcheck(loss):
    assert torch.autograd.gradcheck(loss, rand(2, 2, 8, 8).requires_grad_())
