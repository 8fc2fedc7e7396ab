"""Agreement with the official EG3D and PanoHead implementations, on reference outputs of seeded random weights.

Run with `-s` to see the table of relative L2 errors.
"""

import pytest

from pmv.generators import load_generator
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


@pytest.mark.parametrize("name", ["eg3d_512", "eg3d_128", "panohead_512"])
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
