"""Agreement with the official EG3D and PanoHead implementations, on reference outputs of seeded random weights.

Run with `-s` to see the table of relative L2 errors.
"""

import numpy as np
import pytest
import torch

from pmv.camera import Camera
from pmv.generators import load_generator
from pmv.generators.panohead import PanoHeadGenerator, shifted
from tests.conftest import SHARED

TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3


@pytest.mark.parametrize("name", ["eg3d_512", "eg3d_128", "panohead_512"])
def test_matches_official_outputs(name):
    folder = SHARED / "golden" / name
    if not folder.is_dir():
        pytest.skip("the reference outputs (../shared/golden) are not here")
    generator = load_generator(folder / "network.pkl")
    with np.load(folder / "io.npz") as archive:
        golden = {key: torch.from_numpy(archive[key]) for key in archive.files}
    cameras, stride = Camera.from_labels(golden["c"]), 2 if generator.spec.resolution == 512 else 1
    got = {}
    with torch.no_grad():
        got["ws"] = generator.map(golden["z"], cameras)
        got["ws_trunc07_cutoff7"] = generator.map(golden["z"], cameras, truncation=0.7, cutoff=7)
        planes = generator.planes(golden["ws"])
        merged = planes.flatten(1, -3)
        got["planes_first4"], got["planes_mean"] = merged[:, :4, ::4, ::4], merged.mean((2, 3))
        got["sigma"], got["rgb"] = generator.density(golden["points"], planes)
        out = generator.render(planes, golden["ws"], cameras, resolution=64)
        got["image_raw"], got["image"] = out.raw, out.image[..., ::stride, ::stride]
        got["image_mean_square"] = out.image.square().mean((1, 2, 3))
        ray_length = cameras.pixel_directions(64).norm(dim=-1).reshape(2, 1, 64, 64)
        got["image_depth"] = out.depth * ray_length  # theirs is ray length, ours z-depth
        got["image_mask"] = out.alpha * 1.002 - 0.001  # as PanoHead returns it
        if isinstance(generator, PanoHeadGenerator):
            got["delta_c"] = generator.camera_shift(golden["z"], cameras)
            got["c_after_delta"] = shifted(cameras, got["delta_c"]).labels()
        first = generator.render(planes[:1], golden["ws"][:1], cameras[1], resolution=64)
        got["image_w0_cam1"] = first.image[..., ::stride, ::stride]
    w = golden["ws"][:1].clone().requires_grad_(True)
    loss = generator.render(generator.planes(w), w, cameras[0], resolution=64).image.square().mean()
    loss.backward()
    got["loss_w0_cam0"], got["grad_ws_w0_cam0"] = loss.detach(), w.grad

    checked = golden.keys() - {"z", "c", "points"}
    assert checked <= got.keys()
    errors = {key: ((got[key] - golden[key]).norm() / golden[key].norm()).item() for key in sorted(checked)}
    for key, error in errors.items():
        print(f"{name:13s} {key:20s} {error:.1e}")
    for key, error in errors.items():
        assert error < (GRADIENT_TOLERANCE if key.startswith("grad") else TOLERANCE), key
