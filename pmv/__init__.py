"""One portrait to a 3D head: 3D GAN inversion by pseudo-multi-view optimisation.

The names below are what most users of the library need; everything else is imported from its room (`pmv.geometry`,
`pmv.pictures`, `pmv.fitting`, `pmv.generators`, `pmv.portrait`, `pmv.files`, `pmv.pipeline`, `pmv.stages`, `pmv.apps`),
see docs/architecture.md. They are imported at their first use: ``import pmv`` alone loads neither PyTorch nor anything
else that is slow.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pmv.apps.head import Head, Portrait, load
    from pmv.apps.invert import Request, invert
    from pmv.errors import PmvError
    from pmv.generators import load_generator
    from pmv.geometry.camera import Camera
    from pmv.inversion import Inversion, load_inversion
    from pmv.pictures.images import read_image

__version__ = "0.1.0"

_HOMES = {
    "Camera": "pmv.geometry.camera",
    "Head": "pmv.apps.head",
    "Inversion": "pmv.inversion",
    "PmvError": "pmv.errors",
    "Portrait": "pmv.apps.head",
    "Request": "pmv.apps.invert",
    "invert": "pmv.apps.invert",
    "load": "pmv.apps.head",
    "load_generator": "pmv.generators",
    "load_inversion": "pmv.inversion",
    "read_image": "pmv.pictures.images",
}
__all__ = [
    "Camera",
    "Head",
    "Inversion",
    "PmvError",
    "Portrait",
    "Request",
    "invert",
    "load",
    "load_generator",
    "load_inversion",
    "read_image",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pmv' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def data_path(*parts: str) -> Path:
    """A path to shipped data, for instance ``data_path("assets", "generator", "heads.json")``.

    The path is not checked: the caller knows what a missing file means.
    """
    # in a checkout these folders are links to those beside the package, in a wheel they lie in it
    return Path(__file__).resolve().parent.joinpath(*parts)
