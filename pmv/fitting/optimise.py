"""The one loop by which everything is fitted: a latent, a camera, weights of a generator.

In the manner of k-diffusion: it takes what is fitted, ``losses(step) → dict``, a schedule and a callback, and knows
nothing of logs, disks or progress bars. What makes a fit faster or safer goes in here, once.
"""

import logging
import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pmv.errors import FitError, Stopped
from pmv.fitting.replay import Replay

log = logging.getLogger("pmv")

_KEEP_EVERY = 20
"""Steps between the copies of the parameters that a fit can go back to."""
_READ_EVERY = 10
"""Recorded steps between two looks at their losses, for which the host waits."""
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


def never_enough(values: Mapping[str, float]) -> bool:
    """The default of `optimise`: all steps are made."""
    return False


@dataclass(frozen=True)
class Drawn:
    """The losses of a step in two parts, of which the second can be recorded as a CUDA graph.

    Attributes:
        draw: step → tensors: what differs from step to step, such as random numbers and the choice of views. It may
            switch ``requires_grad`` of parameters.
        terms: those tensors → the terms of the step, scalars by name, already weighted: the same work every time, and
            nothing that waits for the device.
        phase: step → what tells apart steps whose work differs otherwise; they are recorded anew.
    """

    draw: Callable[[int], Sequence[Tensor]]
    terms: Callable[..., Mapping[str, Tensor]]
    phase: Callable[[int], Hashable] = _nothing

    def __call__(self, step: int) -> Mapping[str, Tensor]:
        return self.terms(*self.draw(step))


def optimise(
    groups: Sequence[Group],
    losses: Callable[[int], Mapping[str, Tensor]],
    steps: int,
    *,
    ramp: Ramp = CONSTANT,
    enough: Callable[[Mapping[str, float]], bool] = never_enough,
    after: Callable[[int], Any] = _nothing,
    callback: Callable[[Step], Any] = _nothing,
    stop: Callable[[], bool] = _never,
    recorded: bool = False,
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
        recorded: replay steps as CUDA graphs; `losses` is then a `Drawn`, and all parameters lie on a GPU. Where
            nobody asks for `enough`, losses are looked at only every `_READ_EVERY` steps, so the callback hears of as
            many at once, and what a loss that is not finite led to is taken back that much later.

    Returns: how many steps were made.

    Raises:
        FitError: a loss is not finite before anything was changed, or again and again.
        Stopped: `stop` said so; the parameters are those after the last whole step.
    """
    work = Recorded(groups, losses) if recorded and isinstance(losses, Drawn) else _Plain(groups, losses)
    at_once = isinstance(work, _Plain) or enough is not never_enough
    guard = _Guard([p for group in groups for p in group.parameters])
    waiting: list[tuple[int, float]] = []
    started = time.perf_counter()
    for number in range(steps):
        if stop():
            raise Stopped
        rate = ramp(number, steps) * guard.slowdown
        work.compute(number)
        waiting.append((number, rate))
        if at_once:
            (values,) = work.read()
            if not _are_finite(values):
                guard.roll_back(number, values)
                work.begin_anew()
                callback(Step(number, {}, rate, time.perf_counter() - started, rolled_back=True))
                waiting, started = [], time.perf_counter()
                continue
            guard.offer(number)
            guard.accept(number)
            finished = enough(values)
            if not finished:
                work.update(rate)
                after(number)
            callback(Step(number, values, rate, time.perf_counter() - started))
            waiting, started = [], time.perf_counter()
            if finished:
                work.close()
                return number
            continue
        guard.offer(number)
        work.update(rate)
        after(number)
        if len(waiting) < _READ_EVERY and number < steps - 1:
            continue
        rows, astray = work.read(), False
        seconds = (time.perf_counter() - started) / len(waiting)
        for (earlier, rate), values in zip(waiting, rows, strict=True):
            if not astray and not _are_finite(values):
                guard.roll_back(earlier, values)
                work.begin_anew()
                astray = True
            if not astray:
                guard.accept(earlier)
            callback(Step(earlier, {} if astray else values, rate, seconds, rolled_back=astray))
        waiting, started = [], time.perf_counter()
    guard.finish()
    work.close()
    return steps


def _are_finite(values: Mapping[str, float]) -> bool:
    return all(map(math.isfinite, values.values()))


class _Plain:
    """Steps as they come."""

    def __init__(self, groups: Sequence[Group], losses: Callable[[int], Mapping[str, Tensor]]) -> None:
        self.groups, self.losses = groups, losses
        self.optimizer = torch.optim.Adam([{"params": list(g.parameters), "lr": g.learning_rate} for g in groups])
        self.terms: Mapping[str, Tensor] = {}

    def compute(self, number: int) -> None:
        """The losses of a step."""
        self.terms = self.losses(number)

    def read(self) -> list[dict[str, float]]:
        """The losses of the steps since the last time."""
        return [{name: term.item() for name, term in self.terms.items()}]

    def update(self, rate: float) -> None:
        """Adam's step at this part of the learning rates."""
        for group, given in zip(self.optimizer.param_groups, self.groups, strict=True):
            group["lr"] = given.learning_rate * rate
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(self.terms.values())).sum().backward()
        self.optimizer.step()

    def begin_anew(self) -> None:
        """Adam forgets."""
        self.optimizer.state.clear()

    def close(self) -> None:
        """Nothing is held that others could want."""


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
        self._offered: tuple[int, list[Tensor]] | None = None

    @torch.no_grad()
    def offer(self, number: int) -> None:
        """The parameters as they are before this step's update, whose losses may not be known yet."""
        if not self._kept or number - self._age >= _KEEP_EVERY:
            if self._offered is None or not self._offered[0] <= number < self._offered[0] + _READ_EVERY:
                self._offered = number, [p.detach().clone() for p in self.parameters]

    def accept(self, number: int) -> None:
        """This step's losses were finite."""
        if self._offered is not None and self._offered[0] == number:
            (self._age, self._kept), self._offered = self._offered, None

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
        self._offered = None
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


class Recorded:
    """Steps as CUDA graphs: one of losses and gradients, one of Adam's update."""

    def __init__(self, groups: Sequence[Group], losses: Drawn) -> None:
        self.groups, self.losses = groups, losses
        self.parameters = [p for group in groups for p in group.parameters]
        self.device = self.parameters[0].device
        # a rate that lies on the device can be another in every replay
        rates = [torch.tensor(g.learning_rate, device=self.device) for g in groups]
        self.optimizer = torch.optim.Adam(
            [{"params": list(g.parameters), "lr": rate} for g, rate in zip(groups, rates, strict=True)],
            fused=True,
            capturable=self.device.type == "cuda",
        )
        self.names: list[str] = []
        self._phase: Hashable = object()
        self._pass: Replay[Tensor] | None = None
        self._update: Replay[Any] | None = None
        self._updated = False
        self._rows: list[Tensor] = []

    def compute(self, number: int) -> None:
        """Losses and gradients of a step."""
        phase = self.losses.phase(number)
        inputs = [x.to(self.device) for x in self.losses.draw(number)]
        if self._pass is None or phase != self._phase:
            self._pass = self._update = None  # their memory serves the new ones
            self._phase, self._updated = phase, False
            self._pass = Replay(self._losses, inputs)
        self._rows.append(self._pass(*inputs).clone())

    def _losses(self, *inputs: Tensor) -> Tensor:
        for parameter in self.parameters:
            parameter.grad = None
        terms = self.losses.terms(*inputs)
        self.names = list(terms)
        values = torch.stack(list(terms.values()))
        values.sum().backward()
        return values.detach()

    def read(self) -> list[dict[str, float]]:
        """The losses of the steps since the last time; waits for the device."""
        rows, self._rows = torch.stack(self._rows).tolist(), []
        return [dict(zip(self.names, row, strict=True)) for row in rows]

    def update(self, rate: float) -> None:
        """Adam's step at this part of the learning rates."""
        for group, given in zip(self.optimizer.param_groups, self.groups, strict=True):
            group["lr"].fill_(given.learning_rate * rate)
        if not self._updated:  # Adam's moments come to be in a first step, which is none to be repeated
            self.optimizer.step()
            self._updated = True
        elif self._update is None:
            self._update = Replay(self.optimizer.step, warm_up=0)
            self._update()
        else:
            self._update()

    def begin_anew(self) -> None:
        """Adam forgets; its moments stay where they are in memory."""
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()

    def close(self) -> None:
        """The gradients lie in memory of the graphs, which go."""
        self._pass = self._update = None
        for parameter in self.parameters:
            parameter.grad = None
