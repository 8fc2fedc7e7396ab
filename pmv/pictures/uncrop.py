"""Put a render of a finished inversion back into its photo: at its place, at the photo's resolution, before the photo's
own background.
"""

import math

import cv2
import numpy as np
import torch
from torch import Tensor

_FEATHER = 0.01
"""Width of the soft edge inside the picture's and the padding's border, in picture widths."""


def paste(photo: np.ndarray, picture: Tensor, cover: Tensor, matrix: np.ndarray) -> np.ndarray:
    """Lay an aligned picture over the photo that it was cropped from.

    Args:
        photo: uint8 [H,W,3].
        picture: [1,3,S,S] in [-1,1].
        cover: [1,1,S,S] in [0,1], how much of the photo it hides.
        matrix: [2,3], pixels of the photo → pixels of the picture; pixel i covers [i, i+1) in both.

    Returns:
        uint8 [H,W,3]; the photo's own bytes where nothing covers it.
    """
    size = picture.shape[-1]
    linear = np.linalg.inv(matrix[:, :2])
    corners = (np.array([[0, 0], [size, 0], [size, size], [0, size]]) - matrix[:, 2]) @ linear.T
    limit = [photo.shape[1], photo.shape[0]]
    low = np.clip(np.floor(corners.min(0)).astype(int) - 1, 0, limit)
    high = np.clip(np.ceil(corners.max(0)).astype(int) + 1, 0, limit)
    result = photo.copy()
    if (high - low).min() < 1:
        return result
    # from the region's pixels to the picture's; OpenCV's have their centres at whole numbers
    offset = matrix[:, :2] @ (low + 0.5) + matrix[:, 2] - 0.5
    warp = np.concatenate([matrix[:, :2], offset[:, None]], 1)
    width, height = (int(n) for n in high - low)
    layers = torch.cat([(picture + 1) * 127.5, cover], 1)[0].permute(1, 2, 0).float().cpu().numpy()
    shrink = math.sqrt(abs(np.linalg.det(matrix[:, :2])))  # pixels of the picture in one of the photo
    if shrink > 1:
        layers = cv2.GaussianBlur(layers, (0, 0), 0.5 * shrink)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    # the picture's outermost pixels are repeated, so that only `cover` fades it out
    pixels = cv2.warpAffine(layers[..., :3], warp, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    weight = cv2.warpAffine(layers[..., 3], warp, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    weight = np.clip(weight, 0, 1)[..., None]
    region = result[low[1] : high[1], low[0] : high[0]]
    mixed = region * (1 - weight) + pixels * weight
    region[...] = np.where(weight > 0, mixed.round().clip(0, 255).astype(np.uint8), region)
    return result


def soft_cover(alpha: Tensor, valid: Tensor | None) -> Tensor:
    """A foreground [1,1,S,S] that fades out at the border of the picture and of what the photo showed of it.

    What leaves the picture at its border (shoulders, long hair) goes on in the photo, and must not end in a step.
    """
    size = alpha.shape[-1]
    inside = torch.ones_like(alpha) if valid is None else valid
    known = (inside > 0.5)[0, 0].cpu().numpy().astype(np.uint8)
    distance = cv2.distanceTransform(np.pad(known, 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    fade = torch.from_numpy(np.clip(distance / max(_FEATHER * size, 1.0), 0, 1)).to(alpha)
    return alpha.clamp(0, 1) * fade
