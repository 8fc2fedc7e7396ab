"""The ordered table of stages: from a photo to a head that was judged."""

from pmv.inversion import FILE_NAME, save_inversion
from pmv.pipeline.table import Product, Stage, Table
from pmv.stages import sources
from pmv.stages.notes import NOTES

TABLE = Table(
    stages=(
        Stage(0, "prepare", "pmv.stages.prepare"),
        Stage(1, "seed", "pmv.stages.seed"),
        Stage(2, "latent", "pmv.stages.latent"),
        Stage(3, "coarse", "pmv.stages.coarse"),
        Stage(4, "edit", "pmv.stages.edit"),
        Stage(5, "visibility", "pmv.stages.visibility"),
        Stage(6, "warp", "pmv.stages.warp"),
        Stage(7, "inpaint", "pmv.stages.inpaint"),
        Stage(8, "tune", "pmv.stages.tune"),
        Stage(9, "retune", "pmv.stages.retune"),
        Stage(10, "evaluate", "pmv.stages.evaluate"),
    ),
    source_names=sources.NAMES,
    open_sources=sources.open_sources,
    notes=NOTES,
    products=(
        Product(
            FILE_NAME,
            takes={"tuned_state": "tuned_state", "w": "pivot_w", "noise": "noise", "camera": "camera"},
            write=save_inversion,
        ),
    ),
)
