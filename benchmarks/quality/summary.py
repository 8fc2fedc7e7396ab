"""From the figures of single heads to means over heads, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.views import View

_RESAMPLES = 2000


class Interval(NamedTuple):
    """A mean over heads, and between what it lies in 95 % of all draws of as many heads with replacement."""

    mean: float
    low: float
    high: float
    heads: int


def bootstrap(values: Sequence[float] | NDArray, seed: int = 0) -> Interval:
    """Percentile bootstrap of a mean (Efron 1979); NaN for no values, an interval of width 0 for one."""
    array = np.asarray(values, float)
    array = array[~np.isnan(array)]
    if not len(array):
        return Interval(np.nan, np.nan, np.nan, 0)
    rng = np.random.default_rng(seed)
    means = array[rng.integers(0, len(array), (_RESAMPLES, len(array)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(array.mean()), float(low), float(high), len(array))


@dataclass(frozen=True)
class Column:
    """A figure of the table.

    Attributes:
        title: what stands over it.
        figure: the figure's name. part: "visible", "occluded", or None for figures of whole views.
        groups: of views that it is the mean of.
        digits: after the point. factor: it is multiplied by.
        carried: of the photo carried along the method's own depth, instead of what the method draws.
    """

    title: str
    figure: str
    part: str | None
    groups: tuple[str, ...]
    digits: int = 2
    factor: float = 1.0
    carried: bool = False

    def of(self, result: Mapping[str, Any], views: Sequence[View]) -> float:
        """The value of one head, NaN where there is none."""
        figures = result.get("carried" if self.carried else "views", {})
        values = []
        for view in views:
            if view.group in self.groups and view.name in figures:
                row = figures[view.name]
                row = row.get(self.part, {}) if self.part else row
                if self.figure in row:
                    values.append(row[self.figure])
        return self.factor * float(np.mean(values)) if values else float("nan")


_NOVEL = ("±15°", "±30°", "45–60°", "±90°", "180°", "pitch ±20°")
_UNSEEN = ("±90°", "180°")
COLUMNS = (
    Column("input (dB)", "psnr", "visible", ("input",)),
    Column("±15° (dB)", "aligned_psnr", "visible", ("±15°",)),
    Column("±30° (dB)", "aligned_psnr", "visible", ("±30°",)),
    Column("45–60° (dB)", "aligned_psnr", "visible", ("45–60°",)),
    Column("±20° pitch (dB)", "aligned_psnr", "visible", ("pitch ±20°",)),
    Column("±30° unaligned (dB)", "psnr", "visible", ("±30°",)),
    Column("±30° SSIM", "ssim", "visible", ("±30°",), 3),
    Column("±30° detail in place", "aligned_detail_correlation", "visible", ("±30°",)),
    Column("±30° sharpness", "detail_energy", "visible", ("±30°",)),
    Column("±30° perceptual", "perceptual", "visible", ("±30°",), 3),
    Column("±30° identity", "identity", None, ("±30°",)),
    Column("±30° carried (dB)", "aligned_psnr", "visible", ("±30°",), carried=True),
    Column("depth, median out (.001)", "depth_median_out", "visible", ("input",), 1, 1000),
    Column("normals (°)", "normals", "visible", ("input",), 1),
    Column("IoU", "iou", None, _NOVEL, 3),
    Column("unseen (dB)", "psnr", "occluded", _UNSEEN),
    Column("unseen sharpness", "detail_energy", "occluded", _UNSEEN),
)
"""The printed table; the JSON holds every figure of every view."""


def values_of(
    column: Column,
    method: str,
    results: Mapping[str, Mapping[str, Mapping[str, Any]]],
    views: Mapping[str, Sequence[View]],
) -> NDArray:
    """A column's value on each subject in order, NaN where the method has none: results[method][subject]."""
    rows = results.get(method, {})
    return np.array([column.of(rows[name], views[name]) if name in rows else np.nan for name in views])


def gains(ours: NDArray, theirs: NDArray) -> Interval:
    """The mean difference over the heads that have both, paired."""
    return bootstrap(ours - theirs)
