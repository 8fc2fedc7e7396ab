"""What a stage gets besides its inputs and its config. A stage touches the disk through nothing else."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pmv.fitting.optimise import Step
from pmv.fitting.perceptual import Perceptual
from pmv.generators.base import Generator


class Progress(Protocol):
    """The part of a tqdm bar that stages use."""

    def update(self, n: int = 1) -> Any: ...

    def set_postfix(self, **losses: Any) -> Any: ...

    def __enter__(self) -> "Progress": ...

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> Any: ...


class _Silent:
    """A progress bar that shows nothing."""

    def update(self, n: int = 1) -> None:
        pass

    def set_postfix(self, **losses: Any) -> None:
        pass

    def __enter__(self) -> "_Silent":
        return self

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        pass


def silent_progress(total: int, description: str) -> Progress:
    """A progress factory that shows nothing: what tests and library callers use."""
    return _Silent()


def _ignore(*args: Any, **kwargs: Any) -> None:
    """The default of every hook that shows or saves something: nothing is shown or saved."""


def never() -> bool:
    """The default of `Context.stop`: nobody ends a run before its end."""
    return False


@dataclass(frozen=True)
class Context:
    """The surroundings of one stage's run.

    Args:
        generator: the pretrained generator (see `pmv.generators`). A stage never changes it: it deep-copies before
            tuning.
        device: where the stage computes; its inputs already live there.
        rng: CPU random generator, seeded from (run seed, stage name), so that a stage run alone draws the same numbers.
        perceptual: ``perceptual(a, b, mask=None) -> [N]`` distance of images ``[N,3,H,W]`` in [-1,1], see
            `pmv.fitting.perceptual`.
        progress: ``progress(total, description)`` returns a tqdm-like bar.
        preview: ``preview(name, image)``: image ``[N,3,H,W]`` in [-1,1] or mask ``[N,1,H,W]`` in [0,1]; N > 1 is tiled.
        video: ``video(name, frames, fps)``: frames uint8 ``[T,H,W,3]``.
        mesh: ``mesh(name, vertices, faces, colours)``: ``[V,3]`` float, ``[F,3]`` int, ``[V,3]`` uint8 or None.
        record: ``record(**floats)`` appends a row of numbers (losses) to the stage's ``stage.json``.
        glimpse: ``glimpse(image)`` hears in every step of a fit how the head looks so far: image ``[N,3,H,W]`` in about
            [-1,1], the input view first.
        stop: True once somebody wants the run to end; asked between steps.
        recorded: replay the steps of fits as CUDA graphs; for a `generator` and `perceptual` that wait for nothing.
    """

    generator: Generator
    device: torch.device
    rng: torch.Generator
    perceptual: Perceptual
    progress: Callable[[int, str], Progress] = silent_progress
    preview: Callable[[str, Tensor], None] = _ignore
    video: Callable[[str, np.ndarray, int], None] = _ignore
    mesh: Callable[..., None] = _ignore
    record: Callable[..., None] = _ignore
    glimpse: Callable[[Tensor], None] = _ignore
    stop: Callable[[], bool] = never
    recorded: bool = False

    @contextmanager
    def following(
        self, steps: int, description: str, shown: Sequence[str] | None = None
    ) -> Iterator[Callable[[Step], None]]:
        """A callback for `pmv.fitting.optimise.optimise` that records every step and shows it in a progress bar.

        Args:
            steps: of the whole.
            description: of the bar.
            shown: names of the losses that stand beside it; None = all.
        """
        with self.progress(steps, description) as bar:

            def callback(step: Step) -> None:
                rolled_back = {"rolled_back": 1.0} if step.rolled_back else {}
                self.record(step=step.number, **step.losses, **rolled_back, seconds=round(step.seconds, 4))
                named = {name: value for name, value in step.losses.items() if shown is None or name in shown}
                bar.set_postfix(**{name: f"{value:.3f}" for name, value in named.items()})
                bar.update(1)

            yield callback


@dataclass(frozen=True)
class Watch:
    """Who follows a run from outside while it works, such as a page in a browser.

    Attributes:
        progress: see `Context.progress`; None = bars on the terminal, where there is one.
        glimpse: see `Context.glimpse`.
    """

    progress: Callable[[int, str], Progress] | None = None
    glimpse: Callable[[Tensor], None] = _ignore


UNWATCHED = Watch()
"""Nobody but the terminal."""
