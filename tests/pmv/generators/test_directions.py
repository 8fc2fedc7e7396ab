"""Directions: their file, what users may ask for, and whose they are."""

import shutil
from pathlib import Path

import pytest
import torch

from pmv.errors import CheckpointError, InputError
from pmv.files.artifacts import tensors_hash
from pmv.generators import EMBEDDED, EG3DGenerator, load_generator, save_generator
from pmv.generators.directions import FILE_NAME, Direction, Directions, load_directions, parse_amounts, save_directions


def make(generator: EG3DGenerator) -> Directions:
    about = (Direction("smile", "a broader smile", "share", 0.3, 3.0), Direction("age", "older", "share", 0.35, 5.0))
    w = torch.randn(2, generator.spec.w_dim, generator=torch.Generator().manual_seed(1))
    return Directions(w, about, tensors_hash(generator.state_dict()))


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_generator: EG3DGenerator) -> Path:
    """A generator with directions beside it."""
    save_generator(tiny_generator, tmp_path / "tiny.safetensors")
    save_directions(tmp_path / FILE_NAME, make(tiny_generator), {"method": "by hand"})
    return tmp_path / "tiny.safetensors"


def test_what_is_saved_comes_back(checkpoint: Path, tiny_generator: EG3DGenerator):
    made = make(tiny_generator)
    found = load_directions(checkpoint, made.generator_hash)
    assert torch.equal(found.w, made.w) and found.about == made.about and found.names == ("smile", "age")


def test_amounts_add_up_in_w(tiny_generator: EG3DGenerator):
    made = make(tiny_generator)
    assert torch.allclose(made.offset({"smile": 2.0, "age": -1.0}), 2 * made.w[0] - made.w[1])
    assert not made.offset({}).any()


def test_what_is_beyond_heads_is_told_and_what_is_absurd_refused(tiny_generator: EG3DGenerator):
    made = make(tiny_generator)
    assert made.far({"smile": 2.9, "age": -5.1}) == ["age"]
    made.offset({"smile": -6.0})
    with pytest.raises(InputError, match=r"smile=-6\.1: too much.*±6\.0"):
        made.offset({"smile": -6.1})


def test_an_unknown_attribute_is_answered_with_those_there_are(tiny_generator: EG3DGenerator):
    with pytest.raises(InputError, match=r"wings: no such attribute; there are smile, age"):
        make(tiny_generator).offset({"wings": 1.0})


def test_other_weights_are_refused(checkpoint: Path):
    with pytest.raises(CheckpointError, match=r"other weights.*python -m pmv\.training\.directions"):
        load_directions(checkpoint, "0" * 64)


def test_a_generator_without_directions_says_so(checkpoint: Path):
    (checkpoint.parent / FILE_NAME).unlink()
    with pytest.raises(InputError, match=r"tiny\.safetensors: has no attribute directions.*'heads'"):
        load_directions(checkpoint, "")


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_damaged_file_is_named(checkpoint: Path, content: bytes | None):
    path = checkpoint.parent / FILE_NAME
    if content is None:
        shutil.copyfile(checkpoint, path)  # safetensors of another kind
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=FILE_NAME):
        load_directions(checkpoint, "")


def test_the_shipped_directions_belong_to_the_shipped_weights():
    found = load_directions("heads", tensors_hash(load_generator("heads").state_dict()))
    assert {"age", "gender", "weight", "skin", "hair-length", "hair-colour"} < set(found.names)
    assert {"smile", "mouth-open", "eyes-closed", "brow-raise"} < set(found.names)
    assert found.w.isfinite().all() and (found.w.norm(dim=1) > 0.01).all()
    assert EMBEDDED["heads"].with_name("directions.json").is_file()


def test_settings_are_read():
    assert parse_amounts(["smile=+2", "age=-1.5", "smile=0.5"]) == {"smile": 2.5, "age": -1.5}
    assert parse_amounts([]) == {}


@pytest.mark.parametrize("setting", ["smile", "=2", "smile=", "smile=much", "smile=nan", "smile=inf", "smile=1,5"])
def test_what_is_not_a_number_is_refused(setting: str):
    with pytest.raises(InputError, match="--set"):
        parse_amounts([setting])
