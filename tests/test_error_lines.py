"""The file of error lines: how lines are shortened and compared; nothing in it is of a test that is no more."""

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.error_lines import ErrorLines


@pytest.mark.parametrize(
    "line, short",
    [
        ("/a/b/c.pkl: is empty", "TMP/c.pkl: is empty"),
        ("x: not readable (JSONDecodeError: line 1 (char 1))", "x: not readable (JSONDecodeError: …)"),
        ("x: cannot be read as an image (no 'x' (1)); save it", "x: cannot be read as an image (…); save it"),
        ("x: damaged (EOFError); copy it again", "x: damaged (EOFError); copy it again"),
        ("x: no name (heads, or see pmv fetch)", "x: no name (heads, or see pmv fetch)"),
    ],
)
def test_what_differs_between_machines_is_left_out(line: str, short: str):
    assert ErrorLines({"/a/b": "TMP", "/a": "ROOT"}).shortened(line) == short


def test_a_line_that_changed_is_found_and_can_be_taken_over(tmp_path: Path):
    file = tmp_path / "lines.json"
    new = ErrorLines({}, update=True, file=file)
    new.check("test", "b", "one")
    new.check("test", "a", "two")
    new.save()
    kept = ErrorLines({}, file=file)
    kept.check("test", "b", "one")
    for test, case, line in (("test", "b", "won"), ("test", "c", "one"), ("other", "b", "one")):
        with pytest.raises(AssertionError, match="told otherwise than before"):
            kept.check(test, case, line)


def test_every_line_is_of_a_test_that_exists():
    for name in ErrorLines({}).lines:
        file, _, test = name.partition("::")
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), name
