"""Inversion to a latent alone, the generator left as it is: W and W+ (Abdal et al. 2019, arXiv:1904.03189)."""

from dataclasses import dataclass

from benchmarks.quality.methods.base import Result, Task, latent_result, start
from benchmarks.quality.truth import Subject


@dataclass(frozen=True)
class LatentMethod:
    """The latent stage with all the budget's steps."""

    name: str
    about: str
    settings: tuple[str, ...] = ()

    def run(self, subject: Subject, task: Task) -> Result:
        steps = f"latent.steps={task.budget.total}"
        start(subject, task, "latent", [steps, "seed.kind=none", *self.settings])
        return latent_result(task)


W = LatentMethod("W", "one row for all layers, the generator as it is", ("latent.w_plus_from=1.0",))
W_PLUS = LatentMethod("W+", "a row for each layer, the generator as it is")
