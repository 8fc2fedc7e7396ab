"""Attributes of synthetic heads that people name: what of z makes them, how to read one off a head, how to change it.

Most are one entry of z. Age and hair length are not: see `_read_age` and `_read_hair_length`. All functions take many
heads at once, as values in the entries' own units (`values_of`), float [N,D].
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pmv.training.heads.appearance import HAIR_LOOKS
from pmv.training.heads.parameters import ENTRIES, HAIRSTYLES, HeadParameters

_INDEX = {name: i for i, name in enumerate(HeadParameters.names)}
_MEAN, _SCALE, _LOW, _HIGH = (
    np.array([getattr(entry, what) for entry in ENTRIES]) for what in ("mean", "scale", "low", "high")
)
_CROWN = 8.5
"""Height of the crown on the base mesh, decimetres."""
_SHORT = 1.9
"""How far below the crown short hair reaches: to the nape, whose hair ends 6.5 to 6.7 dm high in all short styles."""
_WRINKLES_BY_AGE = 0.95
"""How wrinkles follow macro/old in `sample_parameters`: the mean of its factor."""


def values_of(z: NDArray) -> NDArray:
    """z [N,D] → values in the entries' own units, clipped to their ranges, float64 [N,D]."""
    return np.clip(_MEAN + _SCALE * np.asarray(z, np.float64), _LOW, _HIGH)


def latents_of(values: NDArray) -> NDArray:
    """The inverse of `values_of`: z float32 [N,D]."""
    return ((values - _MEAN) / _SCALE).astype(np.float32)


@dataclass(frozen=True)
class Attribute:
    """One thing to change about a head.

    Attributes:
        name: what users call it.
        plus: what more of it means.
        unit: of `read`.
        entries: the entries of z that may change with it; all others stay.
        low, high: between which heads have it.
        read: values [N,D] → how much of it [N]; NaN where a head cannot have it.
        write: values [N,D], amounts [N] in [low, high] → changed values [N,D]. Where a head cannot be given exactly the
            amount, the nearest is taken, so read again what came out.
        shape: False where only colours change.
    """

    name: str
    plus: str
    unit: str
    entries: tuple[str, ...]
    low: float
    high: float
    read: Callable[[NDArray], NDArray]
    write: Callable[[NDArray, NDArray], NDArray]
    shape: bool = True


def _single(name: str, plus: str, entry_name: str, shape: bool = True) -> Attribute:
    i = _INDEX[entry_name]

    def write(values: NDArray, amount: NDArray) -> NDArray:
        changed = values.copy()
        changed[:, i] = amount
        return changed

    low, high = ENTRIES[i].low, ENTRIES[i].high
    return Attribute(name, plus, entry_name, (entry_name,), low, high, lambda values: values[:, i], write, shape)


def _read_age(values: NDArray) -> NDArray:
    """macro/old − macro/child: −0.9 a child, 0 a young adult, 1 old."""
    return values[:, _INDEX["macro/old"]] - values[:, _INDEX["macro/child"]]


def _write_age(values: NDArray, age: NDArray) -> NDArray:
    """Wrinkles follow as they do in sampled heads; hair colour, which is an attribute of its own, does not."""
    changed = values.copy()
    old, child, wrinkles = (_INDEX[name] for name in _AGE_ENTRIES)
    changed[:, old] = np.maximum(age, 0)
    changed[:, child] = np.maximum(-age, 0)
    follow = values[:, wrinkles] + _WRINKLES_BY_AGE * (changed[:, old] - values[:, old])
    changed[:, wrinkles] = np.clip(follow, _LOW[wrinkles], _HIGH[wrinkles])
    return changed


_AGE_ENTRIES = ("macro/old", "macro/child", "skin/wrinkles")
_HAIR_ENTRIES = (*(f"hairstyle/{name}" for name in HAIRSTYLES), "hair/length")
_STYLES = np.array([_INDEX[f"hairstyle/{name}"] for name in HAIRSTYLES])
_TRIMS = np.array([HAIR_LOOKS[name].trim or (np.nan, np.nan) for name in HAIRSTYLES])
_SHORTEST, _LONGEST = _CROWN - _TRIMS[:, 0], _CROWN - _TRIMS[:, 1]


def _read_hair_length(values: NDArray) -> NDArray:
    """How far below the crown the hair hangs, decimetres on the base mesh; NaN for bald heads.

    hair/length alone only trims the long styles: short hair does not grow by it.
    """
    style = values[:, _STYLES].argmax(1)
    length = values[:, _INDEX["hair/length"]]
    hanging = _SHORTEST[style] + length * (_LONGEST - _SHORTEST)[style]
    short = np.where(style == HAIRSTYLES.index("none"), np.nan, _SHORT)
    return np.where(np.isnan(hanging), short, hanging)


def _write_hair_length(values: NDArray, length: NDArray) -> NDArray:
    """Trims the head's own style where that reaches; else gives it the nearest of short04, bob02 and long01."""
    changed = values.copy()
    style = values[:, _STYLES].argmax(1)
    fits = np.where(
        np.isnan(_SHORTEST[style]), length < _SHORT + 0.1, (length >= _SHORTEST[style]) & (length <= _LONGEST[style])
    )
    short, middle, long = (HAIRSTYLES.index(name) for name in ("short04", "bob02", "long01"))
    other = np.where(length < _SHORT + 0.1, short, np.where(length <= _LONGEST[middle], middle, long))
    style = np.where(fits, style, other)
    changed[:, _STYLES] = np.eye(len(HAIRSTYLES))[style]
    part = (length - _SHORTEST[style]) / (_LONGEST - _SHORTEST)[style]
    own = values[:, _INDEX["hair/length"]]
    changed[:, _INDEX["hair/length"]] = np.where(np.isnan(part), own, np.clip(part, 0, 1))
    return changed


ATTRIBUTES = (
    Attribute(
        "age", "older", "macro/old − macro/child", _AGE_ENTRIES, -_HIGH[_INDEX["macro/child"]], 1.0,
        _read_age, _write_age,
    ),
    _single("gender", "more masculine", "macro/male"),
    _single("weight", "heavier", "macro/weight"),
    _single("skin", "darker skin", "skin/melanin", shape=False),
    Attribute(
        "hair-length", "longer hair", "dm below the crown", _HAIR_ENTRIES, _SHORT, float(np.nanmax(_LONGEST)),
        _read_hair_length, _write_hair_length,
    ),
    _single("hair-colour", "lighter hair", "hair/lightness", shape=False),
    _single("smile", "a broader smile", "expression/smile"),
    _single("mouth-open", "a wider open mouth", "expression/mouth-open"),
    _single("eyes-closed", "more closed lids", "expression/eyes-closed"),
    _single("brow-raise", "higher brows", "expression/brows-up"),
)  # fmt: skip
"""What `pmv edit` can change."""
