"""The work: which inversions must run, in how many processes, and what is kept of each, so that a benchmark goes on
where it stopped.

In the work folder: ``truth/SUBJECT`` (true views), ``CODE-BUDGET/runs/SUBJECT/METHOD`` (pmv's run folders),
``CODE-BUDGET/results/SUBJECT/METHOD.{json,npz}`` (figures; pictures, depth, alpha). CODE is a hash of pmv's sources and
configs: results of other code are never mixed in.
"""

import hashlib
import shutil
import time
import traceback
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import pmv
from benchmarks.quality.budget import Budget
from benchmarks.quality.carried import carried
from benchmarks.quality.door import is_replaced
from benchmarks.quality.measure import Drawn, Figures, measure
from benchmarks.quality.methods import METHODS, Task, Unfit, share
from benchmarks.quality.methods.seeded import Encode, Seeded
from benchmarks.quality.parts import find_parts
from benchmarks.quality.truth import Subject
from benchmarks.quality.views import Tie
from pmv.files.artifacts import atomic_path, file_hash, read_json, value_hash, write_json
from pmv.files.manifest import cached, manifest
from pmv.files.reading import is_file
from pmv.generators import resolve_generator
from pmv.pictures.images import to_uint8
from pmv.pipeline.folder import RunFolder
from pmv.stages.table import TABLE

CEILING = "carried by true depth"
"""The name of the result that no method makes."""
_VERSION = 2
_CODE = ("encoders", "fitting", "geometry", "generators", "pictures", "pipeline", "stages", "configs")
_BACKGROUND = 0.0


@dataclass(frozen=True)
class Job:
    """One inversion to be judged.

    Attributes:
        subject, method: of `METHODS`, or `CEILING`, or "" for what the methods of a subject share.
        budget: already scaled to `part`. part: of the budget's tuning steps, 1 but for trade-off curves.
        work: the folder, see the module's text. device, generator, encoders: see `Task`.
    """

    subject: Subject
    method: str
    budget: Budget
    part: float
    work: Path
    device: str
    generator: str
    encoders: str = "auto"

    @property
    def title(self) -> str:
        return self.method if self.part == 1 else f"{self.method}@{self.part:g}"

    @property
    def result(self) -> Path:
        name = self.title.replace(" ", "_")
        return self.work / "results" / self.subject.name / f"{name}.json"

    @property
    def key(self) -> str:
        """What the result depends on, beside the code."""
        method = METHODS.get(self.method)
        files = [file_hash(self.subject.folder / "subject.json"), file_hash(resolve_generator(self.generator))]
        if isinstance(method, Encode | Seeded):
            files += _encoders_hashes(self.encoders)
        return value_hash([_VERSION, files, repr(method), asdict(self.budget), self.part])

    def stored(self) -> dict[str, Any] | None:
        """The result, if it is there and of the same key."""
        if not self.result.exists():
            return None
        value = read_json(self.result)
        return value if value["key"] == self.key else None

    def task(self) -> Task:
        runs = self.work / "runs" / self.subject.name
        folder = runs / self.title.replace(" ", "_")
        return Task(self.budget, folder, runs / "shared", self.device, self.generator, self.encoders)


def _encoders_hashes(name: str) -> list[str]:
    """Of all files that encoders of this name, which may be auto, can be."""
    if is_file(name):
        return [file_hash(name)]
    paths = [cached(entry.name) for entry in manifest().values() if entry.kind == "encoder"]
    return [file_hash(path) for path in paths if path is not None]


@cache
def code_hash() -> str:
    """Eight digits of a hash of pmv's sources and configs, as far as an inversion depends on them."""
    root, digest = Path(pmv.__file__).parent, hashlib.sha256()
    for folder in _CODE:
        for path in sorted(root.joinpath(folder).rglob("*")):
            if path.suffix in (".py", ".yaml"):
                digest.update(f"{path.relative_to(root)}".encode() + path.read_bytes())
    return digest.hexdigest()[:8]


def work_folder(work: Path, budget: Budget) -> Path:
    """Where runs and results of this code and budget lie."""
    return work / f"{code_hash()}-{budget.name}"


def run_all(jobs: Sequence[Job], processes: int, threads: int) -> None:
    """Run what is not there yet: first what the methods of each subject share, then the methods.

    A job that fails is told and left out; the others go on.
    """
    wanted = [job for job in jobs if job.stored() is None]
    first: dict[str, Job] = {}
    for job in wanted:
        if job.method in METHODS and job.subject.name not in first:
            first[job.subject.name] = Job(
                job.subject, "", next(j.budget for j in jobs if j.part == 1), 1, job.work, job.device, job.generator
            )
    print(f"{len(wanted)} of {len(jobs)} results to be made", flush=True)
    _in_pool(list(first.values()), processes, threads)
    _in_pool(wanted, processes, threads)


def _in_pool(jobs: Sequence[Job], processes: int, threads: int) -> None:
    if not jobs:
        return
    started = time.monotonic()
    with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        futures = {pool.submit(run_job, job): job for job in jobs}
        for done, future in enumerate(as_completed(futures), 1):
            job = futures[future]
            error = future.result() if future.exception() is None else repr(future.exception())
            says = f"failed: {error}" if error else "done"
            print(
                f"[{done}/{len(jobs)}, {time.monotonic() - started:.0f} s] {job.subject.name}, "
                f"{job.title or 'what all share'}: {says}",
                flush=True,
            )


def run_job(job: Job) -> str | None:
    """Run and judge one job; returns what went wrong, or None. The result lies in `Job.result`."""
    started = time.process_time()
    try:
        if not job.method:
            share(job.subject, job.task())
            return None
        job.result.parent.mkdir(parents=True, exist_ok=True)
        value = _ceiling(job) if job.method == CEILING else _inversion(job)
        value["cpu_seconds"] = round(time.process_time() - started, 1)
        write_json(job.result, {"key": job.key, "method": job.method, "part": job.part, **value})
    except Exception as error:
        return f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
    return None


def _ceiling(job: Job) -> dict[str, Any]:
    subject, truth = job.subject, job.subject.truth()
    photo = truth.over(_BACKGROUND)[:1]
    images = carried(photo, truth.cameras[0], truth.cameras, truth.depth, truth.solid, _BACKGROUND)
    parts = find_parts(truth)
    figures = measure(Drawn(images), truth, parts, subject.views, _BACKGROUND)
    _keep(job.result, torch.where(parts.visible > 0, images, _BACKGROUND), truth.alpha, truth.depth)
    return {"views": _shown(figures)}


def _shown(figures: Figures) -> Figures:
    """The visible part alone: of the rest a photo carried to other views says nothing."""
    return {view: {name: value for name, value in row.items() if name == "visible"} for view, row in figures.items()}


def _inversion(job: Job) -> dict[str, Any]:
    subject, truth, task = job.subject, job.subject.truth(), job.task()
    if is_replaced(RunFolder(task.folder, TABLE)):  # left by a process that was stopped; it would be replaced twice
        shutil.rmtree(task.folder)
    try:
        result = METHODS[job.method].run(subject, task)
    except Unfit as reason:
        return {"unfit": str(reason)}
    background = result.generator.spec.background
    background = _BACKGROUND if background is None else background
    tie = Tie(truth.cameras[0], result.camera.to("cpu"))
    cameras = tie.to_run(truth.cameras)
    size = truth.alpha.shape[-1]
    out = result.render(cameras)
    fine = out if out.depth.shape[-1] == job.budget.depth else result.render(cameras, job.budget.depth)
    image = (
        torch.nn.functional.interpolate(out.image, (size, size), mode="area")
        if out.image.shape[-1] > size
        else out.image
    )
    parts = find_parts(truth)
    photo = truth.over(background)[:1]
    along = carried(photo, cameras[0], cameras, fine.depth, fine.alpha > 0.5, background)
    _keep(job.result, image, fine.alpha, fine.depth)
    return {
        "steps": result.steps,
        "seconds": result.seconds,
        "views": measure(Drawn(image, fine.alpha, fine.depth), truth, parts, subject.views, background),
        "carried": _shown(measure(Drawn(along), truth, parts, subject.views, background)),
    }


def _keep(result: Path, image: Tensor, alpha: Tensor, depth: Tensor) -> None:
    with atomic_path(result.with_suffix(".npz")) as path, open(path, "wb") as file:
        np.savez_compressed(
            file,
            image=to_uint8(image.clamp(-1, 1)),
            alpha=(alpha.clamp(0, 1) * 255).round().to(torch.uint8).numpy(),
            depth=depth.half().numpy(),
        )


def pictures(job: Job) -> np.ndarray:
    """What a finished job drew: uint8 [V,S,S,3]."""
    return np.load(job.result.with_suffix(".npz"))["image"]


def results(jobs: Iterable[Job]) -> dict[Job, dict[str, Any]]:
    """The finished ones."""
    return {job: value for job in jobs if (value := job.stored()) is not None}
