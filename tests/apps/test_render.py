"""Pictures, films and frames of a finished head: paths, sizes, grounds, layers, and options that say nothing."""

import json
import logging
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

from pmv.apps.attributes import INVERSION
from pmv.apps.camera_paths import PATHS, named_path, read_path, reshaped
from pmv.apps.cli.main import cli
from pmv.apps.layers import DEPTH_UNIT, Look
from pmv.apps.uncrop import honest_part, uncrop_run
from pmv.errors import InputError, PmvError
from pmv.files.artifacts import load_tensors, read_header, save_tensors
from pmv.generators import EG3DGenerator, PanoHeadGenerator, save_generator
from pmv.geometry.camera import Camera
from pmv.inversion import load_inversion
from tests.apps.conftest import Finished
from tests.conftest import make_tiny_generator


def opened(run: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of an inversion, without what tells a forged one."""
    header = read_header(run / INVERSION)
    return load_tensors(run / INVERSION), {name: value for name, value in header.items() if name != "sha256"}


def call(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit | PmvError), result.exception
    failed = result.exception if isinstance(result.exception, PmvError) else ""
    return result.exit_code, f"{result.output}{failed}"


@pytest.mark.parametrize("kind", PATHS)
def test_paths_are_loops_around_the_middle(kind: str, tiny_generator: EG3DGenerator):
    spec = tiny_generator.spec
    cameras = named_path(kind, spec, 36, 10.0, 5.0, None if kind == "orbit" else 20.0)
    yaw, pitch = (torch.rad2deg(angle) for angle in cameras.yaw_pitch(spec.pivot))
    steps = cameras.angle_to(Camera(cameras.cam2world.roll(-1, 0), cameras.intrinsics))
    assert steps.max() < 0.2 and steps.min() > 0, "no jump, also from the last to the first, and no stop"
    assert (yaw.max() - yaw.min() > 340) == (kind == "orbit")
    if kind != "orbit":
        assert (yaw.min().item(), yaw.max().item()) == pytest.approx((-10, 30), abs=0.2)
    rise = {"swing": 0, "orbit": 0, "ellipse": 10, "eight": 10}[kind]
    assert (pitch.min().item(), pitch.max().item()) == pytest.approx((5 - rise, 5 + rise), abs=0.2)


def test_a_wide_picture_shows_the_square_in_its_middle(tiny_generator: EG3DGenerator):
    camera = tiny_generator.spec.orbit(0.3, 0.1)
    point = torch.tensor([[[0.1, 0.05, 0.0]]])
    (u, v), (wide_u, wide_v) = (c.project(point)[0][0, 0].tolist() for c in (camera, reshaped(camera, 640, 320)))
    assert (wide_u * 640 - 160, wide_v * 320) == pytest.approx((u * 320, v * 320), abs=1e-3)
    (high_u, high_v) = reshaped(camera, 100, 200).project(point)[0][0, 0].tolist()
    assert (high_u * 100, high_v * 200 - 50) == pytest.approx((u * 100, v * 100), abs=1e-3)


@pytest.mark.parametrize(
    "w, h, message", [("1e9", "1e9", "pictures of 1000000000×"), ("NaN", "4", "NaN"), ("64", "64", "2 sizes")]
)
def test_a_path_s_own_size_is_judged(finished: Finished, tmp_path: Path, w: str, h: str, message: str):
    spec = load_inversion(finished.run).generator.spec
    path = tmp_path / "transforms.json"
    named_path("swing", spec, 2, 0.0, 0.0, None).save(path)
    data = json.loads(path.read_text())
    data["frames"][0] |= {"w": json.loads(w), "h": json.loads(h)}
    if message != "2 sizes":
        data["frames"] = data["frames"][:1]
    path.write_text(json.dumps(data))
    code, told = call("render", finished.run, "--path", path, "--out", tmp_path / "frames")
    assert code != 0 and message.lower() in told.lower() and not (tmp_path / "frames").exists()


def test_frames_have_layers_and_their_cameras(finished: Finished, tmp_path: Path):
    out = tmp_path / "frames"
    words = ["--path", "eight", "--frames", "3", "--size", "48x32", "--background", "transparent", "--out", out]
    code, told = call("render", finished.run, *words, "--layer", "image", "--layer", "depth", "--layer", "normals")
    assert code == 0, told
    cameras, size = read_path(out / "transforms.json")
    assert size == (48, 32) and len(cameras) == 3
    inversion = load_inversion(finished.run)
    expected = named_path("eight", inversion.generator.spec, 3, 0.0, 0.0, None)
    assert torch.allclose(cameras.intrinsics, reshaped(expected, 48, 32).intrinsics, atol=1e-5)
    for i in range(3):
        image = np.array(Image.open(out / "image" / f"0000{i}.png"))
        depth = cv2.imread(str(out / "depth" / f"0000{i}.png"), cv2.IMREAD_UNCHANGED)
        normals = cv2.imread(str(out / "normals" / f"0000{i}.png"), cv2.IMREAD_UNCHANGED)
        assert image.shape == (32, 48, 4) and depth.shape == (32, 48) and normals.shape == (32, 48, 3)
        assert image[16, 24, 3] > 200 and image[16, 2, 3] == 0 and depth[16, 2] == 0, "a ball, nothing beside it"
        middle = cameras[i].unproject(torch.full((1, 1, 32, 48), float(depth[16, 24]) * DEPTH_UNIT))[0, 16, 24]
        assert middle.norm() == pytest.approx(0.18, abs=0.04), "its front, in the world"

    # the path that was written is one that can be given
    code, told = call("render", finished.run, "--path", out / "transforms.json", "--out", tmp_path / "again")
    assert code == 0, told
    again = np.array(Image.open(tmp_path / "again/image/00001.png"))
    assert again.shape == (32, 48, 3)
    code, told = call("render", finished.run, "--path", "ellipse", "--frames", "2", "--out", tmp_path / "film.mp4")
    assert code == 0 and (tmp_path / "film.mp4").stat().st_size > 500, told


def test_depth_and_normals_as_floats(finished: Finished, tmp_path: Path):
    OpenEXR = pytest.importorskip("OpenEXR", reason='no OpenEXR here; pip install "pmv[exr]" to run this')
    words = ["--frames", "2", "--layer", "depth", "--layer", "normals", "--layer", "image"]
    for kind in (["--exr"], []):
        code, told = call("render", finished.run, *words, *kind, "--out", tmp_path / f"frames{len(kind)}")
        assert code == 0, told
    floats, steps = tmp_path / "frames1", tmp_path / "frames0"
    frames = json.loads((floats / "transforms.json").read_text())["frames"]
    assert [frame["file_path"] for frame in frames] == ["depth/00000.exr", "depth/00001.exr"]
    assert sorted(path.name for path in (floats / "image").iterdir()) == ["00000.png", "00001.png"]
    depth = OpenEXR.File(str(floats / "depth/00001.exr")).channels()["Z"].pixels
    whole = cv2.imread(str(steps / "depth/00001.png"), cv2.IMREAD_UNCHANGED)
    assert depth.dtype == np.float32 and np.abs(depth - whole * DEPTH_UNIT).max() < 0.51 * DEPTH_UNIT
    assert ((depth == 0) == (whole == 0)).all() and (depth % DEPTH_UNIT > 0).any(), "finer than the PNG's steps"
    channels = OpenEXR.File(str(floats / "normals/00001.exr"), separate_channels=True).channels()
    normals = np.stack([channels[f"N.{axis}"].pixels for axis in "XYZ"], -1)
    lengths = np.linalg.norm(normals, axis=-1)
    assert lengths.max() < 1.0001 and (np.abs(lengths - 1) < 1e-4).sum() > 100
    bits = cv2.imread(str(steps / "normals/00001.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert np.abs((normals + 1) / 2 * 65535 - bits).max() < 1


def test_exr_without_its_package(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told_before: Callable[..., None]
):
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    code, told = call("render", finished.run, "--layer", "depth", "--exr", "--out", tmp_path / "frames")
    assert code != 0 and 'pip install "pmv[exr]"' in told and not (tmp_path / "frames").exists()
    told_before(told.strip().splitlines()[-1])


def test_grounds(finished: Finished, tmp_path: Path, tiny_generator: EG3DGenerator, tiny_panohead: PanoHeadGenerator):
    for words, expected in ((["--background", "#ff8000"], [255, 128, 0]), (["--background", "transparent"], [0])):
        code, told = call("render", finished.run, *words, "--yaw", "-20", "--yaw", "20", "--out", tmp_path / "a.png")
        assert code == 0, told
        corner = np.array(Image.open(tmp_path / "a.png"))[2, 2].tolist()
        assert corner[-len(expected) :] == expected
    look = Look(ground="transparent")
    look.check(tiny_panohead.spec)
    with pytest.raises(InputError, match="cannot be taken away"):
        look.check(type(tiny_generator.spec)(**{**vars(tiny_generator.spec), "has_alpha": False}))


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["--out", "a.png", "--frames", "3"],
            "--frames is for an --out that is .mp4, a folder; leave it out with .png",
        ),
        (["--out", "a.png", "--layer", "depth"], "--layer is for an --out that is a folder"),
        (["--out", "a.mp4", "--exr"], "--exr is for an --out that is a folder; leave it out with .mp4"),
        (["--out", "a", "--exr"], "--exr is for --layer depth and --layer normals; give one of them"),
        (["--out", "a.png", "--path", "orbit"], "--path is for an --out that is .mp4, a folder"),
        (["--out", "a.png", "--uncrop", "--size", "64"], "--size is for an --out that is .png, .mp4, a folder"),
        (["--out", "a", "--path", "orbit", "--sweep", "9"], "--sweep says nothing of --path orbit"),
        (["--out", "a", "--path", "a.json", "--pitch", "9"], "--pitch says nothing of a --path that is a file"),
        (["--out", "a", "--path", "a.json"], "a.json: no such camera file"),
        (["--out", "a.mp4", "--background", "transparent"], "an MP4 cannot be transparent"),
        (["--out", "a.png", "--background", "blau"], "'blau' is no colour"),
        (["--out", "a.png", "--background", "#11223344"], "'#11223344' is half transparent"),
        (["--out", "a.png", "--size", "0x7"], "'0x7' is no size"),
        (
            ["--out", "a.png", "--size", "9999999"],
            "9999999×9999999 pixels are not rendered",
        ),
        (["--out", "a.gif"], "--out ends in .png or .mp4, or is a folder"),
    ],
)
def test_options_that_say_nothing_are_refused(
    finished: Finished,
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    told_before: Callable[..., None],
):
    monkeypatch.chdir(tmp_path)
    code, told = call("render", finished.run, *words)
    assert code != 0 and message in told
    told_before(told.strip().splitlines()[-1], " ".join(words))
    assert not list(tmp_path.iterdir()), "and nothing is half-written"


def test_an_edited_head_goes_back_into_the_photo_of_its_run(finished: Finished, tmp_path: Path):
    edited = tmp_path / "edited"
    edited.mkdir()
    tensors, header = opened(finished.run)
    attributes = {"attributes": {"smile": 1.0}, "edited_from": str(finished.run)}
    save_tensors(edited / INVERSION, tensors, header | attributes)
    uncrop_run(edited, tmp_path / "back.png")
    back, photo = (np.array(Image.open(path)) for path in (tmp_path / "back.png", finished.run / "source/photo.png"))
    assert back.shape == photo.shape and (back != photo).any()
    assert np.array_equal(back[:3], photo[:3]), "the photo's own bytes beside the head"
    save_tensors(edited / INVERSION, tensors, header | attributes | {"edited_from": str(tmp_path / "gone")})
    with pytest.raises(InputError, match="the run with its photo is gone"):
        uncrop_run(edited, tmp_path / "back.png")
    save_tensors(edited / INVERSION, tensors, header)
    with pytest.raises(InputError, match="so it has no photo"):
        uncrop_run(edited, tmp_path / "back.png")


def test_a_turn_says_how_far_it_is_honest():
    """A disc that moves off by its radius and more: what it leaves bare is the crescent beside it."""
    x = torch.linspace(-1, 1, 128)

    def disc(part: float) -> Tensor:
        return ((x[None] - part) ** 2 + x[:, None] ** 2 < 0.25).float()[None, None]

    bare, part = honest_part(disc(0.0), disc)
    assert bare == pytest.approx(1.0, abs=0.02), "it moved by its diameter"
    assert part == 0.0, "a sixteenth of the way bares more than one hundredth"
    bare, part = honest_part(disc(0.0), lambda part: disc(0.1 * part))
    # of two unit discs d apart, the crescent is 1 − (2 acos(d/2) − d/2 √(4 − d²)) / π
    apart = 0.2
    crescent = 1 - (2 * math.acos(apart / 2) - apart / 2 * math.sqrt(4 - apart**2)) / math.pi
    assert bare == pytest.approx(crescent, abs=0.02) and 0 < part < 0.3
    assert honest_part(disc(0.0), lambda part: disc(0.0)) == (0.0, 1.0)


def test_a_head_that_is_not_turned_warns_of_nothing(
    finished: Finished, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        uncrop_run(finished.run, tmp_path / "still.png")
        uncrop_run(finished.run, tmp_path / "turned.png", yaw_deg=0.5)
    assert not caplog.messages, "a ball covers itself"


def test_a_moved_checkpoint_is_named(finished: Finished, tmp_path: Path):
    gone = tmp_path / "gone"
    gone.mkdir()
    tensors, header = opened(finished.run)
    save_tensors(gone / INVERSION, tensors, header | {"generator": str(tmp_path / "nowhere.safetensors")})
    code, told = call("render", gone, "--out", tmp_path / "a.png")
    assert code != 0 and "is gone; name it with --generator" in told
    code, told = call("render", gone, "--out", tmp_path / "a.png", "--generator", finished.checkpoint)
    assert code == 0, told
    other = tmp_path / "other.safetensors"
    save_generator(make_tiny_generator(steps=1), other)
    code, told = call("render", gone, "--out", tmp_path / "a.png", "--generator", other)
    assert code != 0 and "not the generator that" in told
