"""pmv's own checkpoints: what is written is read back; what is damaged is refused in one line. Other kinds:
test_readers.py, test_hostile.py."""

import json
import os
import pickle
import subprocess
import sys

import pytest
import torch

from pmv.errors import CheckpointError
from pmv.generators import load_generator, save_generator
from tests.conftest import ROOT, SHARED


def refused(path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_generator(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


class Call:
    """Pickles as a call of `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def test_native_round_trip(tmp_path, tiny_generator):
    path = tmp_path / "tiny.safetensors"
    save_generator(tiny_generator, path, notes={"z_names": ["a"]})
    loaded = load_generator(path)
    assert loaded.config == tiny_generator.config and loaded.spec == tiny_generator.spec
    for name, tensor in tiny_generator.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
    assert json.loads(path.with_suffix(".json").read_text())["z_names"] == ["a"]


def test_half_precision_is_read_as_float32(tmp_path, tiny_generator):
    path = tmp_path / "half.safetensors"
    save_generator(tiny_generator, path, torch.float16)
    loaded = load_generator(path)
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    w = tiny_generator.mean_w(16)
    torch.testing.assert_close(loaded.planes(w), tiny_generator.planes(w), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("damage", ["no json", "bad json", "other config", "truncated", "unknown setting", "future"])
def test_damaged_native_checkpoints(tmp_path, tiny_generator, damage):
    path = tmp_path / "tiny.safetensors"
    save_generator(tiny_generator, path)
    description = path.with_suffix(".json")
    data = json.loads(description.read_text())
    if damage == "no json":
        description.unlink()
    elif damage == "bad json":
        description.write_text("{")
    elif damage == "other config":
        data["config"]["w_dim"] = 64
        description.write_text(json.dumps(data))
    elif damage == "unknown setting":
        data["config"]["nose"] = 1
        description.write_text(json.dumps(data))
    elif damage == "future":
        data["format"] = 99
        description.write_text(json.dumps(data))
    else:
        path.write_bytes(path.read_bytes()[:1000])
    refused_with_name(path)


def refused_with_name(path) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_generator(path)
    assert path.stem in str(caught.value) or "unknown generator setting" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_modules_are_never_imported(tmp_path):
    module = tmp_path / "training_evil.py"
    module.write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\nclass Evil: pass\n")
    for name in ("training_evil", "training.evil"):
        payload = b"\x80\x02c" + name.encode() + b"\nEvil\n)\x81."
        path = tmp_path / "import.pkl"
        path.write_bytes(payload)
        refused(path)
    assert not (tmp_path / "imported").exists()


def test_truncated_golden_is_refused(tmp_path):
    source = SHARED / "golden" / "eg3d_128" / "network.pkl"
    if not source.is_file():
        pytest.skip("the reference checkpoints (../shared/golden) are not here")
    path = tmp_path / "truncated.pkl"
    path.write_bytes(source.read_bytes()[:100_000])
    refused(path)


def test_unknown_names_and_kinds(tmp_path):
    with pytest.raises(CheckpointError, match="neither a generator's name"):
        load_generator("no-such-generator")
    other = tmp_path / "weights.bin"
    other.write_bytes(b"x")
    assert "unknown kind" in refused(other)


def test_hostile_pickle_from_the_command_line(tmp_path):
    """Refused with one line, exit code 2, and nothing created."""
    path, photo = tmp_path / "hostile.pkl", tmp_path / "photo.png"
    path.write_bytes(pickle.dumps(Call(os.system, f"touch {tmp_path / 'executed'}")))
    from PIL import Image

    Image.new("RGB", (64, 64), (90, 120, 160)).save(photo)
    before = sorted(os.listdir(tmp_path))
    command = [sys.executable, "run_inversion.py", str(photo), "--generator", str(path), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0 and "refused" in done.stderr
    assert sorted(os.listdir(tmp_path)) == before
