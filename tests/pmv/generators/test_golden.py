"""Agreement with the official EG3D and PanoHead implementations, on reference outputs of seeded random weights; and
that nothing of an official file is lost on the way through `pmv convert`.

Run with `-s` to see the table of relative L2 errors.
"""

import pytest
import torch

from pmv.generators import load_generator
from pmv.generators.checkpoint import read_checkpoint
from pmv.generators.convert import convert_checkpoint
from pmv.generators.verify import read_reference, relative_errors, tolerance_of
from tests.conftest import SHARED

ARRAYS = {
    "ws",
    "ws_trunc07_cutoff7",
    "planes_first4",
    "planes_mean",
    "sigma",
    "rgb",
    "image_raw",
    "image",
    "image_depth",
}


NAMES = ["eg3d_512", "eg3d_128", "panohead_512"]


@pytest.mark.parametrize("name", NAMES)
def test_matches_official_outputs(name):
    folder = SHARED / "golden" / name
    if not folder.is_dir():
        pytest.skip("the reference outputs (../shared/golden) are not here")
    errors = relative_errors(load_generator(folder / "network.pkl"), read_reference(folder / "io.npz"))
    for key, error in errors.items():
        print(f"{name:13s} {key:20s} {error:.1e}")
    assert errors.keys() >= ARRAYS
    for key, error in errors.items():
        assert error < tolerance_of(key), key


@pytest.mark.parametrize("name", NAMES)
def test_converts_there_and_back_without_a_bit_lost(name, tmp_path):
    source = SHARED / "golden" / name / "network.pkl"
    if not source.is_file():
        pytest.skip("the reference checkpoints (../shared/golden) are not here")
    native, plain = tmp_path / "new.safetensors", tmp_path / "state.pt"
    convert_checkpoint(source, native)
    convert_checkpoint(native, plain)
    official, state = read_checkpoint(source).state, torch.load(plain, weights_only=True)
    assert official.keys() == state.keys()
    for key, tensor in official.items():
        assert state[key].dtype == tensor.dtype and torch.equal(state[key], tensor), key
    first, second = load_generator(source), load_generator(native)
    assert second.config == first.config
    w = first.mean_w(8)
    camera = first.spec.canonical_camera
    with torch.no_grad():
        if first.spec.resolution > 128:  # super-resolution to 512² takes many seconds
            views = [g.march(g.planes(w), camera, 32, None)[0] for g in (first, second)]
        else:
            views = [g.render(g.planes(w), w, camera, 32).image for g in (first, second)]
    assert torch.equal(*views)
