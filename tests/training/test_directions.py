"""Attributes of synthetic heads, and directions found for a generator whose map is known."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pmv.errors import InputError
from pmv.files.artifacts import read_json, tensors_hash
from pmv.generators import EG3DConfig, EG3DGenerator, save_generator
from pmv.generators.directions import load_directions
from pmv.training import directions as module
from pmv.training.directions import candidates, deviations, differences, find, latents, measure, read_out, sample_heads
from pmv.training.heads import HeadParameters
from pmv.training.heads.attributes import ATTRIBUTES, latents_of, values_of
from tests.conftest import TINY

NAMES = [attribute.name for attribute in ATTRIBUTES]


def named(name: str):
    return ATTRIBUTES[NAMES.index(name)]


def generator_of(z_dim: int, linear: bool) -> EG3DGenerator:
    """A tiny generator of heads with random weights; with `linear`, z → w is a linear map."""
    torch.manual_seed(0)
    generator = EG3DGenerator(EG3DConfig.small(**{**TINY, "z_dim": z_dim})).eval().requires_grad_(False)
    if linear:
        mapping = generator.backbone.mapping
        for i in range(mapping.num_layers):
            layer = mapping.get_submodule(f"fc{i}")
            # times the rate of 0.01: no unit is ever below zero, though later layers see the first one's large outputs
            layer.get_parameter("bias").fill_(3000.0 if i == 0 else 30000.0)
    return generator


@pytest.fixture(scope="module")
def heads() -> np.ndarray:
    return sample_heads(400, 0)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read_and_nothing_else_moves(name: str, heads: np.ndarray):
    attribute = named(name)
    have = heads[~np.isnan(attribute.read(heads))]
    # every style is trimmed, or swapped for long01, which hangs down to 4.5; only braids are longer
    target = np.linspace(attribute.low, min(attribute.high, 4.5), len(have))
    changed = attribute.write(have, target)
    # between the ends of the short styles and the shortest bob there is no hair
    assert np.abs(attribute.read(changed) - target).max() < (0.11 if name == "hair-length" else 1e-9)
    others = [i for i, entry in enumerate(HeadParameters.names) if entry not in attribute.entries]
    assert np.array_equal(changed[:, others], have[:, others])
    again = attribute.write(have, attribute.read(have))
    assert np.abs(attribute.read(again) - attribute.read(have)).max() < 1e-9
    assert np.allclose(values_of(latents_of(changed)), changed, atol=1e-6)  # still within every range


def test_growing_old_brings_wrinkles_and_growing_young_a_child(heads: np.ndarray):
    age, wrinkles = named("age"), HeadParameters.names.index("skin/wrinkles")
    young = heads[age.read(heads) == 0]
    assert (age.write(young, np.full(len(young), 1.0))[:, wrinkles] > young[:, wrinkles]).all()
    child = age.write(young, np.full(len(young), -0.5))
    assert (child[:, HeadParameters.names.index("macro/child")] == 0.5).all()


def test_bald_heads_have_no_hair_length_and_short_hair_grows_long(heads: np.ndarray):
    length, bald = named("hair-length"), HeadParameters.names.index("hairstyle/none")
    assert np.array_equal(np.isnan(length.read(heads)), heads[:, bald] > 0.5)
    short = heads[heads[:, HeadParameters.names.index("hairstyle/short02")] > 0.5]
    long = length.write(short, np.full(len(short), 4.0))
    assert (long[:, HeadParameters.names.index("hairstyle/long01")] == 1).all()
    kept = length.write(long, np.full(len(short), 3.5))
    assert (kept[:, HeadParameters.names.index("hairstyle/long01")] == 1).all()


def test_of_a_linear_map_the_differences_are_exact(heads: np.ndarray):
    generator, sd = generator_of(len(HeadParameters.names), linear=True), deviations(heads)
    found = differences(generator, heads, sd)
    smile = HeadParameters.names.index("expression/smile")
    z = np.zeros((2, len(HeadParameters.names)), np.float32)
    z[1, smile] = sd[NAMES.index("smile")] / 0.32  # the entry's scale
    step = latents(generator, values_of(z))
    assert torch.allclose(found[NAMES.index("smile")], step[1] - step[0], atol=1e-4)


def test_of_a_linear_map_the_difference_brings_its_own_attribute_and_no_other(heads: np.ndarray):
    generator, sd = generator_of(len(HeadParameters.names), linear=True), deviations(heads)
    single = [i for i, a in enumerate(ATTRIBUTES) if len(a.entries) == 1]
    judge = heads[~np.isnan(named("hair-length").read(heads))][:1]
    right = differences(generator, heads, sd)
    wrong = right.clone()
    wrong[single[0]] += right[single[1]]
    effects = measure(generator, {"right": right, "wrong": wrong}, judge, sd, rays=12)
    brings = effects["right"].brings[single]
    assert np.allclose(brings[:, single], np.eye(len(single)), atol=0.1)
    assert effects["right"].own[single].min() > 0.9
    assert np.allclose(effects["right"].energy.sum(1), 1)
    assert effects["wrong"].own[single[0]] < 0.8 * effects["right"].own[single[0]]
    assert effects["wrong"].brings[single[0], single[1]] == pytest.approx(1, abs=0.2)


def test_candidates_are_what_they_are_called():
    rng = torch.Generator().manual_seed(0)
    difference, readout = (torch.randn(4, 12, generator=rng, dtype=torch.float64) for _ in range(2))
    sets = candidates(difference, readout)
    assert sets.keys() == module.METHODS.keys()
    between = sets["projected"] @ difference.T
    assert torch.allclose(between - torch.diag(between.diag()), torch.zeros(4, 4, dtype=torch.float64), atol=1e-9)
    for name in ("dual", "readout"):
        assert torch.allclose(sets[name] @ readout.T, torch.eye(4, dtype=torch.float64), atol=1e-9)
    assert torch.linalg.matrix_rank(torch.cat([sets["dual"], difference])) == 4  # the same span


def test_the_read_out_reads(heads: np.ndarray):
    generator, sd = generator_of(len(HeadParameters.names), linear=True), deviations(heads)
    generator.backbone.mapping.get_submodule("fc0").get_parameter("weight").mul_(3)
    w = torch.from_numpy(latents_of(heads)).double()  # z itself: everything can be read
    _, quality = read_out(w, heads, sd)
    assert quality[NAMES.index("smile")] > 0.9 and quality[NAMES.index("age")] > 0.9


def test_the_command_writes_a_file_that_pmv_takes_and_twice_the_same(tmp_path: Path, capsys: pytest.CaptureFixture):
    generator = generator_of(len(HeadParameters.names), linear=False)
    save_generator(generator, tmp_path / "tiny.safetensors")
    out, strip = tmp_path / "directions.safetensors", tmp_path / "strip.png"
    options = ["--generator", str(tmp_path / "tiny.safetensors"), "--out", str(out), "--heads", "150", "--judges", "1"]
    options += ["--rays", "8"]
    module.main([*options, "--strip", str(strip)])
    found = load_directions(tmp_path / "tiny.safetensors", tensors_hash(generator.state_dict()))
    assert list(found.names) == NAMES and found.w.shape == (len(NAMES), generator.spec.w_dim)
    report = read_json(out.with_suffix(".json"))
    assert report["method"] in report["methods"] and list(report["attributes"]) == NAMES
    assert strip.stat().st_size > 1000
    printed = capsys.readouterr().out
    assert all(name in printed for name in NAMES) and "kept" in printed
    before = out.read_bytes(), out.with_suffix(".json").read_bytes()
    module.main(options)
    assert (out.read_bytes(), out.with_suffix(".json").read_bytes()) == before


def test_directions_of_something_else_than_heads_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    with pytest.raises(InputError, match="z has 16 numbers"):
        find(generator_of(16, linear=False))
    save_generator(generator_of(16, linear=False), tmp_path / "tiny.safetensors")
    with pytest.raises(SystemExit) as caught:
        module.main(["--generator", str(tmp_path / "tiny.safetensors"), "--out", str(tmp_path / "d.safetensors")])
    assert caught.value.code == 2 and "z has 16 numbers" in capsys.readouterr().err
    assert not (tmp_path / "d.safetensors").exists()
