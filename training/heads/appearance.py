"""From parameters to colours and light: the uniforms of the shaders. Colours are mixed in sRGB and handed over
linear."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pmv.training.heads.parameters import HeadParameters
from pmv.training.heads.wear import hat_heights

_SKIN_RAMP = np.array(
    [
        [0.95, 0.79, 0.71],
        [0.90, 0.70, 0.59],
        [0.80, 0.59, 0.45],
        [0.66, 0.45, 0.32],
        [0.48, 0.31, 0.21],
        [0.33, 0.21, 0.15],
    ]
)
_HAIR_RAMP = np.array(
    [
        [0.115, 0.10, 0.095],
        [0.15, 0.11, 0.09],
        [0.25, 0.16, 0.10],
        [0.42, 0.29, 0.18],
        [0.66, 0.50, 0.34],
        [0.80, 0.67, 0.50],
    ]
)
_DYES = np.array(
    [
        [0.55, 0.10, 0.12],
        [0.66, 0.33, 0.14],
        [0.88, 0.83, 0.74],
        [0.22, 0.48, 0.33],
        [0.16, 0.27, 0.58],
        [0.42, 0.22, 0.55],
        [0.80, 0.42, 0.58],
    ]
)
_RED_HAIR, _GREY_HAIR = np.array([0.47, 0.21, 0.11]), np.array([0.63, 0.62, 0.61])
_BROWN_EYE, _BLUE_EYE, _GREEN_EYE = (np.array(c) for c in ([0.28, 0.16, 0.09], [0.38, 0.46, 0.56], [0.38, 0.42, 0.28]))
_LIP_TINT, _LIPSTICK = np.array([0.83, 0.66, 0.70]), np.array([0.62, 0.16, 0.20])


@dataclass(frozen=True)
class HairLook:
    """What sets hairstyles apart besides their mesh.

    Attributes:
        fur: thickness of the shells that give the hair depth, decimetres.
        frayed: width of the frayed edge, decimetres.
        curly: 1 for isotropic curls instead of strands.
        trim: heights (shortest, longest) on the base mesh below which long hair is cut off, decimetres; None for
            short hair.
        shells: layers that the fur is drawn in.
        fringe: hair hangs before the face; it is cut at the height of locks/fringe.
        ears_free: the hair is cut around the ears or combed behind them.
    """

    fur: float
    frayed: float
    curly: float = 0.0
    trim: tuple[float, float] | None = None
    shells: int = 4
    fringe: bool = False
    ears_free: bool = False


HAIR_LOOKS = {
    "none": HairLook(0.0, 0.35),
    "afro01": HairLook(0.15, 0.2, curly=1.0, shells=8),
    "bob01": HairLook(0.02, 0.13, trim=(6.35, 5.6), shells=3, fringe=True),
    "bob02": HairLook(0.02, 0.13, trim=(6.5, 5.7), shells=3, fringe=True),
    "braid01": HairLook(0.02, 0.13, trim=(5.6, 3.5), shells=3),
    "long01": HairLook(0.02, 0.13, trim=(6.1, 4.0), shells=3),
    "ponytail01": HairLook(0.02, 0.13, trim=(6.3, 4.5), shells=3, ears_free=True),
    "short01": HairLook(0.05, 0.18, ears_free=True),
    "short02": HairLook(0.05, 0.22, ears_free=True),
    "short03": HairLook(0.03, 0.14, fringe=True, ears_free=True),
    "short04": HairLook(0.05, 0.18, ears_free=True),
}


def _dye(hue: float) -> NDArray:
    """A dyed hair's sRGB colour [3] of a hue in [0,1]: red, copper, platinum, green, blue, violet, pink."""
    return _ramp(_DYES, hue)


def _vivid(lightness: float, hue: float, saturation: float) -> NDArray:
    """sRGB [3] of a cloth."""
    wheel = 0.5 + 0.5 * np.cos(2 * np.pi * (hue - np.array([0.0, 1 / 3, 2 / 3])))
    return lightness * (1 - saturation + 1.6 * saturation * wheel)


def linear(colour: NDArray) -> NDArray:
    """sRGB in [0,1] to linear light, by the plain 2.2 power that the shaders undo."""
    return np.clip(colour, 0.01, 1.0) ** 2.2


def _ramp(colours: NDArray, where: float) -> NDArray:
    steps = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(where, steps, channel) for channel in colours.T])


def _mix(first: NDArray, second: NDArray, amount: float) -> NDArray:
    return first + (second - first) * amount


def material(parameters: HeadParameters) -> dict[str, NDArray | float]:
    """Uniforms of the materials, by their names in the shaders."""
    get = parameters.__getitem__
    red, yellow = get("skin/red"), get("skin/yellow")
    skin = _ramp(_SKIN_RAMP, get("skin/melanin")) * get("skin/lightness")
    skin = np.clip(skin * (1 + np.array([red, -0.5 * red, -0.5 * red - yellow])), 0.03, 1)
    lips = skin * _LIP_TINT * get("skin/lip-lightness") * (1 + get("skin/lip-red") * np.array([1, -1, -0.8]))
    lips = _mix(lips, _LIPSTICK, 0.75 * get("makeup/lipstick"))
    own_hair = _mix(_ramp(_HAIR_RAMP, get("hair/lightness")), _RED_HAIR, 0.85 * get("hair/redness"))
    own_hair = _mix(own_hair, _dye(get("locks/dye-hue")), get("locks/dye"))
    hair = _mix(own_hair, _GREY_HAIR, get("hair/grey"))  # of brows and whiskers; the head's turns grey by strands
    warmer = _mix(np.array([0.92, 0.86, 0.82]), np.ones(3), get("hair/grey"))
    eyes = _mix(_mix(_BROWN_EYE, _BLUE_EYE, get("skin/eye-blue")), _GREEN_EYE, 0.8 * get("skin/eye-green"))
    lightness = get("cloth/lightness")
    cloth = lightness * np.array([1 + get("cloth/red"), 1.0, 1 + get("cloth/blue")])
    cloth = _mix(cloth, _vivid(lightness, get("wear/cloth-hue"), 0.8), get("wear/cloth-saturation"))
    low, high = hat_heights(parameters)
    look = HAIR_LOOKS[parameters.hairstyle]
    length = get("hair/length")
    return {
        "skin": linear(skin),
        "lips": linear(lips),
        "hair": linear(own_hair),
        "grey_hair": linear(_GREY_HAIR + 0.08 * get("hair/lightness")),
        "grey": get("hair/grey"),
        "brows": linear(hair * min(1.0, 0.42 / hair.max()) * 0.75),  # never lighter than light brown
        "whiskers": linear(hair * min(1.0, 0.58 / hair.max()) * warmer),
        "iris": linear(eyes * get("skin/eye-lightness")),
        "cloth": linear(cloth),
        "brow_shape": np.array([get(f"face_hair/brow-{what}") for what in ("height", "thickness", "slope", "density")]),
        "beard": get("face_hair/beard"),
        "beard_cheeks": get("face_hair/beard-cheeks"),
        "stubble": get("face_hair/stubble"),
        "blush": get("skin/blush"),
        "mottle": get("skin/mottle"),
        "wrinkles": get("skin/wrinkles"),
        "freckles": get("skin/freckles"),
        "eye_makeup": get("makeup/eyes"),
        "eye_makeup_hue": get("makeup/eyes-hue"),
        "lash_length": get("makeup/lashes"),
        "fine_seed": parameters.noise_seed,
        "bald": float(parameters.hairstyle == "none"),
        "bald_shadow": min(1.0, 1.4 * get("hair/length")),
        "fur_hair": float(parameters.hairstyle == "none"),
        # long hair turns wavy rather than into a sponge
        "curly": max(look.curly, get("locks/curl") * (0.3 if look.trim else 1.0)),
        "wave": max(get("locks/wave"), get("locks/curl")) if look.trim else 0.35 * get("locks/wave"),
        "receding": get("locks/receding"),
        "hat_low": low,
        "hat_high": high,
        "cap_colour": linear(_vivid(get("wear/hat-lightness"), get("wear/hat-hue"), 0.35)),
        "frame": linear(
            _mix(np.array([0.07, 0.06, 0.06]), np.array([0.78, 0.66, 0.52]), get("wear/glasses-lightness"))
        ),
        "fringe_height": 7.80 - 0.40 * get("locks/fringe") if look.fringe else -100.0,
        "ears_free": float(look.ears_free),
        "hair_gloss": get("locks/gloss"),
        "frayed": look.frayed * (1.0 if look.trim else 1.35 - 0.6 * length),
        "trim_height": _trim(look, length),
    }


def _trim(look: HairLook, length: float) -> float:
    if look.trim is None:
        return -100.0
    shortest, longest = look.trim
    return shortest + (longest - shortest) * length


def _temperature(warmth: float) -> NDArray:
    """White [3] turned towards orange (positive) or blue (negative) without a change of its green."""
    return np.array([1 + warmth, 1.0, 1 - warmth])


def _direction(azimuth: float, elevation: float) -> NDArray:
    return np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])


def light(parameters: HeadParameters) -> dict[str, NDArray | float]:
    """Uniforms of the light: a key light with soft shadows, a second one without, a sky, the ground, fill from a side,
    and what the camera makes of it. `lighting/shine` is how wet or oily skin is: highlights do not move with the camera
    in training (a radiance field could not hold them), they lie where a camera in front would see them."""
    azimuth, elevation = parameters["light/azimuth"], parameters["light/elevation"]
    warmth, ambient = parameters["light/warmth"], parameters["light/ambient"]
    key = parameters["light/strength"] * _temperature(warmth)
    tint = np.array([-0.5, 1.0, -0.5]) * parameters["lighting/tint"]
    second = parameters["lighting/second-strength"] * (_temperature(parameters["lighting/second-warmth"]) + tint)
    around = ambient * (_temperature(parameters["lighting/ambient-warmth"]) + tint)
    return {
        "key_direction": _direction(azimuth, elevation),
        "key_colour": key + parameters["light/strength"] * tint,
        "second_direction": _direction(parameters["lighting/second-azimuth"], 0.35),
        "second_colour": second,
        "shadow_reach": 0.003 + 0.032 * parameters["lighting/softness"],
        "exposure": 2.0 ** parameters["lighting/exposure"],
        "shine": 2.0 * parameters["lighting/shine"],
        "sky": np.array([0.97, 1.0, 1.04]) * around,
        "ground": np.array([1.05, 1.0, 0.92]) * around * 0.43,
        "fill_x": np.full(3, parameters["light/side"]),
        "fill_z": np.full(3, 0.12),
    }
