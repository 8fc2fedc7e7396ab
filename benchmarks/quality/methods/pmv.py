"""pmv as it comes, and without each of its parts: config overlays, nothing else."""

from dataclasses import dataclass

from benchmarks.quality.door import outputs_of, replace_outputs
from benchmarks.quality.methods.base import PipelineMethod, Result, Task, start, tuned_result
from benchmarks.quality.truth import Subject
from pmv.pipeline.folder import RunFolder
from pmv.stages.table import TABLE

PMV = PipelineMethod("pmv", "the shipped recipe")

NO_SEED = PipelineMethod("no-seed", "nothing encoded: along the coarse surface", ("seed.kind=none",))
# a silhouette eroded by the whole picture leaves no texel to carry: pseudo-views are the coarse generator's renders
NO_WARP = PipelineMethod("no-warp", "pseudo-views hold no texel of the photo", ("visibility.silhouette_erode=1.0",))
NO_VIEWS = PipelineMethod("no-views", "the input view alone, with hold and residual", ("tune.views_per_step=0",))
NO_HOLD = PipelineMethod("no-hold", "geometry free while tuning", ("coarse.hold_weight=0.0", "tune.hold_weight=0.0"))
NO_RESIDUAL = PipelineMethod("no-residual", "no residual of the tri-planes", ("tune.residual_rate=0.0",))
NO_CAMERA = PipelineMethod("no-camera", "the camera stays as it is given", ("latent.camera_rate=0.0",))


@dataclass(frozen=True)
class WithoutInpainting:
    """Pseudo-views that show plain background where the photo does not say what is there, as they come from `warp`; in
    L2 these pixels do not count. The perceptual distance has no mask in `tune` and sees the holes."""

    name: str = "no-inpaint"
    about: str = "the occluded part of pseudo-views is left empty"

    def run(self, subject: Subject, task: Task) -> Result:
        settings = ["tune.occluded_weight=0.0"]
        folder = RunFolder(start(subject, task, "inpaint", settings), TABLE)
        warped = outputs_of(folder, "warp").warped_views
        replace_outputs(folder, "inpaint", {"pseudo_views": warped})
        start(subject, task, "retune", settings)
        return tuned_result(task)


NO_INPAINT = WithoutInpainting()


def _views(count: int) -> PipelineMethod:
    rings = 1 if count < 8 else 2
    return PipelineMethod(
        f"views-{count}", f"{count} pseudo-views near the photo's", (f"coarse.views={count}", f"coarse.rings={rings}")
    )


VIEWS = tuple(_views(count) for count in (1, 4, 12, 30))
ABLATIONS = (NO_SEED, NO_VIEWS, NO_WARP, NO_INPAINT, NO_HOLD, NO_RESIDUAL, NO_CAMERA, *VIEWS)
