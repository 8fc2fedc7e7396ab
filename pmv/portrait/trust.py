"""Whether a mask that was given can be the foreground of a head: the face lies inside, something outside is cut off,
and it is much the same person that pmv sees.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pmv.portrait.belonging import FacePlace

LEAST_CUT = 0.01
"""Part of the aligned picture that a foreground leaves out at least; a head never fills all of it."""
LEAST_COVERED = 0.6
"""Part of the face that a foreground holds at least."""
LEAST_ALIKE = 0.7
"""Intersection over union with the foreground that pmv finds, below which a mask is doubted."""
_SURELY_ALIKE = 0.8  # of a turned or inverted mask that is taken for what was meant
_MIDDLE = FacePlace(0.5, 0.5, 0.22)  # what of any aligned head is face, where none was found

Place = Callable[[np.ndarray], np.ndarray]
"""A mask uint8 [H,W] in the photo's frame → [S,S] in [0,1] in the aligned picture's."""


@dataclass(frozen=True)
class Verdict:
    """What is thought of a mask.

    Attributes:
        foreground: float32 [S,S], the mask in the aligned picture's frame, opaque on the face.
        fault: what makes it none, in a few words; None = it can be one.
        doubt: what is strange about one that can be; None = nothing.
        is_empty: it cuts nothing off, or is nowhere solid: as good as none.
    """

    foreground: np.ndarray
    fault: str | None = None
    doubt: str | None = None
    is_empty: bool = False


def judge(
    aligned: np.ndarray,
    mask: np.ndarray,
    place: Place,
    valid: np.ndarray | None,
    face: FacePlace | None,
    seen: np.ndarray | None,
) -> Verdict:
    """Look at a mask that was given for a photo.

    Args:
        aligned: [S,S] in [0,1], the mask in the aligned picture's frame.
        mask: uint8 [H,W], the same in the photo's.
        place: brings what else it could have been into the aligned picture's.
        valid: [S,S], 0 beyond the photo's border, where a mask says nothing; None = 1 everywhere.
        face: in the aligned picture; None = none was found, and the middle is taken for it.
        seen: float32 [S,S], the foreground that pmv finds; None = there is nobody that it could find.
    """
    known = np.ones(aligned.shape, bool) if valid is None else valid > 0.5
    ground = _solid(aligned, face or _MIDDLE, known)
    covered, cut = _covered(ground, face or _MIDDLE, known), float((ground[known] <= 0.5).mean())
    if covered >= LEAST_COVERED and cut < LEAST_CUT:
        return Verdict(ground, f"leaves out next to nothing ({100 * cut:.1f} % of the head's picture)", is_empty=True)
    alike = 1.0 if seen is None else _alike(ground, seen, known)
    if covered >= LEAST_COVERED and alike >= LEAST_ALIKE:
        return Verdict(ground)
    missing = "leaves the middle of the picture out" if face is None else "leaves the face out"
    better = _meant(mask, place, known, face or _MIDDLE, seen)
    if better is not None and (seen is None or better[1] > max(_SURELY_ALIKE, alike + 0.1)):
        return Verdict(ground, f"{missing}; it looks {better[0]}" if covered < LEAST_COVERED else f"looks {better[0]}")
    if covered < LEAST_COVERED:
        return Verdict(ground, missing)
    return Verdict(ground, doubt=f"agrees with the person that pmv sees to {100 * alike:.0f} % only")


def _solid(aligned: np.ndarray, face: FacePlace, known: np.ndarray) -> np.ndarray:
    """The mask, opaque on the face: one that is grey there as a whole means a foreground all the same."""
    inside = aligned[(face.distance(len(aligned)) < 0.7) & known]
    level = float(np.median(inside)) if inside.size else 1.0
    return aligned if level > 0.99 or level < 0.1 else np.clip(aligned / level, 0, 1)


def _covered(ground: np.ndarray, face: FacePlace, known: np.ndarray) -> float:
    inside = ground[(face.distance(len(ground)) < 0.7) & known]
    return float((inside > 0.5).mean()) if inside.size else 1.0


def _alike(a: np.ndarray, b: np.ndarray, known: np.ndarray) -> float:
    a, b = (a > 0.5) & known, (b > 0.5) & known
    return float((a & b).sum() / max((a | b).sum(), 1))


def _meant(
    mask: np.ndarray, place: Place, known: np.ndarray, face: FacePlace, seen: np.ndarray | None
) -> tuple[str, float] | None:
    """What a mask that is none may have been before somebody inverted or turned it, and how alike that is."""
    best = None
    for name, other in _variants(mask):
        ground = _solid(place(np.ascontiguousarray(other)), face, known)
        if _covered(ground, face, known) < LEAST_COVERED or (ground[known] <= 0.5).mean() < LEAST_CUT:
            continue
        alike = _alike(ground, seen, known) if seen is not None else 0.5
        if best is None or alike > best[1]:
            best = name, alike
    return best


def _variants(mask: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    yield "inverted: white is the head", 255 - mask
    stored = "turned as the file stores the photo, not as it is seen: turn it upright"
    for turned in (mask[::-1, ::-1], mask[:, ::-1], mask[::-1]):
        yield stored, turned
    if mask.shape[0] == mask.shape[1]:
        for turned in (np.rot90(mask), np.rot90(mask, -1), mask.T, mask[::-1, ::-1].T):
            yield stored, turned
