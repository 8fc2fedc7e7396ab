"""Decoders: right or refused, never silently wrong. One true picture is written in every way that files know; what is
read is that picture, or one line.
"""

import io
import itertools
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
from PIL import Image, ImageCms

from pmv.errors import InputError
from pmv.pictures.colours import PRIMARIES, Space, power_curve, srgb_curve
from pmv.pictures.decode import MOST_BYTES, decode
from pmv.pictures.images import read_bytes

H, W = 24, 32
TRUE: np.ndarray = np.stack(
    [
        np.linspace(20, 235, H * W).reshape(H, W),
        np.linspace(230, 30, H * W).reshape(W, H).T,
        127 + 90 * np.sin(np.mgrid[0:H, 0:W].sum(0) / 9),
    ],
    -1,
)
TRUE = (0.45 * TRUE + 0.55 * TRUE.mean(-1, keepdims=True)).round()
"""[H,W,3] in 0…255, sRGB: nowhere symmetrical, with shadows and lights; saturated colours would turn a rounded number
of a wide space into several of sRGB's."""
ALPHA = np.linspace(60, 255, H * W).reshape(H, W)
D65, D50 = (0.3127, 0.3290), (0.3457, 0.3585)


def coded(linear: np.ndarray) -> np.ndarray:
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def icc(exponent: float, primaries: str = "srgb", grey: bool = False, name: str = "sRGB linear, of a test") -> bytes:
    """A matrix profile of one power curve, ICC version 2; its name contains "sRGB" to lead astray."""

    def tagged(kind: bytes, body: bytes) -> bytes:
        return (kind + bytes(4) + body).ljust(-(-(8 + len(body)) // 4) * 4, b"\0")

    def xyz(values: np.ndarray) -> bytes:
        return tagged(b"XYZ ", struct.pack(">3i", *(round(v * 65536) for v in values)))

    curve = tagged(b"curv", struct.pack(">IH", 1, round(exponent * 256)))
    text = name.encode() + b"\0"
    description = tagged(b"desc", struct.pack(">I", len(text)) + text + bytes(78))
    white = np.array([0.9642, 1.0, 0.8249])
    tags = {b"desc": description, b"wtpt": xyz(white), b"cprt": tagged(b"text", b"CC0\0")}
    if grey:
        tags[b"kTRC"] = curve
    else:
        columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in PRIMARIES[primaries]]).T
        matrix = columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])
        cone = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
        matrix = np.linalg.inv(cone) @ np.diag((cone @ white) / (cone @ matrix.sum(1))) @ cone @ matrix
        tags |= {name: xyz(matrix[:, k]) for k, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for tag, content in tags.items():
        table += tag + struct.pack(">II", offset + len(body), len(content))
        body += content
    header = struct.pack(
        ">I4sI4s4s4s", offset + len(body), b"none", 0x02400000, b"mntr", b"GRAY" if grey else b"RGB ", b"XYZ "
    )
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


EXPONENTS = {"linear": 1.0, "wide": 563 / 256}


def in_colours(picture: np.ndarray, colours: str) -> tuple[np.ndarray, bytes | None]:
    """A picture [...,3] or grey [...] in sRGB 0…255, as a file of other colours has it in [0,1], and its profile."""
    values = picture / 255
    if colours == "srgb":
        return values, None
    grey = picture.ndim == 2
    linear = srgb_curve(values)
    if colours == "wide" and not grey:
        to_srgb = Space.of(power_curve(1), PRIMARIES["adobe"]).to_srgb
        linear = linear @ np.linalg.inv(to_srgb).T
    exponent = EXPONENTS[colours]
    return linear ** (1 / exponent), icc(exponent, "adobe" if colours == "wide" else "srgb", grey)


def whole(values: np.ndarray, bits: int) -> np.ndarray:
    """[0,1] → whole numbers."""
    return (values * ((1 << bits) - 1)).round().astype(np.uint16 if bits > 8 else np.uint8)


def check(path: Path, true: np.ndarray = TRUE, alpha: np.ndarray | None = None, within: float = 3) -> None:
    """The file is the true picture, through both doors, or it is refused in one line that says how to mend it."""
    image, mask = read_bytes(path)
    true = true if true.ndim == 3 else true[..., None].repeat(3, 2)
    found = image[0].permute(1, 2, 0).numpy().astype(float)
    assert found.shape == true.shape
    shown = np.ones(true.shape[:2], bool) if alpha is None else alpha > 100
    assert np.abs(found - true)[shown].max() <= within, f"{np.abs(found - true)[shown].max()} levels off"
    assert (mask is None) == (alpha is None)
    if alpha is not None and mask is not None:
        assert np.abs(mask[0, 0].numpy() - alpha).max() <= 1


def refused(path: Path, message: str = "") -> str:
    with pytest.raises(InputError) as caught:
        read_bytes(path)
    told = str(caught.value)
    assert told.startswith(f"{path}: ") and "\n" not in told and len(told) < 400 and message in told, told
    return told


KINDS = ("grey", "rgb", "cmyk", "palette", "grey+alpha", "rgb+alpha", "rgb+premultiplied")
MATRIX = [
    (bits, planar, zero, colours, kind, compression)
    for bits, planar, zero, colours, kind, compression in itertools.product(
        (8, 16), ("chunky", "planar"), ("black", "white"), ("srgb", "linear", "wide"), KINDS, (None, "zlib")
    )
    if (zero == "black" or kind in ("grey", "grey+alpha"))
    and (planar == "chunky" or kind not in ("grey", "palette"))
    and (colours == "srgb" or kind != "cmyk")  # a matrix profile has no inks
    and (bits == 8 or kind != "palette")
]


@pytest.mark.parametrize("bits, planar, zero, colours, kind, compression", MATRIX)
def test_the_matrix_of_tiffs(
    tmp_path: Path, bits: int, planar: str, zero: str, colours: str, kind: str, compression: str | None
):
    """{8, 16 bits} × {planar, chunky} × {black, white is zero} × {sRGB, linear, wide} × {grey, RGB, CMYK, …}."""
    true: np.ndarray = TRUE.mean(-1) if kind.startswith("grey") else TRUE
    values, profile = in_colours(true, colours)
    extra: dict[str, Any] = {"photometric": "minisblack" if true.ndim == 2 else "rgb"}
    alpha = None
    if kind == "palette":
        table = np.linspace(0, 1, 256)[:, None] * [0.8, 0.6, 0.5] + [0.2, 0.3, 0.4]
        index = (TRUE[..., 0]).round().astype(int)
        true = 255 * table[index]
        extra = {"photometric": "palette"}
        entries, profile = in_colours(255 * table[None], colours)
        extra["colormap"] = whole(entries[0], 16).T
        numbers: np.ndarray = index.astype(np.uint8)
    elif kind == "cmyk":
        black = (1 - values).min(-1, keepdims=True) * 0  # no black ink: what is naive and what is not are one then
        numbers, extra = whole(np.concatenate([1 - values, black], -1), bits), {"photometric": "separated"}
    else:
        numbers = whole(values, bits)
        if zero == "white":
            numbers, extra["photometric"] = np.iinfo(numbers.dtype).max - numbers, "miniswhite"
        if "+" in kind:
            alpha = ALPHA
            share = whole(ALPHA / 255, bits)
            if kind.endswith("premultiplied"):
                numbers = (numbers.astype(float) * (ALPHA / 255)[..., None]).round().astype(numbers.dtype)
            numbers = np.concatenate([numbers[..., None] if numbers.ndim == 2 else numbers, share[..., None]], -1)
            extra["extrasamples"] = ["assocalpha" if kind.endswith("premultiplied") else "unassalpha"]
    if planar == "planar":
        numbers, extra["planarconfig"] = np.moveaxis(numbers, -1, 0), "separate"
    elif numbers.ndim == 3:
        extra["planarconfig"] = "contig"
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, numbers, compression=compression, iccprofile=profile, metadata=None, **extra)
    # eight bits of linear light are ten levels apart in the shadows, and the premultiplied ones farther
    coarse = 1 if bits == 16 else {"srgb": 1, "wide": 2, "linear": 4}[colours]
    check(path, true, alpha, within=1.5 * coarse + (3 if kind.endswith("premultiplied") and bits == 8 else 0) + 0.6)


@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("bits, kind", [(8, "rgb"), (16, "rgb"), (16, "grey"), (16, "alpha"), (8, "grey")])
def test_lzw_of_other_programs(tmp_path: Path, bits: int, kind: str, predictor: bool):
    """LZW as libtiff writes it (OpenCV)."""
    import cv2

    true = TRUE.mean(-1) if kind == "grey" else TRUE
    numbers = whole(true / 255, bits)
    if kind == "alpha":
        numbers = np.concatenate([numbers, whole(ALPHA / 255, bits)[..., None]], -1)
    order = [2, 1, 0, 3] if kind == "alpha" else [2, 1, 0]
    flags = [cv2.IMWRITE_TIFF_COMPRESSION, 5, cv2.IMWRITE_TIFF_PREDICTOR, 2 if predictor else 1]
    assert cv2.imwrite(str(tmp_path / "a.tif"), numbers if kind == "grey" else numbers[..., order], flags)
    if kind == "alpha":  # OpenCV does not say what its fourth channel is
        refused(tmp_path / "a.tif", "fourth channel")
    else:
        check(tmp_path / "a.tif", true, within=1)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("zero", ["black", "white"])
def test_tiffs_of_few_bits(tmp_path: Path, bits: int, zero: str):
    levels = (1 << bits) - 1
    numbers = (TRUE[..., 0] / 255 * levels).round().astype(int)
    true = numbers * 255 / levels
    numbers = levels - numbers if zero == "white" else numbers
    packed = np.packbits(
        np.unpackbits(numbers.astype(np.uint8)[..., None], axis=-1)[..., -bits:].reshape(H, -1), axis=1
    )
    write_tiff(tmp_path / "a.tif", packed.tobytes(), bits=bits, photometric=0 if zero == "white" else 1)
    check(tmp_path / "a.tif", true, within=1)


def write_tiff(path: Path, data: bytes, bits: int = 8, photometric: int = 1, samples: int = 1, **tags: int) -> None:
    """A TIFF of one strip, little endian, by hand."""
    values = {256: W, 257: H, 258: bits, 259: 1, 262: photometric, 273: 0, 277: samples, 278: H, 279: len(data)}
    values |= {int(name[1:]): value for name, value in tags.items()}
    values[273] = 8 + 2 + 12 * len(values) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(values.items()))
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(values)) + entries + bytes(4) + data)


@pytest.mark.parametrize(
    "case, message",
    [
        ("twelve bits in sixteen", "12 bits in 16? Multiply by 16"),
        ("twelve bits packed", "12 bits a channel are not read"),
        ("floats", "no whole numbers"),
        ("signed", "no whole numbers"),
        ("32 bits", "32 bits a channel are not read"),
        ("lab", "its colours are of the kind CIELAB"),
        ("log", "its colours are of the kind"),
        ("raw mosaic", "is a camera's raw file"),
        ("thumbnail first", "holds a thumbnail first"),
        ("five inks", "its inks are not cyan"),
        ("no strips", ""),
        ("strips beyond the end", ""),
    ],
)
def test_tiffs_whose_meaning_is_not_known_are_refused(tmp_path: Path, case: str, message: str):
    path = tmp_path / "a.tif"
    deep = whole(TRUE / 255, 16)
    if case == "twelve bits in sixteen":
        tifffile.imwrite(path, deep >> 4, photometric="rgb", metadata=None)
    elif case == "twelve bits packed":
        write_tiff(path, bytes(H * W * 3 // 2), bits=12)
    elif case == "floats":
        tifffile.imwrite(path, (TRUE / 255).astype(np.float32), photometric="rgb", metadata=None)
    elif case == "signed":
        tifffile.imwrite(path, (deep >> 1).astype(np.int16), photometric="rgb", metadata=None)
    elif case == "32 bits":
        tifffile.imwrite(path, deep.astype(np.uint32) << 16, photometric="rgb", metadata=None)
    elif case == "lab":
        tifffile.imwrite(path, whole(TRUE / 255, 8), photometric="cielab", metadata=None)
    elif case == "log":
        write_tiff(path, bytes(H * W * 2), bits=16, photometric=32844)
    elif case == "raw mosaic":
        write_tiff(path, bytes(H * W * 2), bits=16, photometric=32803)
    elif case == "thumbnail first":
        write_tiff(path, bytes(H * W), t254=1)
    elif case == "five inks":
        inks = np.full((H, W, 5), 90, np.uint8)
        tifffile.imwrite(path, inks, photometric="separated", metadata=None, extratags=[(332, 3, 1, 2, True)])
    elif case == "no strips":
        write_tiff(path, b"", t279=0)
    elif case == "strips beyond the end":
        write_tiff(path, bytes(10), t279=H * W)
    refused(path, message)


# --- PNG


def png(pixels: np.ndarray, chunks: dict[bytes, bytes] | None = None, kind: int = 2, bits: int = 8) -> bytes:
    """A PNG by hand, so that it says of its colours what we like."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = pixels.shape[:2]
    rows = pixels.astype(f">u{bits // 8}").reshape(height, -1).view(np.uint8)
    data = zlib.compress(np.concatenate([np.zeros((height, 1), np.uint8), rows], 1).tobytes())
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    named = b"".join(chunk(name, body) for name, body in (chunks or {}).items())
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + named + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def gama(gamma: float) -> bytes:
    return struct.pack(">I", round(100000 * gamma))


def chrm(primaries: str) -> bytes:
    red, green, blue, white = PRIMARIES[primaries]
    return struct.pack(">8I", *(round(100000 * v) for pair in (white, red, green, blue) for v in pair))


def iccp(profile: bytes) -> bytes:
    return b"a\0\0" + zlib.compress(profile)


PNGS: dict[str, tuple[str, dict[bytes, bytes]]] = {
    "nothing said": ("srgb", {}),
    "sRGB": ("srgb", {b"sRGB": b"\0"}),
    "sRGB goes before gamma": ("srgb", {b"sRGB": b"\0", b"gAMA": gama(1.0)}),
    "the usual gamma": ("srgb", {b"gAMA": gama(0.45455)}),
    "the usual gamma and primaries": ("srgb", {b"gAMA": gama(0.45455), b"cHRM": chrm("srgb")}),
    "linear gamma": ("linear", {b"gAMA": gama(1.0)}),
    "linear gamma and primaries": ("linear", {b"gAMA": gama(1.0), b"cHRM": chrm("srgb")}),
    "wide gamma": ("wide", {b"gAMA": gama(256 / 563), b"cHRM": chrm("adobe")}),
    "linear profile": ("linear", {b"iCCP": iccp(icc(1.0))}),
    "wide profile": ("wide", {b"iCCP": iccp(icc(563 / 256, "adobe"))}),
    "a profile goes before gamma": ("linear", {b"iCCP": iccp(icc(1.0)), b"gAMA": gama(0.45455)}),
    "linear code points": ("linear", {b"cICP": bytes([1, 8, 0, 1])}),
    "sRGB code points go before a profile": ("srgb", {b"cICP": bytes([1, 13, 0, 1]), b"sRGB": b"\0"}),
}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", PNGS)
def test_what_pngs_say_of_their_colours(tmp_path: Path, bits: int, name: str):
    colours, chunks = PNGS[name]
    values, _ = in_colours(TRUE, colours)
    (tmp_path / "a.png").write_bytes(png(whole(values, bits), chunks, bits=bits))
    check(tmp_path / "a.png", within=7 if colours == "linear" and bits == 8 else 2)
    share = whole(ALPHA / 255, bits)[..., None]
    (tmp_path / "b.png").write_bytes(png(np.concatenate([whole(values, bits), share], -1), chunks, kind=6, bits=bits))
    check(tmp_path / "b.png", alpha=ALPHA, within=7 if colours == "linear" and bits == 8 else 2)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colours", ["srgb", "linear"])
@pytest.mark.parametrize("alpha", [False, True])
def test_grey_pngs(tmp_path: Path, bits: int, colours: str, alpha: bool):
    true = TRUE.mean(-1)
    values, profile = in_colours(true, colours)
    numbers = whole(values, bits)
    if alpha:
        numbers = np.stack([numbers, whole(ALPHA / 255, bits)], -1)
    chunks = {b"iCCP": iccp(profile)} if profile else {}
    (tmp_path / "a.png").write_bytes(png(numbers, chunks, kind=4 if alpha else 0, bits=bits))
    check(tmp_path / "a.png", true, ALPHA if alpha else None, within=4 if bits == 8 and profile else 1)


@pytest.mark.parametrize(
    "chunks, message",
    [
        ({b"cICP": bytes([9, 16, 0, 1])}, "high dynamic range"),
        ({b"cICP": bytes([9, 18, 0, 1])}, "high dynamic range"),
        ({b"cICP": bytes([99, 13, 0, 1])}, "primaries 99"),
        ({b"gAMA": gama(0.001)}, "a gamma of 0.001"),
        ({b"gAMA": gama(1.0), b"cHRM": bytes(32)}, "primaries that no light has"),
    ],
)
def test_pngs_whose_colours_are_not_known_are_refused(tmp_path: Path, chunks: dict[bytes, bytes], message: str):
    (tmp_path / "a.png").write_bytes(png(whole(TRUE / 255, 8), chunks))
    told = refused(tmp_path / "a.png", message)
    assert "save it in sRGB" in told


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", ["L", "P"])
def test_pngs_of_few_bits(tmp_path: Path, bits: int, mode: str):
    levels = (1 << bits) - 1
    index = (TRUE[..., 0] / 255 * levels).round().astype(np.uint8)
    packed = np.packbits(np.unpackbits(index[..., None], axis=-1)[..., -bits:].reshape(H, -1), axis=1)
    chunks, true = {}, index * (255 / levels)
    if mode == "P":
        table = np.random.default_rng(0).integers(0, 256, (levels + 1, 3), dtype=np.uint8)
        chunks, true = {b"PLTE": table.tobytes()}, table[index].astype(float)
    content = png(packed, chunks, kind=3 if mode == "P" else 0)
    header = struct.pack(">IIBBBBB", W, H, bits, 3 if mode == "P" else 0, 0, 0, 0)
    start = content.index(b"IHDR") + 4
    content = content[:start] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + content[start + 17 :]
    (tmp_path / "a.png").write_bytes(content)
    check(tmp_path / "a.png", true, within=1)


def test_deep_pngs_of_fewer_bits_or_one_transparent_colour_are_refused(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(png(whole(TRUE / 255, 16) >> 4, bits=16))
    refused(tmp_path / "a.png", "12 bits in 16? Multiply by 16")
    (tmp_path / "a.png").write_bytes(png(whole(TRUE / 255, 16)[..., 0] >> 6, kind=0, bits=16))
    refused(tmp_path / "a.png", "10 bits in 16? Multiply by 64")
    (tmp_path / "a.png").write_bytes(png(whole(TRUE / 255, 16), {b"tRNS": bytes(6)}, bits=16))
    refused(tmp_path / "a.png", "one transparent colour")


# --- JPEG, WebP, AVIF, GIF, BMP


@pytest.mark.parametrize("suffix", ["jpg", "webp", "avif"])
@pytest.mark.parametrize("colours", ["srgb", "linear", "wide"])
def test_other_kinds_with_a_profile(tmp_path: Path, suffix: str, colours: str):
    values, profile = in_colours(TRUE, colours)
    image = Image.fromarray(whole(values, 8))
    extra: dict[str, Any] = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(suffix, {})
    extra = extra or {"quality": 100, "subsampling": "4:4:4"}
    image.save(tmp_path / f"a.{suffix}", icc_profile=profile, **extra)
    check(tmp_path / f"a.{suffix}", within=12 if colours == "linear" else 7)
    image.putalpha(Image.fromarray(whole(ALPHA / 255, 8)))
    if suffix != "jpg":
        image.save(tmp_path / f"b.{suffix}", icc_profile=profile, **extra)
        check(tmp_path / f"b.{suffix}", alpha=ALPHA, within=12 if colours == "linear" else 7)


def avif(**settings: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(whole(TRUE / 255, 8)).save(buffer, "AVIF", quality=100, subsampling="4:4:4", **settings)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "transfer, message", [(16, "high dynamic range"), (18, "high dynamic range"), (99, "curve 99")]
)
def test_avifs_of_high_range_are_refused(tmp_path: Path, transfer: int, message: str):
    content = bytearray(avif())
    place = content.index(b"colrnclx") + 8
    content[place : place + 4] = struct.pack(">HH", 9, transfer)
    (tmp_path / "a.avif").write_bytes(content)
    refused(tmp_path / "a.avif", message)


@pytest.mark.parametrize("ycck", [False, True])
def test_cmyk_jpegs(tmp_path: Path, caplog: pytest.LogCaptureFixture, ycck: bool):
    """Adobe's are inverted, and say so; others are not believed."""
    inks = np.concatenate([1 - TRUE / 255, np.zeros((H, W, 1))], -1)
    buffer = io.BytesIO()
    Image.frombytes("CMYK", (W, H), whole(inks, 8).tobytes()).save(buffer, "JPEG", quality=100, subsampling=0)
    content = buffer.getvalue()
    assert b"Adobe" in content
    (tmp_path / "a.jpg").write_bytes(content)
    logging.getLogger("pmv").propagate = True
    check(tmp_path / "a.jpg", within=6)
    assert "no profile of its inks" in caplog.text
    place = content.index(b"\xff\xee")
    length = int.from_bytes(content[place + 2 : place + 4], "big")
    (tmp_path / "a.jpg").write_bytes(content[:place] + content[place + 2 + length :])
    refused(tmp_path / "a.jpg", "does not say whether its inks are inverted")


def test_a_camera_that_says_adobe_rgb_in_exif_alone_is_believed(tmp_path: Path):
    values, _ = in_colours(TRUE, "wide")
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 0xFFFF
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    Image.fromarray(whole(values, 8)).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    check(tmp_path / "a.jpg", within=7)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "avif", "deep.png", "deep.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_every_kind(tmp_path: Path, suffix: str, orientation: int):
    stored = {
        1: TRUE,
        2: TRUE[:, ::-1],
        3: TRUE[::-1, ::-1],
        4: TRUE[::-1],
        5: TRUE.transpose(1, 0, 2),
        6: np.rot90(TRUE),
        7: np.rot90(TRUE[::-1, ::-1].transpose(1, 0, 2), 0),
        8: np.rot90(TRUE, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    if suffix == "deep.tif":
        tag = (274, 3, 1, orientation, True)
        tifffile.imwrite(path, whole(stored / 255, 16), photometric="rgb", metadata=None, extratags=[tag])
    elif suffix == "deep.png":
        path.write_bytes(png(whole(stored / 255, 16), {b"eXIf": exif.tobytes()[6:]}, bits=16))
    else:
        extra: dict[str, Any] = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(suffix, {})
        Image.fromarray(whole(stored / 255, 8)).save(path, exif=exif, **extra)
    check(path, within=30 if suffix == "avif" else 5)


def test_damaged_profiles_and_exif_are_said_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    logging.getLogger("pmv").propagate = True
    image = Image.fromarray(whole(TRUE / 255, 8))
    image.save(tmp_path / "a.png", icc_profile=icc(1.0)[:100])
    check(tmp_path / "a.png")
    assert "a.png: has a damaged colour profile; its colours are taken as sRGB" in caplog.text
    inks = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    image.save(tmp_path / "b.png", icc_profile=inks)
    check(tmp_path / "b.png")
    assert "which does not fit it" in caplog.text


# --- files that are made to harm


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
