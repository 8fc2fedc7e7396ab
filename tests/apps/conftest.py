"""A finished run of the tiny generator, which several tests of operations read."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from pmv.apps.invert import Request, invert
from pmv.generators import EG3DGenerator, save_generator
from pmv.pictures.images import resize, write_png
from pmv.pictures.overlay import Placement
from pmv.stages.edit_list import Edit
from tests.apps.test_cli import SMALL


class Finished(NamedTuple):
    """A run with a painted mark, a photo twice as fine as the generator, and the generator's checkpoint."""

    run: Path
    checkpoint: Path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_generator: EG3DGenerator) -> Finished:
    """See `Finished`; tests must not change it."""
    folder = tmp_path_factory.mktemp("finished")
    save_generator(tiny_generator, folder / "tiny.safetensors")
    w = tiny_generator.mean_w(16)
    camera = tiny_generator.spec.orbit(0.2, 0.0)
    view = tiny_generator.render(tiny_generator.planes(w), w, camera)
    write_png(folder / "head.png", resize(view.image.clamp(-1, 1), 64))
    write_png(folder / "mask.png", resize(view.alpha, 64).clamp(0, 1))
    camera.save(folder / "camera.json", ["head.png"])
    mark = np.zeros((16, 16, 3), np.uint8)
    mark[4:12, 4:12] = (255, 255, 0)
    write_png(folder / "mark.png", mark)
    edit = Edit(folder / "mark.png", placement=Placement(at=(0.5, 0.5), size=0.3))
    settings = [*SMALL, f"run.generator={folder / 'tiny.safetensors'}"]
    request = Request(
        settings=settings, mask=folder / "mask.png", camera=folder / "camera.json", edits=[edit], command="pmv invert"
    )
    return Finished(invert(request, folder / "head.png", folder / "run"), folder / "tiny.safetensors")
