"""What a generator checkpoint of the official kinds says: its weights, how its generator was built, which axes its
planes stand for.

Read here are the training snapshots of EG3D and PanoHead (`.pkl`, the generator wrapped by the persistence decorator,
below `G_ema` or bare), and what is saved of tuned generators: whole modules and state dicts written by `torch.save`
(PTI, EG3D-projector), and PanoHead's tuned `.pkl`; also state dicts whose names carry a prefix, that lie below other
names or beside other networks, with stray numbers among them, as training and encoder code saves them.
`pmv.generators.torch_files` reads the file; nothing in it is executed.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pmv.errors import CheckpointError, shown
from pmv.generators.pickles import Record, TensorRef, refuse
from pmv.generators.torch_files import open_pickle

log = logging.getLogger("pmv")

SUFFIXES = (".pkl", ".pt", ".pth")
_PLACES = (
    *("G_ema", "g_ema", "generator_ema", "params_ema", "ema", "G", "g", "netG", "generator", "decoder"),
    *("state_dict", "model_state_dict", "model", "params", "net", "network", "module"),
)
"""Where files keep a generator, the best first; after these come all other names."""
_ANCHOR = "backbone.synthesis.b4.const"
"""A tensor that every generator has, whose name tells what stands in front of all names."""
_MOST_PLACES, _DEEPEST = 200, 4
"""Dictionaries and modules of a file that are looked at, and how deep in one another."""
_MAX_ENTRIES = 200_000
"""Modules, their parameters and their buffers, None among them; official generators have some 3000."""
_MAX_NAME = 500
_MAX_ARGUMENTS, _MAX_NESTING, _MAX_LETTERS = 1000, 6, 200
"""Constructor arguments, how deep in one another, letters in one of them."""


@dataclass(frozen=True)
class OfficialCheckpoint:
    """What an official generator checkpoint says.

    Attributes:
        state: official state-dict key → tensor.
        init_kwargs: constructor arguments of the generator; None where the file holds weights alone.
        class_name: name of the generator's class, "" where the file does not say.
        neural_resolution: side of the ray-marched image at the end of training, None if not recorded.
        plane_axes: [3,3,3], the axes of each plane as the pickled renderer kept them; None if not recorded.
        format: "pickle", "torch.save" or "torch.save (legacy)".
    """

    state: dict[str, Tensor]
    init_kwargs: dict[str, Any] | None
    class_name: str
    neural_resolution: int | None
    plane_axes: Tensor | None
    format: str


def read_checkpoint(path: Path, only: tuple[str, ...] | None = None) -> OfficialCheckpoint:
    """Reads the generator of a `.pkl`, `.pt` or `.pth`.

    Args:
        only: read just the tensors whose names end so (others stand in `state` as meta tensors); None = all.

    Raises:
        CheckpointError: missing, damaged, hostile, or holding no generator.
    """
    with open_pickle(path) as pickled:
        found = _generator(pickled.content, path)
        if found is None:
            raise CheckpointError(f"{path}: holds no generator (neither G_ema nor a state dict)")
        refs = _tensors(found) if isinstance(found, Record) else found
        if not refs:
            raise CheckpointError(f"{path}: its generator holds no tensors")
        _check_sizes(refs.values(), path)
        state = {name: ref.read() if only is None or name.endswith(only) else ref.blank() for name, ref in refs.items()}
        said = found.state if isinstance(found, Record) else {}
        axes = _plane_axes(said)
        resolution = said.get("neural_rendering_resolution")
        return OfficialCheckpoint(
            state,
            _init_kwargs(said),
            shown(class_name) if isinstance(class_name := said.get("__class_name__"), str) else "",
            resolution if type(resolution) is int and resolution > 0 else None,
            axes.read() if axes is not None else None,
            pickled.format,
        )


def read_parts(path: Path, anchors: Mapping[str, str], kind: str) -> list[dict[str, Tensor]]:
    """The weights of networks that are no generators, from a `.pkl`, `.pt` or `.pth`.

    Args:
        anchors: part → a tensor that it has, by which the part and what stands before its names are found. All parts
            lie in one state dict or module.
        kind: what they are together, for messages.

    Returns: the parts' state dicts in this order, without what stood before their names. Integers, such as counters,
        are left out.

    Raises:
        CheckpointError: missing, damaged, hostile, or without these parts.
    """
    with open_pickle(path) as pickled:
        for value in _within(pickled.content):
            names = _tensors(value) if isinstance(value, Record) else _floats(value)
            prefixes = [_prefixes(names, anchor) for anchor in anchors.values()]
            if not all(prefixes):
                continue
            for part, found in zip(anchors, prefixes, strict=True):
                if len(found) > 1:
                    raise CheckpointError(f"{path}: holds several networks of {part}; save one {kind} alone")
            parts = [
                {name.removeprefix(start): ref for name, ref in names.items() if name.startswith(start)}
                for (start,) in prefixes
            ]
            _check_sizes((ref for part in parts for ref in part.values()), path)
            return [{name: ref.read() for name, ref in part.items()} for part in parts]
        raise CheckpointError(f"{path}: holds no {kind}")


def _check_sizes(refs: Iterable[TensorRef], path: Path) -> None:
    if sum(ref.storage.size * ref.dtype.itemsize for ref in refs) > 2 * path.stat().st_size:
        raise refuse("its tensors share memory in a way that would fill this machine's")


def _prefixes(names: Iterable[str], anchor: str) -> list[str]:
    """What stands before a tensor's name."""
    return [name.removesuffix(anchor) for name in names if f".{name}".endswith(f".{anchor}")]


def _is_module(value: object) -> bool:
    return isinstance(value, Record) and ("_parameters" in value.state or "_modules" in value.state)


def _floats(value: object) -> dict[str, TensorRef]:
    """The tensors by name of a saved state dict; steps, versions and counters beside them are no weights."""
    if not isinstance(value, dict):
        return {}
    tensors = ((name, ref) for name, ref in value.items() if isinstance(name, str) and isinstance(ref, TensorRef))
    return {name: ref for name, ref in tensors if ref.dtype.is_floating_point or ref.dtype.is_complex}


def _generator(content: object, path: Path) -> Record | dict[str, TensorRef] | None:
    """The module or state dict of the generator within a file's content: the first, as `_PLACES` has them, that holds
    one; else the first that may be one of a shape that nobody knows.

    Raises:
        CheckpointError: several generators stand side by side in one state dict.
    """
    unknown = None
    for value in _within(content):
        names = _tensors(value) if isinstance(value, Record) else _floats(value)
        prefixes = _prefixes(names, _ANCHOR)
        if prefixes:
            return value if isinstance(value, Record) else _without_prefix(names, prefixes, path)
        if unknown is None and names:
            unknown = value if isinstance(value, Record) else names
    return unknown


def _within(content: object) -> Iterator[object]:
    """A file's content, and the modules and dictionaries in it, nearer and better places first."""
    level, left = [content], _MOST_PLACES
    for _ in range(_DEEPEST):
        below: list[object] = []
        for value in level:
            left -= 1
            if left < 0:
                return
            if _is_module(value):
                yield value
            elif isinstance(value, dict):
                yield value
                known = [value[place] for place in _PLACES if place in value]
                below += known + [item for name, item in value.items() if name not in _PLACES]
        level = [value for value in below if isinstance(value, dict) or _is_module(value)]


def _without_prefix(refs: Mapping[str, TensorRef], prefixes: Sequence[str], path: Path) -> dict[str, TensorRef]:
    """The state dict of the generator whose names carry one of the prefixes, without it."""
    if len(prefixes) > 1:
        best = [prefix for place in _PLACES for prefix in prefixes if place in prefix.split(".")]
        if not best:
            raise CheckpointError(
                f"{path}: holds the generators {', '.join(map(shown, prefixes[:4]))}; save one of them alone"
            )
        prefixes = best
    prefix = prefixes[0]
    if prefix:
        log.info("%s: its generator is what is called %s… in it", path, shown(prefix))
    return {name.removeprefix(prefix): ref for name, ref in refs.items() if name.startswith(prefix)}


def _tensors(module: Record) -> dict[str, TensorRef]:
    """The state dict of a recorded module tree."""
    found: dict[str, TensorRef] = {}
    waiting, left = [("", module)], _MAX_ENTRIES
    while waiting:
        prefix, module = waiting.pop()
        # few modules that hold each other make endless trees
        left -= 1 + sum(len(module.state[kind]) for kind in _KINDS if isinstance(module.state.get(kind), dict))
        if left < 0:
            raise refuse("it has more modules than any generator")
        passing = module.state.get("_non_persistent_buffers_set")
        passing = passing if isinstance(passing, set) else set()
        for kind in ("_parameters", "_buffers"):
            for name, value in _items(module, kind):
                if isinstance(value, TensorRef) and not (kind == "_buffers" and name in passing):
                    found[f"{prefix}{name}"] = value
        if len(prefix) > _MAX_NAME:
            raise refuse("it has modules nested deeper than any generator")
        children = [(name, child) for name, child in _items(module, "_modules") if isinstance(child, Record)]
        waiting += [(f"{prefix}{name}.", child) for name, child in children]
    return found


_KINDS = ("_parameters", "_buffers", "_modules")


def _items(module: Record, kind: str) -> list[tuple[Any, Any]]:
    entries = module.state.get(kind)
    if not isinstance(entries, dict):
        return []
    return [(name, value) for name, value in entries.items() if isinstance(name, str) and len(name) <= _MAX_NAME]


def _init_kwargs(said: Mapping[str, Any]) -> dict[str, Any] | None:
    kwargs = said.get("_init_kwargs") or said.get("init_kwargs")
    if not isinstance(kwargs, dict):
        return None
    kwargs = _plain(kwargs)
    # the training script replaces the rendering options after construction: the attribute is the truth
    if isinstance(said.get("rendering_kwargs"), dict):
        kwargs["rendering_kwargs"] = _plain(said["rendering_kwargs"])
    return kwargs


def _plain(arguments: dict[Any, Any]) -> dict[str, Any]:
    """Constructor arguments as numbers, texts, lists and dictionaries; None stands for anything else.

    Few lists that hold each other have an endless text, which whoever prints or compares one would wait for.
    """
    left = _MAX_ARGUMENTS

    def copied(value: object, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > _MAX_NESTING or (isinstance(value, str) and len(value) > _MAX_LETTERS):
            raise refuse("it describes its generator at greater length than any checkpoint")
        if isinstance(value, dict):
            return {copied(key, depth): copied(item, depth + 1) for key, item in value.items() if isinstance(key, str)}
        if isinstance(value, list | tuple):
            return [copied(item, depth + 1) for item in value]
        if isinstance(value, int | float) and not abs(value) < 2**63:  # nor NaN
            raise refuse("it describes its generator with numbers that none has")
        return value if isinstance(value, str | int | float) else None

    return copied(arguments, 0)


def _plane_axes(said: Mapping[str, Any]) -> TensorRef | None:
    """The attribute `plane_axes` of the renderer, an attribute of the generator like any other module."""
    modules = said.get("_modules")
    renderer = modules.get("renderer") if isinstance(modules, dict) else None
    axes = renderer.state.get("plane_axes") if isinstance(renderer, Record) else None
    if not isinstance(axes, TensorRef):
        return None
    if axes.shape != (3, 3, 3):
        raise refuse("its planes have other axes than three of three directions each")
    return axes
