"""Decoders: right or refused, never silently wrong. One true picture is written in every way that files know; what is
read is that picture, or one line.
"""

import io
import itertools
import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from tests.pmv.pictures.picture_files import (
    ALPHA,
    TRUE,
    H,
    W,
    avif,
    check,
    chrm,
    gama,
    icc,
    iccp,
    in_colours,
    png,
    refused,
    whole,
    write_tiff,
)

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
