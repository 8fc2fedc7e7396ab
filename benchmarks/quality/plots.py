"""The benchmark's plots; they want matplotlib (`pip install "pmv[benchmark]"`)."""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.summary import COLUMNS, Column, bootstrap, values_of
from benchmarks.quality.views import View


def can_plot() -> bool:
    """True where matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def _figure(title: str, width: float, height: float) -> Any:
    """An empty figure; matplotlib is imported only where something is plotted."""
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title)
    return figure


def _column(title: str) -> Column:
    return next(column for column in COLUMNS if column.title == title)


def plot_bars(results: Mapping[str, Any], views: Mapping[str, Sequence[View]], title: str, path: Path) -> None:
    """Every method's mean of the main figures with 95 % intervals over heads."""
    shown = [_column(name) for name in ("±15° (dB)", "±30° (dB)", "±30° detail in place", "depth, median out (.001)")]
    figure = _figure(title, 4 * len(shown), 1.2 + 0.35 * len(results))
    for axes, column in zip(figure.subplots(1, len(shown), sharey=True), shown):
        means = [bootstrap(values_of(column, method, results, views)) for method in results]
        rows = np.arange(len(means))[::-1]
        reach = np.array([[m.mean - m.low, m.high - m.mean] for m in means]).T
        axes.errorbar([m.mean for m in means], rows, xerr=np.nan_to_num(reach).clip(0), fmt="o", capsize=3)
        axes.set_yticks(rows, list(results))
        axes.set_title(column.title)
        axes.grid(axis="x", alpha=0.4)
    figure.savefig(path, dpi=110)


def plot_tradeoff(
    curves: Mapping[str, Mapping[float, Any]], views: Mapping[str, Sequence[View]], title: str, path: Path
) -> None:
    """Novel views against the input view as tuning goes on: curves[method][part of the steps] is subject → result."""
    shown = ("±30° (dB)", "depth, median out (.001)")
    figure = _figure(title, 11, 4.5)
    for axes, name in zip(figure.subplots(1, 2), shown):
        for method, points in curves.items():
            rows = {str(part): points[part] for part in sorted(points)}
            x, y = (
                [np.nanmean(values_of(_column(c), part, rows, views)) for part in rows] for c in ("input (dB)", name)
            )
            axes.plot(x, y, "o-", label=method)
            for part, at in zip(rows, zip(x, y)):
                axes.annotate(f"{float(part):g}", at, fontsize=7, xytext=(3, 3), textcoords="offset points")
        axes.set_xlabel("input view, PSNR (dB)")
        axes.set_ylabel(name)
        axes.grid(alpha=0.4)
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
