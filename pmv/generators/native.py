"""pmv's own checkpoint format: `NAME.safetensors` with the weights and `NAME.json` with the numbers that shape them;
and plain state dicts, for other people's code.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pmv.artifacts import atomic_path, file_hash, write_json
from pmv.errors import CheckpointError
from pmv.generators.eg3d import EG3DGenerator
from pmv.generators.families import FAMILIES, assemble

FORMAT = 1


def save_generator(
    generator: EG3DGenerator, path: Path, dtype: torch.dtype = torch.float32, notes: dict[str, Any] | None = None
) -> None:
    """Writes `path` (.safetensors) and the JSON beside it.

    Args:
        dtype: floating type of the stored weights; float16 halves the file.
        notes: further entries of the JSON, e.g. the names of z's entries or the training command.
    """
    state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in generator.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary)
    description = {
        "format": FORMAT,
        "family": generator.spec.family,
        "config": generator.config.to_json(),
        "parameters": sum(p.numel() for p in generator.parameters()),
        "sha256": file_hash(path),
        **(notes or {}),
    }
    write_json(path.with_suffix(".json"), description)


def save_state_dict(generator: EG3DGenerator, path: Path) -> None:
    """Writes a plain state dict, as `torch.save` does, with the official keys: what the official modules'
    `load_state_dict` takes. The numbers that shape the generator are not in it.
    """
    state = {name: tensor.detach().cpu().clone() for name, tensor in generator.state_dict().items()}
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def read_native(path: Path) -> EG3DGenerator:
    """Reads what `save_generator` wrote.

    Raises:
        CheckpointError: either file missing, damaged, or not matching the other.
    """
    description_path = path.with_suffix(".json")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    if not description_path.is_file():
        raise CheckpointError(f"{path}: {description_path.name} must lie beside it; it holds the generator's shape")
    try:
        description = json.loads(description_path.read_text())
        family, version = description["family"], description["format"]
        known = version == FORMAT and family in FAMILIES
        config = FAMILIES[family].config.from_json(description["config"]) if known else None
        state = load_file(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{path}: damaged checkpoint ({type(error).__name__}: {error})") from error
    if config is None:
        raise CheckpointError(
            f"{description_path}: format {version} of family {family!r} is not known to this version of pmv"
        )
    return assemble(config, state, str(path))
