"""Camera files of the real world: read as they were meant, or refused in one line that says the mend."""

import time
from pathlib import Path

import pytest
import torch

from pmv.errors import InputError
from pmv.geometry.camera import Camera
from pmv.geometry.camera_formats.matching import matching_rows
from tests.inputs_table import check_section
from tests.pmv.geometry.camera_file_cases import CASES, Case


@pytest.mark.parametrize("case", CASES, ids=[f"{case.kind}: {case.what}" for case in CASES])
def test_camera_files(tmp_path: Path, case: Case):
    path, started = case.make(tmp_path), time.monotonic()
    if case.told is None:
        found = Camera.load(path, case.photo, (512, 512))
        torch.testing.assert_close(found.labels(), case.camera.labels(), atol=2e-6, rtol=0)
    else:
        with pytest.raises(InputError) as caught:
            Camera.load(path, case.photo, (512, 512))
        message = str(caught.value)
        assert case.told in message and str(path) in message
        assert len(message.splitlines()) == 1 and message.isprintable() and len(message) < 700
    assert time.monotonic() - started < 5


def test_the_page_tells_every_case(tmp_path: Path, write: bool):
    rows = []
    for i, case in enumerate(CASES):
        folder = tmp_path / str(i)
        folder.mkdir()
        path = case.make(folder)
        try:
            Camera.load(path, case.photo, (512, 512))
            seen = "read"
        except InputError as error:
            seen = str(error).replace(f"{path}: ", "", 1).replace(f"{folder}/", "").replace(str(folder), ".")
        rows.append((case.kind, case.what, seen))
    check_section("cameras", rows, write)


def test_every_kind_has_eight_inputs():
    for kind in {case.kind for case in CASES}:
        assert sum(case.kind == kind for case in CASES) >= 8, kind


def test_a_whole_file_is_read_without_a_name(tmp_path: Path):
    Camera.orbit(torch.linspace(-1, 1, 40), 0.0).save(tmp_path / "transforms.json")
    assert len(Camera.load(tmp_path / "transforms.json")) == 40


@pytest.mark.parametrize("name", ["dataset.json", "transforms.json", "colmap"])
def test_names_come_back_whatever_they_are(tmp_path: Path, name: str):
    names = ["my photo 1.png", "a/b c.png", "x\\y z.png", "ünï (1).png", "0001", "-1 2 3.png"]
    cameras = Camera.orbit(torch.linspace(-1, 1, len(names)), 0.1)
    cameras.save(tmp_path / name, names)
    for i, one in enumerate(names):
        found = Camera.load(tmp_path / name, one)
        torch.testing.assert_close(found.labels(), cameras[i].labels(), atol=2e-5, rtol=0)


def test_colmap_refuses_to_write_a_name_that_it_cannot_read(tmp_path: Path):
    with pytest.raises(InputError, match="give names of one line"):
        Camera.orbit(0.0, 0.0).save(tmp_path / "colmap", ["a\nb.png"])
    assert not (tmp_path / "colmap").exists()


@pytest.mark.parametrize(
    "names, image, wanted",
    [
        (["a/x.png", "b/x.png"], "/data/b/x.png", [1]),
        (["a/x.png", "b/x.png"], "/data/c/x.png", [0, 1]),
        (["c/b/x.png", "d/b/x.png"], "/d/b/x.png", [1]),
        (["x.png", "a/x.png"], "/data/x.png", [0]),
        (["x.jpg", "x.png"], "x.png", [1]),
        (["x.jpg", "x.webp"], "x.png", [0, 1]),
        (["x", "y"], "x.png", [0]),
        (["x.v2", "x.v1"], "x.v2.png", [0]),
        (["", "..", "/"], "x.png", []),
    ],
)
def test_the_longest_path_wins(names: list[str], image: str, wanted: list[int]):
    assert matching_rows(names, image) == wanted
