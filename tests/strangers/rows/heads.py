"""Finished heads and what lies beside generators: inversion.safetensors, checkpoints and their JSON, directions,
references of `pmv verify`."""

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from pmv.files.artifacts import file_hash, sealed
from pmv.fitting.heads_features import FeatureShape, HeadsFeatures, save_heads_features
from pmv.generators.directions import FILE_NAME
from tests.strangers.rows.base import Make, Row
from tests.strangers.world import World, change_json, change_tensors

Change = Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]
_NAN = float("nan")


def _sealed(change: Change) -> Change:
    """Spoil a head, and seal it again, as somebody would who means it."""

    def both(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        change(header, tensors)
        if not header.pop("unsealed", False):
            header.update(sealed(header, tensors))

    return both


def _head(change: Change | None, data: bytes | None = None, at: int | None = None) -> Make:
    """A head alone, away from its run: spoilt by `change`, of these bytes, or with one bit flipped at a place."""

    def make(world: World, row: Path) -> list[str | bytes]:
        path = world.copy_run(row) / "inversion.safetensors"
        if change is not None:
            change_tensors(path, _sealed(change))
        if data is not None:
            path.write_bytes(data)
        if at is not None:
            content = bytearray(path.read_bytes())
            content[at] ^= 16
            path.write_bytes(content)
        return ["render", "run/inversion.safetensors", "--out", "view.png"]

    return make


def _config(**values: Any) -> Change:
    return lambda h, t: h["config"]["generator"].update(values)


def _first(kind: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    """Change the first tensor whose name begins so."""

    def one(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in sorted(tensors) if name.startswith(kind))
        tensors[name] = change(tensors[name])

    return one


def _safetensors(header: dict[str, Any] | bytes, body: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


HEADS = [
    Row("inversion.safetensors", what, make, says)
    for what, make, says in [
        ("a bit flipped in the weights", _head(None, at=-5), "another sha256"),
        ("a bit flipped in the middle", _head(None, at=-5000), "another sha256"),
        ("a bit flipped in its length", _head(None, at=6), "header has no end"),
        ("cut off", _head(None, b"\x10\0\0\0\0\0\0\0{}"), "damaged"),
        ("nothing", _head(None, b""), "damaged"),
        ("zeros", _head(None, bytes(5000)), "damaged"),
        ("nested lists as header", _head(None, _safetensors(b"[" * 1_000_000)), "damaged"),
        (
            "a header in its header that is nested",
            _head(None, _safetensors({"__metadata__": {"pmv": "[" * 99_999}})),
            "damaged",
        ),
        (
            "a header in its header of 5000 digits",
            _head(None, _safetensors({"__metadata__": {"pmv": "9" * 5000}})),
            "damaged",
        ),
        (
            "a header in its header that is a list",
            _head(None, _safetensors({"__metadata__": {"pmv": "[]"}})),
            "damaged",
        ),
        ("no generator", _head(lambda h, t: h.pop("generator") and None), "not an inversion"),
        ("a generator that is a list", _head(lambda h, t: h.update(generator=["heads"])), "damaged"),
        ("a generator that is a device", _head(lambda h, t: h.update(generator="/dev/zero")), "neither a generator"),
        (
            "a generator called by terminal codes",
            _head(lambda h, t: h.update(generator="\x1b[2J\u202e")),
            "neither a gen",
        ),
        ("a generator of 4000 letters", _head(lambda h, t: h.update(generator="x" * 4000)), "neither a generator"),
        ("a generator of a null", _head(lambda h, t: h.update(generator="\0")), "neither a generator"),
        ("a generator of half characters", _head(lambda h, t: h.update(generator="\ud800")), "neither a generator"),
        ("another generator's hash", _head(lambda h, t: h.update(generator_hash="0" * 64)), "not the generator"),
        ("kinds that are a list", _head(lambda h, t: h.update(kinds=[])), "damaged"),
        ("kinds of lists", _head(lambda h, t: h.update(kinds={"pivot_w": []})), "damaged"),
        ("no pivot", _head(lambda h, t: t.pop("pivot_w") is None), "holds no pivot_w"),
        (
            "a pivot of another shape",
            _head(_first("pivot_w", lambda w: w[:, :1].clone())),
            "no latent of its generator",
        ),
        ("a pivot of no numbers", _head(_first("pivot_w", lambda w: w * _NAN)), "no numbers"),
        ("a pivot of whole numbers", _head(_first("pivot_w", lambda w: w.int())), "no numbers"),
        ("a complex pivot", _head(_first("pivot_w", lambda w: w.to(torch.complex64))), "of the type torch.complex64"),
        ("weights of no numbers", _head(_first("tuned_state", lambda w: w * _NAN)), "no numbers"),
        ("complex weights", _head(_first("tuned_state", lambda w: w.to(torch.complex64))), "of the type"),
        ("weights of another shape", _head(_first("tuned_state", lambda w: w[..., :1].clone())), "another shape"),
        ("an unknown weight", _head(lambda h, t: t.update({"tuned_state/\x1b[2J": torch.ones(1)})), "has no ?[2J"),
        ("noise of another shape", _head(_first("noise", lambda n: n[:1].clone())), "no noise of its generator"),
        ("unknown noise", _head(lambda h, t: t.update({"noise/x": torch.ones(1)})), "no noise of its generator"),
        (
            "an unknown field of its camera",
            _head(lambda h, t: t.update({"camera/x": torch.ones(1)})),
            "holds no camera",
        ),
        ("a camera of no numbers", _head(_first("camera", lambda c: c * _NAN)), "no number"),
        ("a camera of another shape", _head(_first("camera", lambda c: c[:, :2].clone())), "other matrices"),
        ("no camera", _head(lambda h, t: h["kinds"].update(camera="none")), "damaged"),
        ("a radius of no number", _head(_config(radius=_NAN)), "radius"),
        ("a radius of 1e300", _head(_config(radius=1e300)), "radius"),
        ("a radius that is a text", _head(_config(radius="2.7")), "damaged"),
        ("a radius of 500 digits", _head(_config(radius=10**400)), "damaged"),
        ("a pivot of the cameras of no numbers", _head(_config(pivot=[_NAN, 0, 0])), "pivot"),
        ("a pivot of the cameras of two", _head(_config(pivot=[0, 0])), "damaged"),
        ("a background that is a list", _head(_config(background=[0])), "damaged"),
        ("an unknown plane convention", _head(_config(plane_convention="\x1b[2J")), "damaged"),
        ("a config that is a list", _head(lambda h, t: h.update(config=[1])), "damaged"),
        ("a config without a generator", _head(lambda h, t: h["config"].pop("generator") and None), ""),
        ("edits that are texts", _head(lambda h, t: h.update(attributes={"smile": "2"})), "damaged"),
        ("edits of no numbers", _head(lambda h, t: h.update(attributes={"smile": _NAN})), "no number"),
        ("no seal, as of earlier versions", _head(lambda h, t: h.update(unsealed=h.pop("sha256"))), ""),
    ]
]


def _resumed(world: World, row: Path) -> list[str | bytes]:
    path = world.copy_run(row) / "inversion.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 16
    path.write_bytes(content)
    return ["invert", "--resume", "run"]


HEADS.append(Row("inversion.safetensors", "a bit flipped, and the run resumed", _resumed))


def _generator(change: Callable[[Path], Any], *command: str) -> Make:
    """A copy of the generator, spoilt; `command` is run on it, or it is loaded by converting it."""

    def make(world: World, row: Path) -> list[str | bytes]:
        path = world.copy_generator(row)
        change(path)
        return list(command) or ["convert", "tiny.safetensors", "out.safetensors"]

    return make


def _said(**values: Any) -> Callable[[Path], Any]:
    return lambda path: change_json(path.with_suffix(".json"), lambda d: d["config"].update(values))


def _beside(data: bytes) -> Callable[[Path], Any]:
    return lambda path: path.with_suffix(".json").write_bytes(data)


def _weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        from safetensors.torch import load_file

        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)
        change_json(path.with_suffix(".json"), lambda d: d.pop("sha256") and None)

    return write


def _pipe(path: Path) -> None:
    path.with_suffix(".json").unlink()
    os.mkfifo(path.with_suffix(".json"))


_LINE = "that of no generator"
CHECKPOINTS = [
    Row("checkpoint's JSON", what, _generator(change), says)
    for what, change, says in [
        ("4096 + 4096 samples a ray", _said(coarse_samples=4096, fine_samples=4096), _LINE),
        ("4096² rays", _said(neural_resolution=4096), _LINE),
        (
            "512² rays of 1024 samples",
            _said(neural_resolution=512, coarse_samples=512, fine_samples=512),
            "of no generator",
        ),
        ("a condition scale of 1e300", _said(condition_scale=1e300), _LINE),
        ("a c_dim that is no camera's", _said(c_dim=7), _LINE),
        ("a radius of no number", _said(radius=_NAN), _LINE),
        ("a pivot of no numbers", _said(pivot=[0, _NAN, 0]), _LINE),
        ("a pivot of lists", _said(pivot=[[0], 0, 0]), _LINE),
        ("a box of infinity", _said(box=1e999), _LINE),
        ("a background of 1e300", _said(background=1e300), _LINE),
        ("planes of 4096²", _said(plane_resolution=4096, channel_base=4096), "of no generator"),
        (
            "a head of a million channels",
            _said(head={"input_resolution": 4096, "channels": [10**6, 1], "up": [True, True]}),
            "no generator",
        ),
        (
            "a head of no channels",
            _said(head={"input_resolution": 16, "channels": [0, -1], "up": [True, False]}),
            _LINE,
        ),
        ("a head that is a list", _said(head=[1, 2]), _LINE),
        ("a head with unknown entries", _said(head={"x": 1}), "damaged"),
        ("an unknown setting", _said(**{"\x1b[2J": 1}), "unknown generator setting"),
        ("numbers that are texts", _said(w_dim="512"), _LINE),
        ("a scale of 400 digits", _said(condition_scale=10**400), _LINE),
        ("numbers of 4000 digits", _said(w_dim=int("9" * 4000)), _LINE),
        ("nested lists", _beside(b"[" * 200_000), "nested too deeply"),
        ("5000 digits", _beside(b'{"format": ' + b"9" * 5000 + b"}"), "not readable as JSON"),
        ("a list", _beside(b"[1]"), "damaged"),
        ("bytes that are no text", _beside(b"\xff\xfe\xfd"), "no text in UTF-8"),
        ("eight megabytes", _beside(b" " * (8 << 20)), "such a file has at most"),
        ("a pipe", _pipe, "must lie beside it"),
        ("a hole of a terabyte", lambda p: os.truncate(p.with_suffix(".json"), 1 << 40), "such a file has at most"),
    ]
]


def _long_size(path: Path) -> None:
    """A tensor whose sizes are numbers of a megabyte each."""
    number = pickle.LONG4 + struct.pack("<i", 1 << 20) + b"\x7f" * (1 << 20)
    rebuild = pickle.GLOBAL + b"torch._utils\n_rebuild_tensor_v2\n"
    pid = pickle.MARK + pickle.SHORT_BINUNICODE + b"\x07storage" + pickle.GLOBAL + b"torch\nFloatStorage\n"
    pid += (
        pickle.SHORT_BINUNICODE
        + b"\x010"
        + pickle.SHORT_BINUNICODE
        + b"\x03cpu"
        + pickle.BININT1
        + b"\x04"
        + pickle.TUPLE
    )
    shape = pickle.MARK + number * 12 + pickle.TUPLE
    tensor = (
        rebuild
        + pickle.MARK
        + pid
        + pickle.BINPERSID
        + pickle.BININT1
        + b"\0"
        + shape
        + shape
        + pickle.TUPLE
        + pickle.REDUCE
    )
    data = (
        pickle.PROTO
        + b"\x02"
        + pickle.EMPTY_DICT
        + pickle.SHORT_BINUNICODE
        + b"\x01x"
        + tensor
        + pickle.SETITEM
        + pickle.STOP
    )
    with zipfile.ZipFile(path.with_suffix(".pt"), "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", bytes(16))


def _first_key(tensors: dict[str, torch.Tensor]) -> str:
    return next(name for name in sorted(tensors) if tensors[name].ndim > 1)


WEIGHTS = [
    Row("checkpoint's weights", what, _generator(change, *command), says)
    for what, change, says, *command in [
        ("sizes of a megabyte each", _long_size, "refused", "inspect", "tiny.pt"),
        (
            "complex numbers",
            _weights(lambda t: t.update({_first_key(t): t[_first_key(t)].to(torch.complex64)})),
            "complex",
        ),
        ("a tensor more", _weights(lambda t: t.update({"\x1b[2J": torch.ones(1)})), "unknown tensor ?[2J"),
        ("a tensor less", _weights(lambda t: t.pop(_first_key(t)) is None), "lacks"),
        ("another shape", _weights(lambda t: t.update({_first_key(t): torch.ones(1, 1)})), "has shape (1, 1)"),
        ("a bit flipped", lambda p: p.write_bytes(p.read_bytes()[:-1] + b"\x55"), "another sha256"),
        ("a header without an end", lambda p: p.write_bytes(b"\xff" * 100), "", "inspect", "tiny.safetensors"),
        (
            "nested lists as header",
            lambda p: p.write_bytes(_safetensors(b"[" * 1_000_000)),
            "",
            "inspect",
            "tiny.safetensors",
        ),
        (
            "100 000 empty tensors",
            lambda p: p.write_bytes(
                _safetensors({f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(100_000)})
            ),
            "another sha256",
        ),
        ("a hole of a terabyte", lambda p: os.truncate(p, 1 << 40), "such a file has at most"),
        ("a folder", lambda p: (p.unlink(), p.mkdir()), "nor a checkpoint file"),
        ("a pipe", lambda p: (p.unlink(), os.mkfifo(p)), "nor a checkpoint file"),
        ("a device", lambda p: (p.unlink(), p.symlink_to("/dev/zero")), "nor a checkpoint file"),
    ]
]
WEIGHTS = [Row(r.kind, r.what, r.make, r.says or "sha256" if "header" in r.what else r.says) for r in WEIGHTS]


def _directions(change: Change | None, data: bytes | None = None) -> Make:
    def make(world: World, row: Path) -> list[str | bytes]:
        run = world.copy_run(row)
        weights = world.copy_generator(row)
        change_tensors(run / "inversion.safetensors", _sealed(lambda h, t: h.update(generator=str(weights))))
        path = row / FILE_NAME
        if data is not None:
            path.write_bytes(data)
        elif change is not None:
            change_tensors(path, change)
        return ["edit", "run", "--set", "smile=1", "--out", "edited"]

    return make


def _about(**values: Any) -> Change:
    return lambda h, t: h["attributes"][0].update(values)


DIRECTIONS = [
    Row("directions.safetensors", what, make, says)
    for what, make, says in [
        ("attributes that are a number", _directions(lambda h, t: h.update(attributes=3)), "damaged"),
        ("attributes of lists", _directions(lambda h, t: h.update(attributes=[[1]])), "damaged"),
        ("no attributes", _directions(lambda h, t: h.pop("attributes") and None), "damaged"),
        (
            "more attributes than directions",
            _directions(lambda h, t: h["attributes"].append(h["attributes"][0])),
            "damaged",
        ),
        ("a span that is a text", _directions(_about(span="4")), "damaged"),
        ("a name that is a path", _directions(_about(name="../../smile")), "no such attribute"),
        ("a name of terminal codes", _directions(_about(name="\x1b[2J")), "there are ?[2J"),
        ("directions of no numbers", _directions(lambda h, t: t.update(w=t["w"] * _NAN)), "damaged"),
        ("complex directions", _directions(lambda h, t: t.update(w=t["w"].to(torch.complex64))), "damaged"),
        ("directions of another size", _directions(lambda h, t: t.update(w=torch.ones(1, 3))), "unlike the latents"),
        ("no directions", _directions(lambda h, t: t.pop("w") is None), "damaged"),
        (
            "another generator's",
            _directions(lambda h, t: h.update(generator_hash="0" * 64)),
            "belongs to other weights",
        ),
        ("zeros", _directions(None, bytes(100)), "damaged"),
    ]
]


def _reference(write: Callable[[Path], Any]) -> Make:
    def make(world: World, row: Path) -> list[str | bytes]:
        write(row / "io.npz")
        return ["verify", str(world.folder / "tiny.safetensors"), "io.npz"]

    return make


def _arrays(compressed: bool = False, **more: Any) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        given = {
            "z": np.zeros((2, 16), np.float32),
            "c": np.zeros((2, 25), np.float32),
            "ws": np.zeros((2, 9, 32), np.float32),
            "points": np.zeros((2, 8, 3), np.float32),
        }
        (np.savez_compressed if compressed else np.savez)(path, **(given | more))

    return write


def _lying(path: Path) -> None:
    """An array of which its own header says that it has a terabyte."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (268435456, 1024), }"
        header += b" " * (117 - len(header)) + b"\n"
        archive.writestr("z.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(1000))


def _member(data: bytes) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("z.npy", data)

    return write


def _many_members(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(3_000):
            archive.writestr(f"a{number}.npy", b"")


REFERENCES = [
    Row("reference of verify", what, _reference(write), says)
    for what, write, says in [
        (
            "256 megabytes of zeros, compressed",
            _arrays(True, image=np.zeros((1, 1, 8192, 8192), np.float32)),
            "larger than any",
        ),
        (
            "100 megabytes of zeros, compressed",
            _arrays(True, points=np.zeros((2, 4_000_000, 3), np.float32)),
            "no reference",
        ),
        ("an array that says it has a terabyte", _lying, "not readable"),
        ("rays of 1024²", _arrays(image_raw=np.zeros((2, 3, 1024, 1024), np.float32)), "is that of no reference"),
        (
            "a thousand samples",
            _arrays(
                **{
                    k: np.zeros((1000, *s), np.float32)
                    for k, s in [("z", (16,)), ("c", (25,)), ("ws", (9, 32)), ("points", (8, 3))]
                }
            ),
            "no reference",
        ),
        ("objects", _arrays(z=np.array([[os.system]], dtype=object)), "not readable"),
        ("complex numbers", _arrays(ws=np.zeros((2, 9, 32), np.complex64)), "is that of no reference"),
        ("texts", _arrays(z=np.array([["a", "b"]] * 2)), "is that of no reference"),
        ("3000 members", _many_members, "larger than any reference"),
        ("no array but a text", _member(b"hello"), "lacks the array c"),
        (
            "a header that is a program",
            _member(b"\x93NUMPY\x01\x00\x76\x00" + b"__import__('os').system('id')".ljust(117) + b"\n"),
            "not readable",
        ),
        ("a header of nested brackets", _member(b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 9999 + b"\n"), "not readable"),
        ("an array called by terminal codes", _arrays(**{"\x1b[2J": np.zeros(1, np.float32)}), "array ?[2J"),
        ("cameras of another size", _arrays(c=np.zeros((2, 7), np.float32)), "camera label has 25"),
        ("zeros", lambda p: p.write_bytes(bytes(1000)), "not readable"),
        ("a pipe", lambda p: os.mkfifo(p), "no file but a pipe"),
        ("an endless device", lambda p: p.symlink_to("/dev/zero"), "no file but a pipe or a device"),
        ("a folder", lambda p: p.mkdir(), "is a folder"),
    ]
]


def _prepared(change: Change) -> Make:
    """A run whose head is put back into its photo, by a crop that was spoilt."""

    def make(world: World, row: Path) -> list[str | bytes]:
        change_tensors(world.copy_run(row) / "00_prepare" / "outputs.safetensors", change)
        return ["render", "run", "--uncrop", "--out", "photo.png"]

    return make


CROPS = [
    Row("crop of a run", what, _prepared(change), says)
    for what, change, says in [
        ("no numbers", lambda h, t: t.update(crop=t["crop"] * _NAN), "its crop is none"),
        ("zeros", lambda h, t: t.update(crop=t["crop"] * 0), "its crop is none"),
        ("1e30 times as large", lambda h, t: t.update(crop=t["crop"].double() * 1e30), "its crop is none"),
        ("another shape", lambda h, t: t.update(crop=t["crop"][:1].clone()), "its crop is none"),
        ("nothing", lambda h, t: h["kinds"].update(crop="none"), "its crop is none"),
        ("a camera", lambda h, t: h["kinds"].update(crop="camera"), "holds no crop"),
        ("complex numbers", lambda h, t: t.update(crop=t["crop"].to(torch.complex64)), "of the type"),
        ("no foreground", lambda h, t: h["kinds"].update(foreground="none"), "without a foreground"),
        ("a foreground of 5000²", lambda h, t: t.update(foreground=torch.zeros(1, 1, 5000, 5000)), "another size"),
        ("a foreground without dimensions", lambda h, t: t.update(foreground=torch.zeros(())), "another size"),
        ("a foreground of nothing", lambda h, t: t.update(foreground=torch.zeros(1, 1, 0, 0)), "another size"),
        ("far away", lambda h, t: t.update(crop=t["crop"] + t["crop"].new_tensor([0, 0, 1e6])), ""),
    ]
]


def _perceptual(change: Change | None, beside: bytes | None = None, data: bytes | None = None) -> Make:
    """A new run that measures by a network of somebody else's."""

    def make(world: World, row: Path) -> list[str | bytes]:
        path = row / "features.safetensors"
        torch.manual_seed(0)
        save_heads_features(HeadsFeatures(FeatureShape((3, 4), 2)), path, {})
        if change is not None:
            change_tensors(path, change)
        if data is not None:
            path.write_bytes(data)
        path.with_suffix(".json").write_bytes(beside or json.dumps({"sha256": file_hash(path)}).encode())
        command = world.new(row)
        command[command.index("prepare", command.index("--until"))] = "latent"
        return [*command, "--set", "run.perceptual=features.safetensors"]

    return make


def _all(value: torch.Tensor) -> Change:
    return lambda h, t: t.update(dict.fromkeys(t, value))


_OTHER = "no weights of the heads' perceptual network"
NETWORKS = [
    Row("perceptual network", what, make, says)
    for what, make, says in [
        ("an honest one", _perceptual(None), ""),
        ("another hash", _perceptual(None, b'{"sha256": "0"}'), "not the file that"),
        ("a hash that is a list", _perceptual(None, b'{"sha256": []}'), "not the file that"),
        ("a list beside it", _perceptual(None, b"[]"), "missing or damaged"),
        ("nested lists beside it", _perceptual(None, b"[" * 99_999), "missing or damaged"),
        ("no tensors", _perceptual(lambda h, t: t.clear()), _OTHER),
        ("a tensor less", _perceptual(lambda h, t: t.popitem() and None), _OTHER),
        ("a tensor more", _perceptual(lambda h, t: t.update({"\x1b[2J": torch.ones(1)})), _OTHER),
        ("other shapes", _perceptual(_all(torch.ones(2, 2))), _OTHER),
        ("no dimensions", _perceptual(_all(torch.ones(()))), _OTHER),
        ("a thousand million channels of nothing", _perceptual(_all(torch.zeros(10**9, 0, 3, 3))), _OTHER),
        ("levels of numbers", _perceptual(lambda h, t: h.update(levels=[1, 2])), "EfficientNet"),
        ("levels that are a number", _perceptual(lambda h, t: h.update(levels=7)), "EfficientNet"),
        ("100 000 levels", _perceptual(lambda h, t: h.update(levels=["stem"] * 100_000)), "EfficientNet"),
        ("zeros", _perceptual(None, data=bytes(1000)), _OTHER),
    ]
]

ROWS = [*HEADS, *CHECKPOINTS, *WEIGHTS, *DIRECTIONS, *REFERENCES, *CROPS, *NETWORKS]
