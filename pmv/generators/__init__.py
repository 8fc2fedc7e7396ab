"""3D GANs behind one contract: `load_generator` gives one, `pmv.generators.base` says what it does."""

from pathlib import Path

import torch

from pmv import data_path
from pmv.errors import CheckpointError, shown
from pmv.files.manifest import cached, manifest
from pmv.files.reading import is_file
from pmv.generators.base import Generator, GeneratorSpec, Render
from pmv.generators.checkpoint import SUFFIXES, read_checkpoint
from pmv.generators.eg3d import EG3DConfig, EG3DGenerator
from pmv.generators.families import build_generator, warn_needless_like
from pmv.generators.native import read_native, save_generator
from pmv.generators.panohead import PanoHeadConfig, PanoHeadGenerator
from pmv.generators.settings import with_settings

__all__ = [
    "EMBEDDED",
    "EG3DConfig",
    "EG3DGenerator",
    "Generator",
    "GeneratorSpec",
    "PanoHeadConfig",
    "PanoHeadGenerator",
    "Render",
    "load_generator",
    "resolve_generator",
    "save_generator",
]

EMBEDDED = {"heads": data_path("assets", "generator", "heads.safetensors")}
"""Names of the generators that ship with pmv → their weights."""


def resolve_generator(name: str | Path) -> Path:
    """The file behind a generator's name ("heads" = the embedded one, or one of `pmv fetch --list`) or path.

    Raises:
        CheckpointError: neither a known name nor an existing file, or a name that must be fetched first.
        AssetsError: the fetched file is not the one that was pinned.
    """
    if str(name) in EMBEDDED:
        path = EMBEDDED[str(name)]
    elif str(name) in manifest():
        if manifest()[str(name)].kind != "generator":
            raise CheckpointError(f"{name}: not a generator; `pmv fetch --list` says what it is")
        path = cached(str(name))
        if path is None:
            raise CheckpointError(f"{name}: not here yet; run: pmv fetch {name}")
    else:
        path = Path(name)
    if not is_file(path):
        known = ", ".join(EMBEDDED)
        raise CheckpointError(
            f"{shown(str(name), 500)}: neither a generator's name ({known}, or see pmv fetch --list) nor a checkpoint "
            "file"
        )
    return path


def load_generator(
    name: str | Path,
    device: str | torch.device = "cpu",
    plane_convention: str | None = None,
    like: str | Path | None = None,
) -> EG3DGenerator:
    """A generator ready for use: evaluation mode, no gradients to its weights.

    Args:
        name: "heads" (the embedded generator), a name of the manifest that was fetched, pmv's `.safetensors`, or a file
            of the official kinds: `.pkl`, `.pt`, `.pth` (read, never executed; see `pmv.generators.checkpoint`).
        device: where its weights go.
        plane_convention: which axes its planes stand for, a key of `PLANE_AXES`, over what the checkpoint says.
        like: name or path of the generator that it was tuned from, for a file that holds weights alone; of any other
            the log says that it is not used.

    Raises:
        CheckpointError: unknown, damaged, of an unsupported kind, or hostile; the message names the file.
    """
    path = resolve_generator(name)
    if path.suffix == ".safetensors":
        if like is not None:
            warn_needless_like(str(path))
        generator = with_settings(read_native(path), {"plane_convention": plane_convention})
    elif path.suffix in SUFFIXES:
        config = load_generator(like).config if like is not None else None
        generator = build_generator(read_checkpoint(path), str(path), plane_convention, config)
    else:
        kinds = ", ".join((*SUFFIXES, ".safetensors"))
        raise CheckpointError(f"{path}: unknown kind of checkpoint {path.suffix!r}; give one of {kinds}")
    return generator.to(device)
