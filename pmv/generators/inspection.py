"""What is in a checkpoint, told without building a model of it."""

from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

from pmv.errors import CheckpointError, InputError, PmvError, shown
from pmv.files.artifacts import file_hash, open_tensors
from pmv.files.manifest import recognise
from pmv.generators import resolve_generator
from pmv.generators.base import convention_of
from pmv.generators.checkpoint import SUFFIXES, read_checkpoint
from pmv.generators.eg3d import EG3DConfig
from pmv.generators.families import config_of, family_of
from pmv.generators.native import read_description

_SPLIT = ("backbone", "superresolution")
"""Modules whose parts are counted one by one."""


def inspect_checkpoint(name: str | Path) -> dict[str, Any]:
    """Facts about a checkpoint, ready for JSON.

    Args:
        name: as `load_generator` takes it.

    Returns:
        file, format, sha256, bytes, published_as (its name in the manifest), family, class, plane_convention and who
        says it, tensors, parameters, parameters_by_part, dtypes, config: the numbers that shape it, and problem: why
        pmv cannot make a generator of these. What the file does not say is None.

    Raises:
        CheckpointError: missing, damaged, hostile, or of an unsupported kind.
    """
    path = resolve_generator(name)
    if path.suffix in SUFFIXES:
        facts = _official(path)
    elif path.suffix == ".safetensors":
        facts = _native(path)
    else:
        raise CheckpointError(f"{path}: unknown kind of checkpoint {path.suffix!r}; give one of {', '.join(SUFFIXES)}")
    try:
        entry = recognise(str(name))
    except PmvError:  # a damaged cache is for those who ask for what lies in it
        entry = None
    if facts["plane_convention"] is None and entry is not None and entry.plane_convention is not None:
        facts |= {"plane_convention": entry.plane_convention, "plane_convention_said_by": "the manifest"}
    head = {"file": str(path), "bytes": path.stat().st_size, "sha256": file_hash(path)}
    return head | {"published_as": entry.name if entry is not None else None} | facts


def _official(path: Path) -> dict[str, Any]:
    # a single small buffer is read: what an attack could hide in the numbers is not looked at, nor run
    checkpoint = read_checkpoint(path, only=("w_avg",))
    family = family_of(checkpoint.state)
    convention = said_by = None
    if checkpoint.plane_axes is not None:
        try:
            convention, said_by = convention_of(checkpoint.plane_axes), "the checkpoint"
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
    config = problem = None
    if checkpoint.init_kwargs is not None:
        try:
            config = config_of(checkpoint, str(path))
        except CheckpointError as error:  # a generator of another family is worth a look, too
            problem = str(error).removeprefix(f"{path}: ")
    shapes = {key: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for key, t in checkpoint.state.items()}
    facts = {"format": checkpoint.format, "family": family, "class": checkpoint.class_name or None}
    return facts | _tensors(shapes) | _numbers(config, convention, said_by, problem)


def _native(path: Path) -> dict[str, Any]:
    description_path = path.with_suffix(".json")
    family = config = None
    if description_path.is_file():
        description, config = read_description(path)
        family = description["family"]
    try:
        with open_tensors(path) as file:
            views = {key: file.get_slice(key) for key in file.keys()}
            shapes = {key: (tuple(view.get_shape()), str(view.get_dtype()).lower()) for key, view in views.items()}
    except InputError as error:
        raise CheckpointError(str(error)) from error
    if not shapes:
        raise CheckpointError(f"{path}: holds no tensors")
    convention = config.plane_convention if config is not None else None
    facts = {"format": "safetensors", "family": family or family_of(shapes), "class": None}
    return facts | _tensors(shapes) | _numbers(config, convention, description_path.name if convention else None)


def _tensors(shapes: dict[str, tuple[tuple[int, ...], str]]) -> dict[str, Any]:
    parts: Counter[str] = Counter()
    for key, (shape, _) in shapes.items():
        if not key.endswith(("noise_const", "resample_filter", "w_avg")):  # buffers
            names = key.split(".")
            parts[shown(".".join(names[: 2 if names[0] in _SPLIT else 1]))] += prod(shape)
    return {
        "tensors": len(shapes),
        "parameters": sum(parts.values()),
        "parameters_by_part": dict(sorted(parts.items())),
        "dtypes": dict(Counter(dtype for _, dtype in shapes.values())),
    }


def _numbers(
    config: EG3DConfig | None, convention: str | None, said_by: str | None, problem: str | None = None
) -> dict[str, Any]:
    return {
        "plane_convention": convention,
        "plane_convention_said_by": said_by,
        "config": config.to_json() if config is not None else None,
        "problem": problem,
    }


def describe(facts: dict[str, Any]) -> str:
    """The facts of `inspect_checkpoint` as lines to read."""
    lines = []
    for key in ("file", "format", "bytes", "sha256", "published_as", "family", "class"):
        lines.append((key.replace("_", " "), facts[key] if facts[key] is not None else "not known"))
    said_by = facts["plane_convention_said_by"]
    planes = f"{facts['plane_convention']}, says {said_by}" if said_by else "the file does not say"
    lines.append(("plane convention", planes))
    lines.append(("tensors", f"{facts['tensors']} ({', '.join(f'{n} {t}' for t, n in facts['dtypes'].items())})"))
    lines.append(("parameters", f"{facts['parameters']:,}"))
    lines += [(f"  {part}", f"{count:,}") for part, count in facts["parameters_by_part"].items()]
    config = facts["config"]
    if facts["problem"] is not None:
        lines.append(("pmv cannot use it", facts["problem"]))
    elif config is None:
        lines.append(("configuration", "the file does not say; it holds weights alone"))
    else:
        lines += [(key.replace("_", " "), value) for key, value in config.items() if key != "plane_convention"]
    return "\n".join(f"{key:28} {value}" for key, value in lines)
