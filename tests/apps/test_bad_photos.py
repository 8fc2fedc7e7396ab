"""One table of photos, cameras and folders that cannot be used: each is told in one line that names the file and the
mend, with exit code 2, and nothing is left behind.
"""

import errno
import json
import logging
import os
import signal
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pmv.files.artifacts
from pmv.apps import cli
from pmv.generators import EG3DGenerator, save_generator
from tests.conftest import ROOT

PLAIN = ROOT / "assets" / "portraits" / "plain.png"
ALIGNED = (PLAIN, "--camera", PLAIN.with_name("dataset.json"), "--mask", PLAIN.with_name("plain_mask.png"))
QUICK = [
    "--set",
    "prepare.search_yaw_steps=1",
    "--set",
    "prepare.search_pitch_steps=1",
    "--set",
    "prepare.refine_steps=0",
]
QUICK += ["--set", "prepare.search_keep=1"]


def header_only(path: Path, width: int, height: int) -> None:
    """A PNG that says it is huge and ends there."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)))


def portrait() -> Image.Image:
    return Image.open(PLAIN).convert("RGB")


def canvas(face: Image.Image, size: tuple[int, int] = (700, 560), at: tuple[int, int] = (60, 30)) -> Image.Image:
    result = Image.new("RGB", size, (110, 120, 130))
    result.paste(face, at)
    return result


def blurred() -> Image.Image:
    import cv2

    return canvas(Image.fromarray(cv2.GaussianBlur(np.asarray(portrait()), (0, 0), 10)))


def nan_camera(path: Path) -> None:
    path.write_text(json.dumps({"label": [float("nan")] * 25}))


# name of the photo, how it is made, what the line says
PHOTOS: list[tuple[str, Callable[[Path], object], str]] = [
    ("missing.png", lambda p: None, "no such image"),
    ("empty.jpg", lambda p: p.write_bytes(b""), "is empty"),
    ("folder.png", lambda p: p.mkdir(), "is a folder; give an image file"),
    ("text.jpg", lambda p: p.write_text("not a picture"), "cannot be read as an image"),
    ("phone.heic", lambda p: p.write_bytes(b"\0\0\0\x18ftypheic" + bytes(40)), "pillow-heif"),
    ("cut.png", lambda p: p.write_bytes(PLAIN.read_bytes()[:20000]), "cannot be read as an image"),
    ("bomb.png", lambda p: header_only(p, 60000, 60000), "cannot be read as an image"),
    ("pixel.png", lambda p: Image.new("RGB", (1, 1)).save(p), "only 1×1 pixels; give a larger image"),
    ("line.png", lambda p: Image.new("RGB", (500, 1)).save(p), "only 500×1 pixels"),
]
FACES: list[tuple[str, Callable[[Path], object], str]] = [
    ("wall.png", lambda p: Image.new("RGB", (320, 240), "gray").save(p), "no face was found in its 320×240 pixels"),
    (
        "far.png",
        lambda p: canvas(portrait().resize((72, 72))).save(p),
        "pixels wide; give a photo where it has at least",
    ),
    ("soft.png", lambda p: blurred().save(p), "the face is blurred; give a sharper photo"),
    ("half.png", lambda p: portrait().crop((0, 0, 300, 512)).save(p), "cut off at the right border"),
]
LARGE = (
    "large.jpg",
    lambda p: Image.new("RGB", (10000, 10001), "gray").save(p),
    "no face was found in its 10000×10001",
)
# name, how the camera is made, what the line says
CAMERAS: list[tuple[str, Callable[[Path], object], str]] = [
    ("nan.json", nan_camera, "make it a finite number"),
    ("garbage.json", lambda p: p.write_text("{"), "not a readable camera file"),
    ("short.json", lambda p: p.write_text('{"label": [1, 2, 3]}'), "not a readable camera file"),
    ("short.npy", lambda p: np.save(p, np.zeros(7)), "not a readable camera file"),
    ("nobody.json", lambda p: p.write_text('{"labels": [["other.png", ' + str([0.0] * 25) + "]]}"), "no camera for"),
    ("gone.json", lambda p: None, "no such camera file"),
    ("camera.txt", lambda p: p.write_text("1 2 3"), "unknown camera format"),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, tiny_generator: EG3DGenerator) -> Path:
    path = tmp_path_factory.mktemp("generator") / "tiny.safetensors"
    save_generator(tiny_generator, path)
    return path


@pytest.fixture
def refused(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, told_before: Callable
) -> Callable[..., str]:
    """Run a command that must fail; returns its one line, as it was told before. `tmp_path` must look as before.

    `case` tells several lines of one test apart.
    """

    def execute(*arguments: str | Path, case: str = "") -> str:
        monkeypatch.chdir(tmp_path)
        given = ["pmv", *map(str, arguments), "--generator", str(tiny), "--device", "cpu", *QUICK]
        monkeypatch.setattr(sys, "argv", given)
        monkeypatch.setattr(logging.getLogger("pmv"), "handlers", [])
        handler, before = signal.getsignal(signal.SIGTERM), sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        signal.signal(signal.SIGTERM, handler)
        out, error = capsys.readouterr()
        told = [line for line in error.splitlines() if line.startswith("pmv: error: ")]
        assert (caught.value.code, out, len(told)) == (2, "", 1), error
        assert "Traceback" not in error
        assert sorted(tmp_path.rglob("*")) == before, "nothing half-written is left"
        told_before(told[0], case)
        return told[0]

    return execute


@pytest.mark.parametrize("command", ["prepare", "invert"])
@pytest.mark.parametrize("name, make, message", PHOTOS, ids=[row[0] for row in PHOTOS])
def test_files_that_are_no_photos(refused, tmp_path: Path, command: str, name: str, make, message: str):
    make(tmp_path / name)
    told = refused(command, name, "--out", "made")
    assert name in told and message in told


@pytest.mark.parametrize(
    "name, make, message",
    [*(pytest.param(*row, id=row[0]) for row in FACES), pytest.param(*LARGE, id=LARGE[0], marks=pytest.mark.slow)],
)
def test_photos_without_a_usable_face(refused, tmp_path: Path, name: str, make, message: str):
    make(tmp_path / name)
    told = refused("prepare", name, "--out", "made")
    assert name in told and message in told


@pytest.mark.parametrize("name, make, message", CAMERAS, ids=[row[0] for row in CAMERAS])
def test_cameras(refused, tmp_path: Path, name: str, make, message: str):
    make(tmp_path / name)
    told = refused("prepare", PLAIN, "--camera", name, "--out", "made")
    assert name in told and message in told


def test_folders_that_cannot_be_used(refused, tmp_path: Path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "other.txt").write_text("x")
    for out, message in (
        ("file", "is a file"),
        ("file/deeper", "a part of its path is a file"),
        ("full", "something else"),
    ):
        for command in ("prepare", "invert"):
            told = refused(command, *ALIGNED, "--out", out, case=f"{command} --out {out}")
            assert out in told and message in told


@pytest.mark.parametrize("command", ["prepare", "invert"])
@pytest.mark.parametrize("number, message", [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "no permission")])
def test_a_disk_that_refuses(refused, command: str, number: int, message: str, monkeypatch: pytest.MonkeyPatch):
    """The disk gives out at the third file."""
    written, fsync = [], os.fsync

    def refuse(handle: int) -> None:
        written.append(handle)
        if len(written) > 2:
            raise OSError(number, os.strerror(number))
        fsync(handle)

    monkeypatch.setattr(pmv.files.artifacts.os, "fsync", refuse)
    told = refused(command, *ALIGNED, "--out", "made")
    assert "made" in told and message in told and len(written) > 2


def test_a_mask_of_another_size(refused, tmp_path: Path):
    Image.fromarray(np.uint8(np.indices((40, 50))[1] > 20) * 255).save(tmp_path / "mask.png")
    camera = ROOT / "assets" / "portraits" / "dataset.json"
    assert "the mask is 50×40 pixels; make it 512×512" in refused(
        "prepare", PLAIN, "--camera", camera, "--mask", "mask.png", "--out", "made"
    )
