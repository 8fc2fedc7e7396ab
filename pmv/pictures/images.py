"""Images on disk ↔ tensors: float32 ``[1,3,H,W]`` in [-1,1], masks float32 ``[1,1,H,W]`` in [0,1]."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pmv.errors import InputError
from pmv.files.artifacts import atomic_path
from pmv.pictures.decode import decode


def read_bytes(path: str | Path) -> tuple[Tensor, Tensor | None]:
    """Read a picture of any kind that `pmv.pictures.decode` knows, upright by EXIF.

    It stays bytes: a photo of 100 megapixels takes 300 MB so, and 1.2 GB as floats.

    Returns:
        image uint8 ``[1,3,H,W]``, sRGB, not premultiplied; and the alpha channel uint8 ``[1,1,H,W]``, or None where
        the file has none or is opaque everywhere. Rows of pixels are contiguous in memory (channels last).

    Raises:
        InputError: see `pmv.pictures.decode.decode`.
    """
    decoded = decode(path)
    pixels, alpha = _eight_bits(decoded.pixels), None
    if decoded.alpha is not None and decoded.alpha.min() < np.iinfo(decoded.alpha.dtype).max:
        alpha = torch.from_numpy(_eight_bits(decoded.alpha))[None, None]
    return torch.from_numpy(pixels).permute(2, 0, 1)[None], alpha


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """uint8 or uint16 → uint8, writable."""
    if values.dtype != np.uint16:
        return np.require(values, requirements="W")
    result = np.empty(values.shape, np.uint8)
    for k in range(len(values)):  # floats of the whole would take four times its bytes
        result[k] = ((values[k].astype(np.float32) / 65535.0) * 255).round()
    return result


def read_image(path: str | Path) -> tuple[Tensor, Tensor | None]:
    """Read a picture of any kind that `pmv.pictures.decode` knows, upright by EXIF, with all of its bits.

    Returns:
        image ``[1,3,H,W]`` in [-1,1], sRGB, not premultiplied; and the alpha channel ``[1,1,H,W]`` in [0,1], or None
        where the file has none or is opaque everywhere.

    Raises:
        InputError: see `pmv.pictures.decode.decode`.
    """
    decoded = decode(path)

    def unit(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)) / float(np.iinfo(values.dtype).max)

    image = unit(decoded.pixels).permute(2, 0, 1)[None] * 2 - 1
    alpha = None if decoded.alpha is None else unit(decoded.alpha)[None, None]
    return image, alpha if alpha is not None and bool((alpha < 1).any()) else None


def read_mask(path: str | Path, any_extent: bool = False) -> Tensor:
    """Read a mask: its alpha channel if that separates anything, else its brightness. White (or opaque) = inside.

    Args:
        any_extent: an empty mask, and one that covers everything, mean something too.

    Returns:
        ``[1,1,H,W]`` in [0,1].

    Raises:
        InputError: as `read_image`, or the mask is empty or covers everything.
    """
    image, alpha = read_image(path)
    brightness = (image.mean(1, keepdim=True) + 1) / 2
    solid = 0.0 if alpha is None else float((alpha > 0.5).float().mean())
    # rounded corners, or a single transparent pixel, are no mask
    mask = alpha if alpha is not None and solid < 1 - _SEPARATES else brightness
    grey = (mask > 0.1) & (mask < 0.9)
    if float(grey.float().mean()) > 0.4 and len((mask[grey] * 255).round().unique()) > 32:
        raise InputError(f"{path}: is a picture rather than a mask; paint what it marks white and the rest black")
    if any_extent:
        return mask
    if mask.max() < 0.5:
        raise InputError(f"{path}: the mask is empty; paint what it marks white")
    if mask.min() > 0.5:
        raise InputError(f"{path}: the mask covers the whole picture; paint the rest black")
    return mask


_SEPARATES = 0.01
"""Part of a mask's alpha channel that must not be solid for it to say anything."""


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
    if image.is_cuda and image.requires_grad:
        # the same as products: a GPU sums the gradient of an interpolation in any order
        rows, columns = (_resizing(a, b, image) for a, b in zip(image.shape[-2:], (height, width)))
        out = rows @ image @ columns.t()
    else:
        out = F.interpolate(image, (height, width), mode="bicubic", align_corners=False, antialias=True)
    return out.clamp(image.detach().min(), image.detach().max())


def _resizing(size: int, target: int, like: Tensor) -> Tensor:
    """[target,size]: the matrix of that resizing along one axis."""
    eye = torch.eye(size, dtype=like.dtype, device=like.device)[None, None]
    return F.interpolate(eye, (target, size), mode="bicubic", align_corners=False, antialias=True)[0, 0]


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
