"""pmv with the surface of a statistical face that is fitted to the photo's landmarks (`stages/surface.py`), handed over
where the oracle's is: what a better guess at the geometry is worth before it is a part of the recipe.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from benchmarks.quality.door import outputs_of, replace_outputs, stage_that_gives
from benchmarks.quality.methods.base import Result, Task, Unfit, start, tuned_result
from benchmarks.quality.truth import Subject
from pmv.generators import load_generator
from pmv.pipeline.context import Context
from pmv.pipeline.folder import RunFolder
from pmv.stages import surface
from pmv.stages.table import TABLE


def _no_perceptual(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    raise TypeError("the stage surface compares no pictures")


@dataclass(frozen=True)
class FaceSurface:
    """The shipped recipe with the face's depth blended into the coarse one, by the stage's own defaults."""

    name: str = "face"
    about: str = "pmv, a statistical face's depth blended into the coarse surface"

    def run(self, subject: Subject, task: Task) -> Result:
        folder = RunFolder(start(subject, task, "coarse"), TABLE)
        stage = stage_that_gives(folder, "view_depths").name
        before, prepared = outputs_of(folder, stage), outputs_of(folder, "prepare")
        context = Context(
            load_generator(task.generator), torch.device("cpu"), torch.Generator().manual_seed(0), _no_perceptual
        )
        given = {
            "original": prepared.original,
            "camera": outputs_of(folder, "latent").camera,
            "coarse_input_depth": before.input_depth,
            "coarse_view_depths": before.view_depths,
        }
        for field in fields(surface.SurfaceInputs):
            given.setdefault(field.name, getattr(before, field.name, None))
        found = surface.run(surface.SurfaceInputs(**given), surface.SurfaceConfig(), context)
        if not found.surface_confidence.any():
            raise Unfit("no face was found whose landmarks could be used")
        replace_outputs(folder, stage, {"input_depth": found.input_depth, "view_depths": found.view_depths})
        start(subject, task, "retune")
        return tuned_result(task)


FACE = FaceSurface()
