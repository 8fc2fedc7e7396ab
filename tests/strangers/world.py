"""What rows of strangers' files start from: a tiny generator, a portrait of its head, and a finished run of it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pmv.apps.invert import Request, invert
from pmv.files.artifacts import read_header, save_tensors, tensors_hash
from pmv.generators import EG3DGenerator, save_generator
from pmv.generators.directions import FILE_NAME, Direction, Directions, save_directions
from pmv.pictures.images import write_png
from tests.apps.test_cli import SMALL

STAGE = "06_warp"
"""The stage whose files rows spoil: cheap to run again."""


@dataclass(frozen=True)
class World:
    """Made once; rows copy from it.

    Attributes:
        folder: head.png, mask.png, tiny.safetensors with its .json and directions.safetensors; run, a finished run.
    """

    folder: Path

    @classmethod
    def make(cls, folder: Path, generator: EG3DGenerator) -> "World":
        """Make it in an empty folder."""
        weights = folder / "tiny.safetensors"
        save_generator(generator, weights)
        w = generator.mean_w(16)
        about = (Direction("smile", "smile", "mm", 1.0, 4.0),)
        save_directions(
            folder / FILE_NAME, Directions(torch.ones(1, w.shape[-1]), about, tensors_hash(generator.state_dict())), {}
        )
        view = generator.render(generator.planes(w), w, generator.spec.orbit(0.2, 0.0))
        write_png(folder / "head.png", view.image.clamp(-1, 1))
        write_png(folder / "mask.png", torch.nn.functional.interpolate(view.alpha, 32).clamp(0, 1))
        request = Request(settings=(*SMALL, f"run.generator={weights}"), mask=folder / "mask.png")
        invert(request, folder / "head.png", folder / "run")
        return cls(folder)

    def new(self, row: Path) -> list[str]:
        """What starts a new run of the portrait in the folder `row`, up to its first stage."""
        for name in ("head.png", "mask.png"):
            shutil.copy(self.folder / name, row / name)
        settings = [part for value in SMALL for part in ("--set", value)]
        weights = str(self.folder / "tiny.safetensors")
        return ["invert", "head.png", "--mask", "mask.png", "--generator", weights, *settings, "--until", "prepare"]

    def copy_run(self, row: Path) -> Path:
        """A copy of the run, to be spoilt."""
        return Path(shutil.copytree(self.folder / "run", row / "run"))

    def copy_generator(self, row: Path) -> Path:
        """Copies of the generator's files, to be spoilt; returns the weights."""
        for name in ("tiny.safetensors", "tiny.json", FILE_NAME):
            shutil.copy(self.folder / name, row / name)
        return row / "tiny.safetensors"


def change_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change what a JSON file holds; what `change` returns, if anything, takes its place."""
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))


def change_tensors(path: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]) -> None:
    """Change header and tensors of a file that pmv wrote."""
    from safetensors.torch import load_file

    header, tensors = read_header(path), load_file(path)
    change(header, tensors)
    save_tensors(path, tensors, header)
