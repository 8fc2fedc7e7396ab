"""The recipe asks no more of a generator than its contract says: it runs on one that has nothing else."""

from pathlib import Path
from typing import Any

import torch

from pmv.apps.invert import Request, invert
from pmv.files.artifacts import read_json
from pmv.generators import EG3DGenerator, Generator
from pmv.pictures.images import write_png
from tests.stages.test_panohead_run import SETTINGS

CONTRACT = {name for name in (*vars(Generator), *Generator.__annotations__) if not name.startswith("_")}


class Bare:
    """A generator of which nothing can be reached but the contract."""

    def __init__(self, whole: EG3DGenerator) -> None:
        self._whole = whole

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_whole" or name not in CONTRACT:
            raise AttributeError(f"the contract has no {name}")
        return getattr(self._whole, name)


def test_the_contract_is_enough_for_a_whole_run(tmp_path: Path, tiny_generator: EG3DGenerator):
    assert {"spec", "map", "planes", "render", "plane_residual", "load_tuned"} <= CONTRACT
    w, camera = tiny_generator.mean_w(16), tiny_generator.spec.orbit(0.2, 0.0)
    out = tiny_generator.render(tiny_generator.planes(w), w, camera)
    write_png(tmp_path / "head.png", out.image.clamp(-1, 1))
    write_png(tmp_path / "mask.png", torch.nn.functional.interpolate(out.alpha, 32).clamp(0, 1))
    camera.save(tmp_path / "camera.npy")
    request = Request(settings=SETTINGS, mask=tmp_path / "mask.png", camera=tmp_path / "camera.npy")
    run = invert(request, tmp_path / "head.png", tmp_path / "run", generator=Bare(tiny_generator))
    assert read_json(run / "run.json")["complete"]
