"""The contact sheet: for every subject the truth and what each method draws, from the same sides."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from benchmarks.quality.truth import Truth
from benchmarks.quality.views import View
from pmv.pictures.images import to_uint8
from pmv.pictures.sheets import tile

SHOWN = ("input", "yaw-30", "yaw+30", "yaw+60", "yaw+90", "yaw180", "pitch+20")
"""Views of the sheet, where a subject has them."""


def subject_sheet(
    truth: Truth, views: Sequence[View], drawn: Mapping[str, np.ndarray], shown: Sequence[str] = SHOWN, side: int = 192
) -> np.ndarray:
    """A row for the truth and one for each method: uint8 [H,W,3].

    Args:
        drawn: name → pictures uint8 [V,S,S,3] from all views.
    """
    names = [view.name for view in views]
    chosen = [names.index(name) for name in shown if name in names]
    pictures, labels = [], []
    for row, images in {"truth": to_uint8(truth.over(0.0)), **drawn}.items():
        for i in chosen:
            pictures.append(cv2.resize(images[i], (side, side), interpolation=cv2.INTER_AREA))
            labels.append(f"{row}, {names[i]}")
    return tile(pictures, labels, columns=len(chosen))
