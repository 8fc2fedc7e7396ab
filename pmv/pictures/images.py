"""Images on disk ↔ tensors: float32 ``[1,3,H,W]`` in [-1,1], masks float32 ``[1,1,H,W]`` in [0,1]."""

import importlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from pmv.errors import InputError
from pmv.files.artifacts import atomic_path

MOST_PIXELS = 400_000_000
"""Pictures beyond this are refused: decoded, they would be larger than 1.2 GB."""


@contextmanager
def _large_images() -> Iterator[None]:
    """Let Pillow open up to `MOST_PIXELS` without a word, and refuse more."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # Pillow warns beyond this and refuses beyond twice as many
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _open(path: str | Path) -> Image.Image:
    """Decode any file that Pillow can read (of an animation the first frame), upright by its EXIF orientation, in
    sRGB where it carries another colour profile.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such image")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give an image file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the image file is empty")
    heif = path.suffix.lower() in (".heic", ".heif")
    if heif:
        with suppress(ImportError):
            importlib.import_module("pillow_heif").register_heif_opener()
    try:
        with _large_images(), Image.open(path) as image:
            image.load()
            profile = image.info.get("icc_profile")
            image = ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        deep = _open_with_opencv(path)
        if deep is not None:
            return deep
        reason = " ".join(str(error).split()) or type(error).__name__
        mend = "pip install pillow-heif, or save it as JPEG" if heif else "save it as PNG or JPEG"
        raise InputError(f"{path}: cannot be read as an image ({reason}); {mend}") from error
    if min(image.size) < 2:
        raise InputError(f"{path}: only {image.width}×{image.height} pixels; give a larger image")
    return _in_srgb(image, profile) if profile else image


def _open_with_opencv(path: Path) -> Image.Image | None:
    """What Pillow cannot decode and OpenCV can: colour TIFFs of 16 bits a channel."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    try:
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if pixels is None else Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1]))


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """8-bit colours brought from the file's profile to sRGB; a profile that cannot be used changes nothing."""
    base = {"RGBA": "RGB", "LA": "L", "P": "RGB", "RGBX": "RGB"}.get(image.mode, image.mode)
    if base not in ("RGB", "CMYK", "L", "LAB"):
        return image
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return image
        colours = image if image.mode == base else image.convert(base)
        converted = ImageCms.profileToProfile(colours, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    if converted is None:
        return image
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _grey_as_float(image: Image.Image, path: str | Path) -> np.ndarray:
    """16-bit and float greys as float32 ``[H,W]`` in [0,1]: Pillow's own conversion to 8 bits would clip them."""
    values = np.asarray(image).astype(np.float32)
    if image.mode != "F":
        values /= 65535.0
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise InputError(f"{path}: its {image.mode} values lie outside the known range; save it as an 8 or 16 bit PNG")
    return values


def read_bytes(path: str | Path) -> tuple[Tensor, Tensor | None]:
    """Read a picture of any mode (grey, palette, CMYK, 16 bit, with or without alpha) and size, upright by EXIF.

    It stays bytes: a photo of 100 megapixels takes 300 MB so, and 1.2 GB as floats.

    Returns:
        image uint8 ``[1,3,H,W]``, sRGB, not premultiplied; and the alpha channel uint8 ``[1,1,H,W]``, or None where
        the file has none or is opaque everywhere. Rows of pixels are contiguous in memory (channels last).

    Raises:
        InputError: the file is missing, a folder, empty, damaged, too large, or has an edge of one pixel.
    """
    image = _open(path)
    if image.mode.startswith("I") or image.mode == "F":
        grey = (_grey_as_float(image, path) * 255).round().astype(np.uint8)
        return torch.from_numpy(np.repeat(grey[:, :, None], 3, 2)).permute(2, 0, 1)[None], None
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = torch.from_numpy(np.asarray(image.getchannel("A")).copy())[None, None]
        alpha = alpha if bool((alpha < 255).any()) else None
    pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None], alpha


def read_image(path: str | Path) -> tuple[Tensor, Tensor | None]:
    """Read a picture of any mode (grey, palette, CMYK, 16 bit, with or without alpha), upright by EXIF.

    Returns:
        image ``[1,3,H,W]`` in [-1,1], sRGB, not premultiplied; and the alpha channel ``[1,1,H,W]`` in [0,1], or None
        where the file has none or is opaque everywhere.

    Raises:
        InputError: the file is missing, a folder, empty, damaged, too large, or has an edge of one pixel.
    """
    image = _open(path)
    if image.mode.startswith("I") or image.mode == "F":
        grey = torch.from_numpy(_grey_as_float(image, path))
        return (grey * 2 - 1)[None, None].repeat(1, 3, 1, 1), None
    has_alpha = image.has_transparency_data
    pixels = torch.from_numpy(np.asarray(image.convert("RGBA" if has_alpha else "RGB")).copy())
    pixels = pixels.permute(2, 0, 1)[None].float() / 255
    alpha = pixels[:, 3:] if has_alpha and bool((pixels[:, 3:] < 1).any()) else None
    return pixels[:, :3] * 2 - 1, alpha


def read_mask(path: str | Path, any_extent: bool = False) -> Tensor:
    """Read a mask: its alpha channel if that says anything, else its brightness. White (or opaque) = inside.

    Args:
        any_extent: an empty mask, and one that covers everything, mean something too.

    Returns:
        ``[1,1,H,W]`` in [0,1].

    Raises:
        InputError: as `read_image`, or the mask is empty or covers everything.
    """
    image, alpha = read_image(path)
    mask = alpha if alpha is not None else (image.mean(1, keepdim=True) + 1) / 2
    if any_extent:
        return mask
    if mask.max() < 0.5:
        raise InputError(f"{path}: the mask is empty; paint what it marks white")
    if mask.min() > 0.5:
        raise InputError(f"{path}: the mask covers the whole picture; paint the rest black")
    return mask


def pixel_grid(height: int, width: int, like: Tensor) -> Tensor:
    """uv of all pixel centres: [1,H,W,2] in (0,1), in the type and on the device of `like`."""
    v = (torch.arange(height, dtype=like.dtype, device=like.device) + 0.5) / height
    u = (torch.arange(width, dtype=like.dtype, device=like.device) + 0.5) / width
    return torch.stack([u.expand(height, -1), v[:, None].expand(-1, width)], -1)[None]


def resize(image: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Resize ``[N,C,H,W]`` with antialiasing: bicubic for images, kept within the input's range; unchanged where
    sizes agree.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if image.shape[-2:] == (height, width):
        return image
    out = F.interpolate(image, (height, width), mode="bicubic", align_corners=False, antialias=True)
    return out.clamp(image.detach().min(), image.detach().max())


def without_ground(image: Tensor, alpha: Tensor, ground: float, least: float = 0.02) -> Tensor:
    """A picture's own colours where the plain ground shines through it: C of image = alpha · C + (1 − alpha) · ground.

    Args:
        image: [N,3,H,W] in [-1,1]; alpha: [N,1,H,W] in [0,1].
        ground: in [-1,1].
        least: alpha below which the ground is taken out no further, since too little is left of the picture.
    """
    edge = alpha.clamp_min(least)
    return ((image - (1 - edge) * ground) / edge).clamp(-1, 1)


def to_uint8(image: Tensor) -> np.ndarray:
    """Image ``[N,3,H,W]`` in [-1,1] or mask ``[N,1,H,W]`` in [0,1] → uint8 ``[N,H,W,3]``."""
    image = image.detach().float().cpu()
    values = (image + 1) * 127.5 if image.shape[1] == 3 else image.expand(-1, 3, -1, -1) * 255
    return values.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def write_png(path: str | Path, pixels: Tensor | np.ndarray) -> None:
    """Write one picture atomically: uint8 ``[H,W,3]`` or ``[H,W,4]``, or a tensor ``[1,C,H,W]`` as `to_uint8` takes."""
    array = to_uint8(pixels)[0] if isinstance(pixels, Tensor) else pixels
    with atomic_path(path) as temporary:
        Image.fromarray(array).save(temporary, format="PNG")
