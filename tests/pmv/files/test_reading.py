"""The guard at the door: what is opened, and what honest files may hold. The hostile ones are in tests/strangers."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from pmv.errors import InputError
from pmv.files.locks import Taken, held, open_own
from pmv.files.reading import fitted, is_file, is_plain_name, open_regular, parse_json, read_text
from pmv.files.yaml_reading import parse_yaml


def test_links_are_followed_where_the_user_named_them(tmp_path: Path):
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    assert read_text(tmp_path / "link", 10) == "text"
    with pytest.raises(InputError, match="is a link"):
        read_text(tmp_path / "link", 10, follow=False)
    with pytest.raises(InputError, match="such a file has at most"), open_regular(tmp_path / "file", 3):
        pass


def test_a_file_that_grows_while_it_is_read_ends():
    """The system's own files say that they are empty."""
    with pytest.raises(InputError, match="does not end"):
        read_text("/proc/self/maps", 10)


def test_honest_yaml_and_json():
    shared = parse_yaml("base: &b {steps: 3}\ntune: {<<: *b, rate: 1e-3}\nlist: [*b, *b]", "x")
    assert shared["tune"] == {"steps": 3, "rate": "1e-3"} and shared["list"] == [{"steps": 3}] * 2
    assert parse_json('{"psnr": Infinity}', "x") == {"psnr": float("inf")}
    bom = "\ufeff{}".encode()
    assert parse_json(bom, "x") == {}


def test_fitted():
    @dataclass
    class Row:
        name: str
        value: float = 1.0

    assert fitted({"name": "a", "value": 2, "more": []}, Row, "x") == Row("a", 2.0)
    for wrong in ({}, {"name": 1}, {"name": "a", "value": "2"}, {"name": "a", "value": True}, [], None):
        with pytest.raises(InputError, match=r"^x: damaged"):
            fitted(wrong, Row, "x")


@pytest.mark.parametrize("name", ["photo.png", "a b.png", "é", "edit-01-mask.png"])
def test_plain_names(name: str):
    assert is_plain_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/x", ".x", "a\\b", "c:x", "a\n", "\x1b", "x" * 201, 3, None]
)
def test_names_that_are_none(name):
    assert not is_plain_name(name)


def test_is_file(tmp_path: Path):
    (tmp_path / "x").write_text("")
    assert is_file(tmp_path / "x") and not is_file(tmp_path)
    assert not is_file("x" * 5000) and not is_file("\0") and not is_file("\ud800")


def test_a_lock_keeps_others_away_and_may_be_removed_inside(tmp_path: Path):
    path = tmp_path / ".lock"
    with held(path) as file:
        file.write(b"4711")
        with pytest.raises(Taken, match="4711"), held(path):
            pass
        path.unlink()
        with held(path):  # another file by now
            pass
    with held(path):
        pass


def test_a_lock_that_was_replaced_while_it_was_waited_for_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Between opening and locking, its holder clears it away."""
    import fcntl

    path, flock, calls = tmp_path / ".lock", fcntl.flock, []

    def removed_first(file, how):
        if not calls:
            path.unlink()
        calls.append(file)
        flock(file, how)

    monkeypatch.setattr("pmv.files.locks.fcntl.flock", removed_first)
    with held(path) as file:
        assert len(calls) == 2 and os.fstat(file.fileno()).st_ino == path.stat().st_ino


def test_what_is_written_in_place_is_a_file_of_one_name(tmp_path: Path):
    other = tmp_path / "mine"
    other.write_text("mine")
    (tmp_path / "link").symlink_to(other)
    os.link(other, tmp_path / "second")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("link", "second", "pipe", "folder"):
        with pytest.raises(InputError, match=name):
            open_own(tmp_path / name, os.O_WRONLY | os.O_APPEND)
    assert other.read_text() == "mine"
    with open_own(tmp_path / "new", os.O_WRONLY | os.O_APPEND) as file:
        file.write(b"x")
    with open_own(tmp_path / "new", os.O_WRONLY | os.O_APPEND) as file:
        file.write(b"y")
    assert (tmp_path / "new").read_text() == "xy"
