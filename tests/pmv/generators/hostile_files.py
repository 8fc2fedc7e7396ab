"""Hostile checkpoints: how they are made, and what each tries. `test_hostile.py` has them read."""

import io
import os
import pickle
import struct
import subprocess
import zipfile

import torch

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


def fan(children: int) -> bytes:
    """A module that is all of its own children."""
    names = b"".join(b"X" + text(f"c{i}") + b"h\x00" for i in range(children))
    state = b"X" + text("_parameters") + b"}X" + text("_modules") + b"}(" + names + b"u"
    return b"\x80\x02ctraining.x\nModule\n)\x81q\x00}(" + state + b"ub."


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


def framed(body: bytes) -> bytes:
    """Instructions in a frame of protocol 4."""
    return b"\x80\x04\x95" + struct.pack("<Q", len(body)) + body


def module(state: bytes) -> bytes:
    """A module of the given state: entries of a dictionary, left on the stack."""
    return b"ctraining.x\nModule\n)\x81}(" + state + b"ub"


def wide(entries: int, children: int) -> bytes:
    """A module with as many children, which are all one module with as many parameters that are None."""
    names = b"".join(b"X" + text(f"p{i}") + b"N" for i in range(entries))
    child = module(b"X" + text("_parameters") + b"}(" + names + b"u") + b"q\x000"
    children_ = b"".join(b"X" + text(f"c{i}") + b"h\x00" for i in range(children))
    return (
        b"\x80\x02"
        + child
        + module(b"X" + text("_parameters") + b"}X" + text("_modules") + b"}(" + children_ + b"u")
        + b"."
    )


def described(key: str, value: bytes, more: bytes = b"") -> bytes:
    """A module with one tensor and constructor arguments, one of which (in rendering_kwargs) is the given pickle."""
    storage = legacy(
        b"\x80\x02(X" + text("storage") + b"ctorch\nFloatStorage\nX" + text("0") + b"X" + text("cpu") + b"K\x04tQ."
    )
    storage = storage[: -len(pickle.dumps([], 2))] + pickle.dumps(["0"], 2) + struct.pack("<q", 4) + bytes(16)
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(ctorch.storage\n_load_from_bytes\nB" + struct.pack(
        "<I", len(storage)
    )
    tensor += storage + b"\x85RK\x00K\x04\x85K\x01\x85\x89)tR"
    options = {
        "superresolution_module": "SuperresolutionHybrid2X", "c_gen_conditioning_zero": False, "box_warp": 1.0,
        "ray_start": 2.25, "ray_end": 3.3, "depth_resolution": 4, "depth_resolution_importance": 4,
    }  # fmt: skip
    sizes = {"z_dim": 8, "c_dim": 25, "w_dim": 8, "img_resolution": 128}

    def entries(values: dict) -> bytes:
        return b"".join(b"X" + text(name) + pickle.dumps(value, 2)[2:-1] for name, value in values.items())

    options.pop(key, None)
    arguments = b"}(" + entries(sizes) + b"X" + text("rendering_kwargs") + b"}("
    arguments += entries(options) + b"X" + text(key) + value + b"uu"
    state = b"X" + text("_parameters") + b"}X" + text("w") + tensor + b"sX" + text("_init_kwargs") + arguments
    return b"\x80\x03" + module(state + more) + b"."


def number(value: object) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def lists_of_lists(depth: int) -> bytes:
    """Lists of twice a list: the text of the outermost would be 2^depth long."""
    layers = b"".join(
        b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) + b"0" for i in range(100, 100 + depth)
    )
    return b"]q" + bytes([100]) + b"0" + layers + b"h" + bytes([100 + depth])


def directory(members: int, size: int | None = None) -> bytes:
    """A zip (zip64) whose table of contents has that many members, or claims that size."""
    local = b"PK\x03\x04" + struct.pack("<5H3I2H", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"a"
    record = b"PK\x01\x02" + struct.pack("<6H3I5H2I", 20, 20, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0)
    table = b"".join(record + struct.pack("<I", i) for i in range(members))
    end = b"PK\x06\x06" + struct.pack("<Q2H2I4Q", 44, 45, 45, 0, 0, members, members, size or len(table), len(local))
    end += b"PK\x06\x07" + struct.pack("<IQI", 0, len(local) + len(table), 1)
    return local + table + end + b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)


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
    "backwards.pt": ("a tensor read backwards", tensor_zip(stride=(-1,), offset=3)),
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
    "endless-frame.pkl": ("millions of instructions in one frame", framed(b"N0" * 2_000_000 + b"N.")),
    "lists-in-frame.pkl": ("millions of lists in one frame", framed(b"]" * 3_000_000 + b".")),
    "wide.pkl": ("30 000 children of 30 000 parameters", wide(30_000, 30_000)),
    "children.pkl": ("a tree of 10 000 branches at each fork", fan(10_000)),
    "directory.pt": ("a zip of 100 000 members", directory(100_000)),
    "directory-claim.pt": ("a zip directory of a claimed 1 TB", directory(1, 1 << 40)),
    "argument-laughs.pkl": ("an argument of 2^60 letters", described("superresolution_module", lists_of_lists(60))),
    "argument-nested.pkl": (
        "an argument 50 000 lists deep",
        described("superresolution_module", b"]" * 50_000 + b"a" * 49_999),
    ),
    "argument-text.pkl": ("an argument of a megabyte", described("superresolution_module", number("x" * (1 << 20)))),
    "argument-infinite.pkl": ("an infinite number of samples", described("depth_resolution", number(float("inf")))),
    "argument-digits.pkl": ("a number of 12 000 digits", described("box_warp", number(1 << 40_000))),
    "argument-nan.pkl": ("a box of no size", described("box_warp", number(float("nan")))),
    "argument-samples.pkl": ("10^15 samples a ray", described("depth_resolution_importance", number(10**15))),
    "argument-type.pkl": ("a text for a number", described("avg_camera_radius", number("\x1b[2J"))),
    "class-name.pkl": (
        "escape codes in the generator's class name",
        described("box_warp", number(1.0), b"X" + text("__class_name__") + b"X" + text("\x1b[2J\nname")),
    ),
    "state-keys.pt": ("escape codes in a tensor's name", saved({"\x1b[2J\nname": torch.zeros(4)})),
    "truncated.pkl": ("a file cut short", pickle.dumps({"G_ema": list(range(100))})[:-40]),
    "empty.pkl": ("an empty file", b""),
    "text.pkl": ("a web page", b"<!DOCTYPE html><html>404</html>"),
    "pointer.pkl": ("a Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    "nothing.pkl": ("a pickle that holds no generator", pickle.dumps({"G": None, "D": 1})),
    "number.pkl": ("a pickle of a number", pickle.dumps(7)),
    "cut.pt": ("an archive cut short", saved({"x": torch.zeros(64)})[:-60]),
    "header.safetensors": ("a header of a claimed 1 TB", struct.pack("<Q", 1 << 40) + b"{}"),
}
READABLE = ("argument-samples.pkl", "argument-type.pkl", "class-name.pkl", "state-keys.pt")
"""Of these there is no generator, but `pmv inspect` tells what is in them."""
