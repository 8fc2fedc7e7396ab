"""YAML of somebody else: plain values, whatever stands in it, or one `InputError`."""

from pathlib import Path
from typing import Any

import yaml

from pmv.errors import InputError, shown

MOST_YAML = 256 << 10
"""Bytes of a YAML file; Python's reader takes some ten microseconds for each."""
_MOST_MERGED = 10_000
"""Entries that YAML's merge keys (``<<``) may make: a few lines can ask for more than any memory holds."""


def parse_yaml(text: str, where: str | Path) -> Any:
    """One YAML document as plain values.

    The reader is the one in Python: its depth is bounded by Python's own, which that of the C library is not. Values
    may share their parts (anchors and aliases), so nobody may walk through all of a container that was not fitted to a
    type before.

    Raises:
        InputError: it cannot be read; the message begins with `where`.
    """
    try:
        return yaml.load(text, _Loader)
    except RecursionError as error:
        raise InputError(f"{where}: not readable as YAML (nested too deeply)") from error
    # besides YAMLError the constructors raise what Python's own do: ValueError of dates and long numbers,
    # AttributeError of "!!timestamp foo", OverflowError, TypeError of keys
    except Exception as error:
        why = shown(" ".join(str(error).split()), 150)
        raise InputError(f"{where}: not readable as YAML ({type(error).__name__}: {why})") from error


class _Loader(yaml.SafeLoader):
    """Plain values only, and a bound on what merge keys make."""

    merged = 0

    def flatten_mapping(self, node: Any) -> None:
        for key, value in node.value:
            merges = key.tag == "tag:yaml.org,2002:merge" and isinstance(value, yaml.SequenceNode)
            if merges and len(value.value) > 100:
                raise yaml.YAMLError("more merged entries than any config has")
        super().flatten_mapping(node)
        self.merged += len(node.value)
        if self.merged > _MOST_MERGED:
            raise yaml.YAMLError("more merged entries than any config has")
