"""Single-view pivotal tuning (Roich et al. 2021, arXiv:2106.05744): the latent, then the generator's weights to the one
photo.

There is no coarse generator, no pseudo-view, no hold and no residual; its steps go into tuning. Latent and camera are
pmv's, so that the difference is what comes after.
"""

from dataclasses import dataclass

from benchmarks.quality.methods.base import Result, Task, start, tuned_result
from benchmarks.quality.truth import Subject


@dataclass(frozen=True)
class PivotalTuning:
    """See the module's text."""

    name: str = "PTI"
    about: str = "single-view pivotal tuning"

    def run(self, subject: Subject, task: Task) -> Result:
        budget = task.budget
        settings = [
            "seed.kind=none",
            *budget.steps(coarse=0, tune=budget.coarse + budget.tune),
            "coarse.views=1",
            "coarse.rings=1",
            "coarse.around=0",
            "tune.views_per_step=0",
            "tune.hold_weight=0.0",
            "tune.residual_rate=0.0",
        ]
        start(subject, task, "retune", settings)
        return tuned_result(task)


PTI = PivotalTuning()
