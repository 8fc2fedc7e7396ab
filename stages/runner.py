"""The runner: which stages must run, what they get, and what stays of them on disk.

A stage's hash is made of its name, its config, the content of what it takes, the generator and its settings, the
perceptual distance, the seed and the version of the code. A stage whose folder carries that hash is not run again.
Downstream stages depend on the *content* of their inputs, not on the hash of the stage that made them, so a change that
alters nothing ends where it began.
"""

import hashlib
import logging
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import fields
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import pmv
from pmv.artifacts import load_fields, pack, read_header, save_inversion, tensors_hash, value_hash, write_json
from pmv.errors import InputError, PmvError
from pmv.generators import load_generator
from pmv.generators.settings import with_settings
from pmv.images import to_uint8, write_png
from pmv.mesh import write_ply
from pmv.perceptual import identity, load_perceptual
from pmv.sheets import tile
from pmv.video import write_mp4
from stages.config import Config, plain
from stages.context import Context
from stages.folder import RunFolder
from stages.report import write_report
from stages.table import Stage, find, origins

log = logging.getLogger("pmv")

_PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "lpips",
    "kornia",
    "safetensors",
    "scikit-image",
)
_INVERSION = {"tuned_state": "tuned_state", "w": "pivot_w", "noise": "noise", "camera": "camera"}


def pick_device(name: str) -> torch.device:
    """The device called "cpu", "cuda" or "auto"; InputError where CUDA is asked for and absent."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("run.device is cuda, but PyTorch finds no CUDA device; use --device cpu")
    return torch.device(name)


def stage_seed(seed: int, name: str) -> int:
    """The seed of one stage: another for each name, the same whether or not other stages run before it."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7], "big")


class Runner:
    """Runs the table in one folder.

    Args:
        folder: a complete run folder (sources and ``config.yaml`` in place).
        config: the resolved configuration.
        command: the command line, for ``run.json``.
        generator: a loaded generator instead of ``config.run.generator`` (for tests and library callers).
    """

    def __init__(self, folder: RunFolder, config: Config, command: str = "", generator: Any = None) -> None:
        self.folder = folder
        self.table = folder.table
        self.config = config
        self.command = command
        self.origins = origins(self.table)
        self.device = pick_device(config.run.device)
        if generator is None:
            generator = load_generator(config.run.generator, device=self.device)
        self.generator = with_settings(generator, plain(config.generator))

    @cached_property
    def generator_hash(self) -> str:
        return tensors_hash(self.generator.state_dict())

    @cached_property
    def perceptual_identity(self) -> str:
        return identity(self.config.run.perceptual)

    @cached_property
    def perceptual(self) -> Callable[..., Tensor]:
        return load_perceptual(self.config.run.perceptual, self.device)

    def run(self, first: str | None = None, until: str | None = None) -> None:
        """Bring the folder up to date.

        Args:
            first: run this stage and all after it, whether or not anything changed.
            until: stop after this stage.

        Raises:
            PmvError: an input cannot be used. Finished stages stay.
        """
        forced = find(self.table, first) if first else len(self.table)
        last = find(self.table, until) if until else len(self.table) - 1
        if forced > last and first:
            raise InputError(f"--from {first} comes after --until {until}")
        with self.folder.locked(), self._logging():
            self.folder.tidy()
            self.folder.write_config(self.config.as_yaml())
            self._begin_run_record()
            for index, stage in enumerate(self.table[: last + 1]):
                self._bring_up_to_date(stage, force=index >= forced)
            self._note_unchanged(last + 1)
            self._run_record["complete"] = len(self._run_record["stages"]) == len(self.table)
            self._write_run_record()

    # --- one stage

    def _hash(self, stage: Stage, inputs: dict[str, str]) -> str:
        return value_hash(
            {
                "stage": stage.name,
                "config": plain(self.config.stages[stage.name]),
                "inputs": inputs,
                "generator": [self.generator_hash, plain(self.config.generator)],
                "perceptual": self.perceptual_identity,
                "seed": self.config.run.seed,
                "code": pmv.__version__,
            }
        )

    def _input_hashes(self, stage: Stage) -> dict[str, str]:
        given = self.folder.source_hashes()
        for other in self.table[: self.table.index(stage)]:
            record = self.folder.record(other)
            given |= record["outputs"] if record else {}
        return {field.name: given[field.name] for field in fields(stage.inputs)}

    def _bring_up_to_date(self, stage: Stage, force: bool) -> None:
        inputs = self._input_hashes(stage)
        key = self._hash(stage, inputs)
        record = self.folder.record(stage)
        if record is not None and record["hash"] == key and not force:
            if self.folder.is_intact(stage, record):
                log.info("%s: unchanged", stage.folder)
                self._note(stage, record, ran=False)
                self._write_inversion(stage, record)
                return
            log.warning("%s: its outputs were altered or damaged; it runs again", stage.folder)
        started = time.monotonic()
        try:
            self._run_stage(stage, key, inputs)
        except (KeyboardInterrupt, SystemExit):
            log.warning(
                "interrupted in %s; finished stages are kept. Go on with: pmv invert --resume %s",
                stage.name,
                self.folder.path,
            )
            raise
        except PmvError as error:
            log.error("%s: %s", stage.name, error)
            raise
        except Exception:
            log.exception("%s failed", stage.name)
            raise
        log.info("%s: %.1f s", stage.folder, time.monotonic() - started)

    def _note_unchanged(self, first: int) -> None:
        """Note the stages from `first` on that are up to date though nobody asked for them now."""
        for stage in self.table[first:]:
            record = self.folder.record(stage)
            if record is None or record["hash"] != self._hash(stage, self._input_hashes(stage)):
                return
            self._note(stage, record, ran=False)

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
                **self._memory(),
                "losses": rows,
            }
            self.folder.commit(stage, temporary, packed, record)
        self._note(stage, record, ran=True)
        self._write_inversion(stage, record)

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
                values |= load_fields(self.folder.outputs(other), wanted, self.device)
        return values

    def _context(self, folder: Path, seed: int, rows: list[dict[str, float]]) -> Context:
        def preview(name: str, image: Tensor) -> None:
            write_png(folder / f"{name}.png", tile(list(to_uint8(image))))

        return Context(
            generator=self.generator,
            device=self.device,
            rng=torch.Generator().manual_seed(seed),
            perceptual=self.perceptual,
            progress=lambda total, description: tqdm(
                total=total, desc=description, file=sys.stderr, disable=None, leave=False
            ),
            preview=preview,
            video=lambda name, frames, fps: write_mp4(folder / f"{name}.mp4", frames, fps),
            mesh=lambda name, vertices, faces, colours=None: write_ply(
                folder / f"{name}.ply", vertices, faces, colours
            ),
            record=lambda **losses: rows.append({k: float(v) for k, v in losses.items()}),
        )

    # --- what the run leaves besides its stages

    def _write_inversion(self, stage: Stage, record: dict[str, Any]) -> None:
        """Once the tuned weights exist, write the one file that is needed to render, unless it holds just these
        already.
        """
        if "tuned_state" not in record["outputs"] or not set(_INVERSION.values()) <= self.origins.keys():
            return
        path = self.folder / "inversion.safetensors"
        makers = {name: next(s for s in self.table if s.name == self.origins[name]) for name in _INVERSION.values()}
        content = {name: (self.folder.record(maker) or {})["outputs"][name] for name, maker in makers.items()}
        try:
            if read_header(path)["content"] == content:
                return
        except (InputError, KeyError):
            pass
        values = {name: load_fields(self.folder.outputs(maker), [name])[name] for name, maker in makers.items()}
        header = {
            "generator": self.config.run.generator,
            "generator_hash": self.generator_hash,
            "resolution": self.generator.spec.resolution,
            "config": self.config.as_dict(),
            "content": content,
            "code": pmv.__version__,
        }
        arguments = {argument: values[name] for argument, name in _INVERSION.items()}
        save_inversion(path, **arguments, header=header)

    def _memory(self) -> dict[str, int]:
        # ru_maxrss is the process's peak so far, in KiB on Linux and bytes on macOS
        unit = 2**20 if sys.platform == "darwin" else 2**10
        peak = {"process_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)}
        if self.device.type == "cuda":
            peak["cuda_peak_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
        return peak

    def _begin_run_record(self) -> None:
        cuda = self.device.type == "cuda"
        self._run_record: dict[str, Any] = {
            "command": self.command,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "complete": False,
            "pmv": pmv.__version__,
            "python": platform.python_version(),
            "packages": {name: metadata.version(name) for name in _PACKAGES} | {"opencv": cv2.__version__},
            "platform": platform.platform(),
            "cpu": cpu_name(),
            "cpu_cores": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if cuda else None,
            "device": self.device.type,
            "seed": self.config.run.seed,
            "generator": {
                "name": self.config.run.generator,
                "domain": self.config.run.domain,
                "hash": self.generator_hash,
            },
            "perceptual": self.config.run.perceptual,
            "config_hash": value_hash(self.config.as_dict()),
            "stages": {},
        }
        self._write_run_record()

    def _note(self, stage: Stage, record: dict[str, Any], ran: bool) -> None:
        kept = {k: record[k] for k in ("hash", "seconds", "process_peak_mb", "cuda_peak_mb") if k in record}
        self._run_record["stages"][stage.name] = {"ran": ran, **kept}
        self._write_run_record()

    def _write_run_record(self) -> None:
        write_json(self.folder / "run.json", self._run_record)
        write_report(self.folder, self.config, self._run_record)

    @contextmanager
    def _logging(self):
        handler = logging.FileHandler(self.folder / "log.txt", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.info("pmv %s: %s", pmv.__version__, self.command or self.folder.path)
        try:
            yield
        finally:
            log.removeHandler(handler)
            handler.close()


def _moved(value: Any, device: torch.device) -> Any:
    """A source, None or a tuple of sources on a device."""
    if isinstance(value, tuple):
        return tuple(_moved(item, device) for item in value)
    return None if value is None else value.to(device)


def cpu_name() -> str:
    """The processor's model, as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
