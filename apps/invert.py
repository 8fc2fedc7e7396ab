"""From a request to an inverted photo: makes or finds the run's folder, then lets the runner work."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pmv.errors import InputError, PhotoError, PmvError, disk_errors, shown
from pmv.files.artifacts import check_no_link, file_hash, new_folder
from pmv.files.manifest import manifest
from pmv.files.reading import is_file
from pmv.fitting.perceptual import NAMES as PERCEPTUAL
from pmv.generators import load_generator
from pmv.pipeline.config import Config, load_config
from pmv.pipeline.context import UNWATCHED, Watch, never
from pmv.pipeline.device import pick_device
from pmv.pipeline.folder import CONFIG, RunFolder
from pmv.pipeline.runner import Runner
from pmv.pipeline.table import Table
from pmv.stages.camera_world import check_world
from pmv.stages.domain import AUTO, domain_layers
from pmv.stages.edit import check_frame
from pmv.stages.edit_list import Edit
from pmv.stages.latent import check_ood_mask
from pmv.stages.sources import (
    PhotoSources,
    changed_edits,
    run_sources,
    sources_with,
    taken_back_if_refused,
    update_sources,
    write_sources,
)
from pmv.stages.table import TABLE


@dataclass(frozen=True)
class Request:
    """What a user asks for, besides the photo and the folder.

    Args:
        presets, settings: laid over the base config (a new run) or over the run's own (resuming), see
            `pmv.pipeline.config`.
        first, until: see `Runner.run`.
        mask, camera, ood_mask: paths, see `pmv.stages.sources`.
        edits: laid over the photo, in a run that exists on top of its own.
        clear_edits: take back the edits that a run has.
        command: the command line, kept in ``run.json``.
    """

    presets: Sequence[str] = ()
    settings: Sequence[str] = ()
    first: str | None = None
    until: str | None = None
    mask: Path | None = None
    camera: Path | None = None
    ood_mask: Path | None = None
    edits: Sequence[Edit] = ()
    clear_edits: bool = False
    command: str = ""


def invert(
    request: Request,
    image: Path | None = None,
    out: Path | None = None,
    resume: Path | None = None,
    table: Table = TABLE,
    generator: Any = None,
    stop: Callable[[], bool] = never,
    watch: Watch = UNWATCHED,
) -> Path:
    """Start a run with `image`, or resume one; returns its folder.

    A run that `out` already holds is brought up to date if it is of the same photo, so a command can simply be
    repeated.

    Args:
        table, generator: other than the shipped ones, for tests and library callers.
        stop: asked between the steps of a fit and between stages whether the run is to end.
        watch: who follows it.

    Raises:
        PmvError: something cannot be used. A folder made here in which no stage was finished is removed again.
        Stopped: `stop` said so. Finished stages stay.
    """
    for name in (request.first, request.until):
        if name is not None:
            table.find(name)
    if resume is not None:
        return _resume(RunFolder(resume, table), request, generator, stop, watch)
    if image is None:
        raise InputError("nothing to invert: give an image, or a run to resume")
    given = {"mask": request.mask, "camera": request.camera, "ood_mask": request.ood_mask}
    sources = PhotoSources.of(image, **given, edits=tuple(request.edits))
    folder = RunFolder(out or Path("runs") / _name_of_run(image), table)
    _check_free(folder, sources.photo)
    sources.read()  # what cannot be read is told before anything is made
    config, generator = configure(request, table, generator)
    return _start(folder, sources, config, request, generator, stop, watch)


def _name_of_run(image: Path) -> str:
    """What the run of a photo is called, also of one that somebody else named."""
    stem = "".join(c if c.isprintable() else "_" for c in image.stem[:60])
    return f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"


def _resume(folder: RunFolder, request: Request, generator: Any, stop: Callable[[], bool], watch: Watch) -> Path:
    folder.require_run()
    paths = {"mask": request.mask, "camera": request.camera, "ood_mask": request.ood_mask}
    mend = "copy the run to a place that can be written, and resume it there"
    with disk_errors(folder.path, mend), folder.locked():
        folder.tidy()
        config, generator = configure(request, folder.table, generator, folder / CONFIG)
        runner = Runner(folder, config, request.command, generator, stop, watch)
        _check_sources(sources_with(folder, request.edits, request.clear_edits, **paths), runner)
        with taken_back_if_refused(folder):
            update_sources(folder, **paths)
            with (
                changed_edits(folder, request.edits, request.clear_edits),
                _naming(run_sources(folder).photo_name),
            ):
                runner.run(request.first, request.until)
    return folder.path


@contextmanager
def _naming(photo: str) -> Iterator[None]:
    """Put the photo's name in front of what is wrong with it."""
    try:
        yield
    except PhotoError as error:
        raise InputError(f"{shown(photo, 500)}: {error}") from error


def configure(request: Request, table: Table, generator: Any, saved: Path | None = None) -> tuple[Config, Any]:
    """The run's config, with what goes with its generator, and the generator.

    Args:
        generator: a loaded one; None = load what the config names.
        saved: the ``config.yaml`` of a run to resume. It holds the generator's numbers already, unless another
            generator or domain is asked for now.
    """
    config = _located(load_config(table, request.presets, request.settings, saved))
    if generator is None:
        generator = load_generator(config.run.generator, device=pick_device(config.run.device))
    run = config.run
    if saved is not None:
        before = load_config(table, path=saved).run
        if run.domain == before.domain:
            if run.generator == before.generator:
                return config, generator
            run = replace(run, domain=AUTO)  # the domain of the generator before says nothing of this one
    domain, between = domain_layers(run, generator.spec)
    config = _located(load_config(table, request.presets, request.settings, saved, between))
    return replace(config, run=replace(config.run, domain=domain)), generator


def _located(config: Config) -> Config:
    """The config with absolute paths to generator, perceptual network and encoders, so that the run can be resumed from
    another folder."""
    run = config.run
    if run.generator not in manifest() and is_file(run.generator):
        run = replace(run, generator=str(Path(run.generator).resolve()))
    if run.perceptual not in PERCEPTUAL and is_file(run.perceptual):
        run = replace(run, perceptual=str(Path(run.perceptual).resolve()))
    stages, seed = config.stages, config.stages.get("seed")
    if seed is not None and seed.encoders not in manifest() and is_file(seed.encoders):
        stages = {**stages, "seed": replace(seed, encoders=str(Path(seed.encoders).resolve()))}
    return replace(config, run=run, stages=stages)


def _check_free(folder: RunFolder, image: Path) -> None:
    """InputError where the folder holds something that is not a run of this photo."""
    check_no_link(folder.path)
    folder.check_links()
    if folder.is_run and folder.source.is_dir():
        if file_hash(run_sources(folder).photo) != file_hash(image):
            raise InputError(f"{folder.path}: holds the run of another photo; give another --out")
    elif folder.path.exists() and not (folder.is_run or folder.is_begun):
        if not folder.path.is_dir():
            raise InputError(f"{folder.path}: is a file; give a folder as --out")
        if any(not path.name.startswith(".") for path in folder.path.iterdir()):
            raise InputError(f"{folder.path}: holds something else than a run; give another --out")


def _check_sources(sources: PhotoSources, runner: Runner) -> None:
    """InputError for what cannot be read, and for edits and masks of a wrong size, now instead of after the stages that
    come before theirs.
    """
    values = sources.read()
    if "prepare" not in runner.config.stages:
        return
    if values["photo_camera"] is not None:
        try:
            check_world(values["photo_camera"], runner.generator.spec)
        except InputError as error:
            raise InputError(f"{sources.camera}: {error}") from error
    size = runner.config.stages["prepare"].resolution or runner.generator.spec.resolution
    if values["photo_ood_mask"] is not None:
        check_ood_mask(values["photo_ood_mask"], size)
    for edit in values["photo_edits"]:
        check_frame(edit, values["photo"].shape[-2:], size)


def _start(
    folder: RunFolder,
    sources: PhotoSources,
    config: Config,
    request: Request,
    generator: Any,
    stop: Callable[[], bool],
    watch: Watch,
) -> Path:
    runner = Runner(folder, config, request.command, generator, stop, watch)
    _check_sources(sources, runner)
    # the lock is held from the first byte that is written to the last that is removed: two that start at once in one
    # new folder would otherwise take each other's photo for their own, or clear each other's run away
    with (
        _naming(str(sources.photo)),
        disk_errors(folder.path),
        new_folder(folder.path),
        folder.locked(create=True),
    ):
        folder.tidy()
        _check_free(folder, sources.photo)  # again, since another may have been here meanwhile
        is_new = not folder.is_run
        try:
            folder.write_config(config.as_yaml())
            write_sources(folder, sources)
            runner.run(request.first, request.until)
        except (PmvError, OSError):
            if is_new and not any(folder.record(stage) for stage in folder.table):
                folder.clear()
            raise
    return folder.path
