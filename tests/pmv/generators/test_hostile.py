"""Hostile checkpoints: whatever a file tries, the user sees one line, and nothing else happens.

Run with `-s` to see the table: file, what it tries, what the user sees. Every file is made here; each runs under a
limit of time and of memory.
"""

import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from pmv.errors import CheckpointError, InputError
from pmv.generators import load_generator, verify
from pmv.generators.inspection import describe, inspect_checkpoint
from tests.conftest import ROOT
from tests.pmv.generators.hostile_files import COMMAND, FILES, READABLE, WITNESS, Call, saved


class Late(BaseException):
    """Not an Exception, so that no reader takes it for damage."""


@contextmanager
def bounded(seconds: int = 20, growth: int = 1 << 30):
    """Time, and memory beyond what the process has already."""

    def late(*_: object) -> None:
        raise Late(f"took longer than {seconds} s")

    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    previous = signal.signal(signal.SIGALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + growth, limits[1]))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def seen(path, read) -> str:
    """What the user is told about the file."""
    with bounded(), pytest.raises(CheckpointError) as caught:
        read(path)
    message = str(caught.value)
    assert path.stem in message and "\n" not in message and message.isprintable()
    assert len(message) < 350
    return message


@pytest.fixture
def no_witness():
    yield
    assert not os.path.exists(WITNESS)


@pytest.mark.parametrize("name", FILES)
def test_refused(name, tmp_path, no_witness, told_before):
    what, data = FILES[name]
    path = tmp_path / name
    path.write_bytes(data)
    if path.suffix == ".safetensors":
        path.with_suffix(".json").write_text(json.dumps({"format": 1, "family": "eg3d", "config": {}}))
    message = seen(path, load_generator)
    told_before(message)
    print(f"{name:24} {what:42} {message.removeprefix(str(path))[2:]}")
    if name in READABLE:
        with bounded():
            lines = describe(inspect_checkpoint(path)).split("\n")
        assert all(line.isprintable() and len(line) < 200 for line in lines) and len(lines) < 60
    else:
        seen(path, inspect_checkpoint)
    assert {p.stem for p in tmp_path.iterdir()} == {path.stem}


@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "missing", "unreadable link"])
def test_what_is_no_file(kind, tmp_path, told_before):
    path = tmp_path / "thing.pkl"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "unreadable link":
        path.symlink_to(path)
    with bounded(), pytest.raises(CheckpointError, match=r"thing\.pkl") as caught:
        load_generator(path)
    told_before(str(caught.value))


@pytest.mark.parametrize("name", ["reduce-system.pkl", "in-zip.pt", "zip-bomb.pt", "memo.pkl"])
@pytest.mark.parametrize("command", ["convert", "inspect", "verify"])
def test_from_the_command_line(name, command, tmp_path, no_witness, capsys, monkeypatch, told_before):
    """One line on stderr, exit code 2, no file made."""
    from pmv.apps import cli

    path = tmp_path / name
    path.write_bytes(FILES[name][1])
    extra = {"convert": [tmp_path / "out.safetensors"], "inspect": [], "verify": [tmp_path / "io.npz"]}[command]
    if command == "verify":
        ones, more = np.ones((1, 1), np.float32), np.ones((1, 1, 1), np.float32)
        np.savez(tmp_path / "io.npz", z=ones, c=ones, ws=more, points=more)
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(sys, "argv", ["pmv", command, str(path), *map(str, extra)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    told = capsys.readouterr()
    assert left.value.code == 2 and told.out == ""
    assert told.err.startswith("pmv: error: ") and told.err.strip().count("\n") == 0 and name in told.err
    told_before(told.err.strip())
    assert sorted(tmp_path.iterdir()) == before


def test_damaged_bytes_never_escape(tmp_path):
    """A valid file with a few bytes changed is either read or refused in one line."""
    state = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.int64)}
    rng = np.random.default_rng(0)
    path = tmp_path / "fuzz.pt"
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        whole = np.frombuffer(saved({"G_ema": state}, **options), np.uint8)
        for _ in range(150):
            data = whole.copy()
            places = rng.integers(0, len(data), rng.integers(1, 6))
            data[places] = rng.integers(0, 256, len(places))
            path.write_bytes(data.tobytes())
            try:
                inspect_checkpoint(path)
            except CheckpointError as error:
                assert "fuzz.pt" in str(error) and "\n" not in str(error)


def test_reference_that_is_a_pickle_or_a_bomb_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "io.npz"
    np.savez(path, z=np.array([Call(os.system, COMMAND)], dtype=object))
    with pytest.raises(InputError, match=r"io\.npz"):
        verify.read_reference(path)
    monkeypatch.setattr(verify, "_MAX_BYTES", 1 << 20)
    np.savez_compressed(path, z=np.zeros(1 << 20, np.float32))
    with bounded(), pytest.raises(InputError, match="larger than any reference"):
        verify.read_reference(path)


def test_nothing_stays_behind(tmp_path):
    """What one file tried does not change how the next is read, nor what is imported."""
    program = (
        "import sys; from pathlib import Path; from pmv.generators.checkpoint import read_checkpoint\n"
        "before = set(sys.modules)\n"
        "for name in sys.argv[1:]:\n"
        "    try: read_checkpoint(Path(name))\n"
        "    except Exception as error: print(type(error).__name__)\n"
        "print(sorted(m for m in set(sys.modules) - before if m.startswith(('torch.', 'training', 'subprocess'))))\n"
    )
    names = ["build-function.pkl", "build-class.pkl", "lazy-import.pkl", "close-module.pkl"]
    for name in names:
        (tmp_path / name).write_bytes(FILES[name][1])
    (tmp_path / "good.pt").write_bytes(saved({"x": torch.ones(2)}))
    arguments = [str(tmp_path / name) for name in [*names, "good.pt"]]
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == ["CheckpointError"] * 4 + ["[]"]
