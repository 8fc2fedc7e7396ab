"""Options that several commands share, and how values are read."""

import math
from collections.abc import Callable, Mapping
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


def given(context: click.Context, *names: str) -> list[str]:
    """Those of the options that stand on the command line, as a user writes them: ["--frames"]."""
    sources = {name: context.get_parameter_source(name) for name in names}
    return [f"--{name.replace('_', '-')}" for name in names if sources[name] is ParameterSource.COMMANDLINE]


def as_settings(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Options that are shorthands of --set, as its texts: {"run.seed": 3} → "run.seed=3"; None = not given."""
    return tuple(f"{name}={value}" for name, value in values.items() if value is not None)
