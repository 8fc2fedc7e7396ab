"""A picture's file → upright pixels in sRGB, right or refused.

The kind of a file is told from its first bytes, never from its name, and only the kinds of `_KINDS` are opened, none of
which starts a program. How much memory a picture will take is known from its header, before anything is decoded; what
one decoder refuses no other is asked for. Whatever a decoder may raise becomes one line that names the file.
"""

import importlib
import logging
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import tifffile
from PIL import Image

from pmv.errors import InputError, shown
from pmv.pictures.colours import Profile, Space, UnknownColours, adobe_rgb, space_of_codes, space_of_gamma

log = logging.getLogger("pmv")
_cv2_log: Any = getattr(cv2.utils, "logging", cv2)  # OpenCV 5 keeps its log's level there, OpenCV 4 at the top

MOST_BYTES = 1_600_000_000
"""Memory that decoding a picture may take: 200 megapixels of 8 bits, 100 of 16."""
_MOST_FILE = 1_200_000_000
_MOST_CHUNKS = 2000  # of a PNG, but for its pixels
_MOST_SCANS = 100  # of a progressive JPEG; honest ones have about ten
_NEARLY_BLACK = 1 << 14  # 16-bit values that all lie below are of fewer bits
_INFLATED = 1032  # deflate makes at most so much of a byte

_KINDS = {
    "PNG": 8,
    "JPEG": 8,
    "GIF": 8,
    "BMP": 8,
    "WEBP": 16,
    "AVIF": 12,
    "HEIF": 12,
    "TIFF": 8,
}
"""Kinds that are opened, and the bytes that a pixel takes at most while one of 8 bits is decoded."""
_OTHER_KINDS = (
    (b"%!PS", "a PostScript file"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript file"),
    (b"%PDF", "a PDF file"),
    (b"8BPS", "a Photoshop file"),
    (b"DDS ", "a DDS texture"),
    (b"BLP", "a BLP texture"),
    (b"\x00\x00\x00\x0cjP", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\x00\x00\x00\x0cJXL", "a JPEG XL picture"),
    (b"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (b"#?R", "a Radiance picture"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML file"),
    (b"\x00\x00\x01\x00", "an icon"),
    (b"FUJIFILMCCD-RAW", "a camera's raw file"),
)
_MEND = "save it as PNG or JPEG"
_GREYS = ("1", "L", "LA", "La")


@dataclass(frozen=True)
class Decoded:
    """A picture.

    Attributes:
        pixels: uint8 or uint16 [H,W,3], sRGB, not premultiplied.
        alpha: of the same type, [H,W]; None where the file has none.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None


class _Refused(ValueError):
    """What is wrong with a file, and the mend, without its name."""


def decode(path: str | Path) -> Decoded:
    """Read a picture: grey, palette, RGB or CMYK, with or without alpha, of 8 or 16 bits; of an animation the first
    frame.

    Raises:
        InputError: the file is missing, no regular file, empty, damaged, of another kind, too large, of colours or
            numbers whose meaning is not known, or has an edge of one pixel.
    """
    path = Path(path)
    try:
        with _regular(path) as file, _quiet():
            decoded = _decode(path, file)
    except _Refused as error:
        raise InputError(f"{path}: {error}") from error
    except UnknownColours as error:
        raise InputError(f"{path}: its colours cannot be brought to sRGB: {error}; save it in sRGB") from error
    except MemoryError as error:
        raise InputError(f"{path}: takes more memory than there is; give a smaller picture") from error
    except Exception as error:  # decoders raise anything
        reason = shown(" ".join(str(error).split()) or type(error).__name__)
        raise InputError(f"{path}: cannot be read as an image ({reason}); {_MEND}") from error
    height, width = decoded.pixels.shape[:2]
    if min(height, width) < 2:
        raise InputError(f"{path}: only {width}×{height} pixels; give a larger image")
    return decoded


@contextmanager
def _quiet() -> Iterator[None]:
    """What decoders say of every damaged entry of a file stays unsaid: there may be tens of thousands."""
    reader, before = logging.getLogger("tifffile"), _cv2_log.getLogLevel()
    level = reader.level
    reader.setLevel(logging.CRITICAL + 1)
    _cv2_log.setLogLevel(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        reader.setLevel(level)
        _cv2_log.setLogLevel(before)


@contextmanager
def _regular(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file of a size that a picture may have, without waiting for anybody who writes to it."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError as error:
        raise _Refused("no such image") from error
    except OSError as error:
        raise _Refused(f"cannot be opened ({error.strerror})") from error
    about = os.fstat(handle)
    if stat.S_ISDIR(about.st_mode):
        os.close(handle)
        raise _Refused("is a folder; give an image file, or one that pmv prepare wrote")
    with open(handle, "rb") as file:
        if not stat.S_ISREG(about.st_mode):
            raise _Refused("is no regular file; give an image file")
        if about.st_size == 0:
            raise _Refused("the image file is empty")
        if about.st_size > _MOST_FILE:
            raise _Refused(f"{about.st_size / 1e9:.1f} GB are too many for a photo; {_MEND}")
        yield file


def _kind(start: bytes) -> str:
    """The kind of a file, of `_KINDS`, from its first bytes."""
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if start.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if start.startswith(b"BM"):
        return "BMP"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") and start[8:10] != b"CR":
        return "TIFF"
    if start[4:8] == b"ftyp":
        brands = start[8 : min(len(start), max(16, int.from_bytes(start[:4], "big")))]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        if any(brand in brands for brand in (b"hei", b"hev", b"mif1", b"msf1")):
            return "HEIF"
        if b"crx" in brands:
            raise _Refused(f"is a camera's raw file, which pmv does not open; develop it, and {_MEND}")
    if start[:4] in (b"II*\0", b"MM\0*", b"IIU\0", b"IIRO"):
        raise _Refused(f"is a camera's raw file, which pmv does not open; develop it, and {_MEND}")
    for first, what in _OTHER_KINDS:
        if start.lstrip().startswith(first):
            raise _Refused(f"is {what}, which pmv does not open; {_MEND}")
    raise _Refused(f"cannot be read as an image (it begins like none); {_MEND}")


def _decode(path: Path, file: BinaryIO) -> Decoded:
    start = file.read(64)
    kind = _kind(start)
    file.seek(0)
    if kind == "TIFF":
        return _tiff(path, file)
    deep, space = False, None
    if kind == "PNG":
        deep, codes = _png_chunks(file)
        space = space_of_codes(*codes) if codes else None
    elif kind == "JPEG":
        _check_scans(file)
    elif kind == "BMP":
        _check_bmp(file)
    file.seek(0)
    image = _opened(path, file, kind)
    _check_size(image.width, image.height, _KINDS[kind] * (2 if deep else 1))
    is_raw_cmyk = kind == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info
    if is_raw_cmyk:
        raise _Refused(f"is a CMYK JPEG that does not say whether its inks are inverted; {_MEND} in RGB")
    if deep and image.info.get("transparency") is not None:
        raise _Refused("is a 16-bit PNG with one transparent colour; save it with an alpha channel")
    image.load()
    if kind in ("AVIF", "HEIF") and "icc_profile" not in image.info:
        space = _coded_space(file)
    colours = _colours(path, image, space)
    upright = _orientation(path, image)
    if deep and image.mode in ("RGB", "RGBA", "LA"):
        file.seek(0)
        return _finished(path, *_with_opencv(file.read()), colours, upright)
    pixels, alpha = _with_pillow(path, image, colours)
    image.close()
    return _finished(path, pixels, alpha, colours, upright)


def _check_size(width: int, height: int, bytes_a_pixel: float) -> None:
    if width * height * bytes_a_pixel > MOST_BYTES:
        most = MOST_BYTES / bytes_a_pixel / 1e6
        raise _Refused(f"{width}×{height} pixels are too many: at most {most:.0f} megapixels of this kind; shrink it")


# --- what Pillow opens


def _opened(path: Path, file: BinaryIO, kind: str) -> Image.Image:
    if kind == "HEIF":
        try:
            importlib.import_module("pillow_heif").register_heif_opener()
        except ImportError as error:
            raise _Refused("HEIC needs one more package; pip install pillow-heif, or save it as JPEG") from error
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None  # `_check_size` knows better
    try:
        return Image.open(file, formats=[kind])
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _orientation(path: Path, image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 where there is none, or none that can be read."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF makes Pillow raise anything
        log.warning("%s: its EXIF data are damaged; it is taken as upright", path)
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """[H,W] or [H,W,C] as a picture with this EXIF orientation is to be seen."""
    turns = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0)  # quarters, counter-clockwise
    turned = np.rot90(pixels, turns)
    return turned[:, ::-1] if orientation in (2, 4) else turned[::-1] if orientation in (5, 7) else turned


def _colours(path: Path, image: Image.Image, coded: Space | None) -> Profile | Space | None:
    """What a picture's colours are of; None = sRGB. A profile goes before a gamma, as PNG has it."""
    info = image.info
    if coded is not None:
        return coded
    if info.get("icc_profile"):
        return _profile(path, info["icc_profile"])
    if "srgb" not in info and "gamma" in info:
        return space_of_gamma(float(info["gamma"]), info.get("chromaticity"))
    if image.mode == "RGB" and _says_adobe_rgb(image):
        return adobe_rgb()
    return None


def _says_adobe_rgb(image: Image.Image) -> bool:
    """Whether EXIF says Adobe RGB, as cameras do that write no profile (DCF 2.0: interoperability index R03)."""
    if "exif" not in image.info:
        return False
    try:
        return image.getexif().get_ifd(0xA005).get(1) == "R03"
    except Exception:  # damaged; `_orientation` says so
        return False


def _profile(path: Path, content: bytes) -> Profile | None:
    try:
        profile = Profile(content)
        return None if profile.is_srgb() else profile
    except UnknownColours as error:
        log.warning("%s: has %s; its colours are taken as sRGB", path, error)
        return None


def _with_pillow(
    path: Path, image: Image.Image, colours: Profile | Space | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels and alpha of a picture that Pillow has loaded; a profile is applied where it has 8 bits."""
    mode, (width, height) = image.mode, image.size
    if mode in ("I;16", "I;16L", "I;16B"):
        return np.asarray(image).astype(np.uint16), None
    if mode in ("I", "F") or mode.startswith("I;"):
        raise _Refused("its values are no 8 or 16 bits, and what is white is not known; save it as an 8 or 16 bit PNG")
    if mode in ("LAB", "HSV"):
        raise _Refused(f"its colours are {mode}; {_MEND} in RGB")
    profile = colours if isinstance(colours, Profile) else None
    if profile is not None and not profile.fits("CMYK" if mode == "CMYK" else "GRAY" if mode in _GREYS else "RGB"):
        log.warning("%s: has a colour profile of %s, which does not fit it; it is left out", path, profile.channels)
        profile = None
    if mode == "CMYK" and profile is None:
        log.warning("%s: has no profile of its inks; its colours are a guess", path)
    pixels = np.empty((height, width, 3), np.uint8)
    alpha = np.empty((height, width), np.uint8) if image.has_transparency_data else None
    rows = max(1, (1 << 24) // width)
    for top in range(0, height, rows):  # a copy of the whole would take half as much memory again
        piece = image.crop((0, top, width, min(top + rows, height)))
        if alpha is not None:
            piece = piece.convert("RGBA")  # undoes premultiplied alpha as well
            alpha[top : top + rows] = np.asarray(piece.getchannel("A"))
        pixels[top : top + rows] = np.asarray(profile.convert(piece) if profile else piece.convert("RGB"))
    return pixels, alpha


def _with_opencv(content: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels [H,W,3] and alpha of a picture of 16 bits, as the file has them."""
    values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16:
        raise _Refused(f"cannot be read as a picture of 16 bits; {_MEND}")
    if values.ndim == 2:
        return values, None
    if values.shape[2] not in (3, 4):
        raise _Refused(f"has {values.shape[2]} channels; {_MEND}")
    return values[:, :, 2::-1], values[:, :, 3] if values.shape[2] == 4 else None


def _finished(
    path: Path,
    pixels: np.ndarray,
    alpha: np.ndarray | None,
    colours: Profile | Space | None,
    orientation: int,
) -> Decoded:
    """Pixels [H,W] or [H,W,3] in sRGB and upright."""
    if pixels.dtype == np.uint16:
        pixels = _deep_in_srgb(pixels, colours)
    elif isinstance(colours, Space):
        pixels = colours.convert(pixels)
    if pixels.ndim == 2:
        pixels = np.broadcast_to(pixels[:, :, None], (*pixels.shape, 3))
    upright = np.ascontiguousarray(_upright(pixels, orientation))
    return Decoded(upright, None if alpha is None else np.ascontiguousarray(_upright(alpha, orientation)))


def _deep_in_srgb(pixels: np.ndarray, colours: Profile | Space | None) -> np.ndarray:
    most = int(pixels.max())
    if 0 < most < _NEARLY_BLACK:
        bits = most.bit_length()
        raise _Refused(
            f"its 16-bit values go no higher than {most}: {bits} bits in 16? Multiply by {1 << (16 - bits)}, or save "
            "it with 8"
        )
    if isinstance(colours, Profile):
        space = colours.space()
        if space is None and colours.is_steep():
            raise _Refused("its 16 bits have a colour profile that pmv cannot apply; save it in sRGB")
        if space is None:
            eight = Image.fromarray((pixels / np.float32(257)).round().astype(np.uint8))
            return np.asarray(colours.convert(eight)).astype(np.uint16) * 257
        colours = space
    return pixels if colours is None else colours.convert(pixels)


# --- what has to be looked at before


def _png_chunks(file: BinaryIO) -> tuple[bool, tuple[int, int] | None]:
    """Whether a PNG has 16 bits a channel, and its colour primaries and transfer curve (cICP)."""
    file.seek(8)
    deep, codes = False, None
    for count in range(1 << 62):
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            break
        length, name = struct.unpack(">I4s", head)
        if name == b"IDAT":
            break  # what comes after it tells nothing that is read
        if count > _MOST_CHUNKS:
            raise _Refused(f"holds thousands of notes before its pixels; {_MEND} again")
        content = file.read(min(length, 13))
        deep = deep or (name == b"IHDR" and content[8:9] == b"\x10")
        if name == b"cICP" and len(content) >= 4:
            codes = content[0], content[1]
        file.seek(length - len(content) + 4, os.SEEK_CUR)
    return deep, codes


def _check_scans(file: BinaryIO) -> None:
    """A progressive JPEG may have a scan for each twenty bytes, and each goes over all of the picture."""
    scans, before = 0, b""
    while block := file.read(1 << 20):
        scans += (before + block).count(b"\xff\xda")
        before = block[-1:]
    if scans > _MOST_SCANS:
        raise _Refused(f"has {scans} scans, where an honest JPEG has ten; {_MEND} again")


def _check_bmp(file: BinaryIO) -> None:
    """Bitmaps may hold or name a colour profile, which Pillow does not read."""
    start = file.read(74)
    if len(start) >= 74 and start[14] >= 108 and start[70:74] in (b"DEBM", b"KNIL"):
        raise _Refused(f"is a bitmap with a colour profile; {_MEND}")


def _coded_space(file: BinaryIO) -> Space | None:
    """Primaries and transfer curve that an AVIF or HEIF names."""
    file.seek(0)
    start = file.read(1 << 16)
    place = start.find(b"colrnclx")
    if place < 0 or place + 12 > len(start):
        return None
    return space_of_codes(*struct.unpack(">HH", start[place + 8 : place + 12]))


# --- TIFF

_PALETTE, _CMYK = 3, 5


def _tiff(path: Path, file: BinaryIO) -> Decoded:
    """The first picture of a TIFF: by Pillow where it knows its layout (8 bits and less, interleaved), by tifffile
    where it is not compressed or by deflate, by OpenCV of 16 bits otherwise."""
    with tifffile.TiffFile(file, name=path.name) as tiff:
        page: Any = tiff.pages.first
        tags: Mapping[int, Any] = {
            code: page.tags[code].value for code in (274, 34675, 320, 332, 338, 339) if code in page.tags
        }
        raw = page.photometric in (32803, 34892) or 50706 in page.tags or bool(page.subfiletype & 1)
        bits, planes = page.bitspersample, page.samplesperpixel
        width, height = page.imagewidth, page.imagelength
        photometric = int(page.photometric)
        chunky = page.planarconfig == 1 or planes == 1
        compression, kinds = int(page.compression), tags.get(339, 1)
        if raw:
            raise _Refused(f"is a camera's raw file, or holds a thumbnail first; develop it, and {_MEND}")
        if set(np.atleast_1d(kinds).tolist()) - {1, 4}:
            raise _Refused("its values are no whole numbers, and what is white is not known; save it with 8 or 16 bits")
        if photometric not in (0, 1, 2, _PALETTE, _CMYK, 6):
            raise _Refused(
                f"its colours are of the kind {getattr(page.photometric, 'name', photometric)}; {_MEND} in RGB"
            )
        cell = max(1, page.tilewidth * page.tilelength)  # one tile may be larger than the picture
        _check_size(max(width, cell // max(1, height)), height, _KINDS["TIFF"] + (2 + bits // 8) * planes)
        colours = _profile(path, bytes(tags[34675])) if 34675 in tags else None
        orientation = tags.get(274, 1)
        orientation = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
        if photometric == _CMYK and tags.get(332, 1) != 1:
            raise _Refused(f"its inks are not cyan, magenta, yellow and black; {_MEND} in RGB")
        plain = compression in (1, 8, 32946)
        # what Pillow takes for something else: separate planes, and grey with alpha whose zero is white
        special = not chunky or (photometric == 0 and planes > 1)
        if bits in (8, 16) and plain and (bits == 16 or special):
            if compression != 1:
                _check_inflated(page, file)
            values = page.asarray()
            values = values if chunky else np.moveaxis(values, 0, -1)
            return _finished(path, *_tiff_channels(path, values, photometric, tags, colours), colours, orientation)
    file.seek(0)
    if bits == 16 and chunky and photometric in (1, 2) and planes in (1, 3, 4):
        if planes == 4 and np.atleast_1d(tags.get(338, 0))[0] != 2:
            raise _Refused(f"has a fourth channel of 16 bits that is no plain alpha; {_MEND}")
        return _finished(path, *_with_opencv(file.read()), colours, orientation)
    if bits > 8 or special:
        raise _Refused(f"{bits} bits a channel are not read in this layout of a TIFF; save it uncompressed, or as PNG")
    image = _opened(path, file, "TIFF")
    if photometric == _CMYK and image.mode != "CMYK":
        raise _Refused(f"has more channels than four inks; {_MEND} in RGB")
    image.load()  # Pillow turns a TIFF upright itself
    return _finished(path, *_with_pillow(path, image, colours), colours, 1)


def _tiff_channels(
    path: Path, values: np.ndarray, photometric: int, tags: Mapping[int, Any], colours: Profile | Space | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels [H,W] or [H,W,3] and alpha [H,W] of a page's own numbers."""
    top = np.iinfo(values.dtype).max
    values = values[:, :, None] if values.ndim == 2 else values
    count = {0: 1, 1: 1, _PALETTE: 1, _CMYK: 4}.get(photometric, 3)
    if values.shape[2] < count:
        raise _Refused(f"has {values.shape[2]} channels where {count} belong; {_MEND}")
    colour, rest = values[:, :, :count], values[:, :, count:]
    alpha, kind = None, int(np.atleast_1d(tags.get(338, 0))[0])
    if rest.shape[2] and kind in (1, 2):
        alpha = np.ascontiguousarray(rest[:, :, 0])
        if kind == 1 and photometric not in (1, 2):
            raise _Refused(f"its colours are premultiplied in a way that is not known; {_MEND}")
        if kind == 1:
            shares = np.maximum(alpha, 1).astype(np.float32)[:, :, None] / top
            colour = np.clip((colour / shares).round(), 0, top).astype(colour.dtype)
    if photometric == 0:
        colour = top - colour
    elif photometric == _PALETTE:
        table = np.asarray(tags[320], np.uint16).reshape(3, -1).T
        colour = table[np.minimum(colour[:, :, 0], len(table) - 1)]
        colour = colour if values.dtype == np.uint16 else (colour >> 8).astype(np.uint8)
    elif photometric == _CMYK:
        colour = colour if colour.dtype == np.uint8 else (colour / np.float32(257)).round().astype(np.uint8)
    if colour.dtype == np.uint8:
        mode = {1: "L", 3: "RGB", 4: "CMYK"}[colour.shape[2]]
        flat = colour[:, :, 0] if mode == "L" else colour
        image = Image.frombytes(mode, flat.shape[1::-1], np.ascontiguousarray(flat).tobytes())
        colour, _ = _with_pillow(path, image, colours)
        if alpha is not None and alpha.dtype != np.uint8:
            alpha = (alpha / np.float32(257)).round().astype(np.uint8)
    return (colour[:, :, 0] if colour.shape[2] == 1 else colour), alpha


def _check_inflated(page: Any, file: BinaryIO) -> None:
    """Refuse strips and tiles that inflate to more than they hold; only what is small is believed unread."""
    size = sum(page.databytecounts)
    if size * _INFLATED <= MOST_BYTES:
        return
    rows = page.tilelength or page.rowsperstrip or page.imagelength
    columns = page.tilewidth or page.imagewidth
    planes = page.samplesperpixel if page.planarconfig == 1 else 1
    most = min(rows, max(page.imagelength, page.tilelength)) * columns * planes * page.bitspersample // 8
    for offset, count in zip(page.dataoffsets, page.databytecounts):
        file.seek(offset)
        left, inflater, made = count, zlib.decompressobj(), 0
        while left > 0 and not inflater.eof:
            block = file.read(min(left, 1 << 16))
            left -= len(block)
            if not block:
                break
            made += len(inflater.decompress(block, most + 1 - made))
            if made > most or inflater.unconsumed_tail:
                raise _Refused("inflates to more than its picture; it is damaged, or made to fill the memory")
