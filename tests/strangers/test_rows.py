"""Every row of strangers' files: one line or a result, nothing started, nothing touched, no memory without end."""

from itertools import groupby
from pathlib import Path

import pytest

from tests.strangers.harness import Outcome, Watch, run
from tests.strangers.rows import ROWS
from tests.strangers.rows.base import Row
from tests.strangers.world import World

_A_KIND = 3
"""Rows of each kind that are run always; the others with ``-m slow``, all in a minute."""


@pytest.fixture(scope="session")
def watch(place: Path) -> Watch:
    (place / "watch").mkdir()
    return Watch(place / "watch")


def check(row: Row, outcome: Outcome, folder: Path) -> None:
    """What every row must hold to."""
    assert not outcome.caught, outcome
    assert "Traceback" not in outcome.error, outcome.error[-3000:]
    assert all(len(line) < 2200 and line.isprintable() for line in outcome.error.splitlines()), outcome.error[:3000]
    if row.says:
        assert outcome.code == 2 and row.says in outcome.told, outcome
        assert outcome.out == "", outcome
    else:
        assert outcome.code == 0 and row.warns in outcome.error, outcome
    for log in folder.rglob("log.txt"):
        if not log.is_symlink() and log.is_file() and log.stat().st_size < 1 << 20:
            written = [line for line in log.read_text("utf-8").splitlines() if not line.startswith((" ", "Traceback"))]
            assert all(line.isprintable() for line in written), written
            assert not any(line.startswith("2026 INFO all is well") for line in written), written
    for page in folder.rglob("report.html"):
        if page.is_file():
            text = page.read_text("utf-8")
            assert (
                "<script>alert" not in text and "<img src=x" not in text and all(map(str.isprintable, text.split("\n")))
            )
    assert outcome.megabytes < 2048 and outcome.seconds < 30, outcome


_SOME = {row for rows in groupby(ROWS, lambda row: row.kind) for row in list(rows[1])[:_A_KIND]}


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row.id, marks=() if row in _SOME else pytest.mark.slow) for row in ROWS]
)
def test_row(row: Row, place: Path, world: World, watch: Watch):
    folder = place / f"row-{ROWS.index(row)}"
    folder.mkdir()
    arguments = row.make(world, folder)
    watch.before = watch._seen()
    check(row, run(arguments, folder, watch), folder)
