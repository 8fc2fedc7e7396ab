"""The heads' perceptual network with random weights: its distance, its file, what a damaged one says."""

import pytest
import torch

from pmv.errors import PmvError
from pmv.files.artifacts import file_hash, save_tensors, write_json
from pmv.fitting.heads_features import FeatureShape, HeadsFeatures, load_heads_features, save_heads_features
from pmv.fitting.perceptual import identity, load_perceptual

SMALL = FeatureShape((4, 6, 8, 10))


def random_network(shape: FeatureShape = SMALL) -> HeadsFeatures:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return HeadsFeatures(shape).eval().requires_grad_(False)


def picture(size: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.nn.functional.interpolate(torch.rand(2, 3, 8, 8, generator=generator) * 2 - 1, size, mode="bicubic")


def stored(path, network: HeadsFeatures):
    save_heads_features(network, path, {"note": 1})
    write_json(path.with_suffix(".json"), {"sha256": file_hash(path)})
    return path


@pytest.mark.parametrize("shape", [FeatureShape(), SMALL, FeatureShape((3, 4, 5), 0), FeatureShape((3, 4, 5), 3)])
def test_file_gives_the_network_back_in_half_the_bytes(shape, tmp_path):
    network = random_network(shape)
    loaded = load_heads_features(stored(tmp_path / "a.safetensors", network))
    assert loaded.shape == shape
    a, b = picture(), picture().flip(3)
    torch.testing.assert_close(loaded(a, b), network(a, b), rtol=2e-2, atol=1e-4)
    numbers = sum(p.numel() for p in network.parameters())
    assert (tmp_path / "a.safetensors").stat().st_size < 2 * numbers + 4000
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def test_levels_halve_and_features_have_unit_length():
    network = random_network()
    levels = network.features(picture(64))
    assert [tuple(level.shape[1:]) for level in levels] == [(4, 64, 64), (6, 32, 32), (8, 16, 16), (10, 8, 8)]
    assert all(level.norm(dim=1).max() <= 1 + 1e-5 for level in levels)
    assert network.features(picture(network.smallest))[-1].shape[-1] == 1


def test_distance_is_a_weighted_sum_of_levels_and_grows_with_the_difference():
    network = random_network()
    network.level_weights.copy_(torch.tensor([1.0, 0.5, 0.0, 2.0]))
    a = picture()
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(2))
    values = [network(a, a + s * noise) for s in (0.0, 0.05, 0.2)]
    assert values[0].shape == (2,) and values[0].abs().max() == 0
    assert (values[1] > 0).all() and (values[2] > values[1]).all()
    levels = network.levels(a, a + noise)
    torch.testing.assert_close(network(a, a + noise), levels[:, 0] + 0.5 * levels[:, 1] + 2 * levels[:, 3])


def test_mask_chooses_where():
    network = random_network()
    a = picture()
    b = a.clone()
    b[..., 32:] = -b[..., 32:]
    left, right = torch.zeros(2, 1, 64, 64), torch.zeros(2, 1, 64, 64)
    left[..., :8], right[..., 48:] = 1, 1
    assert (network(a, b, left) < 0.2 * network(a, b, right)).all()
    torch.testing.assert_close(network(a, b, torch.ones(2, 1, 64, 64)), network(a, b))
    assert network(a, b, torch.zeros(2, 1, 64, 64)).abs().max() == 0


def test_gradcheck():
    network = random_network().double()
    a, b = picture(16)[:1].double(), picture(16)[1:].double()
    assert torch.autograd.gradcheck(lambda x: network(x, b), a.requires_grad_(), fast_mode=True)


def test_perceptual_loss_of_a_file_says_which_and_refuses_another(tmp_path):
    path = stored(tmp_path / "heads.safetensors", random_network(FeatureShape((3, 4, 5, 6, 7))))
    distance = load_perceptual(str(path))
    a, b = picture(), picture().flip(3)
    assert distance.name == f"heads-features-{file_hash(path)[:8]}" and identity(str(path)) == file_hash(path)
    torch.testing.assert_close(distance(a, b), load_heads_features(path)(a, b))
    with pytest.raises(ValueError, match="at least 32"):
        distance(a[..., :16, :16], b[..., :16, :16])


def refusal(path) -> str:
    with pytest.raises(PmvError) as error:
        load_perceptual(str(path))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_damage_has_its_own_word(tmp_path):
    path = stored(tmp_path / "heads.safetensors", random_network())
    note = path.with_suffix(".json")
    path.write_bytes(path.read_bytes()[:-4])
    assert "not the file that heads.json describes" in refusal(path)
    write_json(note, {"sha256": file_hash(path)})
    assert "no weights of the heads' perceptual network" in refusal(path)
    save_tensors(path, {"other": torch.zeros(3)}, {})
    write_json(note, {"sha256": file_hash(path)})
    assert "no weights of the heads' perceptual network" in refusal(path)
    note.write_text("{")
    assert str(note) in refusal(path)
    note.unlink()
    assert str(note) in refusal(path)
    path.unlink()
    assert "no such file" in refusal(path)
    assert "choose one of" in refusal(tmp_path / "heads.pt")
