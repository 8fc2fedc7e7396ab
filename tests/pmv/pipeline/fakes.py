"""A table of four stages that take milliseconds, for tests of the runner; as a script, a run that kills itself.

``python fakes.py FOLDER STAGE`` runs the table in FOLDER and dies by SIGKILL in the middle of STAGE.
"""

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from pmv.geometry.camera import Camera
from pmv.inversion import FILE_NAME, save_inversion
from pmv.pipeline.config import Config, GeneratorConfig, resolve
from pmv.pipeline.folder import RunFolder
from pmv.pipeline.runner import Runner
from pmv.pipeline.table import Product, Stage, Table
from pmv.stages import sources
from pmv.stages.edit_list import LoadedEdit

CALLS: list[str] = []
"""The stages that ran, in order."""
_DIES_IN: list[str] = []


@dataclass(frozen=True)
class FakeStage(Stage):
    implementation: Any = None

    @property
    def code(self) -> Any:
        return self.implementation


def _begin(name: str, context: Any) -> None:
    CALLS.append(name)
    context.preview(f"{name}_start", torch.zeros(1, 3, 4, 4))
    if name in _DIES_IN:
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class DrawInputs:
    photo: Tensor
    photo_edits: tuple[LoadedEdit, ...]


@dataclass(frozen=True)
class DrawConfig:
    gain: float
    offset: float


@dataclass(frozen=True)
class DrawOutputs:
    image: Tensor
    base: Tensor


def draw(inputs: DrawInputs, config: DrawConfig, context: Any) -> DrawOutputs:
    _begin("draw", context)
    base = inputs.photo * config.gain
    edit = inputs.photo_edits[-1].picture if inputs.photo_edits else inputs.photo
    # the offset is a knob that changes nothing here, so that a stage can run again and give the same
    return DrawOutputs(edit * config.gain, base)


@dataclass(frozen=True)
class FitInputs:
    base: Tensor


@dataclass(frozen=True)
class FitConfig:
    steps: int


@dataclass(frozen=True)
class FitOutputs:
    pivot_w: Tensor
    noise: dict[str, Tensor]
    camera: Camera


def fit(inputs: FitInputs, config: FitConfig, context: Any) -> FitOutputs:
    w = torch.zeros(1, 2, 4)
    with context.progress(config.steps, "fit") as bar:
        for step in range(config.steps):
            w = w + torch.randn(w.shape, generator=context.rng) + inputs.base.mean() + torch.rand(1)
            context.record(step=step, loss=w.mean())
            bar.update(1)
            if step == 1:
                _begin("fit", context)
    return FitOutputs(w, {"a.b": w[0, 0]}, Camera.orbit(0.1, 0.2))


@dataclass(frozen=True)
class TuneInputs:
    image: Tensor
    pivot_w: Tensor
    noise: dict[str, Tensor]
    camera: Camera


@dataclass(frozen=True)
class TuneConfig:
    steps: int


@dataclass(frozen=True)
class TuneOutputs:
    tuned_state: dict[str, Tensor]
    nothing: Tensor | None


def tune(inputs: TuneInputs, config: TuneConfig, context: Any) -> TuneOutputs:
    _begin("tune", context)
    weight = inputs.image.mean() + inputs.pivot_w.sum() + inputs.noise["a.b"].sum() + inputs.camera.cam2world.sum()
    return TuneOutputs({"weight": weight.reshape(1, 1) * config.steps}, None)


@dataclass(frozen=True)
class JudgeInputs:
    tuned_state: dict[str, Tensor]
    nothing: Tensor | None


@dataclass(frozen=True)
class JudgeConfig:
    pass


@dataclass(frozen=True)
class JudgeOutputs:
    metrics: dict[str, float]


def judge(inputs: JudgeInputs, config: JudgeConfig, context: Any) -> JudgeOutputs:
    _begin("judge", context)
    assert inputs.nothing is None
    return JudgeOutputs({"psnr": inputs.tuned_state["weight"].item()})


def _stage(number: int, run: Any) -> FakeStage:
    name = run.__name__
    parts = {k: globals()[k] for k in globals() if k.startswith(name.capitalize())}
    return FakeStage(number, name, "fakes", SimpleNamespace(run=run, **parts))


TABLE = Table(
    (_stage(0, draw), _stage(2, fit), _stage(3, tune), _stage(4, judge)),
    sources.NAMES,
    sources.open_sources,
    (
        Product(
            FILE_NAME,
            {"tuned_state": "tuned_state", "w": "pivot_w", "noise": "noise", "camera": "camera"},
            save_inversion,
        ),
    ),
)

VALUES = {
    "run": {
        "generator": "fake",
        "domain": "auto",
        "seed": 3,
        "device": "cpu",
        "speed": "auto",
        "perceptual": "lpips-random-squeeze",
    },
    "generator": dict.fromkeys(field.name for field in fields(GeneratorConfig))
    | {"conditioning_yaw": 0.0, "conditioning_pitch": 0.0},
    "draw": {"gain": 2.0, "offset": 0.0},
    "fit": {"steps": 3},
    "tune": {"steps": 2},
    "judge": {},
}


def config(*settings: str) -> Config:
    return resolve(TABLE, [("VALUES", VALUES)], settings)


def generator() -> torch.nn.Module:
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(module.weight)
    module.spec = SimpleNamespace(resolution=4)  # type: ignore[assignment]
    return module


def new_run(path: Path, photo: Path) -> Path:
    """The folder of a run of which nothing has run yet."""
    path.mkdir()
    folder = RunFolder(path, TABLE)
    folder.write_config(config().as_yaml())
    sources.write_sources(folder, sources.PhotoSources(photo))
    return path


def run(folder: Path, settings: Sequence[str] = (), first: str | None = None, until: str | None = None) -> list[str]:
    """Bring a fake run up to date; returns the stages that ran."""
    CALLS.clear()
    Runner(RunFolder(folder, TABLE), config(*settings), "fake", generator()).run(first, until)
    return CALLS.copy()


if __name__ == "__main__":
    _DIES_IN.append(sys.argv[2])
    run(Path(sys.argv[1]))
