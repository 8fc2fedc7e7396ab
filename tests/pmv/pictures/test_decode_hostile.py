"""Pictures that are made to harm, and damaged ones of every kind: refused in one line, or read."""

import io
import logging
import os
import resource
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from pmv.errors import InputError
from pmv.pictures.decode import MOST_BYTES, decode
from tests.pmv.pictures.picture_files import (
    TRUE,
    avif,
    check,
    icc,
    iccp,
    png,
    refused,
    whole,
    write_tiff,
)


def exif_of(entries: int, truncated: bool = False) -> bytes:
    table = b"".join(struct.pack(">HHII", k, 2, 90000, 8) for k in range(entries))
    return b"Exif\0\0MM\0*" + struct.pack(">IH", 8, entries) + table[: len(table) // 2 if truncated else None]


def jpeg(segment: bytes = b"", times: int = 1) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(whole(TRUE / 255, 8)).save(buffer, "JPEG", quality=100, subsampling=0)
    content = buffer.getvalue()
    marked = (
        b"".join(b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment for _ in range(times)) if segment else b""
    )
    return content[:2] + marked + content[2:]


def bomb(width: int, height: int) -> bytes:
    """A 1-bit PNG, all black, of any size."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    deflate = zlib.compressobj(9)
    row = bytes(1 + -(-width // 8))
    data = b"".join(deflate.compress(row * 64) for _ in range(height // 64)) + deflate.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _inflating(path: Path) -> None:
    """Small of itself, but its only strip inflates to a gigabyte."""
    deflate = zlib.compressobj(9)
    start = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    block = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    data = start + block * 2200
    write_tiff(path, data, bits=16, t259=8)


HOSTILE: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "PostScript": (
        "a.png",
        lambda p: p.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        "PostScript",
    ),
    "DOS PostScript": ("a.jpg", lambda p: p.write_bytes(b"\xc5\xd0\xd3\xc6" + bytes(26) + b"%!PS-Adobe"), "PostScript"),
    "PDF": ("a.png", lambda p: p.write_bytes(b"%PDF-1.7\n"), "PDF"),
    "DDS": ("a.dds", lambda p: p.write_bytes(b"DDS " + bytes(124)), "DDS"),
    "BLP": ("a.jpg", lambda p: p.write_bytes(b"BLP2" + bytes(200)), "BLP"),
    "Photoshop": ("a.psd", lambda p: p.write_bytes(b"8BPS" + bytes(60)), "Photoshop"),
    "JPEG 2000": ("a.jpg", lambda p: p.write_bytes(b"\x00\x00\x00\x0cjP  \r\n\x87\n"), "JPEG 2000"),
    "SVG": ("a.png", lambda p: p.write_bytes(b"  <svg xmlns='http://www.w3.org/2000/svg'/>"), "SVG"),
    "Canon raw": ("a.tif", lambda p: p.write_bytes(b"II*\0\x10\0\0\0CR\2\0" + bytes(90)), "camera's raw file"),
    "400 megapixels": ("a.png", lambda p: p.write_bytes(bomb(20032, 19968)), "pixels are too many"),
    "a gigapixel named tif": ("a.tif", lambda p: p.write_bytes(bomb(32768, 32768)), "pixels are too many"),
    "gigapixel TIFF": ("a.tif", lambda p: write_tiff(p, bytes(99), t256=32767, t257=32767, t278=32767), "too many"),
    "gigapixel deep TIFF": ("a.tif", lambda p: write_tiff(p, bytes(9), bits=16, t256=20000, t257=20000), "too many"),
    "a tile of a gigapixel": ("a.tif", lambda p: write_tiff(p, bytes(99), t322=32768, t323=32768), ""),
    "a strip that inflates": ("a.tif", _inflating, "inflates to more"),
    "300 000 text chunks": (
        "a.png",
        lambda p: p.write_bytes(bomb(64, 64)[:33] + (bytes([0, 0, 0, 3]) + b"tEXta\0b" + bytes(4)) * 300_000),
        "thousands of notes",
    ),
    "scans": ("a.jpg", lambda p: p.write_bytes(jpeg() + b"\xff\xda" * 5000), "scans"),
    "truncated AVIF": ("a.avif", lambda p: p.write_bytes(avif()[:200]), ""),
    "damaged AVIF": ("a.avif", lambda p: p.write_bytes(avif()[:100] + bytes(60) + avif()[160:]), ""),
    "truncated WebP": ("a.webp", lambda p: p.write_bytes(b"RIFF\x40\0\0\0WEBPVP8L" + bytes(9)), ""),
    "truncated TIFF": ("a.tif", lambda p: p.write_bytes(b"II*\0\x08\0\0\0\x09"), ""),
    "a TIFF that goes round": ("a.tif", lambda p: p.write_bytes(b"II*\0\x08\0\0\0" + bytes(12)), ""),
    "a FIFO": ("a.png", os.mkfifo, "no regular file"),
    "an endless device": ("a.png", lambda p: p.symlink_to("/dev/zero"), "no regular file"),
    "a folder": ("a.png", Path.mkdir, "is a folder"),
    "a sparse file": ("a.png", lambda p: (p.touch(), os.truncate(p, 5 << 30)), "GB are too many"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_files_from_strangers_are_refused_in_one_line(tmp_path: Path, name: str):
    file, make, message = HOSTILE[name]
    make(tmp_path / file)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(tmp_path / file, message)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / (1 if sys.platform == "darwin" else 1024)
    assert grown < 600, f"{grown:.0f} MB"


@pytest.mark.parametrize(
    "entries, truncated, times", [(60_000, False, 1), (5000, True, 1), (2, True, 20), (1, False, 300)]
)
def test_exif_of_any_size_is_no_trouble(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: Any, entries: int, truncated: bool, times: int
):
    logging.getLogger("pmv").propagate = True
    segment = exif_of(entries, truncated)
    (tmp_path / "a.jpg").write_bytes(jpeg(segment[:65000], times))
    check(tmp_path / "a.jpg", within=5)
    assert len(caplog.records) <= 1 and not recwarn.list


def test_no_program_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A canary in the place of Ghostscript and of whatever else Pillow knows to call."""
    for name in ("gs", "gswin64c", "djpeg", "ffmpeg", "convert"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for k, start in enumerate(
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", b"%PDF-1.7\n", b"GIMP")
    ):
        (tmp_path / f"{k}.png").write_bytes(start + bytes(200))
        refused(tmp_path / f"{k}.png")
    assert not (tmp_path / "started").exists()


def test_the_bound_holds_before_anything_is_decoded(tmp_path: Path):
    """Just above is refused by its header alone: there are no pixels in these files."""
    side = int((MOST_BYTES / 8) ** 0.5) + 1
    (tmp_path / "a.png").write_bytes(bomb(side, side)[:33] + b"\0\0\0\0IDAT" + bytes(4))
    refused(tmp_path / "a.png", "at most 200 megapixels")
    decode_error = refused(tmp_path / "a.png")
    assert "shrink it" in decode_error


def test_deep_pixels_keep_all_of_their_bits(tmp_path: Path):
    deep = whole(TRUE / 255, 16)
    tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(deep, -1, 0), planarconfig="separate", photometric="rgb")
    np.testing.assert_array_equal(decode(tmp_path / "a.tif").pixels, deep)


def seeds() -> dict[str, bytes]:
    """A small file of every kind and layout."""
    found = {
        "deep": png(whole(TRUE / 255, 16), {b"iCCP": iccp(icc(1.0))}, bits=16),
        "avif": avif(),
        "exif": jpeg(exif_of(9)),
    }
    deep = whole(TRUE / 255, 16)
    layouts: dict[str, dict[str, Any]] = {
        "plain": {"data": deep},
        "deflated": {"data": deep, "compression": "zlib"},
        "planar": {"data": np.moveaxis(deep, -1, 0), "planarconfig": "separate", "iccprofile": icc(1.0)},
        "tiled": {"data": np.tile(deep, (2, 2, 1)), "tile": (16, 16), "compression": "zlib"},
        "eight": {"data": whole(TRUE / 255, 8)},
    }
    for name, layout in layouts.items():
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, photometric="rgb", metadata=None, **layout)
        found[name] = buffer.getvalue()
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        buffer = io.BytesIO()
        Image.fromarray(whole(TRUE / 255, 8)).save(buffer, kind)
        found[kind] = buffer.getvalue()
    return found


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        place = int(rng.integers(min(len(data), 400 if rng.random() < 0.6 else len(data))))
        match rng.integers(4):
            case 0:
                data[place] = int(rng.integers(256))
            case 1:
                number = int(rng.choice([0, 1, 255, 65535, 70000, 2**31 - 1, 2**32 - 1]))
                data[place : place + 4] = number.to_bytes(4, "little" if rng.random() < 0.5 else "big")
            case 2 if len(data) > 60:
                del data[place : place + int(rng.integers(1, 30))]
            case _:
                data[place:place] = rng.bytes(int(rng.integers(1, 30)))
    return bytes(data)


@pytest.mark.parametrize("count", [40, pytest.param(20_000, marks=pytest.mark.slow)])
def test_damaged_files_of_every_kind_are_pictures_or_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, count: int
):
    rng = np.random.default_rng(count)
    monkeypatch.setattr(logging.getLogger("pmv"), "disabled", True)
    read = 0
    for name, content in seeds().items():
        for _ in range(count):
            (tmp_path / "a").write_bytes(mutated(content, rng))
            try:
                decoded = decode(tmp_path / "a")
            except InputError as error:
                assert "\n" not in str(error) and len(str(error)) < 400, name
            else:
                read += 1
                assert decoded.pixels.ndim == 3 and decoded.pixels.dtype in (np.uint8, np.uint16)
    assert 0 < read < count * len(seeds())
    out, error = capfd.readouterr()
    assert out == error == "", "decoders stay silent"
