"""Perceptual features that ship with pmv: the early blocks of EfficientNet-Lite0, trained on ImageNet.

The network is Google's EfficientNet-Lite0 (Tan and Le 2019, arXiv:1905.11946; "lite": ReLU6 in the place of swish, no
squeeze-and-excitation): inverted residual blocks (Sandler et al. 2018, arXiv:1801.04381), each an expanding 1×1
convolution, a depth-wise one and a projecting 1×1 one, with the batch normalisation after every one of them folded into
it. Only the blocks that a level of the distance needs are built and shipped. `training/efficientnet.py` makes the file
from the published weights, which are Apache-2.0 (`assets/perceptual/NOTICE`).

Two pictures are compared as LPIPS compares its backbone's features (`pmv/fitting/features.py`). Weights of single
channels, which LPIPS fits to human judgement, do not exist for this network: all channels of a level weigh the same.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from pmv import data_path
from pmv.errors import AssetsError, InputError
from pmv.files.artifacts import load_tensors, read_header
from pmv.fitting.features import feature_distance, unit_length

STEM = 32
"""Channels of the first convolution, 3×3 with stride 2."""
STAGES = (
    (16, 3, 1, 1, 1),
    (24, 3, 2, 6, 2),
    (40, 5, 2, 6, 2),
    (80, 3, 2, 6, 3),
    (112, 5, 1, 6, 3),
    (192, 5, 2, 6, 4),
    (320, 3, 1, 6, 1),
)
"""Of the blocks: channels out, kernel, stride of the first, expansion, how many (EfficientNet-Lite0)."""
LEVELS = ("stem", "expand1", "expand3", "expand5")
"""Where the shipped distance looks: see `EfficientNetFeatures`."""
SOFTNESS = 1e-3
"""See `pmv.fitting.features.unit_length`; the features' mean square is about 1."""


def same_padding(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Zeros around [N,C,H,W] as TensorFlow's "SAME" puts them: ⌈H / stride⌉ rows come out, and of an odd number of
    zeros the greater half goes to the bottom and the right."""
    pads: list[int] = []
    for size in (x.shape[-1], x.shape[-2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


class Block(nn.Module):
    """An inverted residual block; it has a shortcut where the shapes allow one."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int, whole: bool = True):
        """`whole`: not the expansion alone."""
        super().__init__()
        inner = before * expansion
        self.kernel, self.stride, self.shortcut = kernel, stride, stride == 1 and before == after
        self.expand = nn.Conv2d(before, inner, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(inner, inner, kernel, stride, groups=inner) if whole else None
        self.project = nn.Conv2d(inner, after, 1) if whole else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[N,C,H,W] → the expansion after its ReLU6, and the block's result (x itself where the block is not whole)."""
        inner = x if self.expand is None else F.relu6(self.expand(x))
        if self.depthwise is None or self.project is None:
            return inner, x
        y = self.project(F.relu6(self.depthwise(same_padding(inner, self.kernel, self.stride))))
        return inner, x + y if self.shortcut else y


class EfficientNetFeatures(nn.Module):
    """Unit-length features of some levels; weights come from `load_efficientnet`.

    A level is "stem", the first convolution's 32 channels, "expandI", the expansion of block I after its ReLU6, or
    "projectI", the result of block I, which no activation follows; blocks count from 0 to 15. The side is 1/2 of the
    picture's up to expand1, 1/4 up to expand3, 1/8 up to expand5, 1/16 up to expand11, each rounded up.
    """

    def __init__(self, levels: Sequence[str] = LEVELS) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.stem = nn.Conv2d(3, STEM, 3, 2)
        rows, before = [], STEM
        for after, kernel, stride, expansion, count in STAGES:
            for i in range(count):
                rows.append((before, after, kernel, stride if i == 0 else 1, expansion))
                before = after
        places = {"stem": -1} | {f"{part}{i}": i for i in range(len(rows)) for part in ("expand", "project")}
        if not self.levels or not set(self.levels) <= places.keys() - {"expand0"}:
            raise ValueError(f"levels are stem, expand1 … expand15 and project0 … project15, got {self.levels}")
        last = max(places[level] for level in self.levels)
        self.blocks = nn.ModuleList(
            Block(*row, whole=i < last or f"project{last}" in self.levels) for i, row in enumerate(rows[: last + 1])
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Images [N,3,H,W] in [-1,1], at least 32 pixels a side → a tensor [N,C,h,w] for each level, unit length over
        C.

        The network was trained on (v − 127) / 128 of grey values v, from which [-1,1] differs by half a grey value. The
        package's page says ImageNet's mean and deviation; but then, on 21 photos, the first layers' means lie 0.4 to
        0.9 deviations from those that its normalisations hold, and 0.2 to 0.3 so.
        """
        x = F.relu6(self.stem(same_padding(image, 3, 2)))
        found = {"stem": x}
        for i, block in enumerate(self.blocks):
            found[f"expand{i}"], x = block(x)
            found[f"project{i}"] = x
        return [unit_length(found[level], SOFTNESS) for level in self.levels]


class EfficientNetDistance(nn.Module):
    """The perceptual distance of images; `features` is what it compares."""

    def __init__(self, levels: Sequence[str] = LEVELS) -> None:
        super().__init__()
        self.features = EfficientNetFeatures(levels)
        self.register_buffer("level_weights", torch.ones(len(levels)))
        self.level_weights: Tensor

    def forward(self, a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
        """Distance of images [N,3,H,W] in [-1,1]: [N]. For the mask see `pmv.fitting.features.level_distances`."""
        return feature_distance(self.features(a), self.features(b), self.level_weights, mask)


def is_efficientnet(path: Path) -> bool:
    """Whether a .safetensors file says that it holds weights of this network; False for one that cannot be read."""
    try:
        return "levels" in read_header(path)
    except InputError:
        return False


def load_efficientnet(path: Path | None = None) -> EfficientNetDistance:
    """The shipped distance, or that of another file that `training/efficientnet.py` wrote: fp32, frozen, on the CPU.

    Raises:
        AssetsError: the file is missing, damaged or of another kind.
    """
    path = path or data_path("assets", "perceptual", "efficientnet_lite0.safetensors")
    try:
        distance = EfficientNetDistance(read_header(path)["levels"])
        distance.load_state_dict({name: value.float() for name, value in load_tensors(path).items()})
    except (InputError, OSError, SafetensorError, RuntimeError, LookupError, TypeError, ValueError) as error:
        raise AssetsError(
            f"{path}: missing, damaged or no weights of EfficientNet-Lite0 ({type(error).__name__}); reinstall pmv"
        ) from error
    return distance.eval().requires_grad_(False)
