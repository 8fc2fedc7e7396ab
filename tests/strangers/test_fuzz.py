"""Every reader of strangers' files, fed with what nobody thought of: nothing but `PmvError` comes out, in one line.

A few seconds of each always; ``-m slow`` goes on for an hour, or for PMV_FUZZ_SECONDS, with other seeds each time.
"""

import copy
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pmv.encoders.dual import load_encoders
from pmv.encoders.official import OfficialShape
from pmv.encoders.official_files import read_average
from pmv.errors import PmvError
from pmv.files.artifacts import load_tensors, read_header, tensors_hash
from pmv.files.yaml_reading import parse_yaml
from pmv.generators import load_generator
from pmv.generators.checkpoint import read_parts
from pmv.generators.directions import load_directions
from pmv.generators.inspection import describe, inspect_checkpoint
from pmv.generators.verify import read_reference
from pmv.inversion import load_inversion
from pmv.pipeline.config import load_config
from pmv.pipeline.folder import RunFolder
from pmv.pipeline.packing import load_fields
from pmv.stages.edit_list import load_edits
from pmv.stages.sources import run_sources
from pmv.stages.table import TABLE
from tests.encoder_files import write_encoders
from tests.strangers.world import STAGE, World


@dataclass(frozen=True)
class Reader:
    """A reader and a file that it takes.

    Attributes:
        file: below the world's folder; spoilt copies take its place.
        read: reads the copy of the world's folder.
        plain: how the file is written as plain values, if it is: "json", "yaml".
    """

    file: str
    read: Callable[[Path], Any]
    plain: str = ""


def _report(world: Path) -> Any:
    """What the report is made of: every record, and whether its outputs are intact."""
    folder = RunFolder(world / "run", TABLE)
    for stage in TABLE:
        record = folder.record(stage)
        if record is not None:
            folder.is_intact(stage, record)


def _reference(world: Path) -> Any:
    import numpy as np

    return {name: np.asarray(value) for name, value in read_reference(world / "io.npz").items()}


def _encoders(world: Path) -> Any:
    return load_encoders(world / "encoders.safetensors", load_generator(world / "tiny.safetensors"))


def _published_encoder(world: Path) -> Any:
    return read_parts(world / "visible_net.pt", {"styles": "styles.0.linear.weight"}, "encoder")


_PUBLISHED = OfficialShape(num_ws=2, w_dim=8, plane_channels=3, width=4)


READERS = {
    "preset": Reader("evil.yaml", lambda w: load_config(TABLE, [str(w / "evil.yaml")]), "yaml"),
    "config.yaml": Reader("run/config.yaml", lambda w: load_config(TABLE, path=w / "run" / "config.yaml"), "yaml"),
    "edits.yaml": Reader("run/source/edits.yaml", lambda w: load_edits(w / "run" / "source"), "yaml"),
    "names.json": Reader(
        "run/source/names.json", lambda w: run_sources(RunFolder(w / "run", TABLE)).photo_name, "json"
    ),
    "stage.json": Reader(f"run/{STAGE}/stage.json", _report, "json"),
    "outputs.safetensors": Reader(
        f"run/{STAGE}/outputs.safetensors",
        lambda w: load_fields(w / "run" / STAGE / "outputs.safetensors", ["warped_views"]),
    ),
    "inversion.safetensors": Reader("run/inversion.safetensors", lambda w: load_inversion(w / "run")),
    "header": Reader("run/inversion.safetensors", lambda w: read_header(w / "run" / "inversion.safetensors")),
    "checkpoint.json": Reader("tiny.json", lambda w: load_generator(w / "tiny.safetensors"), "json"),
    "checkpoint.safetensors": Reader(
        "tiny.safetensors", lambda w: describe(inspect_checkpoint(w / "tiny.safetensors"))
    ),
    "directions.safetensors": Reader(
        "directions.safetensors", lambda w: load_directions(w / "tiny.safetensors", (w / "hash").read_text())
    ),
    "tensors": Reader("directions.safetensors", lambda w: load_tensors(w / "directions.safetensors")),
    "reference": Reader("io.npz", _reference),
    "encoders.safetensors": Reader("encoders.safetensors", _encoders),
    "visible_net.pt": Reader("visible_net.pt", _published_encoder),
    "latent_avg.npy": Reader("latent_avg.npy", lambda w: read_average(w / "latent_avg.npy", _PUBLISHED)),
}

ATOMS: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**53 + 1,
        -(2**63),
        10**30,
        10**400,
        0.0,
        -0.5,
        1e300,
        float("nan"),
        float("inf"),
    ),
    *(
        "",
        "a",
        "../..",
        "/dev/zero",
        "a\nb",
        "\x1b[2J",
        "\u202e",
        "\x00",
        "1e5",
        "true",
        "x" * 3000,
        "<script>",
        "\ud800",
    ),
    *([], {}, [[]], {"a": {}}, [1, "a", None], ["x"] * 200, {"": None}, {"a\n": [1.5]}),
]
"""What takes the place of values."""


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where plain values have parts; of long lists the first few."""
    parts = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value[:3]))
        if isinstance(value, list)
        else []
    )
    return [at, *(place for key, part in parts for place in places(part, (*at, key)))]


@st.composite
def spoilt_values(draw: st.DrawFn, value: Any) -> Any:
    """Plain values of which a few parts are others, gone, or called otherwise."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places(value)))
        new = draw(st.one_of(st.sampled_from(ATOMS), st.integers(), st.floats(), st.text(max_size=20)))
        if not place:
            return copy.deepcopy(new)
        holder = value
        for key in place[:-1]:
            holder = holder[key]
        action = draw(st.sampled_from(["replace", "replace", "remove", "rename"]))
        if action == "replace" or isinstance(holder, list):
            holder[place[-1]] = copy.deepcopy(new)
        elif action == "remove":
            del holder[place[-1]]
        else:
            holder[draw(st.text(max_size=10))] = holder.pop(place[-1])
    return value


@st.composite
def spoilt_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with some changed, cut out, put in, or cut off; most of them near the beginning, where headers are."""
    content = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        most = min(len(content), draw(st.sampled_from([16, 400, len(content)])))
        at = draw(st.integers(0, max(most - 1, 0)))
        action = draw(st.sampled_from(["change", "change", "flip", "insert", "remove", "end"]))
        if action == "flip" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif action == "change":
            new = draw(st.binary(min_size=1, max_size=8))
            content[at : at + len(new)] = new
        elif action == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=40))
        elif action == "remove":
            del content[at : at + draw(st.integers(1, 40))]
        elif action == "end":
            del content[at:]
    return bytes(content)


def inputs(reader: Reader, valid: bytes) -> st.SearchStrategy[bytes]:
    """Spoilt files of a reader."""
    if not reader.plain:
        return spoilt_bytes(valid)
    if reader.plain == "json":
        plain = spoilt_values(json.loads(valid)).map(lambda value: json.dumps(value).encode())
    else:
        plain = spoilt_values(parse_yaml(valid.decode(), "")).map(_as_yaml)
    return st.one_of(plain, plain, spoilt_bytes(valid))


def _as_yaml(value: Any) -> bytes:
    try:
        return yaml.safe_dump(value).encode("utf-8", "surrogatepass")
    except ValueError:  # too many digits for Python to write
        return b"{a: 0x" + b"f" * 400 + b"}"


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory, world: World, tiny_generator) -> Path:
    """A copy of the world whose files may be spoilt, each for itself."""
    import numpy as np

    folder = Path(shutil.copytree(world.folder, tmp_path_factory.mktemp("fuzz") / "world"))
    (folder / "hash").write_text(tensors_hash(tiny_generator.state_dict()))
    shutil.copy(folder / "head.png", folder / "run" / "source" / "overlay-01.png")
    edits = (
        "- {overlay: overlay-01.png, name: a.png, at: [0.5, 0.5], size: 0.2, rotate: 3, blend: normal, opacity: 1}\n"
    )
    (folder / "run" / "source" / "edits.yaml").write_text(edits)
    (folder / "evil.yaml").write_text(
        "tune: {steps: 3, learning_rate: 1e-3}\ncoarse: {groups: [decoder], centre: front}\n"
    )
    sizes = {"z": (2, 16), "c": (2, 25), "ws": (2, 9, 32), "points": (2, 8, 3), "image_raw": (2, 3, 8, 8)}
    write_encoders(folder / "encoders.safetensors", tiny_generator)
    state = {"psp_encoder.styles.0.linear.weight": torch.zeros(8, 8), "psp_encoder.latlayer1.bias": torch.ones(32)}
    torch.save({"state_dict": state}, folder / "visible_net.pt")
    np.save(folder / "latent_avg.npy", np.zeros((1, 8), np.float32))
    np.savez_compressed(folder / "io.npz", **{name: np.zeros(size, np.float32) for name, size in sizes.items()})
    return folder


def fuzz(name: str, folder: Path, examples: int, seed: int) -> None:
    """Feed one reader."""
    reader = READERS[name]
    path = folder / reader.file
    valid = path.read_bytes()

    @hypothesis.seed(seed)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(inputs(reader, valid))
    def feed(data: bytes) -> None:
        path.write_bytes(data)
        try:
            reader.read(folder)
        except PmvError as error:
            assert str(error).isprintable() and len(str(error)) <= 1500

    try:
        reader.read(folder)  # an honest file is read
        feed()
    finally:
        path.write_bytes(valid)


@pytest.mark.parametrize("name", READERS)
def test_nothing_but_one_line_comes_out(name: str, spoilt: Path):
    fuzz(name, spoilt, 80, seed=1)


@pytest.mark.slow
def test_an_hour_of_it(spoilt: Path):
    end = time.monotonic() + float(os.environ.get("PMV_FUZZ_SECONDS", "3600"))
    seed, fed = int.from_bytes(os.urandom(4), "big"), 0
    while time.monotonic() < end:
        for name in READERS:
            fuzz(name, spoilt, 300, seed)
            fed += 300
        seed += 1
    print(f"{fed} files")
