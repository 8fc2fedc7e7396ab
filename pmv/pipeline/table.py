"""The mechanics of an ordered table of stages: what a row is, and the proof that rows, sources and products fit
together.

Which stages there are stands in `pmv/stages/table.py`; nothing here knows any.
"""

import dataclasses
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, overload

from pmv.errors import InputError
from pmv.pipeline.notes import Notes


@dataclass(frozen=True)
class Stage:
    """One row: the stage `name` is the module `module`, holding ``<Name>Inputs/Config/Outputs`` and ``run``,
    and perhaps ``check`` and ``identity``."""

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

    def check(self, config: Any, generator: Any) -> None:
        """Whether the stage can run with this config and generator, before any other has run.

        A module says what it cannot do in a function ``check(config, generator)``; without one it can always.

        Raises:
            InputError: it cannot.
        """
        check = getattr(self.code, "check", None)
        if check is not None:
            check(config, generator)

    def identity(self, config: Any, generator: Any) -> str:
        """What tells apart the files that the stage reads beside its inputs, such as weights: it runs again where they
        changed. A module says it in a function ``identity(config, generator)``; without one there are none: ""."""
        identity = getattr(self.code, "identity", None)
        return "" if identity is None else identity(config, generator)


class Sources(Protocol):
    """What the user gave to a run, before any stage."""

    def read(self) -> Mapping[str, Any]:
        """Values by the table's source names: tensors, tuples of things with ``.to(device)``, or None."""
        ...

    def hashes(self) -> dict[str, str]:
        """Content hash of each, by the same names; one that was not given may be missing."""
        ...


@dataclass(frozen=True)
class Product:
    """A file at the top of a run's folder that is made of outputs, written as soon as all of them exist.

    Attributes:
        file: its name.
        takes: argument of `write` → the output that it gets.
        write: ``write(path, header=…, **values)``; the header is what `Runner` tells of the run, for
            `pmv.files.artifacts.save_tensors`.
    """

    file: str
    takes: Mapping[str, str]
    write: Callable[..., None]


@dataclass(frozen=True)
class Table(Sequence[Stage]):
    """Stages in their order, with what goes in before the first and what comes out beside them. Behaves as the sequence
    of its stages.

    Attributes:
        stages: the rows.
        source_names: what the runner reads from disk before any stage.
        open_sources: ``open_sources(source, first)`` gives the `Sources` of a run, from its folder ``source/`` and that
            of the first stage, where a user may put files of his own.
        products: files made of several stages' outputs.
        notes: what the report says of the stages.
    """

    stages: tuple[Stage, ...]
    source_names: tuple[str, ...]
    open_sources: Callable[[Path, Path], Sources]
    products: tuple[Product, ...] = ()
    notes: Notes = dataclasses.field(default_factory=Notes)

    def __len__(self) -> int:
        return len(self.stages)

    @overload
    def __getitem__(self, index: int) -> Stage: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Stage, ...]: ...

    def __getitem__(self, index: int | slice) -> Stage | tuple[Stage, ...]:
        return self.stages[index]

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)

    def find(self, name: str) -> int:
        """The row of the stage called `name`; InputError lists the names."""
        names = [stage.name for stage in self.stages]
        if name not in names:
            raise InputError(f"no stage is called {name!r}; the stages are {', '.join(names)}")
        return names.index(name)

    def origins(self) -> dict[str, str]:
        """Check the table and say where each name comes from: "source", or the stage that gives it.

        Raises:
            ValueError: a name is given twice, taken before it is given, or never given; two stages share a name or
                number; or a product takes what no stage gives.
        """
        stages = self.stages
        if len({s.name for s in stages}) != len(stages) or [s.number for s in stages] != sorted(
            {s.number for s in stages}
        ):
            raise ValueError("stages need unique names and rising numbers")
        given = dict.fromkeys(self.source_names, "source")
        for stage in stages:
            for field in fields(stage.inputs):
                if field.name not in given:
                    raise ValueError(
                        f"stage {stage.name} takes {field.name}, which no source and no earlier stage gives"
                    )
            for field in fields(stage.outputs):
                if field.name in given:
                    raise ValueError(f"stage {stage.name} gives {field.name}, which {given[field.name]} gives already")
                given[field.name] = stage.name
        for product in self.products:
            for name in product.takes.values():
                if given.get(name, "source") == "source":
                    raise ValueError(f"{product.file} takes {name}, which no stage gives")
        return given
