"""Short cuts against what they stand for. On a CPU the kernels run in Triton's interpreter."""

import gc
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pmv.generators import EG3DConfig, EG3DGenerator, Render
from pmv.generators.base import PLANE_AXES
from pmv.generators.speed import REFERENCE, Speed, chosen_speed, fast, has_triton, with_speed
from pmv.generators.stylegan import finish, folded_weight, upsample_twice
from pmv.generators.volume import March, box_limits, march
from tests.conftest import TINY

needs_triton = pytest.mark.skipif(not has_triton(), reason="Triton is not installed")


@pytest.fixture
def kernels(device: torch.device) -> torch.device:
    """A device on which kernels run: with CUDA there is no interpreter in the same process."""
    if device.type == "cpu" and torch.cuda.is_available():
        pytest.skip("runs on the GPU")
    return device


def close(a: Tensor, b: Tensor, bound: float) -> bool:
    return float((a.detach() - b.detach()).norm()) <= bound * float(a.detach().norm())


@pytest.mark.parametrize("channels_last", [False, True])
def test_folded_modulation_draws_the_same_picture_with_the_same_gradients(tiny_generator, channels_last):
    generator = tiny_generator
    folded = with_speed(generator, Speed(folded=True, channels_last=channels_last))
    assert folded is not generator and generator.speed == REFERENCE
    cameras = generator.spec.orbit(torch.tensor([0.0, 0.5]), torch.tensor([0.1, -0.2]))
    results = []
    for one in (generator, folded):
        w = one.mean_w().requires_grad_(True)
        parameters = one.tunable_parameters("all")
        for parameter in parameters.values():
            parameter.requires_grad_(True).grad = None
        out = one.render(one.planes(w, one.noise_buffers()), w, cameras)
        _of(out).backward()
        results.append([out.image, out.depth, w.grad, *(p.grad for p in parameters.values() if p.grad is not None)])
        one.requires_grad_(False)
    assert len(results[0]) == len(results[1])
    assert all(close(a, b, 2e-4) for a, b in zip(*results, strict=True))


def test_speed_by_name_and_what_knows_none_stays_as_it_is(tiny_generator):
    generator = tiny_generator
    cpu = torch.device("cpu")
    assert chosen_speed("auto", cpu) == chosen_speed("reference", cpu) == REFERENCE != chosen_speed("fast", cpu)
    assert with_speed(generator, REFERENCE) is generator
    other = object()
    assert with_speed(other, fast(cpu)) is other


@needs_triton
def test_up_sampling_in_one_kernel(kernels):
    from pmv.generators.layer_kernels import upsample_fused

    torch.manual_seed(0)
    given, gradient = torch.randn(2, 5, 4, 6), torch.randn(2, 5, 8, 12)
    results = []
    for run in (upsample_twice, upsample_fused):
        x = given.to(kernels).requires_grad_(True)
        out = run(x)
        out.backward(gradient.to(kernels))
        results.append((out, x.grad))
    assert all(close(a, b, 1e-6) for a, b in zip(*results, strict=True))


@needs_triton
@pytest.mark.parametrize("demodulate", [False, True])
@pytest.mark.parametrize(
    ("taps", "layout"), [(3, torch.channels_last), (3, torch.contiguous_format), (1, torch.channels_last)]
)
def test_modulation_of_weights_in_one_kernel(kernels, demodulate, taps, layout):
    from pmv.generators.weight_kernels import folded_weight_fused

    torch.manual_seed(0)
    given = torch.randn(6, 5, taps, taps), torch.randn(5), torch.randn(6, 5, taps, taps)
    results = []
    for run in (folded_weight, folded_weight_fused):
        weight, style, gradient = (x.to(kernels) for x in given)
        weight, style = weight.contiguous(memory_format=layout).requires_grad_(True), style.requires_grad_(True)
        out = run(weight, style, 1.4, demodulate)
        out.backward(gradient)
        results.append((out, weight.grad, style.grad))
    assert all(close(a, b, 1e-5) for a, b in zip(*results, strict=True))


@needs_triton
@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("clamp", [None, 1.003])  # no number that bfloat16 rounds to
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_the_end_of_a_layer_in_one_kernel(kernels, filtered, clamp, kind):
    from pmv.generators.layer_kernels import finish_fused

    torch.manual_seed(0)
    side = 9 if filtered else 8
    given = torch.randn(2, 24, side, side), torch.randn(24), torch.randn(8, 8), torch.randn(2, 24, 8, 8)
    results = []
    for run in (finish, finish_fused):
        y, bias, noise, gradient = (x.to(kernels).requires_grad_(True) for x in given)
        if run is finish:
            out = run(y.to(kind).float() * 1.0, bias, noise, clamp, filtered)
        else:
            out = run(y.to(kind).contiguous(memory_format=torch.channels_last), bias, noise, clamp, filtered)
        out.backward(gradient.detach().to(out.dtype))
        results.append([out.float(), y.grad, bias.grad, noise.grad])
    assert all(close(a, b, 1e-5 if kind == torch.float32 else 2e-2) for a, b in zip(*results, strict=True))


@needs_triton
@pytest.mark.parametrize(("convention", "ordered"), [("fixed", True), ("eg3d", False)])
def test_marching_in_kernels_gives_the_same_values_and_gradients(kernels, convention, ordered):
    from pmv.generators.fused_march import march_fused

    torch.manual_seed(0)
    generator = EG3DGenerator(EG3DConfig.small(**TINY, plane_convention=convention)).to(kernels)
    config = generator.config
    cameras = generator.spec.orbit(torch.tensor([0.0, 0.4]), torch.tensor([0.0, 0.2])).to(kernels)
    given = torch.randn(1, 3, config.plane_channels, 16, 16) * 2
    results = []
    for fused in (False, True):
        planes = given.to(kernels).requires_grad_(True)
        generator.zero_grad()
        origins, directions = cameras.rays(5)
        directions = directions / directions.norm(dim=-1, keepdim=True)
        origins, directions = (x.reshape(1, -1, 3).clone().requires_grad_(True) for x in (origins, directions))
        near, far, hit = (x.detach() for x in box_limits(origins, directions, config.box))
        rays = (origins, directions, near, far, 12, 12, None, hit)
        if fused:
            axes = PLANE_AXES[convention]
            found = march_fused(planes, generator.decoder.weights(), axes, config.box, *rays, ordered=ordered)
        else:
            found = march(generator.field(planes), *rays)
        _some_loss(found).backward()
        tensors = (planes, origins, directions, *generator.decoder.parameters())
        results.append([found.features, found.depth, found.alpha, *(x.grad for x in tensors)])
    # on a GPU, matrix units round the gradients' factors to TensorFloat-32
    bound = 1e-5 if kernels.type == "cpu" else 3e-3
    assert all(close(a, b, bound) for a, b in zip(*results, strict=True))


@needs_triton
def test_nothing_of_a_pass_stays_in_memory(kernels):
    from pmv.generators import fused_march

    generator = EG3DGenerator(EG3DConfig.small(**TINY)).to(kernels)
    planes = torch.randn(1, 3, generator.config.plane_channels, 16, 16, device=kernels, requires_grad=True)
    origins, directions = (x[:, :16] for x in generator.spec.canonical_camera.to(kernels).rays(4))
    near, far = torch.full((1, 16), 2.5, device=kernels), torch.full((1, 16), 2.9, device=kernels)
    rays = (origins, directions, near, far, 6, 6, None, None)
    found = fused_march.march_fused(
        planes, generator.decoder.weights(), PLANE_AXES["fixed"], generator.config.box, *rays, ordered=True
    )
    _some_loss(found).backward()
    del found
    gc.collect()
    assert not [x for x in gc.get_objects() if type(x) is fused_march._Samples]


def _some_loss(found: March) -> Tensor:
    weights = torch.Generator().manual_seed(1)
    maps = (found.features, found.depth, found.alpha)
    return torch.stack([(m * torch.randn(m.shape, generator=weights).to(m)).sum() for m in maps]).sum()


@pytest.mark.gpu
@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_pictures_and_gradients_are_those_of_the_reference_and_the_same_every_time(tiny_generator):
    generator = tiny_generator
    device = torch.device("cuda")
    reference = with_speed(generator, Speed(folded=True)).to(device)
    best = fast(device)
    cases = {"fp32": (replace(best, mixed=False), 5e-3), "mixed": (best, 5e-2)}
    for speed, bound in cases.values():
        quick = with_speed(reference, speed)
        assert quick.waits_for_nothing
        results = [_pass(reference), _pass(quick), _pass(quick)]
        assert all(close(a, b, bound) for a, b in zip(*results[:2], strict=True))
        assert all(torch.equal(a, b) for a, b in zip(*results[1:], strict=True))


def _pass(generator: EG3DGenerator) -> list[Tensor]:
    """A render of two views, and its gradients at latent, camera and weights."""
    device = generator.device
    w = generator.mean_w().requires_grad_(True)
    turn = torch.zeros(1, 3, device=device, requires_grad=True)
    cameras = generator.spec.orbit(torch.tensor([0.0, 0.5]), torch.tensor([0.1, -0.2])).to(device)
    pivot = torch.zeros(3, device=device)
    parameters = generator.tunable_parameters("all")
    for parameter in parameters.values():
        parameter.requires_grad_(True).grad = None
    cameras = cameras.adjusted(turn.expand(2, 3), torch.zeros(2, 3, device=device), pivot)
    out = generator.render(generator.planes(w, generator.noise_buffers()), w, cameras)
    _of(out).backward()
    gradients = [x.grad for x in (w, turn, *parameters.values())]
    return [out.image.detach(), out.depth.detach(), out.alpha.detach(), *(g for g in gradients if g is not None)]


def _of(out: Render) -> Tensor:
    """A loss in which depth counts where something is: of a ray that hits next to nothing it hangs on rounding."""
    return out.image.square().mean() + (out.depth * out.alpha.detach()).mean() + out.alpha.square().mean()
