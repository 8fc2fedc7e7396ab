"""The one loop by which everything is fitted: a latent, a camera, weights of a generator.

In the manner of k-diffusion: it takes what is fitted, ``losses(step) → dict``, a schedule and a callback, and knows
nothing of logs, disks or progress bars. What makes a fit faster or safer goes in here, once.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pmv.errors import FitError, Stopped

log = logging.getLogger("pmv")

_KEEP_EVERY = 20
"""Steps between the copies of the parameters that a fit can go back to."""
_MOST_ROLLBACKS = 6


@dataclass(frozen=True)
class Group:
    """Tensors that are fitted at one learning rate; a step leaves those without a gradient as they are."""

    parameters: Sequence[Tensor]
    learning_rate: float


@dataclass(frozen=True)
class Ramp:
    """Linear rise, plateau, half-cosine fall of the learning rate (StyleGAN2's projector, arXiv:1912.04958 §5.3).

    Attributes:
        up, down: parts of the whole that rise and fall; 0 switches either off.
    """

    up: float = 0.0
    down: float = 0.0

    def __call__(self, step: int, steps: int) -> float:
        """Factor in [0,1] on the learning rate in step 0 … steps − 1."""
        t = step / steps
        fall = min(1.0, (1.0 - t) / self.down) if self.down else 1.0
        rise = min(1.0, (step + 1) / (self.up * steps)) if self.up else 1.0
        return (0.5 - 0.5 * math.cos(fall * math.pi)) * rise


CONSTANT = Ramp()
"""The full rate in every step."""


@dataclass(frozen=True)
class Step:
    """What a callback hears of a step.

    Attributes:
        number: from 0.
        losses: each term, weighted; empty where the step was rolled back.
        rate: factor on the learning rates in this step.
        seconds: that it took.
        rolled_back: a loss was not finite, and the fit went back to where it had been some steps before.
    """

    number: int
    losses: Mapping[str, float] = field(default_factory=dict)
    rate: float = 1.0
    seconds: float = 0.0
    rolled_back: bool = False


def _nothing(*args: Any) -> None:
    pass


def _never(*args: Any) -> bool:
    return False


def optimise(
    groups: Sequence[Group],
    losses: Callable[[int], Mapping[str, Tensor]],
    steps: int,
    *,
    ramp: Ramp = CONSTANT,
    enough: Callable[[Mapping[str, float]], bool] = _never,
    after: Callable[[int], Any] = _nothing,
    callback: Callable[[Step], Any] = _nothing,
    stop: Callable[[], bool] = _never,
) -> int:
    """Minimise the sum of losses with Adam (β 0.9, 0.999), in place.

    A loss that is not finite changes nothing: the parameters go back to the last copy of them, at most `_KEEP_EVERY`
    steps old, Adam begins anew, and from there on every rate is half of what it was.

    Args:
        groups: what is fitted.
        losses: the terms of a step, scalars by name, already weighted; what it draws or counts is its own affair. It
            may switch ``requires_grad`` of parameters: those without a gradient rest.
        steps: at most so many.
        ramp: of the learning rates.
        enough: asked with the losses of every step; True ends the fit there, without that step's update.
        after: called with the step's number after its update.
        callback: called once a step, last.
        stop: asked before every step whether somebody wants the fit to end.

    Returns: how many steps were made.

    Raises:
        FitError: a loss is not finite before anything was changed, or again and again.
        Stopped: `stop` said so; the parameters are those after the last whole step.
    """
    optimizer = torch.optim.Adam([{"params": list(g.parameters), "lr": g.learning_rate} for g in groups])
    guard = _Guard([p for group in groups for p in group.parameters])
    for number in range(steps):
        if stop():
            raise Stopped
        started = time.perf_counter()
        rate = ramp(number, steps) * guard.slowdown
        for group, given in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] = given.learning_rate * rate
        terms = losses(number)
        values = {name: term.item() for name, term in terms.items()}
        if not all(map(math.isfinite, values.values())):
            guard.roll_back(number, values)
            optimizer.state.clear()
            callback(Step(number, {}, rate, time.perf_counter() - started, rolled_back=True))
            continue
        guard.passed(number)
        finished = enough(values)
        if not finished:
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(terms.values())).sum().backward()
            optimizer.step()
            after(number)
        callback(Step(number, values, rate, time.perf_counter() - started))
        if finished:
            return number
    guard.finish()
    return steps


class _Guard:
    """Keeps copies of parameters, and puts one back where a loss says that a step led astray.

    Attributes:
        slowdown: factor on all rates, halved by every rollback.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = parameters
        self.slowdown = 1.0
        self._rollbacks = 0
        self._kept: list[Tensor] = []
        self._age = 0

    @torch.no_grad()
    def passed(self, number: int) -> None:
        """The parameters as they are gave finite losses in this step."""
        if not self._kept or number - self._age >= _KEEP_EVERY:
            self._kept, self._age = [p.detach().clone() for p in self.parameters], number

    @torch.no_grad()
    def roll_back(self, number: int, values: Mapping[str, float]) -> None:
        bad = ", ".join(f"{name} is {value}" for name, value in values.items() if not math.isfinite(value))
        if not self._kept:
            raise FitError(
                f"{bad} before the first step; the generator's weights or the picture hold numbers that are none"
            )
        if self._rollbacks == _MOST_ROLLBACKS:
            raise FitError(
                f"{bad} in step {number}, even at 1/{round(1 / self.slowdown)} of the learning rate; lower the stage's "
                "learning_rate"
            )
        self._restore()
        self._rollbacks += 1
        self.slowdown /= 2
        log.warning(
            "step %d: %s; back to step %d, at 1/%d of the learning rate from here on",
            number,
            bad,
            self._age,
            round(1 / self.slowdown),
        )

    @torch.no_grad()
    def finish(self) -> None:
        """The last update was followed by no loss that could have told it wrong."""
        if self._kept and not all(bool(p.isfinite().all()) for p in self.parameters):
            self._restore()
            log.warning("the last step led astray; the result is that of step %d", self._age)

    def _restore(self) -> None:
        for parameter, kept in zip(self.parameters, self._kept, strict=True):
            parameter.copy_(kept)
