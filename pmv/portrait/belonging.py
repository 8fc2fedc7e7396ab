"""What of a foreground belongs to the chosen face, where other people, hands or furniture stand beside it.

A matte finder says what is foreground, not whose. Where other faces are known, or where a piece stands beside the head
without being joined to it above the chin, the foreground is divided: seeds on the chosen head and around it, seeds on
the others, and a random walker (Grady 2006) between them, which stops at the picture's edges. A foreground of one
person alone stays what it is, to the bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from scipy import ndimage
from skimage.segmentation import random_walker

from pmv.portrait.crop import apply
from pmv.portrait.landmarks import Face
from pmv.portrait.matte import refine_matte

_SIDE = 160  # pixels of the copy that is divided
_STIFF = 400.0  # how much an edge hinders the walker
_LEAST = 0.002  # part of the picture from which a piece beside the head counts
_SEEN = 0.2  # part of another face's ellipse that must be foreground in the picture
_AROUND, _NEARER = 1.45, 0.65  # distances from a head up to which hair is its own, if so much nearer than the other's
_IN_FRONT = 1.25  # times as large as the other is a face that is nearer to the camera


@dataclass(frozen=True)
class FacePlace:
    """Where a face lies in an aligned picture, in picture widths.

    Attributes:
        x, y: middle of the detector's box, which goes from the brows to the chin.
        size: its side.
    """

    x: float
    y: float
    size: float

    @property
    def chin(self) -> float:
        return self.y + 0.5 * self.size

    def distance(self, side: int) -> np.ndarray:
        """[S,S]: from the middle of the head, 1 on an ellipse around the face and some of the hair."""
        v, u = (np.mgrid[0:side, 0:side] + 0.5) / side
        return np.hypot((u - self.x) / (0.5 * self.size), (v - self.y + 0.1 * self.size) / (0.62 * self.size))

    def body(self, side: int, half_width: float = 0.35) -> np.ndarray:
        """bool [S,S]: a strip below the chin; its width in face sizes."""
        v, u = (np.mgrid[0:side, 0:side] + 0.5) / side
        return (np.abs(u - self.x) < half_width * self.size) & (v > self.chin)


def moved(face: Face, matrix: np.ndarray, side: int) -> FacePlace:
    """A face of a photo in an aligned picture.

    Args:
        matrix: [2,3], pixels of the photo → pixels of the picture, a similarity.
        side: S of the picture.
    """
    x, y = apply(matrix, face.box.reshape(2, 2).mean(0)) / side
    return FacePlace(float(x), float(y), face.size * float(np.sqrt(abs(np.linalg.det(matrix[:, :2])))) / side)


def own_part(picture: np.ndarray, matte: np.ndarray, own: FacePlace, others: Sequence[FacePlace]) -> np.ndarray:
    """The part of a foreground that belongs to one face.

    Args:
        picture: uint8 [S,S,3].
        matte: float32 [S,S] in [0,1].
        own: the face that is kept.
        others: further faces; they may lie beyond the picture.

    Returns:
        float32 [S,S], nowhere more than `matte`; `matte` itself where nothing stands beside the head.
    """
    small = cv2.resize(matte, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    there = small > 0.3
    near = own.distance(_SIDE)
    mine = ((near < 1) | own.body(_SIDE)) & there
    theirs = _beside(there, own)
    for other in others:
        apart = other.distance(_SIDE)
        if (there & (apart < 1)).sum() > _SEEN * max((apart < 1).sum(), 1):
            # hair and neck are whose head is much nearer; a neck that lies behind the chosen body is not his
            far = there & (near > _AROUND)
            theirs |= (
                (there & (near >= 1) & (apart < 0.7))
                | (there & (apart < 1) & (apart < _NEARER * near))
                | (far & (apart < _AROUND) & (apart < _NEARER * near))
            )
            in_front = own.size > _IN_FRONT * other.size  # then hair and shoulders hang before the other's
            theirs |= far & other.body(_SIDE) & ~own.body(_SIDE, 1.1 if in_front else 0.6)
            mine &= (apart >= 1) | (near < apart)
            mine |= there & (near < _AROUND) & (near < _NEARER * apart)
    mine &= ~theirs
    if not theirs.any() or not mine.any():
        return matte
    labels = np.where(there, 0, -1)
    labels[mine], labels[theirs] = 1, 2
    # what no seed reaches is decided by nobody
    _, pieces = cv2.connectedComponents(there.astype(np.uint8), connectivity=4)
    reached = np.unique(pieces[labels > 0])
    labels[(labels == 0) & ~np.isin(pieces, reached)] = -1
    colours = cv2.cvtColor(cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB)
    share = random_walker(
        colours.astype(np.float64) / 255,
        labels,
        beta=_STIFF,
        mode="bf",
        channel_axis=-1,
        return_full_prob=True,
    )[0]
    nearest: Any = ndimage.distance_transform_edt(labels == -1, return_distances=False, return_indices=True)
    kept = np.clip(share, 0, 1)[tuple(nearest)].astype(np.float32)
    size = (matte.shape[1], matte.shape[0])
    kept = np.clip(4 * cv2.resize(kept, size, interpolation=cv2.INTER_LINEAR) - 1.5, 0, 1)
    return np.minimum(matte, refine_matte(picture, kept, 0.02))


def _beside(there: np.ndarray, own: FacePlace) -> np.ndarray:
    """bool [S,S]: pieces beside the head that reach above the nose and are joined to it below the chin at most: a hand,
    a chair's back, somebody who turns away."""
    side = len(there)
    above = there.copy()
    above[round(min(max(own.chin, 0), 1) * side) :] = False
    _, pieces = cv2.connectedComponents(above.astype(np.uint8), connectivity=4)
    found = np.zeros_like(there)
    head = own.distance(side) < 1.2
    for number in range(1, pieces.max() + 1):
        piece = pieces == number
        is_high = np.flatnonzero(piece.any(1))[0] < (own.y + 0.1 * own.size) * side
        if is_high and piece.sum() > _LEAST * side**2 and not (piece & head).any():
            found |= piece
    return found
