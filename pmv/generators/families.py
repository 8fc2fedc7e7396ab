"""The families of generators, and how a checkpoint finds its own: the one place that knows them all."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import UnionType
from typing import Any, Protocol, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from pmv.errors import CheckpointError, PmvError, shown
from pmv.files.manifest import recognise
from pmv.generators.base import convention_of
from pmv.generators.eg3d import EG3DConfig, EG3DGenerator
from pmv.generators.panohead import PanoHeadConfig, PanoHeadGenerator
from pmv.generators.probe import probe_planes, warn_if_misread
from pmv.generators.settings import with_settings
from pmv.generators.stylegan import resample_filter
from pmv.generators.superresolution import HEADS, SuperResolutionHead
from pmv.geometry.camera import LABEL

log = logging.getLogger("pmv")


@dataclass(frozen=True)
class Family:
    """Classes of one family.

    Attributes:
        mark: start of a state-dict key that only this family has; "" matches what no other family claims.
    """

    config: type[EG3DConfig]
    generator: type[EG3DGenerator]
    mark: str


FAMILIES = {
    "panohead": Family(PanoHeadConfig, PanoHeadGenerator, "t_mapping."),
    "eg3d": Family(EG3DConfig, EG3DGenerator, ""),
}
"""Family name → its classes; the first whose mark a state dict bears is its family."""


class Checkpoint(Protocol):
    """What is built from: see `pmv.generators.checkpoint.OfficialCheckpoint`."""

    @property
    def state(self) -> dict[str, Tensor]: ...

    @property
    def init_kwargs(self) -> dict[str, Any] | None: ...

    @property
    def neural_resolution(self) -> int | None: ...


def family_of(state: Mapping[str, object]) -> str:
    """The family that a state dict's keys belong to."""
    return next(name for name, family in FAMILIES.items() if any(key.startswith(family.mark) for key in state))


def build_generator(
    checkpoint: Checkpoint, source: str, plane_convention: str | None = None, like: EG3DConfig | None = None
) -> EG3DGenerator:
    """A generator of the family that an official checkpoint is of, with its weights.

    The planes are read by the convention that the checkpoint's renderer kept (`plane_axes`), else by the manifest's,
    else by that of `like`. Where none of them says, the weights are probed (`pmv.generators.probe`), and where these do
    not tell either, the family's own is taken. A guess is said in the log.

    Args:
        checkpoint: what the reader found.
        source: the file, for messages, and for the manifest to recognise it by.
        plane_convention: of the planes, over all of these.
        like: for a checkpoint that holds weights alone: the configuration of the generator that it was tuned from;
            None = that of the family's published model, if its shape fits.

    Raises:
        CheckpointError: of no family, of other numbers than it says, or asking for what is not supported.
        InputError: `plane_convention` is none that there is.
    """
    if checkpoint.init_kwargs is None:
        _check_names(checkpoint.state, source)
    name = family_of(checkpoint.state)
    family = FAMILIES[name]
    if checkpoint.init_kwargs is not None:
        config = config_of(checkpoint, source)
        if like is not None:
            warn_needless_like(source)
    elif like is None:
        config = _published(family, checkpoint.state, source)
    elif type(like) is not family.config:
        raise CheckpointError(f"{source}: of the family {name}, unlike the generator it is said to be tuned from")
    else:
        config = like
    said = _said_convention(checkpoint, source)
    check_weights(checkpoint.state, source)
    try:
        generator = assemble(replace(config, plane_convention=said) if said else config, checkpoint.state, source)
    except CheckpointError as error:
        if checkpoint.init_kwargs is not None or like is None:
            raise
        raise CheckpointError(f"{error}; was it tuned from another generator than --like says?") from error
    if plane_convention is not None:
        if said is None and plane_convention == generator.spec.plane_convention:
            warn_if_misread(generator, plane_convention)  # nothing but the weights can object
        return with_settings(generator, {"plane_convention": plane_convention})
    if said is None and checkpoint.init_kwargs is not None:
        return _probed(generator, source)
    return generator


def warn_needless_like(source: str) -> None:
    """Says in the log that a checkpoint needs no other to tell its configuration."""
    log.warning("%s: says itself how its generator was built; --like is not needed, and not used", source)


def config_of(checkpoint: Checkpoint, source: str) -> EG3DConfig:
    """What a checkpoint's constructor arguments say of its generator.

    Raises:
        CheckpointError: it says nothing, or asks for what its family does not do or no generator has.
    """
    name = family_of(checkpoint.state)
    try:
        config = FAMILIES[name].config.from_init_kwargs(checkpoint.init_kwargs or {}, checkpoint.neural_resolution)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        why = shown(" ".join(str(error).split()))
        raise CheckpointError(f"{source}: not of the family {name} ({type(error).__name__}: {why})") from error
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    check_config(config, source)
    return config


def _published(family: Family, state: Mapping[str, Tensor], source: str) -> EG3DConfig:
    """The configuration of the family's best-known published model, if weights that come alone have its shape."""
    config = family.config()
    with torch.device("meta"):
        expected = family.generator(config).state_dict()
    if {key: t.shape for key, t in expected.items()} != {key: t.shape for key, t in state.items()}:
        raise CheckpointError(
            f"{source}: holds weights alone, and not of a shape that is known; say which generator it was tuned from: "
            f"pmv convert {source} OUT.safetensors --like NETWORK.pkl, and use OUT.safetensors"
        )
    log.warning(
        "%s: holds weights alone; cameras and depths of the published %s model are taken, which has the same shape; "
        "where it was tuned from another, convert it with --like",
        source,
        "PanoHead" if family.config is PanoHeadConfig else "EG3D FFHQ 512-128",
    )
    return config


def _said_convention(checkpoint: Checkpoint, source: str) -> str | None:
    """The plane convention that the checkpoint, or else the manifest, says."""
    # files that hold weights alone have no renderer
    axes = getattr(checkpoint, "plane_axes", None)
    if axes is not None:
        try:
            return convention_of(axes)
        except CheckpointError as error:
            raise CheckpointError(f"{source}: {error}") from error
    try:
        entry = recognise(source)
    except PmvError:  # a damaged cache is for those who ask for what lies in it
        return None
    return entry.plane_convention if entry is not None else None


def _probed(generator: EG3DGenerator, source: str) -> EG3DGenerator:
    """The generator with the plane convention that its weights speak for, where they do."""
    own, best = generator.spec.plane_convention, probe_planes(generator).convention
    if best is None:
        log.warning(
            "%s: nothing says which axes its planes stand for; they are read as %r, as is usual for its family",
            source,
            own,
        )
        return generator
    if best != own:
        log.warning("%s: nothing says which axes its planes stand for; only read as %r it draws a head", source, best)
    return with_settings(generator, {"plane_convention": best})


_LIMITS = {
    "z_dim": (1, 65536),
    "condition_scale": (0.0, 1e3),
    "w_dim": (1, 65536),
    "mapping_layers": (1, 64),
    "plane_resolution": (4, 4096),
    "plane_channels": (1, 4096),
    "channel_base": (4, 1 << 22),
    "channel_max": (1, 65536),
    "decoder_hidden": (1, 65536),
    "coarse_samples": (1, 512),
    "fine_samples": (0, 512),
    "neural_resolution": (1, 512),
    "resolution": (4, 4096),
    "background": (-1e3, 1e3),
    "conv_clamp": (1e-3, 1e9),
    "head_conv_clamp": (1e-3, 1e9),
    "decoder_lr_multiplier": (1e-6, 1e3),
    "grid_depth": (1, 256),
    "input_resolution": (4, 4096),
    "channels": (1, 65536),
    "pivot": (-1e6, 1e6),
    "box": (1e-6, 1e6),
    "radius": (1e-6, 1e6),
    "focal": (1e-6, 1e6),
    "near": (0.0, 1e6),
    "far": (1e-6, 1e6),
}
"""Number of a generator → the least and the largest that is neither nonsense nor an attempt to keep a machine busy."""
_MOST_SAMPLES = 1 << 24
"""Samples of a view, all rays together; the largest official models take two million."""
_MOST_FEATURES = 1 << 28
"""Numbers of one latent's planes, or of the widest layer of the super-resolution: 1 GiB. PanoHead's planes have 19
million, the official heads' layers 34 million."""


def check_config(config: EG3DConfig, source: str) -> None:
    """Whether the numbers that a file gives can be a generator's.

    Raises:
        CheckpointError: one is of another type, not finite, or beyond what is reasonable.
    """
    for holder in (config, config.head) if isinstance(config.head, SuperResolutionHead) else (config,):
        hints = get_type_hints(type(holder))
        for field in fields(holder):
            value = getattr(holder, field.name)
            least, most = _LIMITS.get(field.name, (-math.inf, math.inf))
            numbers = [n for n in (value if isinstance(value, tuple) else [value]) if isinstance(n, int | float)]
            if not _is_of(value, hints[field.name]) or not all(least <= number <= most for number in numbers):
                raise CheckpointError(f"{source}: {field.name} = {shown(value, 40)} is that of no generator")
    if isinstance(config.head, str) and config.head not in HEADS:
        raise CheckpointError(f"{source}: head = {shown(config.head, 40)} is that of no generator")
    if config.c_dim not in (0, LABEL):
        raise CheckpointError(
            f"{source}: c_dim = {config.c_dim} is that of no generator; a camera has {LABEL} numbers, and 0 is without"
        )
    if config.neural_resolution**2 * (config.coarse_samples + config.fine_samples) > _MOST_SAMPLES:
        raise CheckpointError(
            f"{source}: {config.neural_resolution}² rays of so many samples are those of no generator"
        )
    head = config.super_resolution
    widest = max(head.channels, default=0) * head.output_resolution**2
    if math.prod(config.plane_shape) > _MOST_FEATURES or widest > _MOST_FEATURES:
        raise CheckpointError(f"{source}: planes or pictures of this size are those of no generator")
    side = config.plane_resolution
    if side & (side - 1) or config.channel_base < side:
        raise CheckpointError(
            f"{source}: planes of {side}² with a channel_base of {config.channel_base} are those of no generator"
        )
    if config.near is not None and config.far is not None and config.near >= config.far:
        raise CheckpointError(f"{source}: near = {config.near:g} is not before far = {config.far:g}")


def _is_of(value: object, hint: Any) -> bool:
    """Whether a value read from a file is of the type that a configuration declares."""
    if isinstance(hint, UnionType):
        return any(_is_of(value, one) for one in get_args(hint))
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_is_of, value, kinds))
    if hint is float:
        return type(value) in (int, float) and abs(value) <= 1e30  # pyright: ignore[reportArgumentType] # nor NaN
    if hint is int:
        return type(value) is int and abs(value) <= 1 << 22
    return type(value) is hint


def assemble(config: EG3DConfig, state: Mapping[str, Tensor], source: str) -> EG3DGenerator:
    """A generator with the weights of a complete state dict.

    Args:
        source: the file, for messages.

    Raises:
        CheckpointError: keys or shapes do not fit the configuration, or the resampling filter is not StyleGAN2's.
    """
    name, family = next((name, family) for name, family in FAMILIES.items() if family.config is type(config))
    check_config(config, source)
    with torch.device("meta"):  # the random initialisation would be thrown away
        try:
            generator = family.generator(config)
        except CheckpointError as error:
            raise CheckpointError(f"{source}: {error}") from error
        except (RuntimeError, ValueError, LookupError, TypeError, ArithmeticError) as error:
            raise CheckpointError(
                f"{source}: its numbers are those of no generator ({type(error).__name__})"
            ) from error
    expected = generator.state_dict()
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or extra:
        which = f"lacks {missing[0]}" if missing else f"has an unknown tensor {shown(extra[0])}"
        raise CheckpointError(
            f"{source}: not a checkpoint of the family {name} and this shape: it {which} "
            f"({len(missing)} missing, {len(extra)} unknown)"
        )
    for key, tensor in state.items():
        if tensor.is_complex():
            raise CheckpointError(f"{source}: {shown(key)} is of complex numbers, which no generator has")
        if tensor.shape != expected[key].shape:
            raise CheckpointError(
                f"{source}: {key} has shape {tuple(tensor.shape)}, expected {tuple(expected[key].shape)}"
            )
        if key.endswith("resample_filter") and not torch.allclose(tensor.float(), resample_filter(), atol=1e-3):
            raise CheckpointError(f"{source}: {key} is not the (1,3,3,1) filter that this implementation has built in")
    generator.load_state_dict({key: tensor.float().contiguous() for key, tensor in state.items()}, assign=True)
    return generator.eval().requires_grad_(False)


def _check_names(state: Mapping[str, Tensor], source: str) -> None:
    """CheckpointError where the tensors are called as those of no generator: advice on shapes would lead astray."""
    if any(key.startswith("backbone.") for key in state):
        return
    heads = sorted({key.split(".")[0] for key in state})
    some = ", ".join(shown(head, 40) for head in heads[:3]) + (" …" if len(heads) > 3 else "")
    raise CheckpointError(
        f"{source}: holds no generator: the names of its tensors begin with {some}, those of a generator with "
        "backbone, superresolution and decoder; save the generator's own state dict"
    )


def check_weights(state: Mapping[str, Tensor], source: str) -> None:
    """Whether all weights are finite real numbers in single precision.

    Raises:
        CheckpointError: one is not; the message names the tensor.
    """
    for key, tensor in state.items():
        if not tensor.is_floating_point():
            raise CheckpointError(f"{source}: {shown(key)} is of type {tensor.dtype}, as no generator's weights are")
        wrong = tensor.numel() - int(torch.isfinite(tensor.float()).sum())
        if wrong:
            raise CheckpointError(
                f"{source}: {shown(key)} has {wrong} of {tensor.numel()} numbers that are NaN or infinite: its "
                "training broke down, or it is damaged; take an earlier one"
            )
