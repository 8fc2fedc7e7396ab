"""The runner: which stages must run, what they get, and what stays of them on disk.

A stage's hash (`pmv.pipeline.hashes`) is made of its name, its config, the content of what it takes, the generator and
its settings, the perceptual distance, the seed and the version of the code. A stage whose folder carries that hash is
not run again. Downstream stages depend on the *content* of their inputs, not on the hash of the stage that made them,
so a change that alters nothing ends where it began.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import pmv
from pmv.errors import InputError, PmvError, Stopped, shown, shown_lines
from pmv.files.artifacts import SEAL, check_seal, load_tensors, read_header, tensors_hash
from pmv.fitting.perceptual import PerceptualLoss, identity, load_perceptual
from pmv.generators import load_generator
from pmv.generators.base import Generator
from pmv.generators.settings import with_settings
from pmv.generators.speed import chosen_speed, in_order, with_speed
from pmv.geometry.mesh import write_ply
from pmv.pictures.images import to_uint8, write_png
from pmv.pictures.sheets import tile
from pmv.pictures.video import write_mp4
from pmv.pipeline.config import Config, plain
from pmv.pipeline.context import UNWATCHED, Context, Progress, Watch, never
from pmv.pipeline.device import peak_memory, pick_device
from pmv.pipeline.folder import RunFolder
from pmv.pipeline.hashes import stage_hash, stage_seed
from pmv.pipeline.packing import load_fields, pack
from pmv.pipeline.record import RunRecord
from pmv.pipeline.table import Product, Stage

log = logging.getLogger("pmv")


class Runner:
    """Runs the table in one folder.

    Args:
        folder: a complete run folder (sources and ``config.yaml`` in place).
        config: the resolved configuration.
        command: the command line, for ``run.json``.
        generator: a loaded generator instead of ``config.run.generator`` (for tests and library callers).
        stop: asked between the steps of a fit and between stages whether the run is to end.
        watch: who follows the run.

    Raises:
        InputError: a stage cannot run with its config and this generator.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: Config,
        command: str = "",
        generator: Generator | None = None,
        stop: Callable[[], bool] = never,
        watch: Watch = UNWATCHED,
    ) -> None:
        self.folder = folder
        self.table = folder.table
        self.config = config
        self.command = command
        self.stop = stop
        self.watch = watch
        self.origins = self.table.origins()
        self._ran: set[str] = set()
        self.device = pick_device(config.run.device)
        if generator is None:
            generator = load_generator(config.run.generator, device=self.device)
        self.speed = chosen_speed(config.run.speed, self.device)
        self.generator = with_settings(with_speed(generator, self.speed), plain(config.generator))
        for stage in self.table:
            stage.check(config.stages[stage.name], self.generator)

    @cached_property
    def generator_hash(self) -> str:
        return tensors_hash(self.generator.state_dict())

    @cached_property
    def perceptual_identity(self) -> str:
        return identity(self.config.run.perceptual)

    @cached_property
    def perceptual(self) -> PerceptualLoss:
        return load_perceptual(self.config.run.perceptual, self.device, quick=self.speed.fused)

    def run(self, first: str | None = None, until: str | None = None) -> None:
        """Bring the folder up to date.

        Args:
            first: run this stage and all after it, whether or not anything changed.
            until: stop after this stage.

        Raises:
            PmvError: an input cannot be used. Finished stages stay.
            Stopped: `stop` said so. Finished stages stay.
        """
        forced = self.table.find(first) if first else len(self.table)
        last = self.table.find(until) if until else len(self.table) - 1
        if forced > last and first:
            raise InputError(f"--from {first} comes after --until {until}")
        with self.folder.locked(), self._logging():
            self.folder.tidy()
            self.folder.write_config(self.config.as_yaml())
            self._record = RunRecord(self.folder, self.config, self.command, self.device, self.generator_hash)
            for index, stage in enumerate(self.table[: last + 1]):
                self._bring_up_to_date(stage, force=index >= forced)
            self._note_unchanged(last + 1)
            self._record.finish()

    # --- one stage

    def _hash(self, stage: Stage, inputs: dict[str, str]) -> str:
        identity = stage.identity(self.config.stages[stage.name], self.generator)
        return stage_hash(stage.name, self.config, inputs, self.generator_hash, self.perceptual_identity, identity)

    def _input_hashes(self, stage: Stage) -> dict[str, str]:
        given = self.folder.sources().hashes()
        for other in self.table[: self.table.index(stage)]:
            record = self.folder.record(other)
            given |= record["outputs"] if record else {}
        # a source may leave out what was not given
        taken = [f.name for f in fields(stage.inputs) if f.name in given or f.name not in self.table.source_names]
        return {name: given[name] for name in taken}

    def _bring_up_to_date(self, stage: Stage, force: bool) -> None:
        inputs = self._input_hashes(stage)
        key = self._hash(stage, inputs)
        record = None
        if (self.folder / stage.folder).exists():
            try:
                record = self.folder.read_record(stage)
            except InputError as error:
                log.warning("%s; %s runs again", error, stage.name)
        if record is not None and record["hash"] == key and not force:
            if self.folder.is_intact(stage, record):
                log.info("%s: unchanged", stage.folder)
                self._record.note(stage, record, ran=False)
                self._write_products(stage)
                return
            log.warning("%s: its outputs were altered or damaged; it runs again", stage.folder)
        started = time.monotonic()
        try:
            if self.stop():
                raise Stopped
            self._run_stage(stage, key, inputs)
        except (KeyboardInterrupt, SystemExit, Stopped):
            self._note_interruption(stage)
            raise
        except Exception as error:
            if self.stop():  # what a signal raised became another error in a library that it struck
                self._note_interruption(stage)
                raise Stopped from error
            if isinstance(error, PmvError):
                log.error("%s: %s", stage.name, error)
                raise
            log.exception("%s failed", stage.name)
            makers = [self.origins[field.name] for field in fields(stage.inputs)]
            found = next(
                (other.name for other in self.table if other.name in makers and other.name not in self._ran), None
            )
            if found is None or isinstance(error, OSError | MemoryError):
                raise
            # records can agree with outputs that no stage ever gave
            raise InputError(
                f"{self.folder.path}: {stage.name} fails on what was found there of earlier stages "
                f"({type(error).__name__}; see log.txt); make it again with --from {found}"
            ) from error
        log.info("%s: %.1f s", stage.folder, time.monotonic() - started)

    def _note_interruption(self, stage: Stage) -> None:
        log.warning(
            "interrupted in %s; finished stages are kept. Go on with: pmv invert --resume %s",
            stage.name,
            self.folder.path,
        )

    def _note_unchanged(self, first: int) -> None:
        """Note the stages from `first` on that are up to date though nobody asked for them now."""
        for stage in self.table[first:]:
            record = self.folder.record(stage)
            if record is None or record["hash"] != self._hash(stage, self._input_hashes(stage)):
                return
            self._record.note(stage, record, ran=False)

    def _run_stage(self, stage: Stage, key: str, input_hashes: dict[str, str]) -> None:
        seed = stage_seed(self.config.run.seed, stage.name)
        torch.manual_seed(seed)  # for libraries that draw from the global generator
        np.random.seed(seed % 2**32)  # noqa: NPY002
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        rows: list[dict[str, float]] = []
        with self.folder.writing(stage) as temporary:
            context = self._context(temporary, seed, rows)
            inputs = stage.inputs(**self._load_inputs(stage))
            started = time.monotonic()
            with in_order(self.speed.ordered):
                outputs = stage.code.run(inputs, self.config.stages[stage.name], context)
            seconds = time.monotonic() - started
            if not isinstance(outputs, stage.outputs):
                raise TypeError(f"stage {stage.name} returned {type(outputs).__name__}, not {stage.outputs.__name__}")
            packed = pack(outputs)
            del inputs, outputs
            record = {
                "stage": stage.name,
                "hash": key,
                "code": pmv.__version__,
                "seed": seed,
                "config": plain(self.config.stages[stage.name]),
                "inputs": {k: {"from": self.origins[k], "hash": v} for k, v in input_hashes.items()},
                "outputs": packed.field_hashes(),
                "numbers": packed.numbers,
                "seconds": round(seconds, 2),
                **peak_memory(self.device),
                "losses": rows,
            }
            record = self.folder.commit(stage, temporary, packed, record)
        self._ran.add(stage.name)
        self._record.note(stage, record, ran=True)
        self._write_products(stage)

    def _load_inputs(self, stage: Stage) -> dict[str, Any]:
        """Inputs by field name. Always from disk: a resumed run then computes with the very same values."""
        names = [field.name for field in fields(stage.inputs)]
        values: dict[str, Any] = {}
        if any(self.origins[name] == "source" for name in names):
            sources = self.folder.sources().read()
            for name in names:
                if self.origins[name] == "source":
                    values[name] = _moved(sources[name], self.device)
        for other in self.table:
            wanted = [name for name in names if self.origins[name] == other.name]
            if wanted:
                values |= load_fields(self.folder.outputs(other), wanted, self.device, follow=False)
        return values

    def _context(self, folder: Path, seed: int, rows: list[dict[str, float]]) -> Context:
        def preview(name: str, image: Tensor) -> None:
            write_png(folder / f"{name}.png", tile(list(to_uint8(image))))

        return Context(
            generator=self.generator,
            device=self.device,
            rng=torch.Generator().manual_seed(seed),
            perceptual=self.perceptual,
            progress=self.watch.progress or _bar,
            glimpse=self.watch.glimpse,
            preview=preview,
            video=lambda name, frames, fps: write_mp4(folder / f"{name}.mp4", frames, fps),
            mesh=lambda name, vertices, faces, colours=None: write_ply(
                folder / f"{name}.ply", vertices, faces, colours
            ),
            record=lambda **losses: rows.append({k: float(v) for k, v in losses.items()}),
            stop=self.stop,
            recorded=getattr(self.generator, "waits_for_nothing", False),
        )

    # --- what the run leaves besides its stages

    def _write_products(self, stage: Stage) -> None:
        """Write the products whose last part this stage made, unless they hold just these parts already."""
        for product in self.table.products:
            makers = {self.origins[name] for name in product.takes.values()}
            if stage.name in makers and all(self.table.find(maker) <= self.table.find(stage.name) for maker in makers):
                self._write_product(product)

    def _write_product(self, product: Product) -> None:
        path = self.folder / product.file
        makers = {name: self.table[self.table.find(self.origins[name])] for name in product.takes.values()}
        content = {name: (self.folder.record(maker) or {})["outputs"][name] for name, maker in makers.items()}
        try:
            tensors, written = load_tensors(path, follow=False), read_header(path, follow=False)
            check_seal(written, tensors, path)
            if SEAL in written and written.get("content") == content:
                return
        except InputError:
            pass  # missing or damaged: it is written anew
        values = {name: load_fields(self.folder.outputs(maker), [name])[name] for name, maker in makers.items()}
        header = {
            "generator": self.config.run.generator,
            "generator_hash": self.generator_hash,
            "resolution": self.generator.spec.resolution,
            "config": self.config.as_dict(),
            "content": content,
            "code": pmv.__version__,
        }
        product.write(path, header=header, **{argument: values[name] for argument, name in product.takes.items()})

    @contextmanager
    def _logging(self) -> Iterator[None]:
        file = self.folder.open_log()
        handler = logging.StreamHandler(file)
        handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.info("pmv %s: %s", pmv.__version__, self.command or self.folder.path)
        try:
            yield
        finally:
            log.removeHandler(handler)
            file.close()


def _bar(total: int, description: str) -> Progress:
    return tqdm(total=total, desc=description, file=sys.stderr, disable=None, leave=False)


class _OneLine(logging.Formatter):
    """A line for each message, whatever names from files are in it; the lines of a traceback below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return shown(super().formatMessage(record), 2000)

    def formatException(self, ei: Any) -> str:
        return shown_lines(super().formatException(ei))


def _moved(value: Any, device: torch.device) -> Any:
    """A source, None or a tuple of sources on a device."""
    if isinstance(value, tuple):
        return tuple(_moved(item, device) for item in value)
    return None if value is None else value.to(device)
