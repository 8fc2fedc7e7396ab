"""The benchmark's tables, in Markdown."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.quality.summary import COLUMNS, Interval, bootstrap, gains, values_of
from benchmarks.quality.views import View

Results = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Method → subject → result."""
_GAINS = ("input (dB)", "±15° (dB)", "±30° (dB)", "45–60° (dB)", "±30° detail in place", "depth, median out (.001)")


def cell(value: Interval, digits: int, sign: bool = False) -> str:
    """Mean and 95 % interval; only the mean where there is one head, a dash where there is none."""
    if math.isnan(value.mean):
        return "–"
    plus = "+" if sign else ""
    text = f"{value.mean:{plus}.{digits}f}"
    return text if value.heads < 2 else f"{text} [{value.low:{plus}.{digits}f}, {value.high:{plus}.{digits}f}]"


def table(results: Results, views: Mapping[str, Sequence[View]]) -> str:
    """A row for each method: means over the subjects, whose views `views` names."""
    lines = ["| method | " + " | ".join(c.title for c in COLUMNS) + " |", "|---|" + "--:|" * len(COLUMNS)]
    for method in results:
        cells = [cell(bootstrap(values_of(column, method, results, views)), column.digits) for column in COLUMNS]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def gain_table(results: Results, views: Mapping[str, Sequence[View]], base: str) -> str:
    """What each method has over `base` on the same subjects, with 95 % intervals of the paired differences."""
    columns = [column for column in COLUMNS if column.title in _GAINS]
    lines = [f"| over {base} | " + " | ".join(c.title for c in columns) + " |", "|---|" + "--:|" * len(columns)]
    for method in results:
        if method != base:
            pairs = [(values_of(c, method, results, views), values_of(c, base, results, views)) for c in columns]
            cells = [cell(gains(*pair), column.digits, sign=True) for column, pair in zip(columns, pairs)]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def unfit(results: Results) -> list[str]:
    """Why rows are empty, a line for each reason."""
    reasons = {f"{m}: {r['unfit']}" for m, rows in results.items() for r in rows.values() if "unfit" in r}
    return sorted(reasons)
