"""One true picture, and how tests write it in the ways that files know; and what must come of reading one."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pmv.errors import InputError
from pmv.pictures.colours import PRIMARIES, Space, power_curve, srgb_curve
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


def write_tiff(path: Path, data: bytes, bits: int = 8, photometric: int = 1, samples: int = 1, **tags: int) -> None:
    """A TIFF of one strip, little endian, by hand."""
    values = {256: W, 257: H, 258: bits, 259: 1, 262: photometric, 273: 0, 277: samples, 278: H, 279: len(data)}
    values |= {int(name[1:]): value for name, value in tags.items()}
    values[273] = 8 + 2 + 12 * len(values) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(values.items()))
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(values)) + entries + bytes(4) + data)


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


def avif(**settings: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(whole(TRUE / 255, 8)).save(buffer, "AVIF", quality=100, subsampling="4:4:4", **settings)
    return buffer.getvalue()
