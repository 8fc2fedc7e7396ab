"""Exported files: what other programs read in them, and that they show the same head as the volume."""

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import trimesh
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

from pmv.apps.attributes import INVERSION
from pmv.apps.cli.main import cli
from pmv.apps.export import FORMATS, export_run
from pmv.apps.gaussians import gaussians, splat_view
from pmv.apps.head import open_head
from pmv.apps.head_model import (
    HeadModel,
    ModelSettings,
    Surface,
    agreement,
    head_surface,
    metres_per_unit,
    textured,
    view,
)
from pmv.apps.layers import DEPTH_UNIT
from pmv.apps.photo_texels import photo_texels
from pmv.errors import InputError, PmvError
from pmv.fitting.metrics import psnr
from pmv.generators import load_generator
from pmv.geometry.camera import Camera
from pmv.geometry.splats import render_splats
from pmv.inversion import load_inversion
from pmv.pictures.images import resize
from pmv.pictures.masks import dilate, erode
from pmv.pipeline.config import load_config
from pmv.pipeline.folder import RunFolder
from pmv.stages.table import TABLE
from tests.apps.conftest import Finished

SMALL = ModelSettings(grid=32, faces=1500, texture=256)


@pytest.fixture(scope="module")
def surface(finished: Finished) -> Surface:
    return head_surface(finished.run, SMALL, "cpu", None)


@pytest.fixture(scope="module")
def model(surface: Surface) -> HeadModel:
    return textured(surface, SMALL.texture)


@pytest.fixture(scope="module")
def glb(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_run(finished.run, "glb", tmp_path_factory.mktemp("glb") / "head.glb", SMALL)


def inside(surface: Surface, model: HeadModel, picture: Tensor, mask: Tensor) -> float:
    """PSNR of the mesh against a picture of the photo's view where the mask is, away from the mesh's outline."""
    seen, hit = view(model, surface.front.camera, picture.shape[-1])
    return psnr(seen, picture, erode(hit.float(), 0.06) * mask).item()


def test_the_textured_mesh_agrees_with_the_volume_and_with_the_photo(surface: Surface, model: HeadModel):
    volume, mark = surface.front.image, surface.front.edit_mask
    assert mark is not None and surface.photo is not None
    # three steps do not teach the tiny generator the mark: beside it the mesh is compared with the volume, in it with
    # the photo
    assert inside(surface, model, volume, 1 - dilate(mark, 0.06)) > 26
    picture = surface.photo.picture
    assert inside(surface, model, picture, erode(resize(mark, picture.shape[-1]), 0.03)) > 30
    found = agreement(model, surface.front)
    assert found["front"] < 26 and found["edit"] < 10, "which the figures that are shown say, too"
    radius = surface.vertices.norm(dim=1)
    assert len(surface.faces) <= 1500 and 0.15 < radius.median() < 0.25, "the ball that the generator was taught"
    assert (surface.normals * surface.vertices / radius[:, None]).sum(1).median() > 0.9, "normals point outwards"


def test_the_texels_of_a_mark_are_the_photo_s_own(finished: Finished, model: HeadModel):
    """The photo is finer than the run's picture, and the mark is drawn again at the photo's resolution."""
    folder = RunFolder(finished.run, TABLE)
    config = load_config(TABLE, path=folder / "config.yaml")
    spec = load_generator(str(finished.checkpoint)).spec
    texels = photo_texels(folder, config, spec, most=2048)
    assert texels.picture.shape[-1] == 64 and spec.resolution == 32
    middle = texels.picture[0, :, 30:34, 30:34].mean((1, 2))
    assert torch.allclose(middle, torch.tensor([1.0, 1.0, -1.0]), atol=0.05), "the yellow middle of the mark"
    assert photo_texels(folder, config, spec, most=40).picture.shape[-1] == 40
    yellow = (model.texture.astype(int) - [255, 255, 0]).__abs__().max(-1) < 30
    assert yellow.sum() > 50, "and it is in the texture, unblurred"


def test_a_glb_opens_elsewhere(glb: Path, finished: Finished):
    scene = trimesh.load_scene(glb)
    mesh = next(iter(scene.geometry.values()))
    assert isinstance(mesh, trimesh.Trimesh) and mesh.visual.material.baseColorTexture.size == (256, 256)
    head = json.loads(glb.read_bytes()[20 : 20 + int.from_bytes(glb.read_bytes()[12:16], "little")])
    assert head["extensionsUsed"] == ["KHR_materials_unlit"]
    assert "KHR_materials_unlit" in head["materials"][0]["extensions"]
    metres = metres_per_unit(load_generator(str(finished.checkpoint)).spec)
    assert metres is not None and head["asset"]["extras"]["metres_per_world_unit"] == pytest.approx(metres)
    assert mesh.extents.max() == pytest.approx(0.36 * metres, rel=0.1), "the ball, some 0.36 units across, in metres"
    assert mesh.volume > 0, "its faces look outwards"


def test_khronos_own_validator_finds_nothing(glb: Path, tmp_path: Path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here; install it and npm's gltf-validator to run this")
    where = subprocess.run(
        [node, "-e", "console.log(require.resolve('gltf-validator'))"], capture_output=True, text=True
    )
    if where.returncode:
        pytest.skip("node has no gltf-validator; npm i gltf-validator, and name its node_modules in NODE_PATH")
    code = (
        "require('gltf-validator').validateBytes(new Uint8Array(require('fs').readFileSync(process.argv[1])))"
        ".then(r => console.log(JSON.stringify(r.issues)))"
    )
    told = subprocess.run([node, "-e", code, str(glb)], capture_output=True, text=True, check=True)
    issues = json.loads(told.stdout)
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"]


def test_the_other_meshes_open_elsewhere(finished: Finished, tmp_path: Path):
    folder = export_run(finished.run, "obj", tmp_path / "model", SMALL, metres=2.0)
    assert sorted(path.name for path in folder.iterdir()) == ["head.mtl", "head.obj", "head.png"]
    mesh = trimesh.load(folder / "head.obj", force="mesh", process=False)
    assert isinstance(mesh, trimesh.Trimesh) and mesh.extents.max() == pytest.approx(0.72, rel=0.1)
    assert mesh.visual.material.image.size == (256, 256)
    (tmp_path / "model" / "mine.txt").touch()
    with pytest.raises(InputError, match="holds something else"):
        export_run(finished.run, "obj", tmp_path / "model", SMALL)

    coarse = ModelSettings(grid=24, faces=None)
    ply = trimesh.load(export_run(finished.run, "ply", tmp_path / "a.ply", coarse), process=False)
    stl = trimesh.load(export_run(finished.run, "stl", tmp_path / "a.stl", coarse), force="mesh")
    assert isinstance(ply, trimesh.Trimesh) and isinstance(stl, trimesh.Trimesh)
    assert np.ptp(ply.visual.vertex_colors[:, :3], axis=0).min() > 60, "the ball's colours differ by direction"
    assert stl.extents == pytest.approx(ply.extents * 1000, rel=1e-3), "millimetres for a printer, metres elsewhere"


@pytest.mark.parametrize("name", ["a.gs.ply", "a.spz"])
def test_gaussians_show_the_volume_and_say_how_well(
    finished: Finished, surface: Surface, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    if name.endswith(".spz"):
        pytest.importorskip("gsply", reason='no gsply here; pip install "pmv[spz]" to run this')
    caplog.set_level(logging.INFO, "pmv")
    path = open_head(finished.run).export(tmp_path / name, settings=SMALL, splats=3000)
    assert path == tmp_path / name and path.stat().st_size > 20_000
    about = json.loads((tmp_path / f"{name}.json").read_text())
    assert about["splats"] == pytest.approx(3000, rel=0.05) and about["metres_per_world_unit"] == surface.metres
    found = about["psnr_against_volume_db"]
    assert {"photo", "-30", "30", "-90", "90", "180"} <= found.keys()
    assert f"{found['photo']:.1f} dB from the photo's view" in caplog.text
    # three steps do not teach the tiny generator the mark, which is seen from the front alone
    assert found["-90"] > 24 and found["180"] > 26 and found["photo"] > 10
    splats, mark = gaussians(surface, 3000), surface.front.edit_mask
    assert mark is not None
    seen = splat_view(splats, surface.front.camera, surface.front.image, surface.front.ground)
    _, alpha = render_splats(splats, surface.front.camera, 32)
    away = erode((alpha > 0.9).float(), 0.06) * (1 - dilate(mark, 0.06))
    assert psnr(seen, surface.front.image, away).item() > 26


def test_spz_wants_its_package(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told_before: Callable[..., None]
):
    monkeypatch.setitem(sys.modules, "gsply", None)
    with pytest.raises(PmvError) as failed:
        export_run(finished.run, "gaussians", tmp_path / "a.spz")
    told_before(str(failed.value))
    assert not list(tmp_path.iterdir())


def test_views_are_what_nerfstudio_and_colmap_readers_take(finished: Finished, tmp_path: Path):
    """The keys and rules of nerfstudio's documented transforms.json, and the geometry behind them."""
    folder = export_run(finished.run, "views", tmp_path / "views", views=4)
    data = json.loads((folder / "transforms.json").read_text())
    assert data["camera_model"] == "OPENCV" and (data["w"], data["h"]) == (32, 32)
    for frame in data["frames"]:
        assert {"file_path", "transform_matrix", "fl_x", "fl_y", "cx", "cy", "depth_file_path"} <= frame.keys()
        assert np.array(frame["transform_matrix"]).shape == (4, 4)
        assert Image.open(folder / frame["file_path"]).mode == "RGBA"
    assert len(trimesh.load(folder / data["ply_file_path"]).vertices) > 100
    cameras = Camera.load(folder / "transforms.json")
    assert torch.allclose(Camera.load(folder / "sparse" / "0").cam2world, cameras.cam2world, atol=1e-5)
    rows = [row for row in (folder / "sparse/0/points3D.txt").read_text().splitlines() if not row.startswith("#")]
    assert len(rows) > 100 and all(len(row.split()) == 8 for row in rows)

    inversion = load_inversion(finished.run)
    assert torch.allclose(cameras[0].cam2world, inversion.camera.cam2world, atol=1e-5), "the photo's view is the first"
    for i, frame in enumerate(data["frames"]):
        depth = cv2.imread(str(folder / frame["depth_file_path"]), cv2.IMREAD_UNCHANGED)
        normal = cv2.imread(str(folder / frame["normal_file_path"]), cv2.IMREAD_UNCHANGED)[..., ::-1]
        assert depth.dtype == normal.dtype == np.uint16
        found = torch.from_numpy(depth.astype(np.float32) * DEPTH_UNIT)[None, None]
        points = cameras[i].unproject(found)[0][torch.from_numpy(depth > 0)]
        assert 0.15 < points.norm(dim=1).median() < 0.25, "on the ball"
        direction = torch.from_numpy(normal.astype(np.float32) / 65535 * 2 - 1)[torch.from_numpy(depth > 0)]
        assert (direction * points / points.norm(dim=1, keepdim=True)).sum(1).median() > 0.9


def test_the_latent_is_what_eg3d_s_tools_read(finished: Finished, tmp_path: Path):
    path = export_run(finished.run, "npz", tmp_path / "projected_w.npz")
    assert np.array_equal(np.load(path)["w"], load_inversion(finished.run).w.numpy())


def test_an_edited_head_and_a_moved_checkpoint(finished: Finished, tmp_path: Path):
    """A folder that is no run keeps only the generator's colours; the checkpoint may lie elsewhere by now."""
    edited = tmp_path / "edited"
    edited.mkdir()
    shutil.copy(finished.run / INVERSION, edited)
    moved = tmp_path / "moved.safetensors"
    shutil.copy(finished.checkpoint, moved)
    shutil.copy(finished.checkpoint.with_suffix(".json"), moved.with_suffix(".json"))
    surface = head_surface(edited, SMALL, "cpu", str(moved))
    assert surface.photo is None and surface.front.edit_mask is None
    assert inside(surface, textured(surface, 256), surface.front.image, torch.ones(1, 1, 32, 32)) > 26


@pytest.mark.parametrize(
    "words, message",
    [
        (["--format", "stl", "--texture", "512"], "--texture is for --format glb, obj; leave it out with stl"),
        (["--format", "glb", "--views", "3"], "--views is for --format views; leave it out with glb"),
        (
            ["--format", "npz", "--metres", "1"],
            "--metres is for --format glb, obj, ply, stl, gaussians; leave it out with npz",
        ),
        (["--format", "glb", "--metres", "nan"], "--metres is nan; give the metres in a world unit"),
        (["--format", "glb", "--splats", "3000"], "--splats is for --format gaussians; leave it out with glb"),
        (["--format", "gaussians", "--texture", "512"], "--texture is for --format glb, obj; leave it out with gauss"),
        (["--format", "gaussians", "--out", "a.glb"], "a.glb: Gaussians are written as .ply or .spz; end --out in one"),
        (["--format", "fbx"], "'fbx' is not one of"),
        (["--format", "glb", "--out", "none/head.glb"], "make it first"),
    ],
)
def test_options_that_do_not_apply_are_refused(
    finished: Finished, words: list[str], message: str, told_before: Callable[..., None]
):
    result = CliRunner().invoke(cli, ["export", str(finished.run), *words])
    failed = result.exception if isinstance(result.exception, PmvError) else ""
    told = f"{result.output}{failed}".strip().splitlines()[-1]
    assert result.exit_code != 0 and message in told
    told_before(told, " ".join(words))


def test_what_is_no_head_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="holds no finished inversion"):
        export_run(tmp_path, "glb", tmp_path / "a.glb")
    with pytest.raises(InputError, match="no format is called 'fbx'"):
        export_run(tmp_path, "fbx")
    assert not (tmp_path / "a.glb").exists() and "fbx" not in FORMATS
