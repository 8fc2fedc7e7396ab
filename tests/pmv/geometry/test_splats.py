"""Splats against a loop over pixels, and the files that hold them."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from pmv.errors import AssetsError
from pmv.geometry.atlas import spread_texels
from pmv.geometry.camera import Camera
from pmv.geometry.splat_files import write_splat_ply, write_spz
from pmv.geometry.splats import Splats, flat_splats, render_splats
from tests.scenes import texture

SIZE = 24


@pytest.fixture
def some() -> Splats:
    """Thin, round, long, faint and bright ones, some partly outside the picture, one behind the camera."""
    rng = torch.Generator().manual_seed(3)
    means = (torch.rand(40, 3, generator=rng) - 0.5) * 0.6
    means[0] = torch.tensor([0.0, 0.0, 4.0])
    scales = torch.rand(40, 3, generator=rng) * 0.06 + 0.002
    turns = torch.nn.functional.normalize(torch.randn(40, 4, generator=rng), dim=1)
    colours = torch.rand(40, 3, generator=rng) * 2 - 1
    return Splats(means, scales, turns, torch.rand(40, generator=rng) * 0.99 + 0.005, colours)


def slowly(splats: Splats, camera: Camera, size: int) -> Tensor:
    """[4,size,size]: each pixel from near to far, with matrices written out."""
    world2cam = torch.linalg.inv(camera.cam2world[0].double())
    focal, centre = camera.intrinsics[0, 0, 0].double() * size, camera.intrinsics[0, 0, 2].double() * size
    drawn = []
    for i in range(len(splats.means)):
        x, y, z = (world2cam[:3, :3] @ splats.means[i].double() + world2cam[:3, 3]).tolist()
        if z <= 0.01:
            continue
        axes = splats.axes[i].double()
        sigma = axes @ torch.diag(splats.scales[i].double() ** 2) @ axes.T
        jacobian = torch.tensor([[1 / z, 0, -x / z**2], [0, 1 / z, -y / z**2]], dtype=torch.double) * focal
        both = jacobian @ world2cam[:3, :3]
        flat = both @ sigma @ both.T + 0.3 * torch.eye(2)
        place = ((focal * x / z + centre).item(), (focal * y / z + centre).item())
        drawn.append((z, place, torch.linalg.inv(flat).tolist(), splats.opacities[i].item(), splats.colours[i]))
    drawn.sort(key=lambda row: row[0])
    picture = torch.zeros(4, size, size)
    for row in range(size):
        for column in range(size):
            through = 1.0
            for _, (u, v), ((xx, xy), (_, yy)), opacity, colour in drawn:
                dx, dy = column + 0.5 - u, row + 0.5 - v
                alpha = min(0.99, opacity * math.exp(-0.5 * (xx * dx * dx + 2 * xy * dx * dy + yy * dy * dy)))
                if alpha < 1 / 255:
                    continue
                picture[:3, row, column] += colour * alpha * through
                picture[3, row, column] += alpha * through
                through *= 1 - alpha
    return picture


def test_the_renderer_against_a_loop_over_pixels(some: Splats):
    camera = Camera.orbit(0.4, -0.2, radius=2.7, focal=4.2647, roll=0.3)
    colours, alpha = render_splats(some, camera, SIZE)
    assert colours.shape == (1, 3, SIZE, SIZE) and alpha.shape == (1, 1, SIZE, SIZE)
    expected = slowly(some, camera, SIZE)
    assert expected[3].max() > 0.9 and expected[3].min() < 0.1, "there is something to see, and something beside it"
    assert torch.allclose(torch.cat([colours, alpha], 1)[0], expected, atol=2e-5)


def test_bands_of_rows_do_not_show(some: Splats, monkeypatch: pytest.MonkeyPatch):
    camera = Camera.orbit(0.4, -0.2)
    whole = torch.cat(render_splats(some, camera, SIZE), 1)
    monkeypatch.setattr("pmv.geometry.splats._BAND", 7)
    assert torch.allclose(torch.cat(render_splats(some, camera, SIZE), 1), whole, atol=1e-6)


def test_gradients_reach_every_number(some: Splats):
    values = [
        x.clone().requires_grad_() for x in (some.means, some.scales, some.rotations, some.opacities, some.colours)
    ]
    colours, alpha = render_splats(Splats(*values), Camera.orbit(0.0, 0.0), SIZE)
    (colours.square().sum() + alpha.sum()).backward()
    for value in values:
        assert value.grad is not None and value.grad.isfinite().all() and value.grad.abs().sum() > 0


def test_nothing_to_see(some: Splats):
    colours, alpha = render_splats(some, Camera.orbit(0.0, 0.0, radius=2.7, pivot=(0.0, 0.0, -50.0)), SIZE)
    assert not colours.any() and not alpha.any()


def ball(count: int) -> tuple[Splats, Tensor]:
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=0.2)
    vertices, faces = torch.tensor(mesh.vertices).float(), torch.tensor(mesh.faces)
    places = spread_texels(vertices, faces, torch.tensor(mesh.vertex_normals).float(), count, seed=0)
    return flat_splats(places.points, places.normals, texture(places.points), 0.95, 0.65, 0.1), places.normals


def test_discs_lie_on_their_surface_and_cover_it():
    splats, normals = ball(4000)
    assert len(splats.means) == pytest.approx(4000, rel=0.05)
    assert (splats.means.norm(dim=1) - 0.2).abs().max() < 1e-3
    assert torch.allclose(splats.axes[:, :, 2], normals, atol=1e-5), "the third axis is the normal"
    eye = torch.eye(3).expand(len(normals), 3, 3)
    assert torch.allclose(splats.axes @ splats.axes.mT, eye, atol=1e-5)
    assert splats.scales[:, 2].max() < splats.scales[:, 0].min(), "thin along it"
    _, alpha = render_splats(splats, Camera.orbit(0.0, 0.0), 64)
    inside = slice(26, 38)
    assert alpha[..., inside, inside].min() > 0.97, "nothing shines through"
    back = flat_splats(torch.zeros(1, 3), torch.tensor([[0.0, 0.0, -1.0]]), torch.zeros(1, 3), 0.5, 1.0, 0.1)
    assert torch.allclose(back.axes[0, :, 2], torch.tensor([0.0, 0.0, -1.0]))


def test_the_ply_is_3dgs_s(tmp_path: Path):
    splats, normals = ball(500)
    write_splat_ply(tmp_path / "a.gs.ply", splats, 2.0)
    cloud = trimesh.load(tmp_path / "a.gs.ply", file_type="ply")  # another reader than the writer
    table = cloud.metadata["_ply_raw"]["vertex"]["data"]
    names = "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    assert table.dtype.names == tuple(names.split()) and all(table.dtype[name] == "<f4" for name in table.dtype.names)

    def columns(*wanted: str) -> Tensor:
        return torch.from_numpy(np.stack([table[name] for name in wanted], 1).astype(np.float32))

    flip = torch.tensor([1.0, -1.0, -1.0])
    assert torch.allclose(columns("x", "y", "z"), splats.means * flip * 2, atol=1e-6), "metres, y down"
    colours = 0.5 + 0.28209479 * columns("f_dc_0", "f_dc_1", "f_dc_2")
    assert torch.allclose(colours, (splats.colours + 1) / 2, atol=1e-5)
    assert torch.allclose(columns("opacity").sigmoid()[:, 0], splats.opacities, atol=1e-5)
    assert torch.allclose(columns("scale_0", "scale_1", "scale_2").exp(), splats.scales * 2, rtol=1e-4)
    turned = Splats(splats.means, splats.scales, columns("rot_0", "rot_1", "rot_2", "rot_3"), splats.opacities, colours)
    assert torch.allclose(turned.axes, flip[:, None] * splats.axes, atol=1e-5), "axes turned with the points"
    assert torch.allclose(columns("nx", "ny", "nz"), normals * flip, atol=1e-5)


def test_the_spz_holds_the_same(tmp_path: Path):
    gsply = pytest.importorskip("gsply", reason='no gsply here; pip install "pmv[spz]" to run this')
    splats, _ = ball(500)
    write_spz(tmp_path / "a.spz", splats, 0.5)
    assert (tmp_path / "a.spz").stat().st_size < 20 * 500
    data = gsply.read_spz(tmp_path / "a.spz")
    assert np.abs(data.means - splats.means.numpy() / 2).max() < 1e-5, "metres in the world's own axes"
    assert np.abs(0.5 + 0.28209479 * data.sh0 - (splats.colours.numpy() + 1) / 2).max() < 0.02
    assert np.abs(data.scales - (splats.scales / 2).log().numpy()).max() < 0.04
    found = Splats(
        *(torch.from_numpy(np.array(x)) for x in (data.means, data.scales, data.quats)), *(splats.opacities,) * 2
    )
    assert (found.axes - splats.axes).abs().max() < 0.02


def test_spz_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gsply", None)
    with pytest.raises(AssetsError, match=r"pip install \"pmv\[spz\]\""):
        write_spz(tmp_path / "a.spz", ball(100)[0], 1.0)
    assert not list(tmp_path.iterdir())
