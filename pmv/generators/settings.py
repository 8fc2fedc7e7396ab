"""A generator with other cameras, depth range, background or plane convention than its checkpoint says: the one place
to change them.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from pmv.errors import InputError, quoted, shown
from pmv.generators.base import PLANE_AXES, Generator
from pmv.generators.probe import warn_if_misread

G = TypeVar("G", bound=Generator)

_POSITIVE = ("radius", "focal", "near")
_LARGEST = 1e6
"""Largest length of any camera, world units."""


def with_settings(generator: G, settings: Mapping[str, Any]) -> G:
    """The generator, sharing its weights, with some numbers of its specification changed.

    Args:
        generator: any; where it has a `config`, that is changed too.
        settings: names of `GeneratorSpec`'s attributes → values; None leaves what the checkpoint says. Angles
            (`conditioning_yaw`, `conditioning_pitch`) are in degrees.

    Raises:
        InputError: a number that no camera can have, a background for a generator that paints its own, or an unknown
            plane convention. A convention under which the weights draw no head, while they do under another, is said in
            the log, and taken.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    for name in ("conditioning_yaw", "conditioning_pitch"):
        if name in given:
            given[name] = math.radians(given[name])
    if "pivot" in given:
        given["pivot"] = tuple(given["pivot"])
    for name, value in given.items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not abs(number) <= _LARGEST:  # nor NaN
                raise InputError(
                    f"generator.{name}: {shown(number)} is that of no camera; give a number of world units"
                )
    for name in _POSITIVE:
        if given.get(name, 1.0) <= 0:
            raise InputError(f"generator.{name}: must be positive, not {given[name]:g}")
    if "background" in given and generator.spec.background is None:
        raise InputError("generator.background: must be null, since this generator paints a background of its own")
    convention = given.get("plane_convention")
    if convention is not None and convention not in PLANE_AXES:
        raise InputError(
            f"generator.plane_convention: {quoted(convention)} is not one of {', '.join(PLANE_AXES)}; null = the "
            "checkpoint's"
        )
    if convention is not None and convention != generator.spec.plane_convention:
        warn_if_misread(generator, convention)
    changes = {
        holder: {f.name: given[f.name] for f in fields(getattr(generator, holder)) if f.name in given}
        for holder in ("spec", "config")
        if is_dataclass(getattr(generator, holder, None))
    }
    if not any(changes.values()):
        return generator
    changed = copy.copy(generator)
    for holder, values in changes.items():
        setattr(changed, holder, replace(getattr(generator, holder), **values))
    near, far = changed.spec.near, changed.spec.far
    if near is not None and far is not None and near >= far:
        raise InputError(f"generator.near: {near:g} must be smaller than generator.far, {far:g}")
    return changed
