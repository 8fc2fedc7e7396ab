"""What may be shown of files, and what a disk may refuse."""

import errno
from pathlib import Path

import pytest

from pmv.errors import InputError, disk_errors, disk_fault, quoted, shown, shown_lines


@pytest.mark.parametrize(
    "value, text",
    [
        ("plain text, 中文 é", "plain text, 中文 é"),
        ("a\nb\tc\r\0", "a?b?c??"),
        ("\x1b[31mred\x1b]0;title\x07", "?[31mred?]0;title?"),
        ("\u202egnp\u2066\u200f\ufeff", "?gnp???"),
        ("\u2028\u2029\x85\xa0", "????"),
        ("\ud800\udcff", "??"),
        (True, "True"),
        (None, "None"),
        (1.5, "1.5"),
        (10**300, "a number of some 100 digits or more"),
        ([1, [2]], "list"),
        ({"a": 1}, "dict"),
        (b"bytes", "bytes"),
    ],
)
def test_what_is_shown(value, text: str):
    assert shown(value) == text


def test_long_texts_end_in_dots():
    assert shown("x" * 1_000_000, 10) == "x" * 9 + "…" and shown("x" * 10, 10) == "x" * 10
    assert quoted("x" * 1000, 5) == "'xxxx…'" and quoted(3) == "3" and quoted("") == "''"


def test_lines_stay_lines():
    assert shown_lines("a\n\tb\x1b\n") == "a\n        b?\n"
    assert shown_lines("a\nb\nc", most=2) == "a\nb\n…"


def test_an_error_is_one_line_whatever_is_put_into_it():
    assert str(InputError("a\n\n  b\x1b[2J")) == "a b?[2J"
    assert len(str(InputError("x" * 10**6))) == 1500


@pytest.mark.parametrize("number, says", [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only")])
def test_what_a_disk_refuses(number: int, says: str):
    with pytest.raises(InputError, match=says) as caught, disk_errors(Path("runs/mine"), "pray"):
        raise OSError(number, "", "x")
    assert str(caught.value).startswith("runs/mine: ") and str(caught.value).endswith("pray")
    assert says in str(disk_fault(OSError(number, "", "f")))


def test_what_is_no_fault_of_the_disk_passes():
    with pytest.raises(FileNotFoundError), disk_errors(Path("x")):
        raise FileNotFoundError(errno.ENOENT, "", "x")
    assert disk_fault(FileNotFoundError(errno.ENOENT, "", "x")) is None and disk_fault(ValueError()) is None
