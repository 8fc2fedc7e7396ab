"""Configs: values from YAML, checked against the frozen dataclasses that the stages read."""

import difflib
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from pmv import data_path
from pmv.errors import InputError, quoted, shown
from pmv.files.reading import read_text
from pmv.files.yaml_reading import MOST_YAML, parse_yaml
from pmv.pipeline.ranges import Length, Place, Range
from pmv.pipeline.table import Stage

_LARGEST = 2**63 - 1
"""Largest whole number of any setting: what a tensor holds."""
_LONGEST = 4096
"""Letters of a setting; the longest path that a system takes."""


@dataclass(frozen=True)
class RunConfig:
    """What holds for the whole run.

    Args:
        generator: name of a generator that ships with pmv or was fetched (pmv fetch), or the path of a checkpoint.
        domain: what it draws, a file of configs/generators: "cars", "cats", "ffhq", "heads"; "auto" finds out from the
            checkpoint.
        seed: seed of every random number that the run draws.
        device: "cpu", "cuda", or "auto" (cuda where there is one).
        speed: "reference", every step as the papers write it, in single precision; "fast", with short cuts that change
            no figure by more than rounding does: on CUDA kernels of pmv's own, half precision for pictures and
            recorded steps, and the same seed gives the same bytes on one card; "fastest", where it does not; "auto",
            fast on CUDA, the reference on a CPU.
        perceptual: perceptual distance: lpips-alex, lpips-vgg, lpips-squeeze (weights from the torch cache or
            downloaded once), or efficientnet (trained on ImageNet, ships with pmv), or lpips-random-alex, -vgg,
            -squeeze (random weights, need no file; their numbers are not LPIPS numbers), or the path of a
            heads.safetensors that training.perceptual wrote, its .json beside it.
    """

    generator: str
    domain: str
    seed: Annotated[int, Range(0, 2**63 - 1)]
    device: Literal["auto", "cpu", "cuda"]
    speed: Literal["auto", "reference", "fast", "fastest"]
    perceptual: str


@dataclass(frozen=True)
class GeneratorConfig:
    """Numbers of the generator's specification; None = what the checkpoint says. See `GeneratorSpec`.

    Args:
        radius, pivot, focal: cameras: distance from the point looked at (world units), that point, focal length in
            image widths. None, here and below: what the file of configs/generators or the checkpoint says; the run's
            config.yaml holds the numbers.
        near, far: ray lengths, world units, between which a ray is sampled; None where the generator samples its box.
        background: what rays that hit nothing show, image units [-1,1]; None also where the generator paints a
            background of its own.
        has_alpha: alpha is the subject's silhouette; false: its surroundings are part of the volume.
        full_head: trained from all sides.
        plane_convention: which axes its planes stand for: eg3d (XY, XZ, ZX), fixed (XY, XZ, ZY), panohead (XY, XZ, YZ).
            A wrong one draws no head.
        conditioning_yaw, conditioning_pitch: degrees, where the camera stands that the mapping network is told; 0 = in
            front.
    """

    radius: Length | None
    pivot: tuple[Place, Place, Place] | None
    focal: Annotated[float, Range(0, 100, above=True)] | None
    near: Length | None
    far: Length | None
    background: Annotated[float, Range(-1, 1)] | None
    has_alpha: bool | None
    full_head: bool | None
    plane_convention: Literal["eg3d", "fixed", "panohead"] | None
    conditioning_yaw: Annotated[float, Range(-360, 360)]
    conditioning_pitch: Annotated[float, Range(-89, 89)]


@dataclass(frozen=True)
class Config:
    """A resolved configuration: the run's, the generator's, and one block for each stage by name."""

    run: RunConfig
    generator: GeneratorConfig
    stages: Mapping[str, Any]

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Plain values, as they stand in ``config.yaml``."""
        fixed = {"run": plain(self.run), "generator": plain(self.generator)}
        return {**fixed, **{name: plain(block) for name, block in self.stages.items()}}

    def as_yaml(self) -> str:
        return self._yaml

    @cached_property
    def _yaml(self) -> str:
        # a tenth of a second of Python, and the report asks after every stage
        return yaml.safe_dump(self.as_dict(), sort_keys=False, default_flow_style=None, allow_unicode=True, width=110)


def plain(block: Any) -> dict[str, Any]:
    """A config dataclass as plain values; tuples become lists."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(block).items()}


def preset_names() -> list[str]:
    """The shipped presets."""
    return sorted(path.stem for path in data_path("configs", "presets").glob("*.yaml"))


def preset_path(name: str) -> Path:
    """The file of a shipped preset, or of one's own where `name` ends in .yaml or .yml."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    if name not in preset_names():
        raise InputError(
            f"no preset is called {quoted(name)}; there are {', '.join(preset_names())}, or give a .yaml file"
        )
    return data_path("configs", "presets", name + ".yaml")


def read_yaml(path: Path, follow: bool = True) -> dict[str, Any]:
    """Read a YAML file of blocks.

    Args:
        follow: see `pmv.files.reading.open_regular`.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    value = parse_yaml(read_text(path, MOST_YAML, follow), path)
    value = {} if value is None else value
    if not isinstance(value, dict) or not all(isinstance(block, dict) for block in value.values()):
        raise InputError(f"{path}: a config has blocks of values, such as 'tune: {{steps: 300}}'")
    return value


def resolve(
    table: Sequence[Stage], layers: Sequence[tuple[str, dict[str, Any]]], settings: Sequence[str] = ()
) -> Config:
    """Lay values over one another and build the dataclasses.

    Args:
        table: the stages.
        layers: (where it comes from, blocks of values); later ones win. Together they must name every value.
        settings: "block.key=value" texts, which win over all layers; the value is read as YAML.

    Raises:
        InputError: an unknown or missing key, or a value of a wrong type or beyond its range; an unknown key names the
            nearest that exists.
    """
    classes: dict[str, Any] = {
        "run": RunConfig,
        "generator": GeneratorConfig,
        **{stage.name: stage.config for stage in table},
    }
    hints = {name: get_type_hints(cls, include_extras=True) for name, cls in classes.items()}
    values: dict[str, dict[str, Any]] = {name: {} for name in classes}
    for source, blocks in [*layers, *(_setting(text) for text in settings)]:
        for name, block in blocks.items():
            for key, value in block.items():
                if key not in hints.get(name, {}):
                    called = f"{shown(name)}.{shown(key)}"
                    raise InputError(f"{source}: nothing is called {called}{_nearest(called, hints)}")
                values[name][key] = _typed(value, hints[name][key], f"{source}: {name}.{key}")
    for name, cls in classes.items():
        missing = [f.name for f in fields(cls) if f.name not in values[name]]
        if missing:
            raise InputError(
                f"the config lacks {name}.{missing[0]}; add it to {layers[-1][0] if layers else 'a layer'}"
            )
    built = {name: cls(**values[name]) for name, cls in classes.items()}
    return Config(built.pop("run"), built.pop("generator"), built)


def load_config(
    table: Sequence[Stage],
    presets: Sequence[str] = (),
    settings: Sequence[str] = (),
    path: Path | None = None,
    between: Sequence[tuple[str, dict[str, Any]]] = (),
) -> Config:
    """A complete config, presets over it, settings over these.

    Args:
        path: the complete config: a run's own ``config.yaml``; None = the shipped base config.
        between: layers over the complete config and under the presets, see `resolve`.
    """
    base = path or data_path("configs", "base.yaml")
    layers = [(str(base), read_yaml(base)), *between]
    layers += [(str(preset), read_yaml(preset)) for preset in map(preset_path, presets)]
    return resolve(table, layers, settings)


def _setting(text: str) -> tuple[str, dict[str, dict[str, Any]]]:
    name, equals, value = text.partition("=")
    block, dot, key = name.strip().partition(".")
    where = f"--set {shown(text)}"
    if not (equals and dot and key):
        raise InputError(f"{where}: write it as stage.key=value, for instance tune.steps=300")
    return where, {block: {key: parse_yaml(value, where)}}


def _nearest(called: str, hints: Mapping[str, Mapping[str, Any]]) -> str:
    known = [f"{b}.{k}" for b, keys in hints.items() for k in keys]
    nearest = difflib.get_close_matches(called, known, n=1, cutoff=0.0)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def _typed(value: Any, hint: Any, where: str) -> Any:
    """`value` as the type `hint` and within its ranges, or InputError. Integers pass for floats; YAML's lists for
    tuples; nothing else is bent.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        result = _typed(value, args[0], where)
        for limits in args[1:]:
            if result not in limits:
                raise InputError(f"{where} is {limits}, not {shown(result, 40)}")
        return result
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        (inner,) = (a for a in args if a is not type(None))
        return _typed(value, inner, where)
    if origin is Literal:
        if value not in args:
            raise InputError(f"{where} is one of {', '.join(map(str, args))}, not {quoted(value)}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{where} is a list, such as [1, 2], not {quoted(value)}")
        kinds = [args[0]] * len(value) if len(args) == 2 and args[1] is Ellipsis else list(args)
        if len(kinds) != len(value):
            raise InputError(f"{where} is a list of {len(kinds)} values, not {len(value)}")
        return tuple(_typed(item, kind, where) for item, kind in zip(value, kinds))
    if hint is float:
        if isinstance(value, str):  # YAML 1.1 reads 1e-3 as a text
            value = _number(value)
        if (
            isinstance(value, float | int) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        ):  # nor NaN
            return float(value)
    elif hint is int:
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST:
            return value
    elif hint is str:
        if isinstance(value, str) and len(value) <= _LONGEST:
            return value
    elif hint is bool:
        if isinstance(value, bool):
            return value
    else:
        raise TypeError(f"{where}: configs cannot hold {hint}")
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
    raise InputError(f"{where} is {names[hint]}, not {quoted(value)}")


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
