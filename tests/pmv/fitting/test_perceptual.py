"""Perceptual distances: the offline ones behave, the trained ones say what they lack."""

from urllib.error import URLError

import pytest
import torch

from pmv.errors import AssetsError, PmvError
from pmv.fitting.perceptual import load_perceptual

GENERATOR = torch.Generator().manual_seed(0)
FAST = ("lpips-random-alex", "lpips-random-squeeze")


@pytest.fixture(scope="module", params=FAST)
def distance(request):
    return load_perceptual(request.param)


def picture(size: int = 64) -> torch.Tensor:
    return torch.nn.functional.interpolate(
        torch.rand(2, 3, 8, 8, generator=GENERATOR) * 2 - 1, size=size, mode="bicubic"
    )


def test_grows_with_the_difference(distance):
    a = picture()
    noise = torch.randn(a.shape, generator=GENERATOR)
    values = [distance(a, a + s * noise) for s in (0.0, 0.05, 0.2)]
    assert values[0].shape == (2,)
    assert values[0].abs().max() < 1e-6
    assert (values[1] > 0).all() and (values[2] > values[1]).all()


def test_mask_chooses_where(distance):
    a = picture()
    b = a.clone()
    b[..., 32:] = -b[..., 32:]
    left, right = torch.zeros(2, 1, 64, 64), torch.zeros(2, 1, 64, 64)
    left[..., :16], right[..., 40:] = 1, 1
    assert (distance(a, b, left) < 0.2 * distance(a, b, right)).all()
    everywhere = distance(a, b, torch.ones(2, 1, 64, 64))
    assert torch.allclose(everywhere, distance(a, b), rtol=0.1)


def test_frozen_and_differentiable(distance):
    a, b = picture(32)[:1].requires_grad_(), picture(32)[:1]
    distance(a, b).sum().backward()
    assert a.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in distance.parameters())
    assert not distance.training


def test_gradcheck():
    distance = load_perceptual("lpips-random-alex").double()
    a, b = (torch.rand(1, 3, 32, 32, dtype=torch.float64, generator=GENERATOR) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x: distance(x, b), a.requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("name", FAST)
def test_same_numbers_every_time_and_no_trace_in_the_global_rng(name, capfd):
    state = torch.random.get_rng_state()
    first = load_perceptual(name)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(7)
    second = load_perceptual(name)
    a, b = picture(), picture()
    assert torch.equal(first(a, b), second(a, b))
    assert first.name == name
    assert capfd.readouterr() == ("", "")


def test_unknown_name_lists_the_known():
    with pytest.raises(PmvError, match="lpips-random-alex"):
        load_perceptual("lpips-resnet")


def test_small_images_are_refused(distance):
    with pytest.raises(ValueError, match="at least 32"):
        distance(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("name", ["lpips-alex", "lpips-vgg", "lpips-squeeze"])
def test_missing_weights_name_the_file_and_the_way_out(name, tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(AssetsError) as error:
        load_perceptual(name)
    message = str(error.value)
    assert str(tmp_path) in message and ".pth" in message and name.replace("lpips-", "lpips-random-") in message
    assert "\n" not in message
