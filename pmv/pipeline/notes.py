"""What the report says of a table's stages: the words come from the stages, the page from here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Pair:
    """Two pictures of one frame, laid over each other with a slider between them.

    Attributes:
        before, after: files of the run, such as "02_latent/pivot.png".
        caption: what to look for.
        difference: also show where the two differ, as a heat map.
    """

    before: str
    after: str
    caption: str
    difference: bool = False


@dataclass(frozen=True)
class StageNotes:
    """What is said of one stage.

    Attributes:
        text: a sentence or two.
        pictures: name of a picture, without its suffix → caption. A picture without one is shown under its name.
        pairs: see there.
        depth: names of pictures that hold depth, which are shown in colour.
        numbers: name of a number, or a pattern such as "*_psnr" → what it means; the first that fits counts.
    """

    text: str
    pictures: Mapping[str, str] = field(default_factory=dict)
    pairs: tuple[Pair, ...] = ()
    depth: tuple[str, ...] = ()
    numbers: Mapping[str, str] = field(default_factory=dict)

    def meaning(self, number: str) -> str:
        """What a number means, "" where nothing is said of it."""
        return next((text for pattern, text in self.numbers.items() if fnmatchcase(number, pattern)), "")


@dataclass(frozen=True)
class Strip:
    """Sheets of several stages that show the same views: one row a view, one column a sheet.

    Attributes:
        stage: under which it stands.
        caption: what the columns show.
        columns: heading → files, of which the first that exists is taken.
        masked: heading of a column → (files of it, files of masks): the picture with what the mask leaves out tinted.
    """

    stage: str
    caption: str
    columns: Mapping[str, tuple[str, ...]]
    masked: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Notes:
    """Everything that is said of a table's runs.

    Attributes:
        stages: name → notes.
        given, result: files of which the first that exists is the picture that went in, and the one that came out.
        headline: (number, what it is called, its unit, what it means): the figures that stand first, where they exist.
        strips: see there.
        to_turn: how a finished head gets into the page, to be turned by hand.
    """

    stages: Mapping[str, StageNotes] = field(default_factory=dict)
    given: tuple[str, ...] = ()
    result: tuple[str, ...] = ()
    headline: tuple[tuple[str, str, str, str], ...] = ()
    strips: tuple[Strip, ...] = ()
    to_turn: str = ""
