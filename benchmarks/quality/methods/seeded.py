"""What encoders are worth: the head that they say at once, and pmv that starts from it, whole and by its parts.

Without encoders for the generator these rows say so and are skipped.
"""

from dataclasses import dataclass, fields

from benchmarks.quality.methods.base import Result, Task, Unfit, encoded_result, start, tuned_result
from benchmarks.quality.truth import Subject
from pmv.errors import PmvError
from pmv.generators import load_generator
from pmv.stages.seed import SeedConfig, check

_HANDED = tuple(field.name for field in fields(SeedConfig) if field.type is bool or field.type == "bool")
"""The seed's switches."""


def _settings(task: Task, parts: str) -> list[str]:
    """Of a seeded run. Unfit where there are no such encoders."""
    config = SeedConfig("encoder", task.encoders, parts)  # pyright: ignore[reportArgumentType]
    try:
        check(config, load_generator(task.generator))
    except PmvError as error:
        raise Unfit(str(error)) from error
    return ["seed.kind=encoder", f"seed.encoders={task.encoders}", f"seed.parts={parts}"]


@dataclass(frozen=True)
class Encode:
    """The encoded head alone.

    Attributes:
        parts: of the encoders, see `SeedConfig`.
    """

    name: str
    about: str
    parts: str

    def run(self, subject: Subject, task: Task) -> Result:
        start(subject, task, "seed", _settings(task, self.parts))
        return encoded_result(task)


@dataclass(frozen=True)
class Seeded:
    """pmv that takes of the encoded head what is named, and starts from it wherever the photo was taken from.

    Attributes:
        handed: the switches that are on. part: of the budget's steps that it takes.
    """

    name: str
    about: str
    handed: tuple[str, ...] = _HANDED
    part: float = 1.0

    def run(self, subject: Subject, task: Task) -> Result:
        budget = task.budget
        settings = [
            *_settings(task, "both"),
            "seed.start_yaw=0",
            *(f"seed.{name}={str(name in self.handed).lower()}" for name in _HANDED),
        ]
        steps = {name: max(1, round(self.part * getattr(budget, name))) for name in ("latent", "coarse", "tune")}
        start(subject, task, "retune", [*settings, *budget.steps(**steps)])
        return tuned_result(task)


ENCODE = (
    Encode("encode", "encoders alone, both stitched", "both"),
    Encode("encode-E1", "the first encoder alone, right where the photo shows the head", "visible"),
    Encode("encode-E2", "the second encoder alone, plausible everywhere", "whole"),
)
SEEDED = (
    Seeded("pmv+seed", "pmv that takes all that there is of the encoded head"),
    Seeded("pmv+seed-40", "the same in 40 % of the steps", part=0.4),
    Seeded("seed-surface-residual", "pmv that takes its surface and its planes as residual", ("surface", "residual")),
    *(Seeded(f"seed-{name}", f"pmv that takes of the encoded head {name} alone", (name,)) for name in _HANDED),
    *(
        Seeded(f"seed-no-{name}", f"pmv+seed without {name}", tuple(other for other in _HANDED if other != name))
        for name in _HANDED
    ),
)
