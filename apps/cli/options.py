"""Options that several commands share, and how values are read."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

SETTINGS = {"help_option_names": ["-h", "--help"]}
"""Context settings of every command."""

FILE = click.Path(path_type=Path)


class Number(click.FloatRange):
    """A finite number in a range; click's own lets NaN through, and infinity where an end is open."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not math.isfinite(result := click.FLOAT.convert(value, param, ctx)):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return super().convert(result, param, ctx)


DEGREES = Number(-360, 360)
"""An angle in the horizontal plane."""
ELEVATION = Number(-89, 89)
"""An angle up or down, in degrees: at the pole no side of a picture is up."""

presets = click.option(
    "--preset", "presets", multiple=True, help="demo, fidelity, hfgi3d, or a .yaml file; may be repeated."
)
settings = click.option(
    "--set", "settings", multiple=True, metavar="STAGE.KEY=VALUE", help="Change one value of the config."
)
mask = click.option("--mask", type=FILE, help="Foreground mask, white = head. [default: alpha, or found]")
face = click.option(
    "--face", type=click.IntRange(1), help="Which face of the photo, numbered by size. [default: largest]"
)
like = click.option(
    "--like", metavar="CHECKPOINT", help="What it was tuned from, where CHECKPOINT holds weights alone."
)
moved_generator = click.option(
    "--generator", help="Its pretrained generator, where that is no longer where the run found it."
)


def device(default: str | None = "auto") -> Callable[..., Any]:
    """--device; a default of None where the config has one."""
    kinds = click.Choice(["auto", "cpu", "cuda"])
    return click.option("--device", type=kinds, default=default, help="Where to compute.")


def numbers(kind: Callable[[str], Any]) -> Callable[..., list[Any]]:
    """A callback that reads a list such as 0,1,2 of numbers of this kind."""

    def parse(context: click.Context, parameter: click.Parameter, text: str) -> list[Any]:
        try:
            found = [kind(part) for part in text.replace(",", " ").split()]
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is not a list such as 0,1,2") from error
        if not found or not all(math.isfinite(value) for value in found):
            raise click.BadParameter(f"{text!r} is not a list of finite numbers such as 0,1,2")
        return found

    return parse


def read_size(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """(width, height) of "512" or "640x360"."""
    if text is None:
        return None
    parts = text.lower().replace("×", "x").split("x")
    numbers = [int(part) if part.strip().isascii() and part.strip().isdigit() else 0 for part in parts]
    numbers = numbers * 2 if len(numbers) == 1 else numbers
    if len(numbers) != 2 or not all(numbers):
        raise click.BadParameter(f"{text!r} is no size; give pixels, as 512 or 640x360")
    return numbers[0], numbers[1]


def read_ground(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> str | tuple[int, int, int] | None:
    """Red, green, blue of a colour's name or number, or "transparent"."""
    if text is None or text == "transparent":
        return text
    from PIL import ImageColor

    try:
        colour = ImageColor.getrgb(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no colour; give one such as white or #204080, or transparent") from error
    if len(colour) != 3:
        raise click.BadParameter(f"{text!r} is half transparent; give a colour such as #204080, or transparent")
    return colour


def refuse_all(context: click.Context, names: Sequence[str], why: str) -> None:
    """UsageError where one of these parameters was given."""
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if parameter.name in names and given:
            raise click.UsageError(f"{max(parameter.opts, key=len)} says nothing of {why}; leave it out")


def as_settings(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Options that are shorthands of --set, as its texts: {"run.seed": 3} → "run.seed=3"; None = not given."""
    return tuple(f"{name}={value}" for name, value in values.items() if value is not None)


def refuse_others(context: click.Context, kind: str, chosen_by: str, applies: Mapping[str, Sequence[str]]) -> None:
    """UsageError where an option was given that says nothing of what was chosen.

    Args:
        kind: what was chosen; chosen_by: how, for the message: "--format".
        applies: parameter → the kinds that it is for.
    """
    for parameter in context.command.params:
        kinds = applies.get(parameter.name or "")
        given = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if kinds is not None and given and kind not in kinds:
            option = max(parameter.opts, key=len)
            raise click.UsageError(f"{option} is for {chosen_by} {', '.join(kinds)}; leave it out with {kind}")
