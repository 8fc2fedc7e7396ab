"""Hostile checkpoints: whatever a file tries, the user sees one line, and nothing else happens.

Run with `-s` to see the table: file, what it tries, what the user sees. Every file is made here; each runs under a
limit of time and of memory.
"""

import io
import json
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from pmv.errors import CheckpointError, InputError
from pmv.generators import load_generator, verify
from pmv.generators.inspection import inspect_checkpoint
from tests.conftest import ROOT

WITNESS = "/tmp/pmv-hostile-witness"
"""The file that every attack would make."""
COMMAND = f"touch {WITNESS}"


class Call:
    """Pickles as a call of `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def called(name: str, argument: str = COMMAND, protocol: int = 2) -> bytes:
    """A pickle that calls the function called "module name" with a text."""
    head = b"\x80" + bytes([protocol]) if protocol >= 2 else b""
    return head + b"c" + name.replace(" ", "\n").encode() + b"\n(X" + text(argument) + b"tR."


def text(value: str) -> bytes:
    return struct.pack("<I", len(value)) + value.encode()


def legacy(storage_pickle: bytes) -> bytes:
    """A `torch.save` stream of before 1.6 whose object is the given pickle."""
    head = [pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return b"".join(head) + storage_pickle + pickle.dumps([], 2)


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def saved(value: object, **options: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def tensor_pickle(key: str = "0", count: int = 4, size: tuple = (4,), stride: tuple = (1,), offset: int = 0) -> bytes:
    """The pickle of {"x": tensor} as `torch.save` writes it, with numbers of one's own."""

    def numbers(values: tuple) -> bytes:
        return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", v) for v in values) + b"t"

    storage = b"(X" + text("storage") + b"ctorch\nFloatStorage\nX" + text(key) + b"X" + text("cpu")
    storage += b"\x8a\x08" + struct.pack("<q", count) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"\x8a\x08" + struct.pack("<q", offset)
    tensor += numbers(size) + numbers(stride) + b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}X" + text("x") + tensor + b"s."


def tensor_zip(data: bytes = bytes(16), **numbers: object) -> bytes:
    return zipped({"a/data.pkl": tensor_pickle(**numbers), "a/data/0": data, "a/version": b"3\n"})


def module_cycle(name: str) -> bytes:
    """A module that is its own child."""
    head = b"\x80\x02ctraining.x\nModule\n)\x81q\x00}(X" + text("_parameters") + b"}X" + text("_modules")
    return head + b"}X" + text(name) + b"h\x00sub."


def nested_tuples(depth: int) -> bytes:
    """A tuple of twice a tuple of twice …, as the key of a dictionary: its hash takes 2^depth steps."""
    layers = b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) + b"0" for i in range(depth))
    return b"\x80\x02})q\x000" + layers + b"h" + bytes([depth]) + b"Ns."


def laughs(depth: int) -> bytes:
    """Lists of twice a list, as the class name of a generator: its text would be 2^depth long."""
    layers = b"".join(b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(depth))
    state = b"}X" + text("_parameters") + b"}s"
    meta = b"}(X" + text("class_name") + b"h" + bytes([depth]) + b"X" + text("state") + state + b"u"
    return b"\x80\x02]q\x00" + layers + b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n(" + meta + b"tR."


def bomb(function: bytes, argument: bytes, times: int, more: bytes = b"") -> bytes:
    """One large argument, given to a function again and again; all results are kept."""
    return b"\x80\x02" + argument + b"q\x000(" + (function + b"(h\x00" + more + b"tR") * times + b"t."


OVERLAP = tensor_zip()
CENTRAL = OVERLAP.index(b"PK\x01\x02")

FILES = {
    "reduce-system.pkl": ("calls os.system at the top", pickle.dumps(Call(os.system, COMMAND))),
    "reduce-nt.pkl": ("calls nt.system", called("nt system")),
    "reduce-popen.pkl": ("calls subprocess.Popen", pickle.dumps(Call(subprocess.Popen, ["touch", WITNESS]))),
    "reduce-eval.pkl": ("calls builtins.eval", pickle.dumps(Call(eval, f"open({WITNESS!r}, 'w')"))),
    "reduce-exec.pkl": ("calls builtins.exec", pickle.dumps({"G_ema": Call(exec, f"open({WITNESS!r}, 'w')")})),
    "reduce-getattr.pkl": ("reaches os by getattr", pickle.dumps(Call(getattr, "x", "upper"))),
    "reduce-import.pkl": ("calls __import__", called("builtins __import__", "os")),
    "python2-names.pkl": ("calls __builtin__.eval", called("__builtin__ eval", f"open({WITNESS!r}, 'w')")),
    "torch-load.pkl": ("calls torch.load on its own bytes", pickle.dumps(Call(torch.load, io.BytesIO()))),
    "copyreg.pkl": ("builds objects by copyreg", called("copyreg _reconstructor")),
    "protocol-0.pkl": ("protocol 0, os.system", b"cos\nsystem\n(S'" + COMMAND.encode() + b"'\ntR."),
    "protocol-1.pkl": ("protocol 1, os.system", called("os system", protocol=1)),
    "protocol-3.pkl": ("protocol 3, os.system", pickle.dumps(Call(os.system, COMMAND), 3)),
    "protocol-4.pkl": ("protocol 4, os.system", pickle.dumps(Call(os.system, COMMAND), 4)),
    "protocol-5.pkl": ("protocol 5, os.system", pickle.dumps(Call(os.system, COMMAND), 5)),
    "inst.pkl": ("instruction INST", b"\x80\x02(X" + text(COMMAND) + b"ios\nsystem\n."),
    "obj.pkl": ("instruction OBJ", b"\x80\x02(cos\nsystem\nX" + text(COMMAND) + b"o."),
    "newobj.pkl": ("NEWOBJ of a class that is none", b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)\x81."),
    "newobj-ex.pkl": ("NEWOBJ_EX of subprocess.Popen", b"\x80\x04csubprocess\nPopen\n)}\x92."),
    "extension.pkl": ("extension registry", b"\x80\x02\x82\x01."),
    "persistent.pkl": ("object outside the file", b"\x80\x02X" + text("/etc/passwd") + b"Q."),
    "buffer.pkl": ("memory outside the file", b"\x80\x05\x97."),
    "build-function.pkl": (
        "alters a function that is allowed",
        b"\x80\x02ctorch._utils\n_rebuild_parameter\n}X" + text("__defaults__") + b")sb.",
    ),
    "build-class.pkl": ("alters a class", b"\x80\x02ctraining.a\nB\n}X" + text("set_state") + b"Nsb."),
    "dotted-name.pkl": ("a name with dots", b"\x80\x02ctraining.a\nos.system\n."),
    "close-module.pkl": ("a module called almost right", b"\x80\x02ctraining_evil\nModule\n)\x81."),
    "number-as-name.pkl": ("STACK_GLOBAL of numbers", b"\x80\x04K\x01K\x02\x93."),
    "lazy-import.pkl": ("has torch import a submodule", b"\x80\x02ctorch\nonnx\n."),
    "terminal-codes.pkl": ("escape codes in a name", b"\x80\x02cos\x1b[2J\nsystem\n."),
    "in-state-key.pkl": ("in a state dict's key", pickle.dumps({"G_ema": {("x", Call(os.system, COMMAND)): 1}})),
    "in-storage.pkl": (
        "in the bytes of a tensor",
        pickle.dumps({"G_ema": Call(torch.storage._load_from_bytes, legacy(called("os system")))}),
    ),
    "storage-in-storage.pkl": (
        "torch.load in the bytes of a tensor",
        pickle.dumps(Call(torch.storage._load_from_bytes, legacy(called("torch.storage _load_from_bytes")))),
    ),
    "in-legacy.pt": ("torch.save file of before 1.6", legacy(called("os system"))),
    "in-zip.pt": ("torch.save file", zipped({"a/data.pkl": called("os system")})),
    "whole-module.pth": ("a saved object of a class of one's own", saved({"G_ema": Call(os.system, COMMAND)})),
    "torchscript.pt": (
        "a TorchScript program",
        zipped({"a/data.pkl": b"\x80\x02}.", "a/constants.pkl": b"\x80\x02).", "a/code/x.py": b""}),
    ),
    "zip-bomb.pt": (
        "200 MB of zeros, compressed",
        zipped({"a/data.pkl": tensor_pickle(), "a/data/0": bytes(200 << 20)}, zipfile.ZIP_DEFLATED),
    ),
    "overlap.pt": (
        "members that claim the file many times",
        OVERLAP[:CENTRAL] + OVERLAP[CENTRAL:].replace(struct.pack("<II", 16, 16), struct.pack("<II", 1 << 30, 1 << 30)),
    ),
    "path.pt": ("a member outside the archive", zipped({"../../../tmp/pmv-hostile-witness": b"x"})),
    "two-pickles.pt": (
        "two pickles in one archive",
        zipped({"a/data.pkl": b"\x80\x02}.", "b/data.pkl": b"\x80\x02}."}),
    ),
    "no-pickle.pt": ("another kind of archive", zipped({"word/document.xml": b"<x/>"})),
    "claims-more.pt": ("a tensor larger than its file", tensor_zip(count=1 << 40)),
    "expanded.pt": ("4 numbers seen as 4 TB", tensor_zip(size=(1 << 40,), stride=(0,))),
    "offset.pt": ("a tensor before its memory", tensor_zip(offset=-4)),
    "stride.pt": ("a tensor beyond its memory", tensor_zip(size=(4,), stride=(1 << 20,))),
    "negative.pt": ("a negative length", tensor_zip(size=(-4,))),
    "no-bytes.pt": ("a tensor without its bytes", tensor_zip(key="7")),
    "length.pkl": ("bytes of a claimed 4 TB", b"\x80\x04\x8e" + struct.pack("<Q", 1 << 42) + b"."),
    "frame.pkl": ("a frame of a claimed 4 TB", b"\x80\x04\x95" + struct.pack("<Q", 1 << 42) + b"N."),
    "memo.pkl": ("a memory table of 2^31 entries", b"\x80\x02Nr" + struct.pack("<I", (1 << 31) - 1) + b"."),
    "nested.pkl": ("lists in lists, 100 000 deep", b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."),
    "hash.pkl": ("a key whose hash takes 2^60 steps", nested_tuples(60)),
    "laughs.pkl": ("a name of 2^60 letters", laughs(60)),
    "cycle.pkl": ("a module within itself", module_cycle("a" * 400)),
    "encode.pkl": (
        "a text of 1 MB copied 20 000 times",
        bomb(b"c_codecs\nencode\n", b"X" + text("a" * (1 << 20)), 20_000, b"X" + text("latin1")),
    ),
    "sets.pkl": (
        "a list made a set again and again",
        bomb(b"cbuiltins\nset\n", b"](" + b"K\x01" * 9999 + b"e", 20_000),
    ),
    "endless.pkl": ("millions of instructions", b"\x80\x02" + b"N0" * 2_000_000 + b"."),
    "truncated.pkl": ("a file cut short", pickle.dumps({"G_ema": list(range(100))})[:-40]),
    "empty.pkl": ("an empty file", b""),
    "text.pkl": ("a web page", b"<!DOCTYPE html><html>404</html>"),
    "pointer.pkl": ("a Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    "nothing.pkl": ("a pickle that holds no generator", pickle.dumps({"G": None, "D": 1})),
    "number.pkl": ("a pickle of a number", pickle.dumps(7)),
    "cut.pt": ("an archive cut short", saved({"x": torch.zeros(64)})[:-60]),
    "header.safetensors": ("a header of a claimed 1 TB", struct.pack("<Q", 1 << 40) + b"{}"),
}


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
def test_refused(name, tmp_path, no_witness):
    what, data = FILES[name]
    path = tmp_path / name
    path.write_bytes(data)
    if path.suffix == ".safetensors":
        path.with_suffix(".json").write_text(json.dumps({"format": 1, "family": "eg3d", "config": {}}))
    message = seen(path, load_generator)
    print(f"{name:24} {what:42} {message.removeprefix(str(path))[2:]}")
    seen(path, inspect_checkpoint)
    assert {p.stem for p in tmp_path.iterdir()} == {path.stem}


@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "missing", "unreadable link"])
def test_what_is_no_file(kind, tmp_path):
    path = tmp_path / "thing.pkl"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "unreadable link":
        path.symlink_to(path)
    with bounded(), pytest.raises(CheckpointError, match=r"thing\.pkl"):
        load_generator(path)


@pytest.mark.parametrize("name", ["reduce-system.pkl", "in-zip.pt", "zip-bomb.pt", "memo.pkl"])
@pytest.mark.parametrize("command", ["convert", "inspect", "verify"])
def test_from_the_command_line(name, command, tmp_path, no_witness, capsys, monkeypatch):
    """One line on stderr, exit code 2, no file made."""
    import run_inversion

    path = tmp_path / name
    path.write_bytes(FILES[name][1])
    extra = {"convert": [tmp_path / "out.safetensors"], "inspect": [], "verify": [tmp_path / "io.npz"]}[command]
    if command == "verify":
        ones = np.ones((1, 1), np.float32)
        np.savez(tmp_path / "io.npz", z=ones, c=ones, ws=ones, points=ones)
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(sys, "argv", ["pmv", command, str(path), *map(str, extra)])
    with pytest.raises(SystemExit) as left:
        run_inversion.main()
    told = capsys.readouterr()
    assert left.value.code == 2 and told.out == ""
    assert told.err.startswith("pmv: error: ") and told.err.strip().count("\n") == 0 and name in told.err
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
