"""Checkpoints as training and encoder code saves them: prefixes, wrappers, strays; and weights that are no numbers."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pmv.errors import CheckpointError
from pmv.files.artifacts import file_hash, read_json, write_json
from pmv.generators import EG3DGenerator, load_generator, save_generator
from tests.inputs_table import check_section

State = dict[str, Tensor]
FIRST = "backbone.mapping.fc0.weight"


def named(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def other(state: State) -> State:
    """Weights of another network of the same shape."""
    return {name: tensor if "filter" in name else tensor + 1 for name, tensor in state.items()}


def with_numbers(state: State, name: str, number: float, dtype: torch.dtype = torch.float32) -> State:
    changed = state[name].to(dtype).clone()
    changed.view(-1)[0] = number
    return {**state, name: changed}


ENCODER = {"encoder.input_layer.0.weight": torch.zeros(3, 3), "encoder.body.0.bias": torch.zeros(3)}

# what it is, what `torch.save` gets, what is said against it (None = it is read)
PREFIXES: list[tuple[str, Callable[[State], Any], str | None]] = [
    ("`_orig_mod.` of `torch.compile`", lambda s: named("_orig_mod.", s), None),
    ("`module._orig_mod.`", lambda s: named("module._orig_mod.", s), None),
    ("`module.` below `G_ema`", lambda s: {"G_ema": named("module.", s)}, None),
    ("`G_ema.`", lambda s: named("G_ema.", s), None),
    ("`G.`", lambda s: named("G.", s), None),
    ("`G.` and `G_ema.` in one", lambda s: {**named("G.", other(s)), **named("G_ema.", s)}, None),
    ("`generator.`", lambda s: named("generator.", s), None),
    ("`net.g.`, which nobody knows", lambda s: named("net.g.", s), None),
    ("`decoder.` beside `encoder.` (pSp)", lambda s: {"state_dict": {**ENCODER, **named("decoder.", s)}}, None),
    (
        "the same with `latent_avg` and `opts`",
        lambda s: {"state_dict": {**ENCODER, **named("decoder.", s)}, "latent_avg": torch.zeros(8), "opts": {"x": 1}},
        None,
    ),
    ("`g_ema`", lambda s: {"g_ema": s}, None),
    ("`g`, `d` and `g_ema`", lambda s: {"g": other(s), "d": {"conv.weight": torch.zeros(1)}, "g_ema": s}, None),
    ('`{"model": {"ema": …}}`', lambda s: {"model": {"ema": s}}, None),
    ("below names that nobody knows", lambda s: {"step 200": {"weights": s}}, None),
    ("with step, version and a name among them", lambda s: {**s, "step": 200, "version": "1.0", "lr": None}, None),
    ("with counters among them", lambda s: {**s, "num_batches_tracked": torch.tensor(7)}, None),
    ("beside an optimiser", lambda s: {"optimizer": {"state": {0: 1}, "param_groups": []}, "model": s}, None),
    ("half precision", lambda s: {"g_ema": {name: t.half() for name, t in s.items()}}, None),
    ("two generators", lambda s: {**named("old.", s), **named("new.", s)}, "holds the generators old., new."),
    ("an encoder alone", lambda s: ENCODER, "the names of its tensors begin with encoder,"),
    ("a discriminator alone", lambda s: {"D": {"b4.conv.weight": torch.zeros(2)}}, "begin with b4,"),
    ("no tensors", lambda s: {"G_ema": {"step": 3}}, "holds no generator"),
]
NUMBERS: list[tuple[str, Callable[[State], Any], str]] = [
    ("a NaN", lambda s: with_numbers(s, FIRST, float("nan")), f"{FIRST} has 1 of"),
    ("an infinity", lambda s: with_numbers(s, "decoder.net.0.bias", float("inf")), "decoder.net.0.bias has 1 of"),
    ("a negative infinity", lambda s: with_numbers(s, FIRST, float("-inf")), f"{FIRST} has 1 of"),
    (
        "NaN in a buffer",
        lambda s: with_numbers(s, "backbone.synthesis.b4.conv1.noise_const", float("nan")),
        "noise_const has 1 of",
    ),
    ("NaN in the mean latent", lambda s: with_numbers(s, "backbone.mapping.w_avg", float("nan")), "w_avg has 1 of"),
    ("infinity in half precision", lambda s: with_numbers(s, FIRST, 1e6, torch.float16), f"{FIRST} has 1 of"),
    ("beyond single precision", lambda s: with_numbers(s, FIRST, 1e200, torch.float64), f"{FIRST} has 1 of"),
    ("all NaN, below `g_ema`", lambda s: {"g_ema": {**s, FIRST: s[FIRST] * float("nan")}}, "that are NaN or infinite"),
    ("complex numbers", lambda s: {**s, FIRST: s[FIRST].to(torch.complex64)}, "names torch.ComplexFloatStorage"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_generator: EG3DGenerator) -> Path:
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    save_generator(tiny_generator, path)
    return path


def read(content: Any, path: Path, base: Path) -> State:
    torch.save(content, path)
    return dict(load_generator(path, like=base).state_dict())


@pytest.mark.parametrize("what, make, told", PREFIXES, ids=[row[0] for row in PREFIXES])
def test_prefixes_and_wrappers(tmp_path: Path, tiny_generator: EG3DGenerator, base: Path, what: str, make, told):
    state, path = dict(tiny_generator.state_dict()), tmp_path / "network.pt"
    if told is None:
        found = read(make(state), path, base)
        close = 1e-2 if what == "half precision" else 0.0
        assert all((found[name] - tensor).abs().max() <= close * tensor.abs().max() for name, tensor in state.items())
    else:
        with pytest.raises(CheckpointError) as caught:
            read(make(state), path, base)
        assert told in str(caught.value) and str(path) in str(caught.value) and "--like" not in str(caught.value)


@pytest.mark.parametrize("what, make, told", NUMBERS, ids=[row[0] for row in NUMBERS])
def test_weights_that_are_no_numbers(tmp_path: Path, tiny_generator: EG3DGenerator, base: Path, what: str, make, told):
    with pytest.raises(CheckpointError) as caught:
        read(make(dict(tiny_generator.state_dict())), tmp_path / "network.pt", base)
    assert told in str(caught.value) and "network.pt" in str(caught.value)


def test_own_checkpoints_are_looked_at_too(tmp_path: Path, tiny_generator: EG3DGenerator):
    path = tmp_path / "own.safetensors"
    save_generator(tiny_generator, path)
    save_file(with_numbers(load_file(path), FIRST, float("nan")), path)
    write_json(path.with_suffix(".json"), {**read_json(path.with_suffix(".json")), "sha256": file_hash(path)})
    with pytest.raises(CheckpointError, match=rf"{FIRST} has 1 of"):
        load_generator(path)


def test_a_prefix_that_is_left_out_is_told(tmp_path: Path, tiny_generator, base: Path, caplog):
    with caplog.at_level(logging.INFO, "pmv"):
        read(named("G_ema.", dict(tiny_generator.state_dict())), tmp_path / "network.pt", base)
    assert "its generator is what is called G_ema.… in it" in caplog.text


def test_the_page_tells_every_checkpoint(tmp_path: Path, tiny_generator: EG3DGenerator, base: Path, write: bool):
    state, path = dict(tiny_generator.state_dict()), tmp_path / "network.pt"
    rows = []
    for kind, cases in (("names", PREFIXES), ("numbers", NUMBERS)):
        for what, make, _ in cases:
            try:
                read(make(state), path, base)
                seen = "read"
            except CheckpointError as error:
                seen = str(error).replace(f"{path}: ", "")
            rows.append((kind, what, seen))
    check_section("checkpoints", rows, write)
