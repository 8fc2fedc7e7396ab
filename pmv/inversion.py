"""A finished head on disk, ``inversion.safetensors``: the one file that is needed to render it, beside the pretrained
generator.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict, get_type_hints

import torch
from torch import Tensor

from pmv.errors import CheckpointError, InputError, shown
from pmv.files.artifacts import check_seal, load_tensors, read_header, save_tensors, sealed, tensors_hash
from pmv.files.manifest import manifest
from pmv.files.reading import fitted, is_file
from pmv.generators import Generator, load_generator
from pmv.generators.settings import with_settings
from pmv.geometry.camera import Camera
from pmv.pipeline.config import GeneratorConfig
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
    else to tell; `unedited` what an edit changed, as it was before. A hash of all of it is added, by which a damaged
    file is known.
    """
    tensors = {"pivot_w": w, "camera/cam2world": camera.cam2world, "camera/intrinsics": camera.intrinsics}
    tensors |= {f"tuned_state/{k}": v for k, v in tuned_state.items()} | {f"noise/{k}": v for k, v in noise.items()}
    kinds = {"tuned_state": "dict", "pivot_w": "tensor", "noise": "dict", "camera": "camera"}
    if unedited is not None:
        tensors |= {f"unedited/{k}": v for k, v in unedited.items()}
        kinds["unedited"] = "dict"
    save_tensors(path, tensors, sealed({**header, "kinds": kinds}, tensors))


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
    header = inversion_header(path)
    check_seal(header, load_tensors(path), path)
    name = generator or header["generator"]
    if generator is None and name not in manifest() and not is_file(name):
        raise CheckpointError(f"{name}: the generator that {path} was made with is gone; name it with --generator")
    model = load_generator(name, device=device)
    if tensors_hash(model.state_dict()) != header["generator_hash"]:
        raise CheckpointError(f"{shown(name)}: not the generator that {path} was made with; give that one")
    values = load_fields(path, ["tuned_state", "pivot_w", "noise", "camera"], device)
    _check_values(values, model, path)
    try:
        model.load_tuned(values["tuned_state"])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    try:
        model = with_settings(model, header.get("config", {}).get("generator", {}))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return Inversion(model, values["pivot_w"], values["noise"], values["camera"])


_Settings = TypedDict("_Settings", get_type_hints(GeneratorConfig), total=False)  # pyright: ignore[reportArgumentType]


class _Config(TypedDict, total=False):
    generator: _Settings


class InversionHeader(TypedDict):
    """What the header of an inversion says.

    Attributes:
        generator: name or path of the pretrained generator; generator_hash: of its weights.
        kinds: field → kind, see `pmv.pipeline.packing`.
        config: the run's.
        attributes: what `pmv edit` changed, in deviations; edited_from: the run that it began with.
        encoded: whether it is what encoders say at once, and nothing was fitted.
    """

    generator: str
    generator_hash: str
    kinds: dict[str, str]
    config: NotRequired[_Config]
    attributes: NotRequired[dict[str, float]]
    edited_from: NotRequired[str]
    encoded: NotRequired[bool]


def inversion_header(path: Path) -> InversionHeader:
    """The header of an ``inversion.safetensors``, with all that stands in it.

    Raises:
        InputError: it is missing, damaged or no inversion.
    """
    header = read_header(path)
    if not {"generator", "generator_hash"} <= header.keys():
        raise InputError(f"{path}: not an inversion")
    fitted(header, InversionHeader, path)
    if not all(map(math.isfinite, header.get("attributes", {}).values())):
        raise InputError(f"{path}: damaged (it was edited by what is no number)")
    return header  # pyright: ignore[reportReturnType]


def _check_values(values: Mapping[str, Any], model: Generator, path: Path) -> None:
    """InputError unless a file's tensors are those of a head of this generator."""
    spec, w, noise, buffers = model.spec, values["pivot_w"], values["noise"], model.noise_buffers()
    if not isinstance(w, Tensor) or w.shape != (1, spec.num_ws, spec.w_dim):
        raise InputError(f"{path}: damaged (pivot_w is no latent of its generator)")
    if not isinstance(noise, dict) or not isinstance(values["tuned_state"], dict) or values["camera"] is None:
        raise InputError(f"{path}: damaged, or not an inversion")
    for name, value in noise.items():
        if (
            name not in buffers
            or value.shape[-2:] != buffers[name].shape[-2:]
            or value.numel() != buffers[name].numel()
        ):
            raise InputError(f"{path}: damaged ({shown(name)} is no noise of its generator)")
    tensors = {"pivot_w": w} | noise | values["tuned_state"]
    for name, value in tensors.items():
        if not value.is_floating_point() or not value.isfinite().all():
            raise InputError(f"{path}: damaged ({shown(name)} has values that are no numbers)")
