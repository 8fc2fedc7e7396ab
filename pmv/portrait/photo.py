"""A photo as upright sRGB bytes, of which only the regions that are asked for are resampled."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from pmv.pictures.images import resize


@dataclass(frozen=True)
class Photo:
    """An upright photo. Pixel i covers [i, i+1): its centre lies at i + ½.

    Attributes:
        pixels: uint8 [H,W,3], sRGB.
        alpha: uint8 [H,W], or None where the photo is opaque.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    def reduced(self, side: int) -> tuple[np.ndarray, float]:
        """A copy whose longer side has at most `side` pixels, and its scale (copy / photo)."""
        scale = min(1.0, side / max(self.width, self.height))
        if scale == 1.0:
            return self.pixels, 1.0
        size = (max(1, round(self.width * scale)), max(1, round(self.height * scale)))
        return cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA), scale


def from_tensor(image: Tensor, alpha: Tensor | None = None) -> Photo:
    """A photo from uint8 [1,3,H,W] (and [1,1,H,W]); without a copy where the rows of pixels are contiguous."""
    pixels = np.ascontiguousarray(image[0].permute(1, 2, 0).cpu().numpy())
    return Photo(pixels, None if alpha is None else np.ascontiguousarray(alpha[0, 0].cpu().numpy()))


def sample(pixels: np.ndarray, matrix: np.ndarray, size: int, border: int = cv2.BORDER_CONSTANT) -> np.ndarray:
    """A square picture of a part of an image, without aliasing, at the cost of that part.

    Args:
        pixels: uint8 or float32 [H,W] or [H,W,C].
        matrix: [2,3], pixels of the image → pixels of the result, a similarity; pixel i covers [i, i+1).
        size: S.
        border: what lies outside: `cv2.BORDER_CONSTANT` (zero), `cv2.BORDER_REPLICATE` or `cv2.BORDER_REFLECT`.

    Returns:
        [S,S] or [S,S,C] of the image's type. Bicubic; where the image shrinks, areas are averaged.
    """
    height, width = pixels.shape[:2]
    shrink = 1 / float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    corners = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float64)
    quad = (corners - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    margin = 4 * max(1.0, shrink)
    low = np.floor(quad.min(0) - margin).astype(np.int64)
    high = np.ceil(quad.max(0) + margin).astype(np.int64)
    if border == cv2.BORDER_REFLECT:  # what is mirrored may lie deep inside
        low, high = np.array([0, 0]), np.array([width, height])
    low, high = np.clip(low, 0, [width, height]), np.clip(high, 0, [width, height])
    if (high - low).min() < 1:
        return np.zeros((size, size, *pixels.shape[2:]), pixels.dtype)
    region = pixels[low[1] : high[1], low[0] : high[0]]
    matrix = np.concatenate([matrix[:, :2], (matrix[:, 2] + matrix[:, :2] @ low)[:, None]], 1)
    # first by a whole factor, then the rest at twice the resolution
    factor = int(shrink)
    if factor >= 2:
        rows, columns = max(1, round(region.shape[0] / factor)), max(1, round(region.shape[1] / factor))
        scale = np.array([region.shape[1] / columns, region.shape[0] / rows])
        region = cv2.resize(region, (columns, rows), interpolation=cv2.INTER_AREA)
        matrix = np.concatenate([matrix[:, :2] * scale, matrix[:, 2:]], 1)
        shrink /= factor
    over = 2 if shrink > 1.05 else 1
    # OpenCV's pixels have their centres at whole numbers
    linear = matrix[:, :2] * over
    offset = matrix[:, 2] * over + linear @ [0.5, 0.5] - 0.5
    warp = np.concatenate([linear, offset[:, None]], 1)
    result = cv2.warpAffine(region, warp, (size * over, size * over), flags=cv2.INTER_CUBIC, borderMode=border)
    return cv2.resize(result, (size, size), interpolation=cv2.INTER_AREA) if over > 1 else result


def crop_tensor(image: Tensor, matrix: Tensor | None, size: int) -> Tensor:
    """A picture or mask in the photo's frame, in that of the aligned picture.

    Args:
        image: [1,C,H,W]; float32, or uint8, which stands for [-1,1] (three channels) or [0,1] (one).
        matrix: [2,3] as of `sample`; None = a square that is only scaled.
        size: S.

    Returns:
        float32 [1,C,S,S].
    """
    height, width = image.shape[-2:]
    if matrix is None or torch.allclose(matrix, matrix.new_tensor([[size / width, 0, 0], [0, size / height, 0]])):
        return resize(_as_float(image), size)
    pixels = sample(np.ascontiguousarray(image[0].permute(1, 2, 0).cpu().numpy()), matrix.double().cpu().numpy(), size)
    return _as_float(torch.from_numpy(pixels.reshape(size, size, -1)).permute(2, 0, 1)[None].to(image.device))


def _as_float(image: Tensor) -> Tensor:
    if image.dtype != torch.uint8:
        return image
    return image.float() / 127.5 - 1 if image.shape[1] == 3 else image.float() / 255
