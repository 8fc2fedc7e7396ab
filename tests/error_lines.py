"""The lines that bad input is answered with, in one file to read and to compare with: ``error_messages.json``.

A test of bad input says what matters in its line; the file holds the line whole, so that a change of any word is seen
in a diff and judged there. Left out is what differs between machines: paths, and what other libraries say in brackets.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

FILE = Path(__file__).with_name("error_messages.json")
WRITE = "--write"
MEND = f"if the new line is better: pytest -n 0 {WRITE} FILE-OF-THE-TEST, and read the diff of {FILE.name}"
_QUOTED = re.compile(r"(\([A-Z]\w+: |an image \().*?\)+(?=[;,.]|$)")
"""Another library's words: after the name of its error, and where a picture cannot be read."""


class ErrorLines:
    """The lines by "file::test" and case. `lines` is what the file holds.

    Args:
        folders: patterns of paths that differ between machines → what stands in the file instead.
        update: take over what is told instead of comparing with it. Cases that are no more stay until somebody takes
            them out: a test that was skipped or not selected here still has its own.
    """

    def __init__(self, folders: Mapping[str, str], update: bool = False, file: Path = FILE) -> None:
        self.folders = sorted(folders.items(), key=lambda row: -len(row[0]))
        self.update = update
        self.file = file
        self.lines: dict[str, dict[str, str]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    def check(self, test: str, case: str, line: str) -> None:
        """Compare the line of one case with the file's; AssertionError where they differ."""
        line = self.shortened(line)
        if self.update:
            self.lines.setdefault(test, {})[case] = line
            return
        known = self.lines.get(test, {}).get(case)
        assert line == known, f"told otherwise than before\nbefore: {known}\nnow:    {line}\n{MEND}"

    def shortened(self, line: str) -> str:
        """The line without what differs between machines."""
        for pattern, name in self.folders:
            line = re.sub(pattern, name, line)
        return _QUOTED.sub(r"\1…)", line)

    def save(self) -> None:
        rows = {test: dict(sorted(cases.items())) for test, cases in sorted(self.lines.items())}
        self.file.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
