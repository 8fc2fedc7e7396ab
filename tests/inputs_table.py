"""Tables of inputs that tests try and what a user sees of each, as docs/inputs.md shows them.

A test hands over its rows; the page is compared with them, and written anew with ``--write``.
"""

from collections.abc import Sequence
from pathlib import Path

from tests.conftest import ROOT
from tests.error_lines import WRITE

PAGE = ROOT / "docs" / "inputs.md"


def check_section(name: str, rows: Sequence[tuple[str, str, str]], write: bool, page: Path = PAGE) -> None:
    """Compare a section of the page with its rows, or write it.

    Args:
        name: of the section, which lies between ``<!-- NAME -->`` and ``<!-- /NAME -->``.
        rows: kind, input, what the user sees; rows of one kind stand together.
    """
    lines = ["", "| kind | input | what happens |", "|---|---|---|"]
    before = ""
    for kind, given, seen in rows:
        cells = ("" if kind == before else kind, given, seen)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        before = kind
    table = "\n".join([*lines, "", ""])
    text = page.read_text(encoding="utf-8")
    start, end = (text.index(mark) for mark in (f"<!-- {name} -->", f"<!-- /{name} -->"))
    start += len(f"<!-- {name} -->")
    if write:
        page.write_text(text[:start] + table + text[end:], encoding="utf-8")
    else:
        assert text[start:end] == table, f"{page.name} tells otherwise of {name}: run this test with -n 0 {WRITE}"
