"""The ray marcher against closed forms and against itself."""

import math

import pytest
import torch

from pmv.generators.base import PLANE_AXES
from pmv.generators.stylegan import filter_after_transposed, upsample_twice
from pmv.generators.volume import box_limits, importance, march, sample_planes, stratified


class Ball:
    """A ball of constant extinction around the origin, coloured by x."""

    def __init__(self, radius: float, extinction: float) -> None:
        self.radius, self.raw = radius, math.log(math.expm1(extinction)) + 1

    def density(self, points, features):
        inside = points.norm(dim=-1, keepdim=True) < self.radius
        raw = torch.where(inside, torch.full_like(points[..., :1], self.raw), torch.full_like(points[..., :1], -30.0))
        return raw, points[..., :1].expand(-1, -1, 2).sigmoid() if features else raw[..., :0]


class Learned:
    """A differentiable soft blob with parameters to compare gradients by."""

    def __init__(self) -> None:
        self.parameters = torch.tensor([0.25, 30.0, 2.0], requires_grad=True)

    def density(self, points, features):
        radius, sharpness, colour = self.parameters
        raw = sharpness * (radius - points.norm(dim=-1, keepdim=True)) * 4
        return raw, torch.sigmoid(colour * points) if features else raw[..., :0]


def rays(n=64):
    x = torch.linspace(-0.35, 0.35, n)
    origins = torch.stack([x, torch.zeros(n), torch.full((n,), 2.0)], -1)[None]
    return origins, torch.tensor([0.0, 0.0, -1.0]).expand(1, n, 3), torch.full((1, n), 1.4), torch.full((1, n), 2.6)


def test_absorption_follows_beer_lambert():
    origins, directions, near, far = rays()
    out = march(Ball(0.3, 5.0), origins, directions, near, far, 256, 256, None, sparse=False)
    chord = 2 * (0.3**2 - origins[0, :, 0] ** 2).clamp_min(0).sqrt()
    torch.testing.assert_close(out.alpha[0, :, 0], 1 - torch.exp(-5 * chord), atol=0.02, rtol=0)


def test_empty_rays_hold_nothing():
    origins, directions, near, far = rays()
    out = march(Ball(0.1, 50.0), origins, directions, near, far, 32, 32, None)
    empty = origins[0, :, 0].abs() > 0.15
    assert out.features[0, empty].abs().max() < 1e-5 and out.alpha[0, empty].abs().max() < 1e-5


@pytest.mark.parametrize("items", [1, 2])
def test_a_picture_of_nothing(items):
    origins, directions, near, far = (torch.cat([x] * items) for x in rays())
    out = march(Ball(0.1, 50.0), origins + 1.0, directions, near, far, 16, 16, None)
    assert out.features.shape == (items, 64, 2) and out.features.abs().max() == 0 and out.alpha.abs().max() < 1e-5


@pytest.mark.parametrize("items", [1, 3])
@pytest.mark.parametrize("jitter", [False, True])
def test_sparse_march_equals_dense_march(jitter, items):
    origins, directions, near, far = (torch.cat([x] * items) for x in rays())
    # each item of a batch sees another part of the blob, so that they keep different numbers of samples
    origins = (origins + 0.1 * torch.arange(items)[:, None, None] * torch.tensor([1.0, 1.0, 0.0])).requires_grad_(True)
    results, gradients = [], []
    for sparse in (False, True):
        field = Learned()
        generator = torch.Generator().manual_seed(0) if jitter else None
        out = march(field, origins, directions, near, far, 24, 24, generator, sparse=sparse)
        solid = (out.alpha > 0.5).detach()
        loss = out.features.square().mean() + (out.depth * solid).mean() + out.alpha.mean()
        gradients.append(torch.autograd.grad(loss, [field.parameters, origins]))
        results.append(out)
    for name in ("features", "alpha", "depth"):
        torch.testing.assert_close(getattr(results[1], name), getattr(results[0], name), atol=2e-4, rtol=0)
    for dense, sparse in zip(*gradients, strict=True):
        assert (dense - sparse).norm() < 2e-3 * dense.norm()


def test_march_of_the_heaviest_samples_nears_the_dense_march():
    origins, directions, near, far = rays()
    draws = torch.rand(1, origins.shape[1], 24), torch.rand(origins.shape[1], 24)
    field = Learned()
    dense = march(field, origins, directions, near, far, 24, 24, draws, sparse=False)
    errors = []
    for keep in (4, 16, 48):
        out = march(field, origins, directions, near, far, 24, 24, draws, keep=keep)
        torch.testing.assert_close(out.alpha, dense.alpha, atol=1e-5, rtol=0)  # what is left out is a constant
        torch.testing.assert_close(out.depth, dense.depth, atol=1e-5, rtol=0)
        errors.append((out.features - dense.features).abs().max().item())
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-5


@pytest.mark.parametrize("resample", [upsample_twice, filter_after_transposed])
def test_compiled_resampling_equals_the_plain_one(resample):
    x = torch.randn(2, 3, 9, 9, requires_grad=True)
    plain, compiled = resample(x), torch.compile(resample, backend="eager", fullgraph=True)(x)
    torch.testing.assert_close(compiled, plain)
    weight = torch.randn_like(plain)
    (wanted,), (got,) = (torch.autograd.grad((y * weight).sum(), x) for y in (plain, compiled))
    torch.testing.assert_close(got, wanted)


def test_importance_samples_gather_at_the_surface():
    _, _, near, far = rays(1)
    t = stratified(near, far, 48, None)
    weights = torch.zeros(1, 1, 47)
    weights[..., 20] = 1.0
    fine = importance(t, weights, 64, None)
    assert ((fine - t[..., 20:21]).abs() < 0.08).float().mean() > 0.6
    assert fine.min() >= t.min() and fine.max() <= t.max()


def test_stratified_stays_in_its_bins():
    near, far = torch.full((1, 5), 1.0), torch.full((1, 5), 2.0)
    middle = stratified(near, far, 11, None)
    torch.testing.assert_close(middle[0, 0], 1.05 + 0.1 * torch.arange(11.0))
    jittered = stratified(near, far, 11, torch.Generator().manual_seed(0))
    assert ((jittered - middle).abs() <= 0.05 + 1e-6).all()


def test_box_limits():
    origins = torch.tensor([[[0.0, 0.0, 2.0], [0.9, 0.0, 2.0], [0.0, 0.0, 0.0]]])
    directions = torch.tensor([0.0, 0.0, -1.0]).expand(1, 3, 3)
    near, far, hit = box_limits(origins, directions, 1.0)
    assert hit.tolist() == [[True, False, True]]
    torch.testing.assert_close(near[0, [0, 2]], torch.tensor([1.5, 0.0]))
    torch.testing.assert_close(far[0, [0, 2]], torch.tensor([2.5, 0.5]))


@pytest.mark.parametrize("convention", PLANE_AXES)
def test_planes_are_read_along_their_axes(convention):
    """A plane that holds its own column (or row) coordinate gives that world coordinate back."""
    size, box = 64, 0.8
    line = (torch.arange(size) + 0.5) / size * 2 - 1
    points = (torch.rand(1, 50, 3) - 0.5) * box * 0.9
    for k, (u, v) in enumerate(PLANE_AXES[convention]):
        planes = torch.zeros(1, 3, 2, size, size)
        planes[0, k, 0], planes[0, k, 1] = line.expand(size, size), line[:, None].expand(size, size)
        read = sample_planes(planes, points, box, convention) * 3 * box / 2
        torch.testing.assert_close(read[..., 0], points[..., u], atol=1e-4, rtol=0)
        torch.testing.assert_close(read[..., 1], points[..., v], atol=1e-4, rtol=0)
    outside = torch.tensor([[[box, box, box]]])
    assert sample_planes(torch.ones(1, 3, 2, 8, 8), outside, box, convention).abs().max() == 0
