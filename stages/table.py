"""The ordered table of stages, and the proof that it fits together."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

from pmv.errors import InputError

SOURCES: tuple[str, ...] = ("photo", "photo_mask", "photo_camera", "photo_ood_mask", "photo_edits")
"""What the runner reads from disk, before any stage."""


@dataclass(frozen=True)
class Stage:
    """One row: the stage `name` is the module `module`, holding ``<Name>Inputs/Config/Outputs`` and ``run``."""

    number: int
    name: str
    module: str

    @property
    def folder(self) -> str:
        """The stage's folder in a run, for instance ``05_visibility``."""
        return f"{self.number:02d}_{self.name}"

    @property
    def code(self) -> ModuleType:
        return importlib.import_module(self.module)

    def _class(self, kind: str) -> Any:
        return getattr(self.code, self.name.capitalize() + kind)

    @property
    def inputs(self) -> Any:
        return self._class("Inputs")

    @property
    def config(self) -> Any:
        return self._class("Config")

    @property
    def outputs(self) -> Any:
        return self._class("Outputs")


# 01 is kept for the dual-encoder seed
TABLE = (
    Stage(0, "prepare", "stages.prepare"),
    Stage(2, "latent", "stages.latent"),
    Stage(3, "coarse", "stages.coarse"),
    Stage(4, "edit", "stages.edit"),
    Stage(5, "visibility", "stages.visibility"),
    Stage(6, "warp", "stages.warp"),
    Stage(7, "inpaint", "stages.inpaint"),
    Stage(8, "tune", "stages.tune"),
    Stage(9, "retune", "stages.retune"),
    Stage(10, "evaluate", "stages.evaluate"),
)


def find(table: Sequence[Stage], name: str) -> int:
    """The row of the stage called `name`; InputError lists the names."""
    names = [stage.name for stage in table]
    if name not in names:
        raise InputError(f"no stage is called {name!r}; the stages are {', '.join(names)}")
    return names.index(name)


def origins(table: Sequence[Stage]) -> dict[str, str]:
    """Check the table and say where each name comes from: a source, or the stage that gives it.

    Raises:
        ValueError: a name is given twice, taken before it is given, or never given; or two stages share a name or
            number.
    """
    if len({s.name for s in table}) != len(table) or [s.number for s in table] != sorted({s.number for s in table}):
        raise ValueError("stages need unique names and rising numbers")
    given = dict.fromkeys(SOURCES, "source")
    for stage in table:
        for field in fields(stage.inputs):
            if field.name not in given:
                raise ValueError(f"stage {stage.name} takes {field.name}, which no source and no earlier stage gives")
        for field in fields(stage.outputs):
            if field.name in given:
                raise ValueError(f"stage {stage.name} gives {field.name}, which {given[field.name]} gives already")
            given[field.name] = stage.name
    return given
