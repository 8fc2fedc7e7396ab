"""The named parameters of a synthetic head: one normalised vector z that fixes everything that can be seen at 128
px."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

HAIRSTYLES = (
    "none", "afro01", "bob01", "bob02", "braid01", "long01", "ponytail01", "short01", "short02", "short03", "short04",
)  # fmt: skip
"""Hairstyles by their MakeHuman names; `none` is a shaved or bald head."""

SCAN_MODES = 50
"""How many of the scans' hundred modes of identity a head has; they hold 98 % of the face's variance."""

# Per part of the head: MakeHuman's signed pairs (negative target, positive target) and the standard deviation of
# each. Left
# and right move together. Translations of the whole head, neck, mouth and nose to a side are left out: they only move
# the camera.
_SIGNED_PAIRS: dict[str, tuple[float, str]] = {
    "head": (0.10, "age:decr/incr back-scale-depth:decr/incr fat:decr/incr scale-depth:decr/incr scale-vert:decr/incr"),
    "neck": (
        0.14,
        "double:decr/incr scale-depth:decr/incr scale-horiz:decr/incr scale-vert:decr/incr",
    ),
    "mouth": (
        0.15,
        "angles:down/up cupidsbow:decr/incr dimples:in/out laugh-lines:in/out "
        "lowerlip-ext:down/up lowerlip-height:decr/incr lowerlip-middle:down/up lowerlip-volume:decr/incr "
        "lowerlip-width:decr/incr philtrum-volume:decr/incr scale-depth:decr/incr scale-horiz:decr/incr "
        "scale-vert:decr/incr trans:backward/forward trans:down/up upperlip-height:decr/incr "
        "upperlip-middle:down/up upperlip-volume:decr/incr upperlip-width:decr/incr",
    ),
    "nose": (
        0.14,
        "base:down/up compression:compress/uncompress curve:concave/convex flaring:decr/incr greek:decr/incr "
        "hump:decr/incr nostrils-angle:down/up nostrils-width:decr/incr point:down/up point-width:decr/incr "
        "scale-depth:decr/incr scale-horiz:decr/incr scale-vert:decr/incr "
        "trans:backward/forward trans:down/up volume:decr/incr width1:decr/incr width2:decr/incr width3:decr/incr",
    ),
    "eyebrows": (0.18, "angle:down/up trans:down/up"),
    "cheek": (0.18, "bones:decr/incr inner:decr/incr trans:down/up volume:decr/incr"),
    "eyes": (
        0.18,
        "bag:decr/incr bag:in/out corner1:down/up corner2:down/up epicanthus:in/out "
        "eyefold-angle:down/up eyefold:concave/convex eyefold:down/up height1:decr/incr height2:decr/incr "
        "height3:decr/incr push2:in/out scale:decr/incr trans:down/up trans:in/out",
    ),
    "forehead": (0.17, "nubian:decr/incr scale-vert:decr/incr temple:decr/incr trans:backward/forward"),
    "chin": (
        0.17,
        "bones:decr/incr cleft:decr/incr height:decr/incr jaw-drop:decr/incr prognathism:decr/incr "
        "prominent:decr/incr width:decr/incr",
    ),
    "ears": (
        0.20,
        "rot:backward/forward scale:decr/incr scale-depth:decr/incr scale-vert:decr/incr wing:decr/incr",
    ),
}
_TWO_SIDED = {"cheek": "cheek", "eyes": "eye", "ears": "ear"}
_HEAD_SHAPES = ("oval", "round", "rectangular", "square", "triangular", "invertedtriangular", "diamond")
_ASYMMETRIES = ("brown-1", "cheek-1", "eye-4", "jaw-1", "mouth-1", "nose-1")
SCAN_MODE_NAMES = tuple(f"scan/mode-{k:02d}" for k in range(SCAN_MODES))


@dataclass(frozen=True)
class Entry:
    """One entry of z: value = clip(mean + scale · z, low, high).

    Attributes:
        name: unique name, `group/what`.
        group: what it belongs to: macro, shape, expression, gaze, hairstyle, hair, skin, face_hair, makeup, cloth,
            light.
        mean, scale: moments of the value over sampled heads, which make z zero-mean with unit variance.
        low, high: range of plausible values; beyond it the value is clipped.
    """

    name: str
    group: str
    mean: float
    scale: float
    low: float
    high: float


@dataclass(frozen=True)
class SignedTargets:
    """A signed shape parameter: the morph targets that a negative and a positive value raise."""

    name: str
    negative: tuple[str, ...]
    positive: tuple[str, ...]


def _signed_targets() -> list[tuple[SignedTargets, float]]:
    rows = []
    for part, (deviation, pairs) in _SIGNED_PAIRS.items():
        for pair in pairs.split():
            stem, ends = pair.split(":")
            low, high = ends.split("/")
            sides = [f"l-{_TWO_SIDED[part]}", f"r-{_TWO_SIDED[part]}"] if part in _TWO_SIDED else [part]
            targets = [tuple(f"{part}/{side}-{stem}-{end}" for side in sides) for end in (low, high)]
            rows.append((SignedTargets(f"shape/{part}-{stem}-{high}", targets[0], targets[1]), deviation))
    # Width is what the eye notices first, so extreme widths are rarer than other extremes.
    width = SignedTargets("shape/head-width", ("head/head-scale-horiz-decr",), ("head/head-scale-horiz-incr",))
    rows.append((width, 0.065))
    for name in _ASYMMETRIES:
        rows.append((SignedTargets(f"shape/asym-{name}", (f"asym/asym-{name}-l",), (f"asym/asym-{name}-r",)), 0.15))
    return rows


SIGNED_TARGETS = tuple(targets for targets, _ in _signed_targets())
"""Every signed shape parameter with its targets."""
HEAD_SHAPE_TARGETS = {f"shape/head-{name}": f"head/head-{name}" for name in _HEAD_SHAPES}
"""Parameters of the overall head shapes (weights from 0) and their targets."""


def _entries() -> list[Entry]:
    rows = [
        Entry("macro/male", "macro", 0.50, 0.44, 0.0, 1.0),
        *(Entry(f"macro/{who}", "macro", 1 / 3, 0.30, 0.0, 1.0) for who in ("african", "asian", "caucasian")),
        Entry("macro/old", "macro", 0.19, 0.28, 0.0, 1.0),
        Entry("macro/child", "macro", 0.035, 0.14, 0.0, 0.9),
        Entry("macro/weight", "macro", -0.15, 0.25, -0.8, 0.6),
        Entry("macro/muscle", "macro", 0.0, 0.36, -1.0, 1.0),
        Entry("macro/size", "macro", 1.0, 0.02, 0.95, 1.05),
    ]
    rows += [
        Entry(t.name, "shape", 0.0, deviation, -3 * deviation, 3 * deviation) for t, deviation in _signed_targets()
    ]
    rows += [Entry(name, "shape", 0.05, 0.10, 0.0, 0.4) for name in HEAD_SHAPE_TARGETS]
    rows += [
        Entry("expression/smile", "expression", 0.28, 0.32, 0.0, 0.9),
        Entry("expression/lips-apart", "expression", 0.14, 0.25, 0.0, 0.8),
        Entry("expression/mouth-open", "expression", 0.05, 0.09, 0.0, 0.35),
        Entry("expression/pursing", "expression", 0.03, 0.11, 0.0, 0.6),
        Entry("expression/mouth-down", "expression", 0.03, 0.10, 0.0, 0.5),
        Entry("expression/squint", "expression", 0.06, 0.08, 0.0, 0.35),
        Entry("expression/eyes-closed", "expression", 0.20, 0.20, 0.0, 1.0),
        Entry("expression/brows-up", "expression", 0.20, 0.30, -0.8, 0.9),
        Entry("gaze/right", "gaze", 0.0, 0.10, -0.35, 0.35),
        Entry("gaze/down", "gaze", 0.0, 0.07, -0.22, 0.22),
    ]
    rows += [Entry(f"hairstyle/{name}", "hairstyle", 1 / 11, 0.2875, 0.0, 1.0) for name in HAIRSTYLES]
    rows += [
        Entry("hair/volume", "hair", 0.5, 0.29, 0.0, 1.0),
        Entry("hair/length", "hair", 0.6, 0.27, 0.0, 1.0),
        Entry("hair/mirrored", "hair", 0.0, 1.0, -1.0, 1.0),
        Entry("hair/lightness", "hair", 0.26, 0.225, 0.0, 1.0),
        Entry("hair/redness", "hair", 0.085, 0.18, 0.0, 1.0),
        Entry("hair/grey", "hair", 0.12, 0.26, 0.0, 1.0),
        Entry("skin/melanin", "skin", 0.45, 0.215, 0.0, 1.0),
        Entry("skin/red", "skin", 0.0, 0.02, -0.06, 0.06),
        Entry("skin/yellow", "skin", 0.0, 0.02, -0.06, 0.06),
        Entry("skin/lightness", "skin", 1.0, 0.03, 0.9, 1.1),
        Entry("skin/blush", "skin", 1.0, 0.18, 0.5, 1.5),
        Entry("skin/mottle", "skin", 0.6, 0.25, 0.1, 1.3),
        Entry("skin/wrinkles", "skin", 0.25, 0.28, 0.0, 1.0),
        Entry("skin/freckles", "skin", 0.055, 0.13, 0.0, 0.9),
        Entry("skin/lip-red", "skin", 0.0, 0.05, -0.15, 0.15),
        Entry("skin/lip-lightness", "skin", 1.0, 0.06, 0.8, 1.2),
        Entry("skin/eye-blue", "skin", 0.175, 0.23, 0.0, 1.0),
        Entry("skin/eye-green", "skin", 0.06, 0.21, 0.0, 1.0),
        Entry("skin/eye-lightness", "skin", 1.0, 0.15, 0.6, 1.4),
        Entry("face_hair/brow-height", "face_hair", 0.018, 0.010, -0.012, 0.048),
        Entry("face_hair/brow-thickness", "face_hair", 0.031, 0.007, 0.014, 0.048),
        Entry("face_hair/brow-slope", "face_hair", 0.0, 0.012, -0.036, 0.036),
        Entry("face_hair/brow-density", "face_hair", 0.75, 0.115, 0.4, 1.0),
        Entry("face_hair/beard", "face_hair", 0.13, 0.27, 0.0, 1.0),
        Entry("face_hair/beard-length", "face_hair", 0.40, 0.22, 0.1, 1.0),
        Entry("face_hair/beard-cheeks", "face_hair", 0.5, 0.30, 0.0, 1.0),
        Entry("face_hair/stubble", "face_hair", 0.13, 0.22, 0.0, 0.8),
        Entry("makeup/lipstick", "makeup", 0.11, 0.24, 0.0, 0.9),
        Entry("makeup/eyes", "makeup", 0.17, 0.26, 0.0, 0.9),
        Entry("makeup/eyes-hue", "makeup", 0.5, 0.29, 0.0, 1.0),
        Entry("makeup/lashes", "makeup", 0.5, 0.24, 0.1, 1.0),
        Entry("cloth/lightness", "cloth", 0.40, 0.21, 0.05, 0.85),
        Entry("cloth/red", "cloth", 0.0, 0.05, -0.15, 0.15),
        Entry("cloth/blue", "cloth", 0.02, 0.05, -0.13, 0.17),
        Entry("cloth/collar", "cloth", 5.55, 0.13, 5.2, 5.98),
        Entry("light/azimuth", "light", 0.0, 0.72, -2.0, 2.0),
        Entry("light/elevation", "light", 0.5, 0.30, -0.25, 1.25),
        Entry("light/strength", "light", 1.20, 0.42, 0.2, 2.4),
        Entry("light/warmth", "light", 0.0, 0.08, -0.25, 0.25),
        Entry("light/ambient", "light", 0.75, 0.19, 0.3, 1.3),
        Entry("light/side", "light", 0.0, 0.10, -0.25, 0.25),
    ]
    # Appended in version 3: what came before keeps its place in z.
    rows += [
        Entry("lighting/softness", "lighting", 0.45, 0.28, 0.0, 1.0),
        Entry("lighting/second-strength", "lighting", 0.22, 0.36, 0.0, 1.6),
        Entry("lighting/second-azimuth", "lighting", 0.0, 1.8, -3.1416, 3.1416),
        Entry("lighting/second-warmth", "lighting", 0.0, 0.10, -0.35, 0.35),
        Entry("lighting/ambient-warmth", "lighting", 0.0, 0.06, -0.2, 0.2),
        Entry("lighting/tint", "lighting", 0.0, 0.02, -0.06, 0.06),
        Entry("lighting/exposure", "lighting", 0.0, 0.25, -0.8, 0.7),
        Entry("lighting/shine", "lighting", 0.40, 0.24, 0.0, 1.2),
    ]
    rows += [
        Entry("locks/fringe", "locks", 0.5, 0.28, 0.0, 1.0),
        Entry("locks/wave", "locks", 0.30, 0.28, 0.0, 1.0),
        Entry("locks/curl", "locks", 0.12, 0.26, 0.0, 1.0),
        Entry("locks/receding", "locks", 0.10, 0.20, 0.0, 1.0),
        Entry("locks/dye", "locks", 0.04, 0.17, 0.0, 1.0),
        Entry("locks/dye-hue", "locks", 0.5, 0.30, 0.0, 1.0),
        Entry("locks/gloss", "locks", 0.8, 0.32, 0.1, 1.6),
    ]
    rows += [Entry("scan/share", "scan", 0.6, 0.49, 0.0, 1.0)]
    rows += [Entry(name, "scan", 0.0, 1.0, -3.0, 3.0) for name in SCAN_MODE_NAMES]
    rows += [
        Entry("wear/glasses", "wear", 0.12, 0.33, 0.0, 1.0),  # worn above 0.5, as hats and headbands are
        Entry("wear/glasses-width", "wear", 0.5, 0.29, 0.0, 1.0),
        Entry("wear/glasses-height", "wear", 0.5, 0.29, 0.0, 1.0),
        Entry("wear/glasses-squareness", "wear", 0.5, 0.29, 0.0, 1.0),
        Entry("wear/glasses-thickness", "wear", 0.45, 0.29, 0.0, 1.0),
        Entry("wear/glasses-lightness", "wear", 0.2, 0.22, 0.0, 1.0),
        Entry("wear/glasses-dark", "wear", 0.12, 0.33, 0.0, 1.0),
        Entry("wear/hat", "wear", 0.05, 0.22, 0.0, 1.0),
        Entry("wear/headband", "wear", 0.04, 0.20, 0.0, 1.0),
        Entry("wear/hat-height", "wear", 0.5, 0.29, 0.0, 1.0),
        Entry("wear/hat-lightness", "wear", 0.5, 0.29, 0.0, 1.0),
        Entry("wear/hat-hue", "wear", 0.5, 0.29, 0.0, 1.0),
        Entry("wear/cloth-hue", "wear", 0.5, 0.29, 0.0, 1.0),
        Entry("wear/cloth-saturation", "wear", 0.25, 0.25, 0.0, 0.9),
    ]
    return rows


ENTRIES = tuple(_entries())
"""The layout of z."""
_LATER = ("lighting", "locks", "scan", "wear")
"""Groups that version 3 appended."""


@dataclass(frozen=True)
class HeadParameters:
    """One head as a vector z, float32 [D], every entry about N(0,1) over sampled heads. Any z is a head: values are
    clipped.

    Attributes:
        z: the vector.
        names: name of each entry.
        groups: for each group of entries the slice of z that holds it.
    """

    z: NDArray

    names: ClassVar[tuple[str, ...]] = tuple(entry.name for entry in ENTRIES)
    groups: ClassVar[dict[str, slice]] = {}

    def __post_init__(self) -> None:
        if self.z.shape != (len(ENTRIES),):
            raise ValueError(f"a head has {len(ENTRIES)} parameters, got an array of shape {self.z.shape}")

    @classmethod
    def from_vector(cls, z: NDArray) -> "HeadParameters":
        """The head of any float vector [D]; the inverse of `vector`."""
        return cls(np.array(z, dtype=np.float32))

    @classmethod
    def from_values(cls, values: dict[str, float]) -> "HeadParameters":
        """The head of the given values by name; what is not named takes its mean."""
        unknown = set(values) - set(cls.names)
        if unknown:
            raise ValueError(f"no such head parameter: {', '.join(sorted(unknown))}")
        z = [(values.get(entry.name, entry.mean) - entry.mean) / entry.scale for entry in ENTRIES]
        return cls(np.array(z, dtype=np.float32))

    def vector(self) -> NDArray:
        """z, float32 [D]."""
        return self.z.copy()

    def __getitem__(self, name: str) -> float:
        """Value of a parameter in its own units, clipped to its range."""
        index = _INDEX[name]
        entry = ENTRIES[index]
        return float(np.clip(entry.mean + entry.scale * float(self.z[index]), entry.low, entry.high))

    def replace(self, **values: float) -> "HeadParameters":
        """This head with some values set; `/` and `-` of a name are written `__` and `_`:
        `face_hair__beard_length=0.5`."""
        z = self.z.copy()
        for keyword, value in values.items():
            index = _INDEX_BY_KEYWORD[keyword]
            z[index] = (value - ENTRIES[index].mean) / ENTRIES[index].scale
        return HeadParameters(z)

    def with_hairstyle(self, style: str) -> "HeadParameters":
        """This head with another hairstyle of `HAIRSTYLES`."""
        return self.replace(**{f"hairstyle__{name}": float(name == style) for name in HAIRSTYLES})

    @property
    def hairstyle(self) -> str:
        """The hairstyle whose entry is largest."""
        return HAIRSTYLES[int(np.argmax(self.z[self.groups["hairstyle"]]))]

    @property
    def noise_seed(self) -> float:
        """A number in [0,1) that depends on z alone; moves the pores and freckles, which are too fine to be learned."""
        return zlib.crc32(np.round(self.z, 3).tobytes()) / 2**32


_INDEX = {entry.name: index for index, entry in enumerate(ENTRIES)}
_INDEX_BY_KEYWORD = {name.replace("/", "__").replace("-", "_"): index for name, index in _INDEX.items()}
for _index, _entry in enumerate(ENTRIES):
    _start = HeadParameters.groups.get(_entry.group, slice(_index, _index)).start
    HeadParameters.groups[_entry.group] = slice(_start, _index + 1)


def _pick(rng: np.random.Generator, chances: Mapping[str, float]) -> str:
    weights = np.array(list(chances.values()))
    return str(rng.choice(list(chances), p=weights / weights.sum()))


def _sample_hair(rng: np.random.Generator, male: bool, european: float, old: float) -> dict[str, float]:
    chances = (
        dict(
            none=15, short01=13, short02=18, short03=14, short04=24, afro01=8, long01=5, ponytail01=4, bob01=1, bob02=1
        )
        if male
        else dict(none=3, bob01=5, bob02=7, braid01=20, long01=26, ponytail01=22, short03=7, afro01=8, short01=3)
    )
    style = _pick(rng, chances)
    lightness = rng.beta(1.6, 1.9) if european > 0.4 else rng.beta(1.2, 7.0)
    values = {f"hairstyle/{name}": float(name == style) for name in HAIRSTYLES}
    values |= {
        "hair/volume": rng.random(),
        "hair/length": rng.beta(1.4, 1.0),
        "hair/mirrored": rng.choice([-1.0, 1.0]),
        "hair/lightness": lightness,
        "hair/redness": rng.uniform(0.3, 1.0) if european > 0.4 and rng.random() < 0.2 else rng.uniform(0, 0.08),
        "hair/grey": float(np.clip((old - 0.3) * rng.uniform(0.5, 2.5), 0, 1)),
    }
    return values


def _sample_expression(rng: np.random.Generator) -> dict[str, float]:
    values: dict[str, float] = {}
    kind = rng.random()
    if kind < 0.30:
        values["expression/smile"] = rng.uniform(0.2, 0.85)
    elif kind < 0.55:
        values["expression/smile"] = rng.uniform(0.3, 0.9)
        values["expression/lips-apart"] = rng.uniform(0.25, 0.6)
        values["expression/mouth-open"] = rng.uniform(0.0, 0.15)
    elif kind < 0.66:
        values["expression/mouth-open"] = rng.uniform(0.05, 0.35)
    elif kind < 0.73:
        values["expression/pursing"] = rng.uniform(0.2, 0.45)
    elif kind < 0.80:
        values["expression/mouth-down"] = rng.uniform(0.2, 0.5)
    values["expression/squint"] = float(
        np.clip(0.2 * values.get("expression/smile", 0.0) + rng.normal(0, 0.05), 0, 0.35)
    )
    lids = rng.random()
    values["expression/eyes-closed"] = (  # open eyes are seldom wide open
        rng.uniform(0.7, 1.0) if lids < 0.04 else rng.uniform(0, 0.2) if lids < 0.3 else 0.2 * (1 - lids) / 0.7
    )
    values["expression/brows-up"] = rng.normal(0.2, 0.3)
    for name in ("smile", "lips-apart", "mouth-open", "pursing", "mouth-down"):
        values.setdefault(f"expression/{name}", 0.0)
    return values


# Along which scanned faces turn male, African, Asian in MakeHuman's sense: unit vectors over the first modes, from a
# ridge fit of the modes to the displacements of the face by MakeHuman's macro targets, similarities left out.
_SCAN_DIRECTIONS = np.array(
    [
        [-0.50, 0.06, -0.05, -0.16, -0.16, -0.26, 0.55, -0.12, 0.47, 0.00, -0.17, 0.00, 0.17, -0.02, 0.04, 0.01],
        [0.11, -0.13, -0.58, 0.63, 0.10, -0.17, 0.00, 0.04, 0.04, 0.00, 0.02, -0.04, -0.05, 0.19, 0.14, -0.09],
        [-0.13, 0.34, 0.14, -0.70, -0.33, -0.03, -0.16, 0.25, 0.05, 0.00, -0.05, 0.13, 0.15, 0.03, -0.05, 0.12],
    ]
)
_SCAN_CORRELATION = 0.55  # of what skin, hair and body say with what the scanned face says


def scan_directions() -> NDArray:
    """Unit vectors [3,SCAN_MODES] of the scans' modes along which faces turn male, African, Asian."""
    directions = np.zeros((3, SCAN_MODES))
    directions[:, : _SCAN_DIRECTIONS.shape[1]] = _SCAN_DIRECTIONS
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def _sample_scan(rng: np.random.Generator, male: float, african: float, asian: float) -> NDArray:
    """Coefficients [SCAN_MODES] of a scanned face that goes with sex and ancestry, yet over all heads N(0,1) each,
    uncorrelated, as the scans' own are."""
    kinds = np.array([2 * male - 1, (african - 1 / 3) / 0.3075, (asian - 1 / 3) / 0.3075])
    among_kinds = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, -0.5], [0.0, -0.5, 1.0]])  # ancestries: Dirichlet (0.45, …)
    directions = _SCAN_CORRELATION * scan_directions().T
    rest = np.eye(SCAN_MODES) - directions @ among_kinds @ directions.T
    return directions @ kinds + np.linalg.cholesky(rest) @ rng.standard_normal(SCAN_MODES)


_MAY_RECEDE = ("none", "short01", "short02", "short03", "short04")


def _sample_locks(
    rng: np.random.Generator, style: str, male: bool, african: float, old: float, child: float
) -> dict[str, float]:
    balding = male and child == 0 and style in _MAY_RECEDE and rng.random() < 0.25 + 0.5 * old
    dyed = child == 0 and rng.random() < (0.03 if male else 0.10)
    return {
        "locks/fringe": rng.random(),
        "locks/wave": rng.beta(1.0, 2.2),
        "locks/curl": rng.uniform(0.5, 1.0) if rng.random() < 0.04 + 0.6 * african**2 else 0.0,
        "locks/receding": rng.beta(1.3, 1.6) if balding else 0.0,
        "locks/dye": rng.uniform(0.4, 1.0) if dyed else 0.0,
        "locks/dye-hue": rng.random(),
    }


def _sample_wear(rng: np.random.Generator) -> dict[str, float]:
    hat = rng.random()
    even = (
        "glasses-width",
        "glasses-height",
        "glasses-squareness",
        "hat-height",
        "hat-lightness",
        "hat-hue",
        "cloth-hue",
    )
    return {
        "wear/glasses": float(rng.random() < 0.13),
        "wear/glasses-dark": float(rng.random() < 0.12),
        "wear/hat": float(hat < 0.05),
        "wear/headband": float(hat > 0.96),
        "wear/glasses-thickness": rng.beta(1.2, 1.5),
        "wear/glasses-lightness": rng.beta(0.6, 2.4),
        "wear/cloth-saturation": rng.beta(0.8, 2.4),
        **{f"wear/{name}": rng.random() for name in even},
    }


def _sample_light(rng: np.random.Generator) -> dict[str, float]:
    """From a cloudy sky (all around, no key) to a lamp in the dark; one in five key lights comes from far to the side,
    a few from behind."""
    contrast, level = rng.beta(1.7, 1.7), rng.normal(1.0, 0.08)
    return {
        "light/azimuth": rng.uniform(-2.0, 2.0) if rng.random() < 0.2 else rng.uniform(-1.1, 1.1),
        "light/strength": (0.35 + 1.7 * contrast) * level,
        "light/ambient": (1.08 - 0.66 * contrast) * level,
        "lighting/softness": rng.beta(1.2, 1.4),
        "lighting/second-strength": rng.uniform(0.1, 1.2) if rng.random() < 0.35 else 0.0,
        "lighting/second-azimuth": rng.uniform(-np.pi, np.pi),
        "lighting/exposure": rng.normal(0.0, 0.25),
        "lighting/shine": rng.gamma(2.8, 0.145),
    }


def sample_parameters(seed: int) -> HeadParameters:
    """A random plausible head; the same seed always gives the same head. Entries that real heads couple (sex and
    beard, age
    and grey hair, ancestry and colours) are drawn together; the rest are independent and normal."""
    rng = np.random.default_rng(seed)
    values = {entry.name: rng.normal(entry.mean, entry.scale) for entry in ENTRIES if entry.group not in _LATER}
    male = bool(rng.random() < 0.5)
    african, asian, european = rng.dirichlet([0.45, 0.45, 0.45])
    old = float(np.clip((rng.random() - 0.45) / 0.55, 0, 1)) ** 1.5
    child = float(rng.uniform(0.3, 0.9)) if rng.random() < 0.06 else 0.0
    old = 0.0 if child else old
    grown_man = male and child == 0
    values |= {
        "macro/male": rng.uniform(0.88, 1.0) if male else rng.uniform(0.0, 0.12),
        "macro/african": african,
        "macro/asian": asian,
        "macro/caucasian": european,
        "macro/old": old,
        "macro/child": child,
    }
    for name in HEAD_SHAPE_TARGETS:
        values[name] = rng.uniform(0, 0.4) if rng.random() < 0.25 else 0.0
    values |= _sample_expression(rng)
    values |= _sample_hair(rng, male, european, old)
    eyes = _pick(rng, {"brown": 0.30, "blue": 0.42, "green": 0.28}) if european > 0.55 else "brown"
    beard = rng.choice([0.0, 0.6, 1.0], p=[0.55, 0.15, 0.3]) if grown_man else 0.0
    values |= {
        "skin/melanin": float(np.clip(african * 0.85 + asian * 0.34 + european * 0.14 + rng.normal(0, 0.07), 0, 1)),
        "skin/wrinkles": float(np.clip(old * rng.uniform(0.6, 1.3) + rng.uniform(0, 0.15), 0, 1)),
        "skin/freckles": max(0.0, rng.normal(-0.1, 0.5)) * european,
        "skin/eye-blue": rng.uniform(0.6, 1.0) if eyes == "blue" else rng.uniform(0.0, 0.2),
        "skin/eye-green": rng.uniform(0.5, 1.0) if eyes == "green" else 0.0,
        "face_hair/brow-thickness": rng.uniform(0.022, 0.040) * (1.15 if male else 0.85),
        "face_hair/brow-density": rng.uniform(0.55, 0.95),
        "face_hair/beard": float(beard * rng.uniform(0.8, 1.0)),
        "face_hair/beard-cheeks": rng.random(),
        "face_hair/stubble": rng.uniform(0, 0.8) if grown_man and rng.random() < 0.6 else 0.0,
        "makeup/lipstick": rng.uniform(0.2, 0.9) if not male and rng.random() < 0.4 else 0.0,
        "makeup/eyes": 0.0 if male else rng.uniform(0, 0.9) * (rng.random() < 0.75),
        "makeup/eyes-hue": rng.random(),
        "makeup/lashes": rng.uniform(0.15, 0.5) if male else rng.uniform(0.5, 1.0),
        "cloth/lightness": rng.uniform(0.05, 0.78),
    }
    later = np.random.default_rng([seed, 3])  # its own stream: what was drawn before version 3 stays as it was
    values |= {entry.name: later.normal(entry.mean, entry.scale) for entry in ENTRIES if entry.group in _LATER}
    modes = _sample_scan(later, float(male), african, asian)
    values |= {name: float(mode) for name, mode in zip(SCAN_MODE_NAMES, modes)}
    style = next(name for name in HAIRSTYLES if values[f"hairstyle/{name}"] > 0)
    values |= _sample_light(later)
    values |= _sample_wear(later)
    values |= _sample_locks(later, style, male, african, old, child)
    values["scan/share"] = float(later.random() < 0.64 and child == 0)
    if values["scan/share"]:  # people keep still and wide-eyed to be scanned
        values["expression/eyes-closed"] = min(1.0, values["expression/eyes-closed"] + later.uniform(0.05, 0.25))
    parameters = HeadParameters.from_values({name: float(value) for name, value in values.items()})
    return HeadParameters.from_values({name: parameters[name] for name in parameters.names})  # within the ranges
