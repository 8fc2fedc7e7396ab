"""z between versions of the synthetic heads: entries have names, and a generator keeps those that it knows."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from pmv.errors import InputError
from pmv.files.artifacts import read_json
from pmv.generators import EG3DGenerator, resolve_generator

FIRST = "backbone.mapping.fc0.weight"
"""The one weight that sees z: [w_dim, z_dim + w_dim], z's columns first, then those of the camera's embedding."""


def z_names(name: str | Path) -> list[str]:
    """Names of z's entries, as the JSON beside the weights of a generator of heads has them.

    Raises InputError if it has none.
    """
    path = resolve_generator(name).with_suffix(".json")
    names = read_json(path).get("z_names")
    if not names:
        raise InputError(f"{path} names no entries of z")
    return list(names)


def widened(weight: Tensor, old: Sequence[str], new: Sequence[str]) -> Tensor:
    """`FIRST` for another list of z's entries: columns go with their names, new ones are zero, so that w stays what it
    was whatever the new entries say.

    The layer's gain is 1/√(its inputs) (equalised learning rate), which the stored weights must make up for.

    Args:
        weight: [w_dim, len(old) + E].
        old, new: the entries' names before and after.

    Returns: [w_dim, len(new) + E].
    """
    rest = weight.shape[1] - len(old)
    columns = {name: weight[:, i] for i, name in enumerate(old)}
    nothing = torch.zeros_like(weight[:, 0])
    wide = torch.stack([columns.get(name, nothing) for name in new], 1)
    wide = torch.cat([wide, weight[:, weight.shape[1] - rest :]], 1)
    return wide * math.sqrt(wide.shape[1] / weight.shape[1])


def with_entries(generator: EG3DGenerator, old: Sequence[str], new: Sequence[str]) -> EG3DGenerator:
    """The generator for another list of z's entries (the same one if the lists are equal); see `widened`."""
    if list(old) == list(new):
        return generator
    state = generator.state_dict()
    state[FIRST] = widened(state[FIRST], old, new)
    other = type(generator)(replace(generator.config, z_dim=len(new))).to(generator.device)
    other.load_state_dict(state)
    return other.train(generator.training).requires_grad_(any(p.requires_grad for p in generator.parameters()))
