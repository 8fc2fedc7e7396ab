"""Images on disk ↔ tensors: float32 ``[1,3,H,W]`` in [-1,1], masks float32 ``[1,1,H,W]`` in [0,1]."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from pmv.artifacts import atomic_path
from pmv.errors import InputError


def _open(path: str | Path) -> Image.Image:
    """Decode any file that Pillow can read, turned upright by its EXIF orientation."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such image")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give an image file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the image file is empty")
    try:
        with Image.open(path) as image:
            image.load()
            image = ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read as an image ({reason}); save it as PNG or JPEG") from error
    if min(image.size) < 2:
        raise InputError(f"{path}: only {image.width}×{image.height} pixels; give a larger image")
    return image


def _grey_as_float(image: Image.Image, path: str | Path) -> np.ndarray:
    """16-bit and float greys as float32 ``[H,W]`` in [0,1]: Pillow's own conversion to 8 bits would clip them."""
    values = np.asarray(image).astype(np.float32)
    if image.mode != "F":
        values /= 65535.0
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise InputError(f"{path}: its {image.mode} values lie outside the known range; save it as an 8 or 16 bit PNG")
    return values


def read_image(path: str | Path) -> tuple[Tensor, Tensor | None]:
    """Read a picture of any mode (grey, palette, CMYK, 16 bit, with or without alpha), upright by EXIF.

    Returns:
        image ``[1,3,H,W]`` in [-1,1], RGB, not premultiplied; and the alpha channel ``[1,1,H,W]`` in [0,1], or None
        where the file has none or is opaque everywhere.

    Raises:
        InputError: the file is missing, a folder, empty, damaged, or has an edge of one pixel.
    """
    image = _open(path)
    if image.mode.startswith("I") or image.mode == "F":
        grey = torch.from_numpy(_grey_as_float(image, path))
        return (grey * 2 - 1)[None, None].repeat(1, 3, 1, 1), None
    has_alpha = "A" in image.getbands() or "transparency" in image.info
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


def resize(image: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Resize ``[N,C,H,W]`` with antialiasing: bicubic for images, kept within the input's range; unchanged where
    sizes agree.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if image.shape[-2:] == (height, width):
        return image
    out = F.interpolate(image, (height, width), mode="bicubic", align_corners=False, antialias=True)
    return out.clamp(image.detach().min(), image.detach().max())


def to_uint8(image: Tensor) -> np.ndarray:
    """Image ``[N,3,H,W]`` in [-1,1] or mask ``[N,1,H,W]`` in [0,1] → uint8 ``[N,H,W,3]``."""
    image = image.detach().float().cpu()
    values = (image + 1) * 127.5 if image.shape[1] == 3 else image.expand(-1, 3, -1, -1) * 255
    return values.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def write_png(path: str | Path, pixels: Tensor | np.ndarray) -> None:
    """Write one picture atomically: uint8 ``[H,W,3]``, or a tensor ``[1,C,H,W]`` as `to_uint8` takes it."""
    array = to_uint8(pixels)[0] if isinstance(pixels, Tensor) else pixels
    with atomic_path(path) as temporary:
        Image.fromarray(array).save(temporary, format="PNG")
