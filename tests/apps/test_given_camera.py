"""A camera given to `pmv invert`, new and on a run that exists: what is refused leaves everything as it was."""

from pathlib import Path

import pytest

from pmv.apps.invert import Request, invert
from pmv.errors import InputError
from pmv.generators import EG3DGenerator
from pmv.geometry.camera import Camera
from tests.conftest import ROOT

PORTRAITS = ROOT / "assets" / "portraits"
PLAIN, CAMERA, MASK = (PORTRAITS / name for name in ("plain.png", "dataset.json", "plain_mask.png"))
SETTINGS = ("prepare.search_yaw_steps=1", "prepare.refine_steps=0", "run.device=cpu")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (folder / "source").iterdir()}


def saved(camera: Camera, path: Path) -> Path:
    camera.save(path, ["plain.png"])
    return path


def test_a_refused_camera_leaves_nothing_and_changes_nothing(tmp_path: Path, tiny_generator: EG3DGenerator):
    away = Camera.load(CAMERA, "plain.png")
    away.cam2world[:, :3, 1:3] *= -1  # OpenGL axes
    wrong = saved(away, tmp_path / "wrong.json")
    # the ball of this generator lies in the middle: from here it is beside the head
    aside = Camera.load(CAMERA, "plain.png")
    aside.cam2world[:, :3, 3] += 0.3 * aside.cam2world[:, :3, 0]
    beside = saved(aside, tmp_path / "beside.json")
    run = tmp_path / "run"
    for camera in (wrong, beside):
        with pytest.raises(InputError, match=r"cannot be the photo's"):
            request = Request(settings=SETTINGS, camera=camera, mask=MASK, until="prepare")
            invert(request, PLAIN, run, generator=tiny_generator)
        assert not run.exists()
    invert(Request(settings=SETTINGS, camera=CAMERA, mask=MASK, until="prepare"), PLAIN, run, generator=tiny_generator)
    before = contents(run)
    for camera, told in ((wrong, r"wrong\.json: .*looks away"), (beside, "overlap by")):
        with pytest.raises(InputError, match=told):
            invert(Request(camera=camera, until="prepare"), resume=run, generator=tiny_generator)
        assert contents(run) == before


def test_the_photos_path_tells_which_row_is_its_own(tmp_path: Path, tiny_generator: EG3DGenerator):
    cameras = Camera.cat([Camera.orbit(-0.5, 0.1), Camera.load(CAMERA, "plain.png")])
    cameras.save(tmp_path / "dataset.json", ["00000/plain.png", "00001/plain.png"])
    photo = tmp_path / "00001" / "plain.png"
    photo.parent.mkdir()
    photo.write_bytes(PLAIN.read_bytes())
    request = Request(settings=SETTINGS, camera=tmp_path / "dataset.json", mask=MASK, until="prepare")
    run = invert(request, photo, tmp_path / "run", generator=tiny_generator)
    label = Camera.load(run / "source" / "camera.json", "plain.png").labels()
    assert (label - cameras[1].labels()).abs().max() < 1e-6
    with pytest.raises(InputError, match=r"2 cameras may be that of plain\.png"):
        invert(request, PLAIN, tmp_path / "other", generator=tiny_generator)
