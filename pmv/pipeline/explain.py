"""What the settings mean and may be, told once: the ``Attributes:`` of the config dataclasses and the ranges of their
fields, repeated as comments in ``configs/base.yaml``.
"""

import inspect
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from pmv.pipeline.config import GeneratorConfig, RunConfig
from pmv.pipeline.table import Stage

_WIDTH = 120
_SECTION = re.compile(r"^(?:Attributes|Args):\n((?: {4}.*\n?|\n)+)", re.MULTILINE)
_ENTRY = re.compile(r"^ {4}(\w[\w, ]*):\s(.*(?:\n {8}.*)*)", re.MULTILINE)


def settings_docs(config: type) -> dict[tuple[str, ...], str]:
    """Names of settings that are explained together → the explanation, those of base classes first.

    Raises:
        ValueError: a setting is not explained, or something is that is none.
    """
    found: dict[tuple[str, ...], str] = {}
    for owner in reversed(config.__mro__):
        section = _SECTION.search(inspect.cleandoc(owner.__dict__.get("__doc__") or ""))
        for entry in _ENTRY.finditer(section[1]) if section else ():
            found[tuple(name.strip() for name in entry[1].split(","))] = " ".join(entry[2].split())
    explained, known = {name for names in found for name in names}, {field.name for field in fields(config)}
    if explained != known:
        raise ValueError(f"{config.__name__}: the documentation and the settings differ in {explained ^ known}")
    return found


def settings_ranges(config: type) -> dict[str, str]:
    """Name of a setting → what numbers it may have, as text; only of those that are numbers."""

    def told(hint: Any) -> list[str]:
        own = [str(limits) for limits in getattr(hint, "__metadata__", ())]
        return own + [text for inner in get_args(hint) for text in told(inner)]

    hints = get_type_hints(config, include_extras=True)
    return {name: texts[0] for name, hint in hints.items() if (texts := told(hint))}


def explained(text: str, table: Sequence[Stage]) -> str:
    """A complete config in YAML, its values and order as they are, its comments anew from the dataclasses.

    Args:
        text: blocks of ``  key: value``; what stands before the first is kept.
        table: the stages, whose blocks these are beside ``run`` and ``generator``.
    """
    configs: Mapping[str, Any] = {"run": RunConfig, "generator": GeneratorConfig, **{s.name: s.config for s in table}}
    lines: list[str] = []
    docs: dict[tuple[str, ...], str] = {}
    ranges: dict[str, str] = {}
    for line in text.splitlines():
        if block := re.match(r"(\w+):$", line):
            docs, ranges = settings_docs(configs[block[1]]), settings_ranges(configs[block[1]])
        elif docs and line.startswith("  #"):
            continue
        elif key := re.match(r"  (\w+):", line):
            names = next((names for names in docs if key[1] == names[0]), None)
            if names is not None:
                comment = re.sub(r"\bNone\b", "null", docs[names])
                comment += _range_note({name: ranges[name] for name in names if name in ranges})
                lines += textwrap.wrap(
                    comment,
                    _WIDTH,
                    initial_indent="  # ",
                    subsequent_indent="  # ",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
        lines.append(line)
    return "\n".join(lines) + "\n"


def _range_note(ranges: Mapping[str, str]) -> str:
    """The ranges of settings that are explained together, as the end of their comment."""
    if len(set(ranges.values())) <= 1:
        return "".join(f" ({text})" for text in list(ranges.values())[:1])
    return f" ({'; '.join(f'{name} {text}' for name, text in ranges.items())})"
