"""The networks that find faces, landmarks and foregrounds, as they ship in `assets/landmarks`: weights and a list of
steps in one file each, run by PyTorch.

BlazeFace (arXiv:1907.05047), Face Mesh (arXiv:1907.06724) and the selfie segmentation are MediaPipe's (Apache-2.0),
O-Net is MTCNN's (MIT); `assets/landmarks/NOTICE`. `pmv.training.face_networks` makes the files from the packages that
publish them. A file's header says what the network computes: each step is an operation of `_OPERATIONS`, the name of
its result, the names of what it takes, and its options; weights bear the name of the step that they belong to.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from pmv import data_path
from pmv.errors import AssetsError, InputError
from pmv.files.artifacts import load_tensors, read_header

KINDS = ("detector", "mesh", "selfie", "onet")
"""Those that ship: BlazeFace for near faces, Face Mesh, the selfie segmentation, O-Net."""


class Step(NamedTuple):
    """One operation of a network, see `Network`."""

    operation: str
    result: str
    takes: tuple[str, ...]
    options: Mapping[str, Any]


class Network:
    """A network of a few plain operations.

    Attributes:
        inputs: name of what it is given.
        outputs: names of its results.
        steps: in the order in which they are done.
        weights: by "STEP.weight" and "STEP.bias", fp32.
    """

    def __init__(self, steps: Sequence[Step], outputs: Sequence[str], weights: Mapping[str, Tensor], inputs: str):
        self.steps, self.outputs, self.weights, self.inputs = tuple(steps), tuple(outputs), dict(weights), inputs
        known = {inputs}
        for step in self.steps:
            if step.operation not in _OPERATIONS or not known.issuperset(step.takes):
                raise ValueError(f"step {step.result} is unknown, or takes what is not there")
            known.add(step.result)
        if not known.issuperset(self.outputs):
            raise ValueError("an output is not there")
        self._last_use = {name: k for k, step in enumerate(self.steps) for name in step.takes}

    @torch.no_grad()
    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Images float32 [N,3,H,W] in the network's own range and size → its outputs by name, [N,C,h,w] each."""
        values = {self.inputs: image}
        for k, step in enumerate(self.steps):
            taken = [values[name] for name in step.takes]
            weight, bias = (self.weights.get(f"{step.result}.{part}") for part in ("weight", "bias"))
            values[step.result] = _OPERATIONS[step.operation](taken, weight, bias, step.options)
            for name in step.takes:
                if self._last_use[name] == k and name not in self.outputs:
                    values.pop(name, None)
        return {name: values[name] for name in self.outputs}


Operation = Callable[[list[Tensor], Tensor | None, Tensor | None, Mapping[str, Any]], Tensor]


def _convolved(values: list[Tensor], weight: Tensor | None, bias: Tensor | None, options: Mapping[str, Any]) -> Tensor:
    """Options: stride, groups; pad = zeros on the left, right, top and bottom."""
    assert weight is not None
    padded = F.pad(values[0], options["pad"]) if any(options["pad"]) else values[0]
    return F.conv2d(padded, weight, bias, options["stride"], groups=options["groups"])


def _spread(values: list[Tensor], weight: Tensor | None, bias: Tensor | None, options: Mapping[str, Any]) -> Tensor:
    """A transposed convolution; option: stride."""
    assert weight is not None
    return F.conv_transpose2d(values[0], weight, bias, options["stride"])


def _leaky(values: list[Tensor], weight: Tensor | None, _: Tensor | None, __: Mapping[str, Any]) -> Tensor:
    assert weight is not None
    return F.prelu(values[0], weight)


def _of_values(function: Callable[..., Tensor]) -> Operation:
    """An operation that has no weights; its options are the function's."""
    return lambda values, weight, bias, options: function(*values, **options)


_OPERATIONS: dict[str, Operation] = {
    "convolution": _convolved,
    "transposed_convolution": _spread,
    "prelu": _leaky,
    "relu": _of_values(F.relu),
    "hard_swish": _of_values(F.hardswish),
    "sigmoid": _of_values(torch.sigmoid),
    "add": _of_values(torch.add),
    "multiply": _of_values(torch.mul),
    "max_pool": _of_values(lambda x, **options: F.max_pool2d(x, **options)),
    "mean": _of_values(lambda x: x.mean((2, 3), keepdim=True)),
    "more_channels": _of_values(lambda x, count: F.pad(x, (0, 0, 0, 0, 0, count))),
    "twice_as_large": _of_values(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)),
}


def load_network(path: Path) -> Network:
    """A network from a file that `pmv.training.face_networks` wrote.

    Raises:
        AssetsError: the file is missing, damaged or of another kind.
    """
    try:
        header = read_header(path)
        steps = [
            Step(operation, result, tuple(takes), options) for operation, result, takes, options in header["steps"]
        ]
        weights = {name: value.float() for name, value in load_tensors(path).items()}
        return Network(steps, header["outputs"], weights, header["input"])
    except (InputError, OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
        raise AssetsError(
            f"{path}: missing, damaged or none of pmv's networks ({type(error).__name__}); reinstall pmv"
        ) from error


@lru_cache(maxsize=len(KINDS))
def network(kind: str) -> Network:
    """The shipped network of a kind of `KINDS`, read once.

    Raises:
        AssetsError: its file is missing or damaged.
    """
    return load_network(data_path("assets", "landmarks", f"{kind}.safetensors"))


def as_input(pictures: Any, low: float = 0.0) -> Tensor:
    """uint8 [N,S,S,3] → float32 [N,3,S,S], from `low` (black) to 1 (white)."""
    values = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    return values * ((1 - low) / 255) + low
