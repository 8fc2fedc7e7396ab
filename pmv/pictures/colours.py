"""Colours of a picture file brought to sRGB: from an ICC profile, from a gamma and primaries (PNG's gAMA and cHRM), or
from the code points of ITU-T H.273 (PNG's cICP, AVIF's and HEIF's nclx).

Pictures of 8 bits with a profile go through LittleCMS, as Pillow has it. That knows 8 bits only: with 16 the profile's
matrix and curve are read off it, where it has them, and applied to all bits.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageCms

Curve = Callable[[np.ndarray], np.ndarray]
"""Coded values in [0,1] → linear light."""

_ROWS = 1 << 20  # values that are converted at a time
_SAME = 2  # levels of 255 by which a profile may differ from sRGB and be taken for it
_FITS = 1.5  # levels of 255 within which a curve is one that is known
_STEEP = 6  # levels of 255 between neighbouring values of 8 bits from which shadows would come out in bands

PRIMARIES = {
    "srgb": ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), (0.3127, 0.3290)),
    "adobe": ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), (0.3127, 0.3290)),
    "p3": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.3127, 0.3290)),
    "2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), (0.3127, 0.3290)),
}
"""Chromaticities (x, y) of red, green, blue and white."""


class UnknownColours(ValueError):
    """Colours that cannot be brought to sRGB; the message says what they are."""


def srgb_curve(coded: np.ndarray) -> np.ndarray:
    """sRGB values in [0,1] → linear light (IEC 61966-2-1)."""
    return np.where(coded <= 0.04045, coded / 12.92, ((np.maximum(coded, 0) + 0.055) / 1.055) ** 2.4)


def _coded(linear: np.ndarray) -> np.ndarray:
    """The inverse of `srgb_curve`."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def power_curve(exponent: float) -> Curve:
    """coded ** exponent."""
    return lambda coded: np.maximum(coded, 0) ** exponent


@dataclass(frozen=True)
class Space:
    """A space of colours with one curve and three primaries.

    Attributes:
        curve: of each channel.
        to_srgb: [3,3], its linear light → that of sRGB.
    """

    curve: Curve
    to_srgb: np.ndarray

    @classmethod
    def of(cls, curve: Curve, primaries: tuple[tuple[float, float], ...]) -> "Space":
        """From chromaticities (x, y) of red, green, blue and white; white becomes white (Bradford)."""
        source, target = _to_xyz(primaries), _to_xyz(PRIMARIES["srgb"])
        cone = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
        gain = (cone @ target.sum(1)) / (cone @ source.sum(1))
        adapted = np.linalg.inv(cone) @ np.diag(gain) @ cone @ source
        return cls(curve, np.linalg.inv(target) @ adapted)

    def convert(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 or uint16 [H,W] or [H,W,3] in this space, in sRGB."""
        top = np.iinfo(pixels.dtype).max
        table = np.asarray(self.curve(np.arange(top + 1) / top), np.float32)
        matrix = self.to_srgb.astype(np.float32)
        result = np.empty_like(pixels)
        step = max(1, _ROWS // max(1, pixels[0].size))
        for k in range(0, len(pixels), step):
            linear = table[pixels[k : k + step]]
            linear = linear @ matrix.T if pixels.ndim == 3 else linear
            result[k : k + step] = (_coded(linear) * top).round()
        return result


def _to_xyz(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """[3,3]: linear light of these primaries → CIE XYZ, white with Y = 1."""
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in primaries]).T
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])


def space_of_gamma(gamma: float, chromaticity: tuple[float, ...] | None) -> Space | None:
    """Of PNG's gAMA and cHRM; None = sRGB, or so near to it that sRGB is what was meant.

    Args:
        gamma: the exponent with which linear light was coded: 0.45455 for an ordinary picture.
        chromaticity: x and y of white, red, green and blue.

    Raises:
        UnknownColours: no picture can be of these.
    """
    if not 0.05 < gamma < 5:
        raise UnknownColours(f"a gamma of {gamma:g}")
    primaries = PRIMARIES["srgb"]
    if chromaticity is not None:
        white, *colours = ((chromaticity[k], chromaticity[k + 1]) for k in range(0, 8, 2))
        given = (*colours, white)
        if not all(0 <= x <= 1 and 0.001 < y <= 1 for x, y in given):
            raise UnknownColours("primaries that no light has")
        if np.abs(np.array(given) - primaries).max() > 0.01:
            primaries = given
    if abs(gamma * 2.2 - 1) < 0.05 and primaries is PRIMARIES["srgb"]:
        return None
    try:
        return Space.of(power_curve(1 / gamma), primaries)
    except np.linalg.LinAlgError as error:
        raise UnknownColours("primaries that lie on a line") from error


def space_of_codes(primaries: int, transfer: int) -> Space | None:
    """Of the code points of ITU-T H.273; None = sRGB.

    The curves of television are taken for sRGB's, as browsers take them.

    Raises:
        UnknownColours: high dynamic range, or primaries that are not known.
    """
    if transfer in (16, 18):
        raise UnknownColours("high dynamic range (PQ or HLG)")
    curve = {4: power_curve(2.2), 5: power_curve(2.8), 8: power_curve(1.0)}.get(transfer, srgb_curve)
    if transfer not in (1, 2, 4, 5, 6, 8, 13, 14, 15):
        raise UnknownColours(f"the transfer curve {transfer} of H.273")
    name = {1: "srgb", 2: "srgb", 5: "srgb", 6: "srgb", 7: "srgb", 9: "2020", 12: "p3"}.get(primaries)
    if name is None:
        raise UnknownColours(f"the primaries {primaries} of H.273")
    return None if name == "srgb" and curve is srgb_curve else Space.of(curve, PRIMARIES[name])


def adobe_rgb() -> Space:
    """Adobe RGB (1998)."""
    return Space.of(power_curve(563 / 256), PRIMARIES["adobe"])


class Profile:
    """An ICC profile.

    Raises:
        UnknownColours: it is damaged.
    """

    def __init__(self, content: bytes):
        try:
            self._profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
            self._core: Any = self._profile.profile
            self.channels = self._core.xcolor_space.strip()
            """"RGB", "GRAY", "CMYK" …"""
        except (ImageCms.PyCMSError, OSError, ValueError, AttributeError) as error:
            raise UnknownColours("a damaged colour profile") from error
        self._mode = {"GRAY": "L", "CMYK": "CMYK"}.get(self.channels, "RGB")
        self._transform: ImageCms.ImageCmsTransform | None = None

    def fits(self, channels: str) -> bool:
        """Whether it can be of a picture with these channels: RGB may stand for grey."""
        return self.channels == channels or (self.channels, channels) == ("RGB", "GRAY")

    def is_srgb(self) -> bool:
        """Whether it changes no colour that could be seen."""
        if self.channels != "RGB":
            return False
        steps = np.linspace(0, 255, 9).round().astype(np.uint8)
        grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(27, 27, 3)
        change = np.asarray(self.convert(Image.fromarray(grid))).astype(int) - grid
        return bool(np.abs(change).max() <= _SAME)

    def convert(self, image: Image.Image) -> Image.Image:
        """A picture of 8 bits, of a mode with the profile's channels or one that converts to them, as "RGB" in sRGB.

        Raises:
            UnknownColours: the profile can do no such thing.
        """
        try:
            if self._transform is None:
                target = ImageCms.createProfile("sRGB")
                # what LittleCMS makes of a grey curve to be quick is ten levels off in the shadows
                flags = ImageCms.Flags.NOOPTIMIZE if self.channels == "GRAY" else ImageCms.Flags.NONE
                self._transform = ImageCms.buildTransform(self._profile, target, self._mode, "RGB", flags=flags)
            image = image if image.mode == self._mode else image.convert(self._mode)
            converted = ImageCms.applyTransform(image, self._transform)
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            raise UnknownColours(f"a colour profile of {self.channels} that cannot be applied") from error
        assert converted is not None
        return converted

    def space(self) -> Space | None:
        """The matrix and the curve, where they are all that the profile is, and its three curves are one."""
        if self.channels == "GRAY":
            matrix, ramp = np.eye(3), Image.fromarray(np.arange(256, dtype=np.uint8)[None])
        elif self.channels == "RGB" and self._core.is_matrix_shaper and self._core.red_colorant:
            matrix = np.linalg.inv(_colorants(ImageCms.createProfile("sRGB"))) @ _colorants(self._core)
            grey = np.arange(256, dtype=np.uint8)[None, :, None]
            ramp = Image.fromarray(np.ascontiguousarray(grey.repeat(3, 2)))
        else:
            return None
        wanted = np.asarray(self.convert(ramp))[0].astype(np.float64)  # [256,3]
        values = np.arange(256) / 255
        exponents = (1.0, 1.8, 2.0, 2.2, 563 / 256, 2.4, 2.6)
        curves: list[Curve] = [srgb_curve, *(power_curve(exponent) for exponent in exponents)]
        errors = [np.abs(255 * _coded(curve(values))[:, None] - wanted).max() for curve in curves]
        best = int(np.argmin(errors))
        return Space(curves[best], matrix) if errors[best] <= _FITS else None

    def is_steep(self) -> bool:
        """Whether 8 bits are too few for its shadows."""
        grey = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
        ramp = grey if self._mode == "L" else Image.merge(self._mode, [grey] * len(self._mode))
        return bool(np.abs(np.diff(np.asarray(self.convert(ramp))[0].astype(int), axis=0)).max() > _STEEP)


def _colorants(profile: Any) -> np.ndarray:
    """[3,3]: linear light → CIE XYZ under D50, as a profile's red, green and blue colorants have it."""
    return np.array([c[0] for c in (profile.red_colorant, profile.green_colorant, profile.blue_colorant)]).T
