"""The perceptual network of our own: features of a small convolutional network that learned to read heads.

`training/perceptual.py` trains it on synthetic heads to say what they are (their parameters z) and where every pixel
lies on them (position, normal, silhouette, the picture without noise), whatever the background, colour cast, blur and
crop. Two pictures are then compared as LPIPS does (Zhang et al. 2018, arXiv:1801.03924, eq. 1): features of several
levels, unit length over the channels, squared difference, mean over the pixels, a weight for each level.

Two things differ from LPIPS' backbones. Downsampling is by convolutions of 4×4 with stride 2, which touch every pixel
equally often, so the gradient has no checkerboard. And features are compared before the activation, where each channel
has zero mean and unit variance over the training pictures (batch normalisation without gain and offset, folded into
the convolution), so that no channel is louder than another and no per-channel weight is needed.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmv.errors import AssetsError, InputError
from pmv.files.artifacts import file_hash, load_tensors, read_json, save_tensors
from pmv.fitting.features import feature_distance, level_distances, unit_length

SLOPE = 0.1
"""Of the leaky ReLU between convolutions."""
SOFTNESS = 0.01
"""See `pmv.fitting.features.unit_length`. The mean square is 1 over the training pictures."""


@dataclass(frozen=True)
class FeatureShape:
    """Channels of the levels. Level i has 1/2^i of the picture's side and ends in a 3×3 convolution; the levels from
    `deep_from` on have another convolution before it, which halves the side (before that one convolution does both).
    """

    channels: tuple[int, ...] = (16, 32, 64, 96, 128, 192)
    deep_from: int = 2

    def convolutions(self) -> list[tuple[int, int, int, bool]]:
        """(channels in, channels out, stride, ends a level) of each convolution, first to last."""
        rows, before = [], 3
        for level, channels in enumerate(self.channels):
            deep = level >= self.deep_from
            rows.append((before, channels, 2 if level else 1, not deep))
            if deep:
                rows.append((channels, channels, 1, True))
            before = channels
        return rows

    @classmethod
    def of(cls, state: dict[str, Tensor]) -> "FeatureShape":
        """The shape that a state dict of `HeadsFeatures` has."""
        weights = [state[f"convolutions.{i}.weight"] for i in range(sum(k.endswith("weight") for k in state))]
        levels = [w for i, w in enumerate(weights) if i == 0 or w.shape[-1] == 4]
        deep = next((i for i, w in enumerate(weights) if i and w.shape[-1] == 3), len(weights) + 1) - 1
        return cls(tuple(len(w) for w in levels), deep)


def convolution(before: int, after: int, stride: int, bias: bool) -> nn.Conv2d:
    """3×3, or 4×4 where it halves the side."""
    return nn.Conv2d(before, after, 3 if stride == 1 else 4, stride, 1, bias=bias)


class HeadsFeatures(nn.Module):
    """The network and the distance. Weights come from `load_heads_features`, or from a training's `fold`."""

    def __init__(self, shape: FeatureShape | None = None) -> None:
        super().__init__()
        self.shape = shape or FeatureShape()
        rows = self.shape.convolutions()
        self.convolutions = nn.ModuleList(convolution(a, b, stride, True) for a, b, stride, _ in rows)
        self.ends = [end for *_, end in rows]
        self.register_buffer("level_weights", torch.ones(len(self.shape.channels)))
        self.level_weights: Tensor

    @property
    def smallest(self) -> int:
        """Pixels a side that a picture must have: one on the coarsest level."""
        return 2 ** (len(self.shape.channels) - 1)

    def features(self, image: Tensor) -> list[Tensor]:
        """Images [N,3,H,W] in [-1,1] → features of each level, [N,C,H/2^i,W/2^i] (rounded down), of unit length over
        C."""
        levels, x = [], image
        for layer, end in zip(self.convolutions, self.ends):
            x = layer(x)
            if end:
                levels.append(unit_length(x, SOFTNESS))
            x = F.leaky_relu(x, SLOPE)
        return levels

    def levels(self, a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
        """Unweighted distance of images [N,3,H,W] in [-1,1] at each level: [N,levels], each in [0,4]. For the mask
        see `forward`."""
        return level_distances(self.features(a), self.features(b), mask)

    def forward(self, a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
        """Distance of images [N,3,H,W] in [-1,1]: [N].

        A mask [N,1,H,W] in [0,1] weights the pixels of every level by the part of them that it covers; an empty one
        gives 0.
        """
        return feature_distance(self.features(a), self.features(b), self.level_weights, mask)


def save_heads_features(network: HeadsFeatures, path: Path, notes: dict) -> None:
    """Writes the weights in fp16 (level weights in fp32) with a header."""
    state = {name: value.half() for name, value in network.state_dict().items()}
    state["level_weights"] = network.level_weights.float()
    save_tensors(path, state, notes)


def load_heads_features(path: Path) -> HeadsFeatures:
    """The network of a file that `save_heads_features` wrote, in fp32, frozen, on the CPU.

    Args:
        path: of the weights; a JSON of the same name beside them says their sha256, as `training/perceptual.py`
            leaves it.

    Raises:
        AssetsError: missing, changed, or of another kind; says the file.
    """
    sidecar = path.with_suffix(".json")
    if not path.is_file():
        raise AssetsError(f"{path}: no such file; give the weights that pmv.training.perceptual wrote")
    try:
        expected = read_json(sidecar)["sha256"]
    except (InputError, KeyError, TypeError) as error:
        raise AssetsError(
            f"{sidecar}: missing or damaged; put the one that was written with {path.name} there"
        ) from error
    if file_hash(path) != expected:
        raise AssetsError(f"{path}: not the file that {sidecar.name} describes; copy both again from where they come")
    try:
        state = {name: value.float() for name, value in load_tensors(path).items()}
        with torch.device("meta"):  # shapes that a file only claims take no memory
            network = HeadsFeatures(FeatureShape.of(state))
        network.load_state_dict(state, assign=True)
    except (InputError, RuntimeError, LookupError, TypeError, ValueError) as error:
        raise AssetsError(f"{path}: no weights of the heads' perceptual network ({type(error).__name__})") from error
    return network.eval().requires_grad_(False)
