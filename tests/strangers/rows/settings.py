"""YAML: presets, --set, a run's config.yaml and edits.yaml."""

import os
from pathlib import Path

from tests.strangers.rows.base import Row
from tests.strangers.world import World

_LAUGHS = "\n".join(
    [f"l{i}: &l{i} {{x: [{', '.join([f'*l{i - 1}'] * 9 if i else ['ha'])}]}}" for i in range(30)]
    + ["tune: {steps: *l29}"]
)
_MERGES = "\n".join(
    ["m0: &m0 {a0: 1, b0: 2}"]
    + [f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 50)}], k{i}: 1}}" for i in range(1, 40)]
)

YAML: list[tuple[str, bytes, str]] = [
    ("nested lists", b"tune: {steps: " + b"[" * 5000, "nested too deeply"),
    ("nested mappings", b"{a: " * 5000, "nested too deeply"),
    ("a text as !!int", b"tune: {steps: !!int foo}", "not readable as YAML"),
    ("a text as !!timestamp", b"tune: {steps: !!timestamp foo}", "not readable as YAML"),
    ("a text as !!float", b"tune: {steps: !!float foo}", "not readable as YAML"),
    ("a date that is none", b"tune: {steps: 2026-13-45}", "not readable as YAML"),
    ("a date", b"tune: {steps: 2026-11-26}", "is a whole number, not date"),
    ("5000 digits", b"tune: {steps: " + b"9" * 5000 + b"}", "not readable as YAML"),
    ("a hexadecimal number of 100 000 digits", b"tune: {steps: 0x" + b"f" * 100_000 + b"}", "digits or more"),
    ("a sexagesimal number of 80 000 places", b"tune: {steps: 1" + b":59" * 80_000 + b"}", "digits or more"),
    ("400 digits where a fraction belongs", b"tune: {learning_rate: " + b"9" * 400 + b"}", "digits or more"),
    ("billion laughs", _LAUGHS.encode(), "nothing is called l0.x"),
    ("billion laughs in merge keys", _MERGES.encode(), "more merged entries"),
    ("a list that holds itself", b"tune: &t {steps: &s [*s]}", "is a whole number, not list"),
    ("an object of Python's", b"tune: {steps: !!python/object/apply:os.system [id]}", "not readable as YAML"),
    ("a module of Python's", b"tune: !!python/module:os", "not readable as YAML"),
    ("terminal codes in a key", b'tune: {"\\x1b]0;owned\\x07steps": 1}', "nothing is called tune.?]0;owned?steps"),
    ("a key that turns writing round", "tune: {steps\u202e: 1}".encode(), "nothing is called tune.steps?"),
    ("a key of 200 000 letters", b"tune:\n  ? " + b"k" * 200_000 + b"\n  : 1", "nothing is called tune.kkk"),
    ("a value of 200 000 letters", b"tune: {steps: " + b"v" * 200_000 + b"}", "is a whole number, not 'vvv"),
    ("a block called by a list", b"? [a, b]\n: {steps: 1}", "not readable as YAML"),
    ("a key that is a date", b"tune: {2026-11-26: 1}", "nothing is called tune.date"),
    ("half of a character", b'run: {domain: "\\ud800"}', "no generator config is called"),
    ("bytes that are no text", b"tune: {steps: \xff\xfe}", "is no text in UTF-8"),
    ("zeros", bytes(1000), "not readable as YAML"),
    ("one mebibyte", b"#" * (1 << 20), "such a file has at most"),
    ("a list", b"[1, 2]", "a config has blocks of values"),
    ("two documents", b"tune: {steps: 1}\n---\ntune: {steps: 2}", "not readable as YAML"),
    ("a tab", b"tune:\n\tsteps: 1", "not readable as YAML"),
    ("a binary that is none", b"tune: {steps: !!binary '%%'}", "is a whole number, not bytes"),
    ("an unknown tag", b"tune: {steps: !foo 3}", "not readable as YAML"),
    ("nothing as a number", b"tune: {learning_rate: .nan}", "is a number, not nan"),
    ("1e999", b"tune: {learning_rate: 1e999}", "is a number, not"),
]
"""Name, bytes of a preset, what the line says."""


def _preset(data: bytes):
    def make(world: World, row: Path) -> list[str | bytes]:
        (row / "evil.yaml").write_bytes(data)
        return [*world.new(row), "--preset", "evil.yaml"]

    return make


def _setting(value: str):
    return lambda world, row: [*world.new(row), "--set", f"tune.steps={value}"]


def _special(kind: str):
    def make(world: World, row: Path) -> list[str | bytes]:
        path = row / "evil.yaml"
        if kind == "a pipe":
            os.mkfifo(path)
        elif kind == "a folder":
            path.mkdir()
        elif kind == "an endless device":
            path.symlink_to("/dev/zero")
        elif kind == "a link to itself":
            path.symlink_to(path)
        return [*world.new(row), "--preset", "evil.yaml"]

    return make


def _config(data: bytes):
    def make(world: World, row: Path) -> list[str | bytes]:
        (world.copy_run(row) / "config.yaml").write_bytes(data)
        return ["invert", "--resume", "run"]

    return make


def _edits(text: str, *pictures: str):
    def make(world: World, row: Path) -> list[str | bytes]:
        run = world.copy_run(row)
        for name in pictures:
            (run / "source" / name).write_bytes((world.folder / "head.png").read_bytes())
        (run / "source" / "edits.yaml").write_text(text)
        return ["invert", "--resume", "run", "--until", "prepare"]

    return make


PRESETS = [Row("preset", what, _preset(data), says) for what, data, says in YAML] + [
    Row("preset", f"{kind} instead of a file", _special(kind), says)
    for kind, says in (
        ("a pipe", "no file but a pipe"),
        ("a folder", "is a folder"),
        ("an endless device", "no file but a pipe or a device"),
        ("a link to itself", "cannot be read"),
        ("nothing", "no such file"),
    )
]

SETTINGS = [
    Row("--set", what, _setting(value), says)
    for what, value, says in [
        ("nested lists", "[" * 5000, "nested too deeply"),
        ("a text as !!int", "!!int foo", "not readable as YAML"),
        ("a date that is none", "2026-02-30", "not readable as YAML"),
        ("5000 digits", "9" * 5000, "not readable as YAML"),
        ("a hexadecimal number of 50 000 digits", "0x" + "f" * 50_000, "digits or more"),
        ("terminal codes", "'\\e[2J'", "is a whole number"),
        ("a list that holds itself", "&a [*a]", "is a whole number, not list"),
        ("an open bracket", "[", "not readable as YAML"),
        ("100 000 letters", "x" * 100_000, "is a whole number"),
        ("an object of Python's", "!!python/name:os.system", "not readable as YAML"),
    ]
]

CONFIGS = [
    Row("config.yaml of a run", what, _config(data), says)
    for what, data, says in [
        *[row for row in YAML if row[0] in ("nested lists", "billion laughs", "5000 digits", "zeros")],
        ("nothing", b"", "the config lacks"),
        ("run is a list", b"run: [1]", "a config has blocks"),
        ("no run", b"tune: {steps: 1}", "the config lacks"),
        ("a generator that is a device", b"run: {generator: /dev/zero}", "the config lacks"),
        ("a stage that there is not", b"tunee: {steps: 3}", "did you mean"),
    ]
]

_ROW = "- {{edit: {}, name: x}}\n"
EDITS = [
    Row("edits.yaml", what, _edits(text, *pictures), says)
    for what, text, says, *pictures in [
        ("a picture above the run", _ROW.format("../../head.png"), "no file in its folder"),
        ("a picture by its whole path", _ROW.format("/etc/passwd"), "no file in its folder"),
        ("a hidden picture", _ROW.format(".hidden.png"), "no file in its folder"),
        ("a picture that is a list", _ROW.format("[a.png]"), "no file in its folder"),
        ("a picture with a line's end in its name", _ROW.format('"a\\nb.png"'), "no file in its folder"),
        ("a mask above the run", "- {edit: a.png, paint_mask: ../x.png}", "no file in its folder", "a.png"),
        ("a picture that is gone", _ROW.format("gone.png"), "is gone"),
        ("a name that is a list", "- {edit: a.png, name: [1]}", "is no text", "a.png"),
        ("rows that are texts", "- a\n- b", "a list of edits has rows"),
        ("a mapping", "a: b", "no list of edits"),
        ("nested lists", "[" * 5000, "nested too deeply"),
        ("a date that is none", "- 2026-13-45", "not readable as YAML"),
        ("100 000 rows", "- 1\n" * 60_000, "no list of edits"),
        ("a place of 5000 digits", f"- {{overlay: a.png, at: [{'9' * 5000}, 0], size: 1}}", "not readable", "a.png"),
        ("a place beyond all numbers", f"- {{overlay: a.png, at: [0x{'f' * 500}, 0], size: 1}}", "give two", "a.png"),
        ("a size that is a list", "- {overlay: a.png, at: [0, 0], size: [1]}", "give a number", "a.png"),
        ("a blend that is a mapping", "- {overlay: a.png, at: [0, 0], size: 1, blend: {a: 1}}", "no blend", "a.png"),
        (
            "following that is a number",
            "- {overlay: a.png, at: [0, 0], size: 1, follow_surface: 7}",
            "true or",
            "a.png",
        ),
        (
            "a name that writes a line of its own",
            '- {edit: a.png, name: "x\\n2026 INFO all is well\\e[2J"}',
            "",
            "a.png",
        ),
    ]
]

ROWS = [*PRESETS, *SETTINGS, *CONFIGS, *EDITS]
