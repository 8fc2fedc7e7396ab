"""``run.json``: with what a run was made, and which of its stages ran when and for how long."""

import os
import platform
import time
from collections.abc import Mapping
from importlib import metadata
from typing import Annotated, Any, TypedDict

import cv2
import torch
from msgspec import Meta

import pmv
from pmv.errors import InputError
from pmv.files.artifacts import read_json, value_hash, write_json
from pmv.files.reading import fitted
from pmv.pipeline.config import Config
from pmv.pipeline.device import cpu_name, system_name
from pmv.pipeline.folder import RunFolder
from pmv.pipeline.report import write_report
from pmv.pipeline.table import Stage

_PACKAGES = ("torch", "torchvision", "numpy", "lpips", "kornia", "safetensors", "scikit-image")


class NotedStage(TypedDict):
    """What ``run.json`` says of a stage: whether it ran in the last session, its hash, and how long it took."""

    ran: bool
    hash: Annotated[str, Meta(max_length=100)]
    seconds: Annotated[float, Meta(ge=0, le=1e12)]


class About(TypedDict):
    """The entries of ``run.json`` that are read again."""

    command: str
    started: str
    complete: bool
    generator: dict[str, str]
    perceptual: str
    seed: int
    cpu: str | None
    gpu: str | None
    stages: Annotated[dict[str, NotedStage], Meta(max_length=1000)]


def read_about(folder: RunFolder) -> About:
    """What a run says of itself. InputError where it says nothing, or what cannot be."""
    path = folder / "run.json"
    about = fitted(read_json(path, follow=False), About, path)
    if "name" not in about["generator"]:
        raise InputError(f"{path}: damaged (it names no generator); resume the run, which writes it again")
    return about


class RunRecord:
    """Writes ``run.json``, and the report that shows it, anew at every change.

    Args:
        command: the command line.
        generator_hash: of the pretrained weights.
    """

    def __init__(
        self, folder: RunFolder, config: Config, command: str, device: torch.device, generator_hash: str
    ) -> None:
        self.folder, self.config = folder, config
        self.values: dict[str, Any] = {
            "command": command,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "complete": False,
            "pmv": pmv.__version__,
            "python": platform.python_version(),
            "packages": {name: metadata.version(name) for name in _PACKAGES} | {"opencv": cv2.__version__},
            "platform": system_name(),
            "cpu": cpu_name(),
            "cpu_cores": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
            "device": device.type,
            "seed": config.run.seed,
            "generator": {"name": config.run.generator, "domain": config.run.domain, "hash": generator_hash},
            "perceptual": config.run.perceptual,
            "config_hash": value_hash(config.as_dict()),
            "stages": {},
        }
        self._write()

    def note(self, stage: Stage, record: Mapping[str, Any], ran: bool) -> None:
        """Take in a stage that is up to date now.

        Args:
            record: its ``stage.json``.
            ran: whether it ran just now.
        """
        kept = {k: record[k] for k in ("hash", "seconds", "process_peak_mb", "cuda_peak_mb") if k in record}
        self.values["stages"][stage.name] = {"ran": ran, **kept}
        self._write()

    def finish(self) -> None:
        """Say whether every stage is up to date."""
        self.values["complete"] = len(self.values["stages"]) == len(self.folder.table)
        self._write(whole=True)

    def _write(self, whole: bool = False) -> None:
        write_json(self.folder / "run.json", self.values)
        write_report(self.folder, self.config, self.values, whole)
