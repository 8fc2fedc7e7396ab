"""pmv's own checkpoint format: `NAME.safetensors` with the weights and `NAME.json` with the numbers that shape them;
and plain state dicts, for other people's code.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pmv.errors import CheckpointError, InputError, shown
from pmv.files.artifacts import atomic_path, check_header_length, file_hash, read_json, write_json
from pmv.files.reading import parse_json, read_text
from pmv.generators.eg3d import EG3DConfig, EG3DGenerator
from pmv.generators.families import FAMILIES, assemble, check_config, check_weights

FORMAT = 1
_OWN = ("format", "family", "config", "parameters", "sha256")
"""Entries of the JSON that are said of every checkpoint; the rest are notes."""
_MAX_DESCRIPTION = 4 << 20


def save_generator(
    generator: EG3DGenerator, path: Path, dtype: torch.dtype = torch.float32, notes: dict[str, Any] | None = None
) -> None:
    """Writes `path` (.safetensors) and the JSON beside it. Each is complete or as it was before; where the process
    dies between the two, `read_native` refuses what does not belong together.

    Args:
        dtype: floating type of the stored weights; float16 halves the file.
        notes: further entries of the JSON, e.g. the names of z's entries or the training command.

    Raises:
        InputError: the disk refuses it, or the JSON that lies there is something else's.
    """
    state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in generator.state_dict().items()}
    description_path = path.with_suffix(".json")
    _check_ours(description_path)
    if path.is_dir():
        raise InputError(f"{path}: cannot be written (is a folder); give another file")
    with _told(path), atomic_path(path) as temporary:
        save_file(state, temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())  # what takes long is done before the first of the two is replaced
        description = {
            "format": FORMAT,
            "family": generator.spec.family,
            "config": generator.config.to_json(),
            "parameters": sum(p.numel() for p in generator.parameters()),
            "sha256": file_hash(temporary),
            **(notes or {}),
        }
        write_json(description_path, description)


def save_state_dict(generator: EG3DGenerator, path: Path) -> None:
    """Writes a plain state dict, as `torch.save` does, with the official keys: what the official modules'
    `load_state_dict` takes. The numbers that shape the generator are not in it.

    Raises:
        InputError: the disk refuses it.
    """
    state = {name: tensor.detach().cpu().clone() for name, tensor in generator.state_dict().items()}
    with _told(path), atomic_path(path) as temporary, open(temporary, "wb") as file:
        torch.save(state, file)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What a disk refuses as an error that names the file."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); give another file") from error
    except (SafetensorError, RuntimeError) as error:  # what safetensors and torch.save make of an OSError
        why = shown(" ".join(str(error).split()))
        raise InputError(f"{path}: cannot be written ({why}); make room, or give another file") from error


def _check_ours(description_path: Path) -> None:
    """Whether the JSON that would be replaced is one that `save_generator` wrote."""
    if not description_path.exists():
        return
    try:
        ours = read_json(description_path).keys() >= {"format", "family"}
    except (InputError, AttributeError):
        ours = False
    if not ours:
        raise InputError(f"{description_path}: would be replaced, and is no checkpoint's; give another file")


def read_description(path: Path) -> tuple[dict[str, Any], EG3DConfig]:
    """What stands in the JSON beside the checkpoint `path`: all of it, and its configuration.

    Raises:
        CheckpointError: it is missing, damaged, of another version, or does not belong to the file.
    """
    description_path = path.with_suffix(".json")
    if not description_path.is_file():
        raise CheckpointError(f"{path}: {description_path.name} must lie beside it; it holds the generator's shape")
    try:
        description = parse_json(read_text(description_path, _MAX_DESCRIPTION), description_path)
        family, version = description["family"], description["format"]
        known = version == FORMAT and family in FAMILIES
        config = FAMILIES[family].config.from_json(description["config"]) if known else None
        sha256 = description.get("sha256")
    except InputError as error:
        raise CheckpointError(str(error)) from error
    except CheckpointError as error:
        raise CheckpointError(f"{description_path}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{description_path}: damaged ({type(error).__name__}: {shown(str(error))})") from error
    if config is None:
        raise CheckpointError(
            f"{description_path}: format {shown(version, 20)} of family {shown(family, 40)!r} is not known to this "
            f"version of pmv"
        )
    check_config(config, str(description_path))
    if sha256 is not None and sha256 != file_hash(path):
        raise CheckpointError(
            f"{path}: is not the file that {description_path.name} describes (another sha256); it is damaged, or one "
            f"of the two was replaced: convert or copy both again"
        )
    return description, config


def notes_of(path: Path) -> dict[str, Any]:
    """What the JSON beside a checkpoint says beyond the numbers that every checkpoint has."""
    return {key: value for key, value in read_description(path)[0].items() if key not in _OWN}


def read_native(path: Path) -> EG3DGenerator:
    """Reads what `save_generator` wrote.

    Raises:
        CheckpointError: either file missing, damaged, or not matching the other.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    _, config = read_description(path)
    try:
        check_header_length(path)
        state = load_file(path)
    except InputError as error:
        raise CheckpointError(str(error)) from error
    except Exception as error:  # SafetensorError, and what PyTorch makes of types that it does not have
        raise CheckpointError(f"{path}: damaged checkpoint ({type(error).__name__}: {shown(str(error))})") from error
    check_weights(state, str(path))
    return assemble(config, state, str(path))
