"""``python -m tests.strangers.table`` runs every row and writes docs/strangers.md: kind, input, what the user sees,
memory and seconds. A minute and a half.
"""

import platform
import tempfile
from itertools import groupby
from pathlib import Path

import torch

from pmv.errors import shown
from tests.conftest import ROOT, make_tiny_generator
from tests.strangers.harness import Outcome, Watch, run
from tests.strangers.rows import ROWS
from tests.strangers.rows.base import Row
from tests.strangers.world import World

PAGE = ROOT / "docs" / "strangers.md"
_HEAD = """# Files from strangers: every input that is tried

Written by `python -m tests.strangers.table`; `tests/strangers/test_rows.py` holds every row to it. {count} inputs of
{kinds} kinds. Programs that were started (canaries on the PATH, Python's audit events) or files that were touched
outside the row's folder (a watched home): {caught}. The most that a row took beyond what every command takes:
{megabytes:.0f} MB; the longest: {seconds:.1f} s. Measured on {machine}, {threads} thread, with other programs running.

[SECURITY.md](../SECURITY.md) says what is promised. Hostile pickles have a table of their own
(`pytest -s tests/pmv/generators/test_hostile.py`); attacked downloads and caches are in
`tests/pmv/files/test_fetch_attacked.py`; kills, races and full disks in `tests/strangers/test_interrupted.py`; and
`tests/strangers/test_fuzz.py` feeds every reader with what nobody thought of.
"""


def main() -> None:
    generator = make_tiny_generator()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name).resolve()
        for folder in ("world", "watch"):
            (place / folder).mkdir()
        world, watch = World.make(place / "world", generator), Watch(place / "watch")
        outcomes: list[tuple[Row, Outcome]] = []
        for number, row in enumerate(ROWS):
            folder = place / f"row-{number}"
            folder.mkdir()
            arguments = row.make(world, folder)
            watch.check()
            outcomes.append((row, run(arguments, folder, watch)))
            print(row.id, outcomes[-1][1].code, outcomes[-1][1].caught)
        PAGE.write_text(_page(outcomes, str(place)), encoding="utf-8")


def _page(outcomes: list[tuple[Row, Outcome]], place: str) -> str:
    facts = {
        "count": len(outcomes),
        "kinds": len({row.kind for row, _ in outcomes}),
        "megabytes": max(outcome.megabytes for _, outcome in outcomes),
        "seconds": max(outcome.seconds for _, outcome in outcomes),
        "caught": sum(bool(outcome.caught) for _, outcome in outcomes) or "none",
        "machine": f"{platform.machine()}, {platform.system()}",
        "threads": torch.get_num_threads(),
    }
    parts = [_HEAD.format(**facts)]
    for kind, rows in groupby(outcomes, lambda pair: pair[0].kind):
        lines = [
            f"| {row.what} | {_seen(row, outcome, place)} | {outcome.megabytes:.0f} | {outcome.seconds:.1f} |"
            for row, outcome in rows
        ]
        parts.append(
            "\n".join([f"## {kind}\n", "| input | what the user sees | MB | s |", "|---|---|---|---|", *lines]) + "\n"
        )
    return "\n".join(parts)


def _seen(row: Row, outcome: Outcome, place: str) -> str:
    if outcome.code == 2:
        text = outcome.told
    else:
        warnings = [line for line in outcome.error.splitlines() if row.warns and row.warns in line]
        text = "done; " + warnings[0].removeprefix("pmv: ") if warnings else "done"
    for words in (f"{place}/world/", f"{place}/"):
        text = text.replace(words, "")
    caught = f" **{'; '.join(outcome.caught)}**" if outcome.caught else ""
    return shown(text, 160).replace("|", "\\|").replace("<", "&lt;") + caught


if __name__ == "__main__":
    main()
