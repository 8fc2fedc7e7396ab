"""The published dual encoder's files: `visible_net.pt`, and beside it `occluded_net.pt`, if there is one, and
`latent_avg.npy`. Read by the interpreter of `pmv.generators.pickles`; nothing in them is executed.

Their names within are taken from TriPlaneNet's published code. A prefix before them, and other networks beside them,
such as the generator's own weights, do not matter.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pmv.encoders.dual import DualEncoder
from pmv.encoders.official import OfficialEncoder, OfficialShape
from pmv.errors import CheckpointError, InputError, shown
from pmv.files.reading import open_regular
from pmv.generators.base import Generator
from pmv.generators.checkpoint import read_parts

SUFFIXES = (".pt", ".pth")
OCCLUDED, AVERAGE = "occluded_net.pt", "latent_avg.npy"
_STYLES, _PLANES = "styles.0.linear.weight", "up1.conv.double_conv.1.weight"
"""Tensors by which the two networks of a half are known."""
_MOST_AVERAGE = 1 << 20
_LIMITS = {"num_ws": (1, 64), "w_dim": (1, 4096), "plane_channels": (3, 4096), "width": (4, 256)}


def official_files(path: Path) -> list[Path]:
    """All files that belong to the one of the visible encoder."""
    return [path, *(other for name in (OCCLUDED, AVERAGE) if (other := path.parent / name).is_file() and other != path)]


def load_official(path: Path, generator: Generator) -> DualEncoder:
    """The published encoders, ready for use, on the generator's device.

    Args:
        path: of the visible one.

    Raises:
        InputError: a file is missing. CheckpointError: one is damaged or hostile, holds something else, or is of
            another generator.
    """
    average = path.parent / AVERAGE
    if not average.is_file():
        raise InputError(f"{path}: its mean latent is missing; put {AVERAGE} of the same authors beside it")
    device = generator.mean_w(1).device
    parts = [file for file in official_files(path) if file != average]
    halves = [_half(part, average, generator).to(device) for part in parts]
    if len({half.shape for half in halves}) > 1:
        raise CheckpointError(f"{path}: {OCCLUDED} beside it holds an encoder of another size; keep those of one model")
    return DualEncoder(*halves).eval().requires_grad_(False)


def _half(path: Path, average: Path, generator: Generator) -> OfficialEncoder:
    styles, planes = read_parts(path, {"styles": _STYLES, "planes": _PLANES}, "encoder of TriPlaneNet's kind")
    try:
        shape = _shape(styles, planes)
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"{path}: lacks {shown(str(error), 100)}, which such an encoder has") from error
    _check_fits(shape, generator, path)
    with torch.device("meta"):  # the random initialisation would be thrown away
        half = OfficialEncoder(shape, torch.zeros(shape.num_ws, shape.w_dim))
    for network, state in ((half.psp_encoder, styles), (half.triplanenet_encoder, planes)):
        _fill(network, state, path)
    half.latent_average = read_average(average, shape)
    return half


def _shape(styles: Mapping[str, Tensor], planes: Mapping[str, Tensor]) -> OfficialShape:
    rows = {name.split(".")[1] for name in styles if name.startswith("styles.")}
    width, channels = styles["input_layer.0.weight"].shape[0], planes["final_head_two.0.weight"].shape[0]
    shuffled = planes["up2.conv.double_conv.1.weight"].shape[1] < 8 * width
    return OfficialShape(len(rows), styles[_STYLES].shape[0], channels, width, shuffled)


def _check_fits(shape: OfficialShape, generator: Generator, path: Path) -> None:
    for name, (least, most) in _LIMITS.items():
        if not least <= getattr(shape, name) <= most:
            raise CheckpointError(f"{path}: {name} = {getattr(shape, name)} is that of no encoder")
    spec, planes = generator.spec, generator.planes(generator.mean_w(1))
    channels, side = planes[0].flatten(0, -3).shape[0], planes.shape[-1]
    if (shape.num_ws, shape.w_dim, shape.plane_channels) != (spec.num_ws, spec.w_dim, channels):
        raise CheckpointError(
            f"{path}: these encoders say {shape.num_ws} rows of {shape.w_dim} numbers and planes of "
            f"{shape.plane_channels} channels; this generator has {spec.num_ws} of {spec.w_dim} and {channels}"
        )
    if side % 16:
        raise CheckpointError(f"{path}: these encoders want planes of a multiple of 16 texels a side, not of {side}")


def _fill(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Gives a network on no device its weights."""
    expected = network.state_dict()
    counters = {name: torch.zeros((), dtype=torch.long) for name in expected if name.endswith("num_batches_tracked")}
    weights = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    missing = sorted(expected.keys() - counters.keys() - weights.keys())
    unknown = sorted(weights.keys() - expected.keys())
    if missing or unknown:
        which = f"lacks {missing[0]}" if missing else f"has an unknown tensor {shown(unknown[0])}"
        raise CheckpointError(f"{path}: not an encoder of TriPlaneNet's kind: it {which}")
    for name, value in weights.items():
        if value.shape != expected[name].shape:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(value.shape)}, expected {tuple(expected[name].shape)}"
            )
        if value.is_complex() or not value.isfinite().all():
            raise CheckpointError(f"{path}: {name} has values that are no numbers")
    network.load_state_dict(
        {name: value.float().contiguous() for name, value in weights.items()} | counters, assign=True
    )


def read_average(path: Path, shape: OfficialShape) -> Tensor:
    """The mean latent [num_ws,w_dim] of a `.npy` that holds one row, or all.

    Raises:
        InputError: it is missing or of another kind.
    """
    with open_regular(path, _MOST_AVERAGE):
        try:
            # mapped: a header that promises more than the file holds is refused instead of obeyed
            array = np.lib.format.open_memmap(path, mode="r")
        except (ValueError, OSError, EOFError, OverflowError, MemoryError, SyntaxError, TypeError, RecursionError) as e:
            raise InputError(f"{path}: no array of numbers, or damaged ({type(e).__name__})") from e
    if array.dtype.kind != "f" or array.size not in (shape.w_dim, shape.num_ws * shape.w_dim):
        raise InputError(f"{path}: holds no latent of {shape.num_ws} rows of {shape.w_dim} numbers, or one row of it")
    rows = torch.from_numpy(np.array(array, np.float32)).reshape(-1, shape.w_dim)
    if not rows.isfinite().all():
        raise InputError(f"{path}: has values that are no numbers")
    return rows.expand(shape.num_ws, -1).contiguous()
