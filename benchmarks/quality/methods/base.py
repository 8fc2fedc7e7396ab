"""The one interface that all methods stand behind, and what those have in common that are runs of pmv's pipeline."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from benchmarks.quality.budget import Budget
from benchmarks.quality.truth import Subject
from pmv.apps.invert import Request, invert
from pmv.fitting.tuning import start_from_planes
from pmv.generators import load_generator
from pmv.generators.base import Generator, Render
from pmv.generators.views import render_views
from pmv.geometry.camera import Camera
from pmv.inversion import load_inversion
from pmv.pipeline.folder import RunFolder
from pmv.pipeline.packing import load_fields
from pmv.stages.table import TABLE


class Unfit(Exception):
    """A method means nothing for a subject; the text says why, and the table shows it."""


@dataclass(frozen=True)
class Result:
    """A finished inversion.

    Attributes:
        generator, w, noise: the head.
        camera: of the input view, in the head's own world.
        steps: optimisation steps that it took; seconds: of the method alone, without what it shared with others.
    """

    generator: Generator
    w: torch.Tensor
    noise: dict[str, torch.Tensor]
    camera: Camera
    steps: int
    seconds: float

    def render(self, cameras: Camera, resolution: int | None = None) -> Render:
        """Views from cameras of the head's own world, without gradients, on the CPU.

        Args:
            resolution: rays a side; None = as the generator was trained, which its pictures want.
        """
        out = render_views(self.generator, self.w, self.noise, cameras.to(self.w.device), resolution)
        return Render(*(getattr(out, name).cpu() for name in ("image", "raw", "depth", "alpha")))


@dataclass(frozen=True)
class Task:
    """What a method gets beside the subject.

    Attributes:
        budget: see there. folder: its own, where it may leave files and find them again.
        shared: the run of pmv's first stages on this subject, which a method may start from, see `start`.
        device: "cpu" or "cuda". generator: name or file. encoders: see `pmv.encoders.shipped.find_encoders`.
    """

    budget: Budget
    folder: Path
    shared: Path
    device: str
    generator: str
    encoders: str = "auto"

    @property
    def settings(self) -> list[str]:
        """Of every pmv run: nothing is made that is not judged."""
        fixed = ["evaluate.frames=0", "evaluate.mesh_resolution=0", f"run.generator={self.generator}"]
        return [*fixed, f"run.device={self.device}", *self.budget.settings, *self.budget.steps()]


class Method(Protocol):
    """A way to make a head of a photo. It is a value: two runs of one method do the same."""

    @property
    def name(self) -> str:
        """Its row in the table."""
        ...

    @property
    def about(self) -> str:
        """One line that says what it is."""
        ...

    def run(self, subject: Subject, task: Task) -> Result:
        """Invert the subject's photo.

        Raises:
            Unfit: the method means nothing for this subject.
        """
        ...


def share(subject: Subject, task: Task) -> None:
    """The stages that most methods have in common, once for a subject: pmv's own up to `coarse`, in ``task.shared``."""
    request = Request(
        presets=task.budget.presets,
        settings=task.settings,
        mask=subject.mask,
        camera=subject.found_camera,
        until="coarse",
    )
    invert(request, subject.photo, task.shared)


def start(
    subject: Subject,
    task: Task,
    until: str,
    settings: Sequence[str] = (),
    presets: Sequence[str] = (),
    camera: Path | None = None,
) -> Path:
    """A pmv run of a method's own up to a stage: a copy of the shared one with the method's config over the budget's.
    What the two have in common is not run again.

    Args:
        settings, presets: the method's, laid over the budget's.
        camera: another one than a user has.
    """
    if not task.folder.exists():
        temporary = task.folder.with_name(f".{task.folder.name}.part")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(task.shared, temporary)
        temporary.rename(task.folder)
    request = Request(
        presets=(*task.budget.presets, *presets),
        settings=[*task.settings, *settings],
        camera=camera or subject.found_camera,
        until=until,
    )
    return invert(request, resume=task.folder)


def latent_result(task: Task) -> Result:
    """The head of a run's latent alone, with the pretrained generator."""
    folder = RunFolder(task.folder, TABLE)
    stage = folder.table[folder.table.find("latent")]
    found = load_fields(folder.outputs(stage), ["pivot_w", "noise", "camera"], task.device)
    generator = load_generator(task.generator, device=task.device)
    return Result(generator, found["pivot_w"], found["noise"], found["camera"], *_spent(folder, ("latent",)))


def encoded_result(task: Task) -> Result:
    """The head of a run's seed alone."""
    folder = RunFolder(task.folder, TABLE)
    stage = folder.table[folder.table.find("seed")]
    found = load_fields(folder.outputs(stage), ["encoded_w", "encoded_planes", "encoded_camera"], task.device)
    generator = load_generator(task.generator, device=task.device)
    noise = generator.noise_buffers()
    start_from_planes(generator, found["encoded_planes"], found["encoded_w"], noise)
    record = folder.record(stage) or {"seconds": 0.0}  # what the stages after it took is the shared run's
    return Result(generator, found["encoded_w"], noise, found["encoded_camera"], 0, record["seconds"])


def tuned_result(task: Task) -> Result:
    """The head of a run that went to `retune`."""
    folder = RunFolder(task.folder, TABLE)
    head = load_inversion(task.folder, task.device)
    return Result(head.generator, head.w, head.noise, head.camera, *_spent(folder, ("latent", "coarse", "tune")))


def _spent(folder: RunFolder, stages: Sequence[str]) -> tuple[int, float]:
    """Optimisation steps and seconds of a run's stages."""
    steps, seconds = 0, 0.0
    for row in folder.table:
        if record := folder.record(row):
            seconds += record["seconds"]
            steps += len(record["losses"]) if row.name in stages else 0
    return steps, round(seconds, 1)


@dataclass(frozen=True)
class PipelineMethod:
    """A method that is pmv's pipeline with another config.

    Attributes:
        name, about: see `Method`.
        settings, presets: laid over the budget's.
    """

    name: str
    about: str
    settings: tuple[str, ...] = ()
    presets: tuple[str, ...] = ()

    def run(self, subject: Subject, task: Task) -> Result:
        start(subject, task, "retune", self.settings, self.presets)
        return tuned_result(task)
