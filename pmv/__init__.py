"""Tensors and files: cameras, generators, warping, losses, artifacts. Imports nothing from `stages` or above."""

from pathlib import Path

__version__ = "0.1.0"

# Both an editable install (the checkout) and a wheel put `assets` and `configs` beside this package.
_ROOT = Path(__file__).resolve().parent.parent


def data_path(*parts: str) -> Path:
    """A path to shipped data, for instance ``data_path("assets", "generator", "heads.json")``.

    The path is not checked: the caller knows what a missing file means.
    """
    return _ROOT.joinpath(*parts)
