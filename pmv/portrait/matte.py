"""The foreground of an aligned portrait: head, hair and shoulders, softly cut out.

A matte finder takes a picture and says how much of each pixel is foreground; `MATTES` names those there are, and
`register` adds another (a better matting network, say), which `prepare.matte` then finds by its name.
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from scipy import ndimage

from pmv.errors import InputError
from pmv.pictures.images import resize
from pmv.portrait.networks import as_input, network

Finder = Callable[[np.ndarray], np.ndarray]
"""uint8 [S,S,3] RGB → float32 [S,S] in [0,1]."""

LEAST_FOREGROUND = 0.02
"""Part of an aligned picture below which a foreground is none."""
_SELFIE_SIDE = 256
GRABCUT_ITERATIONS = 5
GRABCUT_SOFTNESS = 0.006
"""Width of GrabCut's soft edge in picture widths."""


def find_matte(picture: np.ndarray, name: str = "auto") -> np.ndarray:
    """The foreground of an aligned portrait.

    Args:
        picture: uint8 [S,S,3] RGB.
        name: of a finder; "auto" takes "selfie", and "grabcut" where that sees nobody.

    Returns:
        float32 [S,S] in [0,1].

    Raises:
        InputError: no finder is called so.
    """
    check_name(name)
    if name != "auto":
        return MATTES[name](picture)
    found = selfie(picture)
    return found if found.mean() >= LEAST_FOREGROUND else grabcut(picture)


def check_name(name: str) -> None:
    """InputError where no finder is called so."""
    if name not in ("auto", *MATTES):
        raise InputError(f"no matte is called {name!r}; there are auto, {', '.join(MATTES)}")


def register(name: str, finder: Finder) -> None:
    """Make a finder known under a name."""
    MATTES[name] = finder


def guided_filter(guide: np.ndarray, mask: np.ndarray, radius: int, epsilon: float) -> np.ndarray:
    """Guided filter with a colour guide (He, Sun, Tang, ECCV 2010, eq. 14-16): a mask that follows the guide's edges.

    Args:
        guide: float32 [H,W,3] in [0,1].
        mask: float32 [H,W].
        radius: of the window, pixels.
        epsilon: variance of the guide below which it is taken as flat.

    Returns:
        float32 [H,W], not clamped.
    """

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.blur(x, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)

    guide, mask = guide.astype(np.float64), mask.astype(np.float64)
    average, average_mask = mean(guide), mean(mask)
    cross = mean(guide * mask[..., None]) - average * average_mask[..., None]
    products = np.stack([mean(guide * guide[..., k : k + 1]) for k in range(3)], -1)
    covariance = products - average[..., :, None] * average[..., None, :] + epsilon * np.eye(3)
    slope = np.linalg.solve(covariance, cross[..., None])[..., 0]
    offset = average_mask - (slope * average).sum(-1)
    return ((mean(slope) * guide).sum(-1) + mean(offset)).astype(np.float32)


def refine_matte(picture: np.ndarray, coarse: np.ndarray, width: float = 0.04) -> np.ndarray:
    """A coarse foreground laid on the picture's own edges; sure insides and outsides stay what they are.

    Args:
        picture: uint8 [S,S,3].
        coarse: float32 [S,S] in [0,1].
        width: how far the edge may move, in picture widths.

    Returns:
        float32 [S,S] in [0,1].
    """
    radius = max(1, round(width * picture.shape[0]))
    fine = guided_filter(picture.astype(np.float32) / 255, coarse, radius, 1e-4)
    fine = np.clip((fine - 0.1) / 0.8, 0, 1)
    # far from the coarse edge the filter only copies the picture's texture
    window = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    surely_in = cv2.erode((coarse > 0.9).astype(np.uint8), window) > 0
    surely_out = cv2.dilate((coarse > 0.1).astype(np.uint8), window) == 0
    return np.where(surely_in, 1.0, np.where(surely_out, 0.0, fine)).astype(np.float32)


def selfie(picture: np.ndarray) -> np.ndarray:
    """MediaPipe's selfie segmentation, refined by the guided filter; the piece in the middle only."""
    small = cv2.resize(picture, (_SELFIE_SIDE,) * 2, interpolation=cv2.INTER_AREA)
    coarse = network("selfie")(as_input(small[None]))["activation_10"][0, 0].numpy()
    size = (picture.shape[1], picture.shape[0])
    coarse = cv2.resize(coarse, size, interpolation=cv2.INTER_LINEAR)
    coarse = np.clip((coarse - 0.2) / 0.6, 0, 1)  # the network is never quite sure; a haze would show on another ground
    fine = refine_matte(picture, coarse)
    return fine * _near_middle(fine)


def _near_middle(matte: np.ndarray) -> np.ndarray:
    """1 around the piece of a matte that fills most of the middle, where the head is, 0 around others (people beside
    the portrayed); the largest piece where the middle is empty.
    """
    count, labels = cv2.connectedComponents((matte > 0.3).astype(np.uint8))
    if count < 3:  # the background and one piece
        return np.ones_like(matte)
    y, x = np.mgrid[0 : matte.shape[0], 0 : matte.shape[1]] / matte.shape[0]
    middle = np.bincount(labels[_ellipse(x, y, 0.5, 0.5, 0.2, 0.25)], minlength=count)[1:]
    sizes = middle if middle.any() else np.bincount(labels.ravel())[1:]
    head = 1 + int(np.argmax(sizes))
    others = (labels > 0) & (labels != head)
    # fine hair may lie in islands of its own near the head
    distance = cv2.distanceTransform((labels != head).astype(np.uint8), cv2.DIST_L2, 5)
    return (~(others & (distance > 0.02 * len(matte)))).astype(np.float32)


def grabcut(picture: np.ndarray) -> np.ndarray:
    """GrabCut (Rother et al. 2004), started from where an aligned head lies. It goes by colour and needs no network,
    but loses dark hair before a dark background. One piece, without holes; deterministic.
    """
    size = picture.shape[0]
    side = min(size, 512)
    tensor = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()
    pixels = resize(tensor, side)[0].permute(1, 2, 0).round().numpy().astype(np.uint8)
    y, x = np.mgrid[0:side, 0:side] / side
    labels = np.full((side, side), cv2.GC_PR_BGD, np.uint8)
    labels[_ellipse(x, y, 0.5, 0.45, 0.40, 0.50)] = cv2.GC_PR_FGD
    labels[(y > 0.8) & (np.abs(x - 0.5) < 0.3)] = cv2.GC_PR_FGD  # neck and shoulders
    # the sure part must reach into the hair, whose colour the face does not tell
    labels[_ellipse(x, y, 0.5, 0.46, 0.22, 0.36)] = cv2.GC_FGD
    labels[(y < 0.5) & ~_ellipse(x, y, 0.5, 0.5, 0.48, 0.60)] = cv2.GC_BGD
    labels[((x < 0.03) | (x > 0.97)) & (y < 0.6)] = cv2.GC_BGD
    cv2.setRNGSeed(0)
    cv2.grabCut(
        np.ascontiguousarray(pixels[:, :, ::-1]),
        labels,
        (0, 0, side, side),  # not read: the labels say it
        np.zeros((1, 65)),
        np.zeros((1, 65)),
        GRABCUT_ITERATIONS,
        cv2.GC_INIT_WITH_MASK,
    )
    mask = clean_mask((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.float32)
    soft = ndimage.gaussian_filter(mask, GRABCUT_SOFTNESS * side, mode="nearest")
    return resize(torch.from_numpy(soft)[None, None], size)[0, 0].numpy()


def _ellipse(x: np.ndarray, y: np.ndarray, cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1


def clean_mask(mask: np.ndarray) -> np.ndarray:
    """The largest piece of a boolean mask [H,W] after removing hair-thin bridges, its holes filled. Empty stays
    empty.
    """
    radius = max(1, mask.shape[0] // 170)
    disc = np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1]) <= radius
    opened = ndimage.binary_opening(mask, disc)
    pieces = np.zeros(mask.shape, np.int32)
    if ndimage.label(opened, output=pieces) == 0:
        return opened
    largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    return np.asarray(ndimage.binary_fill_holes(pieces == largest))


MATTES: dict[str, Finder] = {"selfie": selfie, "grabcut": grabcut}
"""Finders by name; see `register`."""
