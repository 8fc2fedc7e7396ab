"""What commands are told to write to, names that are no names, and places that cannot be written."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.strangers.rows.base import Make, Row
from tests.strangers.world import World


def _out(prepare: Callable[[Path], Any], *command: str) -> Make:
    """A command on the world's files, after something was put in the way of its output."""

    def make(world: World, row: Path) -> list[str | bytes]:
        prepare(row)
        places = {
            "RUN": world.folder / "run",
            "TINY": world.folder / "tiny.safetensors",
            "HEAD": world.folder / "head.png",
        }
        return [str(places.get(word, word)) for word in command]

    return make


def _nothing(row: Path) -> None:
    pass


def _link_out(name: str, target: str = "mine.txt") -> Callable[[Path], Any]:
    def make(row: Path) -> None:
        (row / "mine.txt").write_text("mine\n")
        (row / "folder").mkdir()
        (row / name).symlink_to(target)

    return make


def _folder_out(name: str) -> Callable[[Path], Any]:
    return lambda row: (row / name).mkdir()


_LONG = "x" * 300
_LINK = "is a link, which pmv does not write through"
OUTPUTS = [
    Row("place to write", what, _out(prepare, *command), says)
    for what, prepare, says, *command in [
        ("render to a link", _link_out("v.png"), _LINK, "render", "RUN", "--out", "v.png"),
        ("render to a link to nothing", _link_out("v.png", "gone"), _LINK, "render", "RUN", "--out", "v.png"),
        ("render to a folder", _folder_out("v.png"), "is a folder", "render", "RUN", "--out", "v.png"),
        ("render into no folder", _nothing, "does not exist", "render", "RUN", "--out", "gone/v.png"),
        (
            "render to a name of 300 letters",
            _nothing,
            "longer than the disk takes",
            "render",
            "RUN",
            "--out",
            f"{_LONG}.png",
        ),
        (
            "render to a device",
            lambda r: (r / "v.png").symlink_to("/dev/full"),
            _LINK,
            "render",
            "RUN",
            "--out",
            "v.png",
        ),
        (
            "render below a file",
            lambda r: (r / "f").write_text("x"),
            "does not exist",
            "render",
            "RUN",
            "--out",
            "f/v.png",
        ),
        ("a film to a link", _link_out("v.mp4"), _LINK, "render", "RUN", "--out", "v.mp4", "--frames", "2"),
        ("a film to a folder", _folder_out("v.mp4"), "is a folder", "render", "RUN", "--out", "v.mp4", "--frames", "2"),
        ("uncrop to a link", _link_out("v.png"), _LINK, "render", "RUN", "--uncrop", "--out", "v.png"),
        ("uncrop to a folder", _folder_out("v.png"), "is a folder", "render", "RUN", "--uncrop", "--out", "v.png"),
        ("convert to a link", _link_out("o.pt"), _LINK, "convert", "TINY", "o.pt"),
        ("convert to a folder", _folder_out("o.safetensors"), "is a folder", "convert", "TINY", "o.safetensors"),
        ("convert to a name of 300 letters", _nothing, "longer than the disk", "convert", "TINY", f"{_LONG}.pt"),
        ("edit to a link", _link_out("e", "folder"), _LINK, "edit", "RUN", "--set", "smile=1", "--out", "e"),
        (
            "edit to a file",
            lambda r: (r / "e").write_text(""),
            "is a file",
            "edit",
            "RUN",
            "--set",
            "smile=1",
            "--out",
            "e",
        ),
        ("prepare to a link", _link_out("p", "folder"), _LINK, "prepare", "HEAD", "--generator", "TINY", "--out", "p"),
        ("invert to a link", _link_out("r", "folder"), _LINK, "invert", "HEAD", "--generator", "TINY", "--out", "r"),
        (
            "invert to a link to nothing",
            _link_out("r", "gone"),
            _LINK,
            "invert",
            "HEAD",
            "--generator",
            "TINY",
            "--out",
            "r",
        ),
        (
            "invert to a name of 300 letters",
            _nothing,
            "longer than the disk",
            "invert",
            "HEAD",
            "--generator",
            "TINY",
            "--out",
            _LONG,
        ),
        ("render what is no run", _nothing, "no such file", "render", "gone", "--out", "v.png"),
        ("resume what is no run", lambda r: (r / "x").mkdir(), "not a run folder", "invert", "--resume", "x"),
        ("resume a file", lambda r: (r / "x").write_text(""), "no such run folder", "invert", "--resume", "x"),
    ]
]


def _photo(name: str | bytes, out: str | None = "run") -> Make:
    """A photo called so."""

    def make(world: World, row: Path) -> list[str | bytes]:
        command = world.new(row)
        data = (row / "head.png").read_bytes()
        path = os.fsencode(row) + b"/" + os.fsencode(name)
        with open(path, "wb") as file:
            file.write(data)
        words: list[str | bytes] = [os.fsencode(name) if word == "head.png" else word for word in command]
        return [*words, *(["--out", out] if out else [])]

    return make


def _overlay(name: str | bytes) -> Make:
    """An overlay called so, in a new run."""

    def make(world: World, row: Path) -> list[str | bytes]:
        command = _photo("head.png")(world, row)
        with open(os.fsencode(row) + b"/" + os.fsencode(name), "wb") as file:
            file.write((row / "head.png").read_bytes())
        return [*command, "--overlay", os.fsencode(name), "--at", "0.5,0.5", "--size", "0.2"]

    return make


NAMES = [
    *(
        Row("file name", f"a photo's: {what}", _photo(name, out))
        for what, name, out in [
            ("bytes that are no UTF-8", b"caf\xe9.png", "run"),
            ("bytes that are no UTF-8, folder not named", b"caf\xe9.png", None),
            ("terminal codes", "\x1b]0;owned\x07\x1b[2J.png", "run"),
            ("terminal codes, folder not named", "\x1b]0;owned\x07\x1b[2J.png", None),
            ("a line's end", "a\n2026 INFO all is well.png", None),
            ("writing turned round", "a\u202egnp.png", None),
            ("250 letters", "x" * 246 + ".png", None),
            ("a suffix of 200 letters", "x." + "p" * 200, "run"),
            ("a suffix with a line's end", "x.png\n", "run"),
            ("a script", "<img src=x onerror=alert(1)>.png", "run"),
            ("a dash", "./-rf.png", "run"),
        ]
    ),
    *(
        Row("file name", f"an overlay's: {what}", _overlay(name))
        for what, name in [
            ("bytes that are no UTF-8", b"caf\xe9.png"),
            ("a line's end and terminal codes", "a\n\x1b[2J.png"),
            ("YAML", "a: [b, &c].png"),
        ]
    ),
]

ROWS = [*OUTPUTS, *NAMES]
