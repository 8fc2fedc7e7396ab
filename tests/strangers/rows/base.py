"""What a row is: a stranger's file, what is done with it, and what must come of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.strangers.world import World

Make = Callable[[World, Path], list[str | bytes]]


@dataclass(frozen=True)
class Row:
    """One hostile or damaged input.

    Attributes:
        kind: of file, a heading of the table.
        what: the input, in a few words; unique within its kind.
        make: writes it into the folder of the row, and returns the command line.
        says: part of the one line that refuses it; "" = the command goes through, and the file did nothing.
        warns: part of a warning, where the command goes through.
    """

    kind: str
    what: str
    make: Make
    says: str = ""
    warns: str = ""

    @property
    def id(self) -> str:
        return f"{self.kind}: {self.what}"
