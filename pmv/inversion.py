"""A finished head on disk, ``inversion.safetensors``: the one file that is needed to render it, beside the pretrained
generator.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pmv.errors import CheckpointError, InputError
from pmv.files.artifacts import read_header, save_tensors, tensors_hash
from pmv.files.manifest import manifest
from pmv.generators import Generator, load_generator
from pmv.generators.settings import with_settings
from pmv.geometry.camera import Camera
from pmv.pipeline.packing import load_fields

FILE_NAME = "inversion.safetensors"


class Inversion(NamedTuple):
    """A finished inversion: ``generator.render(generator.planes(w, noise), w, camera)`` is the portrait.

    generator: with the tuned weights; w ``[1,num_ws,w_dim]``; noise: name → tensor; camera: of the input view.
    """

    generator: Generator
    w: Tensor
    noise: dict[str, Tensor]
    camera: Camera


def save_inversion(
    path: str | Path,
    tuned_state: Mapping[str, Tensor],
    w: Tensor,
    noise: Mapping[str, Tensor],
    camera: Camera,
    header: Mapping[str, Any],
    unedited: Mapping[str, Tensor] | None = None,
) -> None:
    """Write ``inversion.safetensors``; `header` holds ``generator`` (name or path), ``generator_hash`` and whatever
    else to tell; `unedited` what an edit changed, as it was before.
    """
    tensors = {"pivot_w": w, "camera/cam2world": camera.cam2world, "camera/intrinsics": camera.intrinsics}
    tensors |= {f"tuned_state/{k}": v for k, v in tuned_state.items()} | {f"noise/{k}": v for k, v in noise.items()}
    kinds = {"tuned_state": "dict", "pivot_w": "tensor", "noise": "dict", "camera": "camera"}
    if unedited is not None:
        tensors |= {f"unedited/{k}": v for k, v in unedited.items()}
        kinds["unedited"] = "dict"
    save_tensors(path, tensors, {**header, "kinds": kinds})


def load_inversion(path: str | Path, device: str | torch.device = "cpu", generator: str | None = None) -> Inversion:
    """Load a run's result, ready to render.

    Args:
        path: ``inversion.safetensors``, or the run folder that holds it.
        device: where to put everything.
        generator: name or path of the pretrained generator, where it is no longer where the run found it.

    Raises:
        InputError: no inversion there, or a damaged one.
        CheckpointError: the pretrained generator is missing, or is not the one that the run used.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
        if not path.exists():
            raise InputError(f"{path.parent}: holds no finished inversion; complete it with --resume {path.parent}")
    header = read_header(path)
    if not {"generator", "generator_hash"} <= header.keys():
        raise InputError(f"{path}: not an inversion")
    name = generator or header["generator"]
    if generator is None and name not in manifest() and not Path(name).exists():
        raise CheckpointError(f"{name}: the generator that {path} was made with is gone; name it with --generator")
    model = load_generator(name, device=device)
    if tensors_hash(model.state_dict()) != header["generator_hash"]:
        raise CheckpointError(f"{name}: not the generator that {path} was made with; give that one")
    values = load_fields(path, ["tuned_state", "pivot_w", "noise", "camera"], device)
    model.load_tuned(values["tuned_state"])
    model = with_settings(model, header.get("config", {}).get("generator", {}))
    return Inversion(model, values["pivot_w"], values["noise"], values["camera"])
