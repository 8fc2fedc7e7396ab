"""From parameters to a morphed body: the weights of MakeHuman's targets."""

from collections import defaultdict
from functools import cache

from pmv.training.heads.parameters import HEAD_SHAPE_TARGETS, SIGNED_TARGETS, HeadParameters

ETHNICITIES = ("african", "asian", "caucasian")
_AGES = ("young", "old", "child")
_MUSCLES = ("minmuscle", "averagemuscle", "maxmuscle")
_WEIGHTS = ("minweight", "averageweight", "maxweight")
_EXPRESSION_UNITS = {
    "expression/smile": ("mouth-corner-puller",),
    "expression/lips-apart": ("mouth-parling",),
    "expression/mouth-open": ("mouth-open",),
    "expression/pursing": ("mouth-pursing",),
    "expression/mouth-down": ("mouth-depression",),
    "expression/squint": ("eye-left-slit", "eye-right-slit"),
    "expression/eyes-closed": ("eye-left-closure", "eye-right-closure"),
}
# MakeHuman's neutral eyes are slits at portrait size: every head gets wider, larger ones, around which the
# parameters vary.
_EYE_OPENING = {
    "shape/eyes-height1-incr": 0.25,
    "shape/eyes-height2-incr": 0.32,
    "shape/eyes-height3-incr": 0.25,
    "shape/eyes-scale-incr": 0.30,
}
_KEPT_MACRO, _KEPT_DETAIL = 0.3, 0.12
_BROWS_UP = ("eyebrows-left-up", "eyebrows-right-up")
_BROWS_DOWN = ("eyebrows-left-down", "eyebrows-right-down")


def _universal(gender: str, age: str, muscle: str, weight: str) -> str:
    return f"macrodetails/universal-{gender}-{age}-{muscle}-{weight}"


def target_names() -> list[str]:
    """Every target a head can use, as paths below `targets/` without the ending, sorted."""
    names = {
        f"macrodetails/{who}-{gender}-{age}" for who in ETHNICITIES for gender in ("male", "female") for age in _AGES
    }
    for gender in ("male", "female"):  # MakeHuman has no universal targets of children
        for age in ("young", "old"):
            names |= {_universal(gender, age, muscle, weight) for muscle in _MUSCLES for weight in _WEIGHTS}
    for signed in SIGNED_TARGETS:
        names |= {*signed.negative, *signed.positive}
    names |= set(HEAD_SHAPE_TARGETS.values())
    units = {unit for group in _EXPRESSION_UNITS.values() for unit in group} | {*_BROWS_UP, *_BROWS_DOWN}
    names |= {f"expression/units/{who}/{unit}" for who in ETHNICITIES for unit in units}
    return sorted(names)


def ethnicity_shares(parameters: HeadParameters) -> dict[str, float]:
    """The three weights of ancestry, scaled to the sum 1."""
    weights = {who: parameters[f"macro/{who}"] + 1e-3 for who in ETHNICITIES}
    total = sum(weights.values())
    return {who: weight / total for who, weight in weights.items()}


def _three_way(value: float, names: tuple[str, str, str]) -> dict[str, float]:
    return dict(zip(names, (max(-value, 0.0), 1 - abs(value), max(value, 0.0))))


def _macro_weights(parameters: HeadParameters) -> dict[str, float]:
    """Sex, age, ancestry, weight and muscle of the whole body."""
    weights: dict[str, float] = defaultdict(float)
    male = parameters["macro/male"]
    child = parameters["macro/child"]
    old = min(parameters["macro/old"], 1 - child)
    ages = {"young": 1 - old - child, "old": old, "child": child}
    shares = ethnicity_shares(parameters)
    for gender, gender_weight in {"male": male, "female": 1 - male}.items():
        for age, age_weight in ages.items():
            for who, share in shares.items():
                weights[f"macrodetails/{who}-{gender}-{age}"] += gender_weight * age_weight * share
            if age == "child":
                continue
            for muscle, muscle_weight in _three_way(parameters["macro/muscle"], _MUSCLES).items():
                for weight, weight_weight in _three_way(parameters["macro/weight"], _WEIGHTS).items():
                    share = gender_weight * age_weight * muscle_weight * weight_weight
                    weights[_universal(gender, age, muscle, weight)] += share
    return weights


def _detail_weights(parameters: HeadParameters) -> dict[str, float]:
    """What sets one face apart from others of its kind."""
    weights: dict[str, float] = defaultdict(float)
    for signed in SIGNED_TARGETS:
        value = parameters[signed.name]
        for target in signed.negative if value < 0 else signed.positive:
            weights[target] += abs(value)
    for name, target in HEAD_SHAPE_TARGETS.items():
        weights[target] += parameters[name]
    return weights


def _expression_weights(parameters: HeadParameters) -> dict[str, float]:
    weights: dict[str, float] = defaultdict(float)
    brows = parameters["expression/brows-up"]
    raised = {unit: abs(brows) for unit in (_BROWS_UP if brows > 0 else _BROWS_DOWN)}
    raised |= {unit: parameters[name] for name, units in _EXPRESSION_UNITS.items() for unit in units}
    for unit, amount in raised.items():
        for who, share in ethnicity_shares(parameters).items():
            weights[f"expression/units/{who}/{unit}"] += amount * share
    return weights


@cache
def average_weights() -> dict[str, float]:
    """Weights of the targets of the average young adult, with open eyes and no expression: what faces from scans are
    told as displacements of."""
    average = {"macro/male": 0.5, "macro/old": 0.0, "macro/child": 0.0, "macro/weight": 0.0, "macro/muscle": 0.0}
    average |= {f"macro/{who}": 1 / 3 for who in ETHNICITIES}
    weights = _macro_weights(HeadParameters.from_values(average))
    return _sum((_eye_opening(), 1.0), (weights, 1.0))


def _eye_opening() -> dict[str, float]:
    signed = {row.name: row for row in SIGNED_TARGETS}
    return {target: amount for name, amount in _EYE_OPENING.items() for target in signed[name].positive}


def _sum(*terms: tuple[dict[str, float], float]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for weights, factor in terms:
        for name, weight in weights.items():
            total[name] += weight * factor
    return {name: weight for name, weight in total.items() if weight}


def target_weights(parameters: HeadParameters, scanned: float = 0.0) -> dict[str, float]:
    """Weight of each target of `target_names` that this head uses.

    Args:
        parameters: the head.
        scanned: share [0,1] of the face that comes from scans. These hold sex, ancestry and what sets faces apart
            already, so MakeHuman's part of it shrinks towards the average adult, to `_KEPT_MACRO` and `_KEPT_DETAIL`.
    """
    macro, detail = (1 - scanned * (1 - kept) for kept in (_KEPT_MACRO, _KEPT_DETAIL))
    own = _sum((_macro_weights(parameters), 1.0), (_eye_opening(), 1.0))
    return _sum(
        (own, macro),
        (average_weights(), 1 - macro),
        (_detail_weights(parameters), detail),
        (_expression_weights(parameters), 1.0),
    )
