"""Run folders: links, pipes and second names in place of a run's files; what the records say; damaged tensors."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.strangers.rows.base import Make, Row
from tests.strangers.world import STAGE, World, change_json, change_tensors

_RESUME: list[str | bytes] = ["invert", "--resume", "run"]
HOME = "~/"
"""Begins what rows lead to in the home that the harness watches."""


def _in_run(spoil: Callable[[Path, World], Any], *more: str) -> Make:
    def make(world: World, row: Path) -> list[str | bytes]:
        spoil(world.copy_run(row), world)
        return [*_RESUME, *more]

    return make


def _link(name: str, target: str) -> Make:
    """`name` in the run becomes a link."""

    def spoil(run: Path, world: World) -> None:
        path = run / name
        _away(path)
        path.symlink_to(_home(run) / target.removeprefix(HOME) if target.startswith(HOME) else target)

    return _in_run(spoil)


def _home(run: Path) -> Path:
    """The watched home: rows lie beside it."""
    return run.parent.parent / "watch" / "home"


def _away(path: Path) -> None:
    import shutil

    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _hard_link(name: str) -> Make:
    def spoil(run: Path, world: World) -> None:
        other = run.parent / "mine.txt"
        other.write_text("mine\n")
        _away(run / name)
        os.link(other, run / name)

    return _in_run(spoil)


def _pipe(name: str, *more: str) -> Make:
    def spoil(run: Path, world: World) -> None:
        _away(run / name)
        os.mkfifo(run / name)

    return _in_run(spoil, *more)


def _folder(name: str) -> Make:
    def spoil(run: Path, world: World) -> None:
        _away(run / name)
        (run / name / "deeper").mkdir(parents=True)

    return _in_run(spoil)


def _moved_stage(run: Path, world: World) -> None:
    """What somebody does whose disk is full: the stage lies elsewhere now, and a link in its place."""
    elsewhere = run.parent / "large disk"
    elsewhere.mkdir()
    (run / STAGE).rename(elsewhere / STAGE)
    (run / STAGE).symlink_to(elsewhere / STAGE)


def _users_link(run: Path, world: World) -> None:
    (run / STAGE / "key").symlink_to(_home(run) / "private" / "key")
    change_json(run / STAGE / "stage.json", lambda record: record.update(hash="0" * 64))


def _leftovers(run: Path, world: World) -> None:
    """Leftovers of a killed process that lead elsewhere."""
    for name in (f".tmp-{STAGE}", ".tmp-source", f".old-{STAGE}", ".run.json.1.part"):
        (run / name).symlink_to(_home(run) / "private")


LINKS = [
    *(
        Row("links in a run", f"{name} → {target}", _link(name, target), says)
        for name, target, says in [
            (".lock", "~/notes.txt", "is a link, and pmv follows none"),
            ("log.txt", "~/.bashrc", "is a link, and pmv follows none"),
            ("run.json", "~/notes.txt", "is a link"),
            ("report.html", "/dev/full", "is a link"),
            ("config.yaml", "/dev/zero", "is a link"),
            ("inversion.safetensors", "~/notes.txt", "is a link"),
            ("source", "~/", "is a link"),
            (STAGE, "~/private", "is a link to something else than the stage's own folder"),
            (STAGE, "/", "is a link to something else"),
            (STAGE, "nowhere", "is a link to something else"),
            ("source/photo.png", "~/private/key", "is a link"),
            ("source/names.json", "/dev/zero", "is a link"),
            ("00_prepare/edit.png", "~/edit-01.png", "is a link"),
        ]
    ),
    Row(
        "links in a run",
        "stage.json → a file of the user's",
        _link(f"{STAGE}/stage.json", "~/notes.txt"),
        "",
        "runs again",
    ),
    Row(
        "links in a run",
        "outputs.safetensors → a file of the user's",
        _link(f"{STAGE}/outputs.safetensors", "~/private/outputs.safetensors"),
        "",
        "altered or damaged",
    ),
    Row("links in a run", "leftovers that lead elsewhere", _in_run(_leftovers)),
    Row("links in a run", "a link among the user's files of a stage", _in_run(_users_link)),
    Row("links in a run", "a stage that was moved to another disk", _in_run(_moved_stage)),
    Row(
        "links in a run",
        "a stage that was moved and must run again",
        _in_run(_moved_stage, "--from", "warp", "--until", "warp"),
        "",
        "was a link and is a folder of the run now",
    ),
    Row("links in a run", ".lock is a second name", _hard_link(".lock"), "a hard link"),
    Row("links in a run", "log.txt is a second name", _hard_link("log.txt"), "a hard link"),
    Row("links in a run", "run.json is a second name", _hard_link("run.json")),
    *(
        Row("links in a run", f"{name} is a pipe", _pipe(name), says, warns)
        for name, says, warns in [
            (".lock", "is no file", ""),
            ("log.txt", "is no file", ""),
            ("config.yaml", "not a run folder", ""),
            ("source/names.json", "no file but a pipe", ""),
            (f"{STAGE}/stage.json", "", "runs again"),
            (f"{STAGE}/outputs.safetensors", "", "altered or damaged"),
            ("inversion.safetensors", "", ""),
        ]
    ),
    Row("links in a run", ".lock is a folder", _folder(".lock"), "is no file"),
    Row("links in a run", "run.json is a folder", _folder("run.json"), "is a folder"),
    Row("links in a run", "stage.json is a folder", _folder(f"{STAGE}/stage.json"), "", "runs again"),
]


def _record(change: Callable[[dict[str, Any]], Any]) -> Make:
    return _in_run(lambda run, world: change_json(run / STAGE / "stage.json", change))


def _raw(name: str, data: bytes) -> Make:
    return _in_run(lambda run, world: (run / name).write_bytes(data))


SCRIPT = "<script>alert(1)</script>"


def _hole(name: str, *more: str) -> Make:
    """A file of a terabyte that takes no room."""

    def spoil(run: Path, world: World) -> None:
        with open(run / name, "wb") as file:
            file.truncate(1 << 40)

    return _in_run(spoil, *more)


_PLACE = "a hole of a terabyte in a run"
HOLES = [
    Row(_PLACE, what, _hole(name, *more), says, warns)
    for what, name, says, warns, *more in [
        ("outputs.safetensors", f"{STAGE}/outputs.safetensors", "", "altered or damaged"),
        ("stage.json", f"{STAGE}/stage.json", "", "such a file has at most"),
        ("inversion.safetensors", "inversion.safetensors", "", ""),
        ("config.yaml", "config.yaml", "such a file has at most", ""),
        ("names.json", "source/names.json", "such a file has at most", ""),
        ("edits.yaml", "source/edits.yaml", "such a file has at most", ""),
        ("log.txt", "log.txt", "", ""),
        (".lock", ".lock", "", ""),
        ("run.json", "run.json", "", ""),
        ("report.html", "report.html", "", ""),
        ("a user's file in a stage", f"{STAGE}/notes.bin", "", "", "--from", "warp", "--until", "warp"),
    ]
]


RECORDS = [
    *(
        Row("stage.json", what, _record(change), "", "damaged")
        for what, change in [
            ("no hash", lambda r: r.pop("hash") and None),
            ("a hash that is a number", lambda r: r.update(hash=7)),
            ("a hash that is a path", lambda r: r.update(hash="../../x")),
            ("outputs that are a list", lambda r: r.update(outputs=["a"])),
            ("no outputs", lambda r: r.pop("outputs") and None),
            ("outputs of which one is missing", lambda r: r["outputs"].popitem() and None),
            ("outputs by other names", lambda r: r.update(outputs={"x": "0" * 64})),
            ("files that are a number", lambda r: r.update(files=3)),
            ("a file above its folder", lambda r: r.update(files=["../../../x.png"])),
            ("a file with a line's end in its name", lambda r: r.update(files=["a\n.png"])),
            ("a file with quotation marks and a script", lambda r: r.update(files=[f'"/>{SCRIPT}.png'])),
            ("seconds that are a script", lambda r: r.update(seconds=SCRIPT)),
            ("seconds below zero", lambda r: r.update(seconds=-1)),
            ("seconds without end", lambda r: r.update(seconds=1e999)),
            ("numbers that are a text", lambda r: r.update(numbers=SCRIPT)),
            ("numbers of lists", lambda r: r.update(numbers={"a": [1, 2]})),
            ("losses that are a number", lambda r: r.update(losses=5)),
            ("another stage's record", lambda r: r.update(stage="latent")),
            ("memory that is a text", lambda r: r.update(process_peak_mb=SCRIPT)),
            ("a list", lambda r: [r]),
            ("nothing", lambda r: {}),
        ]
    ),
    Row("stage.json", "nested lists", _raw(f"{STAGE}/stage.json", b"[" * 100_000), "", "nested too deeply"),
    Row(
        "stage.json", "5000 digits", _raw(f"{STAGE}/stage.json", b'{"seed": ' + b"9" * 5000 + b"}"), "", "not readable"
    ),
    Row("stage.json", "bytes that are no text", _raw(f"{STAGE}/stage.json", b"\xff\xfe"), "", "no text in UTF-8"),
    Row(
        "stage.json",
        "64 MiB of brackets",
        _raw(f"{STAGE}/stage.json", b"[" + b"[]," * (22 << 20) + b"1]"),
        "",
        "MB; such a",
    ),
    Row(
        "stage.json",
        "15 MiB of brackets",
        _raw(f"{STAGE}/stage.json", b"[" + b"[]," * (5 << 20) + b"1]"),
        "",
        "damaged",
    ),
    Row("stage.json", "a number called by a script", _record(lambda r: r["numbers"].update({SCRIPT: 1.0}))),
    *(
        Row("names.json", what, _raw("source/names.json", data), says)
        for what, data, says in [
            ("a list", b"[]", "damaged"),
            ("no photo", b"{}", "damaged"),
            ("a photo that is a list", b'{"photo": []}', "damaged"),
            ("a name of a megabyte", b'{"photo": "' + b"a" * 1_000_000 + b'"}', "damaged"),
            ("nested lists", b"[" * 100_000, "nested too deeply"),
            ("nothing", b"", "not readable as JSON"),
            ("no name", b'{"photo": ""}', "damaged"),
            ("a name that is a number", b'{"photo": 7}', "damaged"),
            ("5000 digits", b'{"photo": "a.png", "x": ' + b"9" * 5000 + b"}", "not readable as JSON"),
            ("a path for a name", b'{"photo": "../../../etc/passwd"}', ""),
            ("bytes that are no text", b'{"photo": "\xff.png"}', "no text in UTF-8"),
            ("half of a character", b'{"photo": "\\ud800.png"}', ""),
            ("terminal codes", b'{"photo": "\\u001b[2J\\u202e.png"}', ""),
        ]
    ),
]


def _outputs(change: Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]) -> Make:
    """Spoil a stage's tensors, and let its record say that they are right, as somebody would who means it."""

    def spoil(run: Path, world: World) -> None:
        import hashlib

        path = run / STAGE / "outputs.safetensors"
        change_tensors(path, change)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        change_json(run / STAGE / "stage.json", lambda record: record.update(outputs_sha256=digest))

    return _in_run(spoil, "--from", "inpaint", "--until", "inpaint")


def _retyped(kind: torch.dtype) -> Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]:
    return lambda h, t: t.update({name: value.to(kind) for name, value in t.items()})


OUTPUTS = [
    Row("outputs.safetensors", what, _outputs(change), says)
    for what, change, says in [
        ("no kinds", lambda h, t: h.pop("kinds") and None, "damaged"),
        ("kinds that are a list", lambda h, t: h.update(kinds=[]), "damaged"),
        ("an unknown kind", lambda h, t: h["kinds"].update(dict.fromkeys(h["kinds"], "pickle")), "holds no"),
        ("tensors as numbers", lambda h, t: h["kinds"].update(dict.fromkeys(h["kinds"], "numbers")), "holds no"),
        ("tensors as cameras", lambda h, t: h["kinds"].update(dict.fromkeys(h["kinds"], "camera")), "holds no"),
        ("no tensors", lambda h, t: t.clear(), "holds no"),
        ("complex numbers", _retyped(torch.complex64), "is of the type"),
        (
            "tensors as nothing",
            lambda h, t: h["kinds"].update(dict.fromkeys(h["kinds"], "none")),
            "fails on what was found",
        ),
        (
            "tensors of another shape",
            lambda h, t: t.update({k: v[..., :1, :1].clone() for k, v in t.items()}),
            "fails on what",
        ),
        ("tensors without dimensions", lambda h, t: t.update({k: v.mean() for k, v in t.items()}), "fails on what"),
    ]
]

ROWS = [*LINKS, *RECORDS, *HOLES, *OUTPUTS]
