"""`pmv convert` where things go wrong: files in the way, disks, interruptions, pairs that do not belong together. What
goes right: test_readers.py."""

import json
import os
import resource
import shutil
import signal
from dataclasses import replace

import pytest
import torch

from pmv.errors import CheckpointError, InputError
from pmv.generators import EG3DGenerator, load_generator, native, save_generator
from pmv.generators.convert import convert_checkpoint
from pmv.generators.inspection import inspect_checkpoint


@pytest.fixture
def source(tmp_path, tiny_generator):
    path = tmp_path / "source.safetensors"
    save_generator(tiny_generator, path, notes={"z_names": ["age"]})
    return path


@pytest.fixture
def weights(tmp_path, tiny_generator):
    path = tmp_path / "weights.pt"
    torch.save(tiny_generator.state_dict(), path)
    return path


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_a_checkpoint_says_of_itself_goes_along(tmp_path, source):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    convert_checkpoint(source, first)
    convert_checkpoint(first, second)
    said = json.loads(second.with_suffix(".json").read_text())
    assert said["z_names"] == ["age"] and said["origin"]["file"] == "source.safetensors" and said["licence"]
    assert said["sha256"] == json.loads(first.with_suffix(".json").read_text())["sha256"]


def test_an_earlier_conversion_is_replaced(tmp_path, source, tiny_generator):
    out = tmp_path / "out.safetensors"
    convert_checkpoint(source, out)
    other = EG3DGenerator(replace(tiny_generator.config, radius=3.0))
    save_generator(other, tmp_path / "other.safetensors")
    convert_checkpoint(tmp_path / "other.safetensors", out)
    assert load_generator(out).spec.radius == 3.0
    assert {p.suffix for p in tmp_path.iterdir()} == {".safetensors", ".json"}


def test_files_in_the_way_stay(tmp_path, source, weights):
    (tmp_path / "dataset.json").write_text('{"labels": []}')
    (tmp_path / "link.safetensors").symlink_to(source)
    (tmp_path / "folder.safetensors").mkdir()
    before = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    for out, like, says in (
        ("dataset.safetensors", None, r"dataset\.json: would be replaced"),
        ("link.safetensors", source, "is a link"),
        ("source.safetensors", source, "what --like names"),
        ("folder.safetensors", source, r"folder\.safetensors: cannot be written"),
        ("source.safetensors/deeper.pt", source, "cannot be written"),
    ):
        with pytest.raises(InputError, match=says):
            convert_checkpoint(weights if like else source, tmp_path / out, like)
    with pytest.raises(InputError, match="is the checkpoint itself"):
        convert_checkpoint(source, source)
    assert {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_disk_that_takes_no_more(tmp_path, source, suffix):
    """A limit on the size of files stands for a full disk."""
    out = tmp_path / f"out{suffix}"
    before = contents(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(InputError, match=rf"out\{suffix}: cannot be written") as caught:
            convert_checkpoint(source, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert "\n" not in str(caught.value) and contents(tmp_path) == before


@pytest.mark.parametrize("moment", ["writing", "between"])
def test_an_interruption_leaves_no_mixture(tmp_path, source, tiny_generator, monkeypatch, moment):
    """Ctrl-C while the weights are written; and a death between the two files, over an earlier conversion."""
    out = tmp_path / "out.safetensors"
    save_generator(EG3DGenerator(replace(tiny_generator.config, radius=3.0)), out)
    before = contents(tmp_path)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    if moment == "writing":
        monkeypatch.setattr(native, "file_hash", interrupted)
    else:
        replace_file = os.replace
        monkeypatch.setattr(os, "replace", lambda a, b: interrupted() if b == out else replace_file(a, b))
    with pytest.raises(KeyboardInterrupt):
        convert_checkpoint(source, out)
    monkeypatch.undo()
    if moment == "writing":
        assert contents(tmp_path) == before
    else:
        assert contents(tmp_path).keys() == before.keys()
        for read in (load_generator, inspect_checkpoint):
            with pytest.raises(CheckpointError, match=r"out\.safetensors: is not the file that out\.json describes"):
                read(out)
    convert_checkpoint(source, out)
    assert load_generator(out).config == tiny_generator.config


def test_weights_beside_another_ones_description(tmp_path, source, tiny_generator):
    other = EG3DGenerator(tiny_generator.config)
    save_generator(other, tmp_path / "other.safetensors")
    shutil.copy(tmp_path / "other.safetensors", source)
    with pytest.raises(CheckpointError, match=r"source\.safetensors: is not the file that source\.json describes"):
        load_generator(source)


@pytest.mark.parametrize(
    ("name", "value"),
    [("box", "wide"), ("box", float("nan")), ("near", 5.0), ("fine_samples", 10**12), ("w_dim", 10**9),
     ("head", {"input_resolution": 64, "channels": [4, 4], "up": ["a", "b"]}), ("head", "Hypernet"),
     ("has_alpha", 1), ("pivot", [0, 0]), ("neural_resolution", 0)],
)  # fmt: skip
def test_descriptions_of_no_generator(tmp_path, source, name, value):
    description = source.with_suffix(".json")
    said = json.loads(description.read_text())
    said["config"] |= {"near": 1.0, "far": 4.0, name: value}
    description.write_text(json.dumps(said))
    for read in (load_generator, inspect_checkpoint):
        with pytest.raises(CheckpointError, match=r"source\.json: ") as caught:
            read(source)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 350


def test_like(tmp_path, source, weights, tiny_generator, tiny_panohead, caplog):
    out = tmp_path / "out.safetensors"
    convert_checkpoint(weights, out, source)
    assert load_generator(out).config == tiny_generator.config
    save_generator(EG3DGenerator(replace(tiny_generator.config, w_dim=16)), tmp_path / "wider.safetensors")
    save_generator(tiny_panohead, tmp_path / "panohead.safetensors")
    for like, says in (
        ("wider.safetensors", r"weights\.pt: .*than --like says"),
        ("panohead.safetensors", r"weights\.pt: of the family eg3d, unlike"),
        ("weights.pt", r"weights\.pt: holds weights alone"),
        ("nothing.pkl", r"nothing\.pkl: neither a generator's name"),
    ):
        with pytest.raises(CheckpointError, match=says):
            convert_checkpoint(weights, tmp_path / "new.safetensors", tmp_path / like)
    assert not (tmp_path / "new.safetensors").exists() and not (tmp_path / "new.json").exists()
    with caplog.at_level("WARNING", "pmv"):
        convert_checkpoint(source, out, source)
    assert "--like is not needed" in caplog.text


def test_a_linked_checkpoint(tmp_path, weights, source, tiny_generator):
    """Caches hold links to files of other names."""
    (tmp_path / "cache").mkdir()
    shutil.move(weights, tmp_path / "cache" / "0a1b2c")
    weights.symlink_to(tmp_path / "cache" / "0a1b2c")
    assert load_generator(weights, like=source).config == tiny_generator.config
    convert_checkpoint(weights, tmp_path / "out.pt", source)
    state = torch.load(tmp_path / "out.pt", weights_only=True)
    assert all(torch.equal(state[name], tensor) for name, tensor in tiny_generator.state_dict().items())
