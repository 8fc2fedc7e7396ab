"""The options of `pmv invert` that lay edits over the photo: they may be repeated, and their order counts."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pmv.apps.cli.options import FILE
from pmv.errors import InputError

if TYPE_CHECKING:
    from pmv.stages.edit_list import Edit

_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "edit": ("The photo, or the run's picture of it, retouched: what differs is taken over.", {"type": FILE}),
    "paint_mask": ("For the --edit before it: white is taken over, instead of what differs.", {"type": FILE}),
    "overlay": ("A picture, such as a logo, to lay on the portrait; --at and --size follow.", {"type": FILE}),
    "at": ("Its middle, in fractions of the aligned picture from the top left.", {"metavar": "X,Y"}),
    "size": ("Its width, as a fraction of the aligned picture's.", {"metavar": "S"}),
    "rotate": ("Degrees, clockwise. [default: 0]", {"metavar": "DEGREES"}),
    "blend": ("normal, multiply, screen or overlay. [default: normal]", {"metavar": "MODE"}),
    "opacity": ("Above 0, up to 1. [default: 1]", {"metavar": "O"}),
    "follow_surface": ("Draw it on the head's surface, so that it bends with it.", {"is_flag": True}),
}
"""What begins an edit, and what belongs to the edit before it: (help, how click reads it)."""

_KEY = "pmv.edits"


class EditCommand(click.Command):
    """Takes edits, which `given_edits` then gives."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, (text, kind) in _OPTIONS.items():
            option = click.Option([_flag(name)], multiple=True, help=text, expose_value=False, **kind)
            self.params.append(option)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # click sorts values by option; only its parser still knows the order in which they were given
        found, _, order = self.make_parser(ctx).parse_args(list(args))
        values = {name: iter(found.get(name) or ()) for name in _OPTIONS}
        ctx.meta[_KEY] = [(p.name, next(values[p.name])) for p in order if p.name in _OPTIONS]
        return super().parse_args(ctx, args)


def given_edits(context: click.Context) -> "list[Edit]":
    """The edits on the command line of an `EditCommand`, in their order; InputError as `group_options`."""
    return group_options(context.meta[_KEY])


def group_options(options: Iterable[tuple[str, Any]]) -> "list[Edit]":
    """Edits from the command line's options in their order: what belongs to an edit follows it.

    Args:
        options: (name, value): "edit" and "overlay" begin an edit; "paint_mask" belongs to the edit before it; "at",
            "size", "rotate", "blend", "opacity" and "follow_surface" to the overlay before them. Values are texts,
            paths or, of a flag, True.

    Raises:
        InputError: an option without its edit, given twice for one, missing, or that is no number.
    """
    from pmv.stages.edit_list import Edit, read_placement

    groups: list[tuple[str, Path, dict[str, Any]]] = []
    for name, value in options:
        if name in ("edit", "overlay"):
            groups.append((name, Path(value), {}))
            continue
        owner = "edit" if name == "paint_mask" else "overlay"
        if not groups or groups[-1][0] != owner:
            raise InputError(f"{_flag(name)} belongs to an --{owner}; write it after --{owner} FILE")
        if name in groups[-1][2]:
            raise InputError(f"--{owner} {groups[-1][1]}: {_flag(name)} is given twice; give it once")
        groups[-1][2][name] = value
    edits = []
    for kind, path, given in groups:
        if kind == "edit":
            edits.append(Edit(path, Path(mask) if (mask := given.get("paint_mask")) else None, name=path.name))
        else:
            edits.append(Edit(path, placement=read_placement(given, f"--overlay {path}"), name=path.name))
    return edits


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
