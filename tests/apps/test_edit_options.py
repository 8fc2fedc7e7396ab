"""Edits from the command line: what belongs to which, and what means nothing."""

from pathlib import Path
from typing import Any

import pytest

from pmv.apps.cli.edit_options import group_options
from pmv.errors import InputError
from pmv.pictures.overlay import Placement
from pmv.stages.edit_list import Edit


def test_options_belong_to_the_edit_before_them():
    options: list[tuple[str, Any]] = [
        ("overlay", "a.png"),
        ("at", "0.25, 0.5"),
        ("size", "0.2"),
        ("edit", Path("b.png")),
        ("paint_mask", "m.png"),
        ("overlay", "c.png"),
        ("follow_surface", True),
        ("size", "0.1"),
        ("at", "0.1 0.2"),
        ("rotate", "-30"),
        ("blend", "multiply"),
        ("opacity", "0.5"),
    ]
    first, second, third = group_options(options)
    assert first == Edit(Path("a.png"), None, Placement((0.25, 0.5), 0.2), "a.png")
    assert second == Edit(Path("b.png"), Path("m.png"), None, "b.png")
    assert third.placement == Placement((0.1, 0.2), 0.1, -30.0, "multiply", 0.5, True)


@pytest.mark.parametrize(
    "options, message",
    [
        ("at=0.5,0.5", "--at belongs to an --overlay"),
        ("paint_mask=m.png", "--paint-mask belongs to an --edit"),
        ("edit=a.png size=1", "--size belongs to an --overlay"),
        ("overlay=a.png at=.5,.5 size=.2 paint_mask=m.png", "--paint-mask belongs to an --edit"),
        ("overlay=a.png size=0.2", "a.png: lacks at; add --at 0.64,0.6"),
        ("overlay=a.png at=0.5,0.5", "a.png: lacks size"),
        ("overlay=a.png at=0.5 size=1", "give two numbers"),
        ("overlay=a.png at=0.5,here size=1", "give two numbers"),
        ("overlay=a.png at=0.5,nan size=1", "give two numbers"),
        ("overlay=a.png at=300,200 size=1", "a.png: the overlay's middle 300,200 lies outside"),
        ("overlay=a.png at=.5,.5 size=0", "a.png: the overlay's size is 0"),
        ("overlay=a.png at=.5,.5 size=-1", "size is -1"),
        ("overlay=a.png at=.5,.5 size=big", "size is 'big'; give a number"),
        ("overlay=a.png at=.5,.5 size=.2 size=.3", "--size is given twice"),
        ("overlay=a.png at=.5,.5 size=.2 rotate=left", "rotate is 'left'"),
        ("overlay=a.png at=.5,.5 size=.2 opacity=2", "opacity is 2"),
        ("overlay=a.png at=.5,.5 size=.2 blend=burn", "normal, multiply, screen, overlay"),
    ],
)
def test_what_means_nothing_is_refused(told_before, options: str, message: str):
    with pytest.raises(InputError) as caught:
        group_options(tuple(part.split("=")) for part in options.split())  # type: ignore[misc]
    assert message in str(caught.value) and "\n" not in str(caught.value)
    told_before(str(caught.value), options)
