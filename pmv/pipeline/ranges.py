"""What numbers a setting may have: metadata of the config dataclasses' fields, checked where configs are read
(`pmv.pipeline.config`) and told in ``configs/base.yaml`` (`pmv.pipeline.explain`).

    steps: Annotated[int, Range(0, 1000)] = 500

The upper ends are not tastes: beyond them lies what is a slip, or keeps a machine busy for nothing.
"""

import math
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Range:
    """Numbers between two ends.

    Attributes:
        least, most: the ends, inside.
        above: the lower end is outside.
        or_zero: 0, which switches something off, is inside too.
    """

    least: float
    most: float
    above: bool = False
    or_zero: bool = False

    def __contains__(self, value: float) -> bool:
        inside = self.least < value <= self.most if self.above else self.least <= value <= self.most
        return math.isfinite(value) and (inside or (self.or_zero and value == 0))

    def __str__(self) -> str:
        least, most = (str(end) if isinstance(end, int) else f"{end:g}" for end in (self.least, self.most))
        text = f"above {least}, at most {most}" if self.above else f"from {least} to {most}"
        return f"0, or {text}" if self.or_zero else text


Steps = Annotated[int, Range(0, 1_000_000)]
"""Of an optimiser."""
LearningRate = Annotated[float, Range(0, 10)]
Part = Annotated[float, Range(0, 1)]
"""Of a whole."""
Width = Annotated[float, Range(0, 0.5)]
"""A fraction of the image width, which is taken from both sides."""
Weight = Annotated[float, Range(0, 1_000_000)]
"""Of a loss."""
Turn = Annotated[float, Range(0, 180)]
"""Degrees to either side."""
Tilt = Annotated[float, Range(0, 89)]
"""Degrees up or down, short of the pole."""
Length = Annotated[float, Range(0, 1000, above=True)]
"""World units; the generator's box has a side of some."""
Place = Annotated[float, Range(-1000, 1000)]
"""A coordinate in world units."""
