"""Distances, erosion and feathers of masks. Widths are fractions of the image width, so that one config
serves every resolution."""

import cv2
import numpy as np
import torch
from torch import Tensor

SOLID = 0.5
"""Opacity from which a pixel counts as surface."""


def inside_distance(mask: Tensor) -> Tensor:
    """Euclidean distance from each pixel of a mask to the nearest pixel outside it.

    The image border is not an outline: shoulders cut off by the picture are not eroded there.

    Args:
        mask: [N,1,H,W], inside where > 0.5.

    Returns:
        [N,1,H,W] float32 distances in pixels; 0 outside the mask, H + W everywhere where a mask has no
        outside.
    """
    _check_mask(mask)
    inside = (mask.detach() > SOLID)[:, 0].cpu().numpy().astype(np.uint8)
    height, width = inside.shape[-2:]
    # without any outside pixel OpenCV's distances mean nothing
    maps = [
        np.full((height, width), height + width, np.float32)
        if one.all()
        else cv2.distanceTransform(one, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        for one in inside
    ]
    return torch.from_numpy(np.stack(maps).astype(np.float32))[:, None].to(mask.device)


def erode(mask: Tensor, fraction: float) -> Tensor:
    """Removes the pixels within `fraction` · W of a mask's outline.

    Args:
        mask: [N,1,H,W], inside where > 0.5.
        fraction: of the image width; 0 only makes the mask binary.

    Returns:
        [N,1,H,W] float32, 0 or 1.
    """
    if fraction <= 0:
        _check_mask(mask)
        return (mask > SOLID).float()
    # the nearest outside pixel of an outline pixel is 1 away: distance d is d − 1 whole pixels from the
    # outline
    return (inside_distance(mask) > fraction * mask.shape[-1]).float()


def dilate(mask: Tensor, fraction: float) -> Tensor:
    """Adds the pixels within `fraction` · W of a mask; arguments and result as of `erode`."""
    if fraction <= 0:
        _check_mask(mask)
        return (mask > SOLID).float()
    outside = (mask <= SOLID).float()
    return 1.0 - (inside_distance(outside) > fraction * mask.shape[-1]).float()


def without_specks(mask: Tensor, fraction: float) -> Tensor:
    """Removes islands and fills holes that are smaller than `fraction` of the image's area (8-connected).

    Args:
        mask: [N,1,H,W], inside where > 0.5.
        fraction: of the image area; 0 only makes the mask binary.

    Returns:
        [N,1,H,W] float32, 0 or 1.
    """
    _check_mask(mask)
    result = (mask.detach() > SOLID)[:, 0].cpu().numpy().astype(np.uint8)
    smallest = fraction * mask.shape[-1] * mask.shape[-2]
    for inside in result:
        for value in (0, 1):
            _, labels, statistics, _ = cv2.connectedComponentsWithStats((inside == value).astype(np.uint8))
            speck = statistics[:, cv2.CC_STAT_AREA] < smallest
            speck[0] = False  # label 0 is everything of the other value
            inside[speck[labels]] = 1 - value
    return torch.from_numpy(result).float()[:, None].to(mask.device)


def smoothstep(x: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Cubic step 3t² − 2t³ from 0 at `low` to 1 at `high`, t = (x − low)/(high − low) clamped to [0,1];
    element-wise.

    `high` < `low` gives a falling step.
    """
    t = ((x - low) / (high - low)).clamp(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def feather(mask: Tensor, fraction: float) -> Tensor:
    """Weights that rise from 0 at a mask's outline to 1 at `fraction` · W inside it.

    The feather lies inside the mask only, because what lies outside was judged unreliable.

    Args:
        mask: [N,1,H,W], inside where > 0.5.
        fraction: of the image width; 0 gives the binary mask.

    Returns:
        [N,1,H,W] float32 in [0,1].
    """
    if fraction <= 0:
        _check_mask(mask)
        return (mask > SOLID).float()
    return smoothstep(inside_distance(mask), 0.0, fraction * mask.shape[-1])


def _check_mask(mask: Tensor) -> None:
    if mask.ndim != 4 or mask.shape[1] != 1:
        raise ValueError(f"a mask is [N,1,H,W], got {tuple(mask.shape)}")
