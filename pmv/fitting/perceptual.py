"""Perceptual distances by name: the package `lpips`, with its trained weights or with seeded random ones;
"efficientnet", which ships with pmv (`pmv/fitting/efficientnet.py`); or by file, a network that
`training/perceptual.py` trained on synthetic heads (`pmv/fitting/heads_features.py`).

The trained variants ("lpips-alex", "lpips-vgg", "lpips-squeeze") need backbone weights that torchvision
downloads once. The "lpips-random-…" variants need no file: the same architecture, He-initialised from a fixed
seed, all channels weighted alike (the package's heads are calibrated for trained channels and mean nothing on
random ones). A random network still compares local structure at several scales rather than pixels, but it
knows nothing of human judgement, and **its numbers are no LPIPS numbers**: wherever one is reported, it is
reported under its full name. Of the random ones squeeze is the one to take: at 256 px a step costs 105 ms of one
CPU core (alex 83, vgg 1312), and its gradient restores a blurred photo without the grain that alex's stride of 4 leaves
(100 Adam steps on the pixels of a 128 px portrait: 23.2 dB and SSIM 0.80, alex 20.5 and 0.52, start 18.0 and 0.62).

"efficientnet" knows natural pictures, though no human judgement; its numbers too are no LPIPS numbers. Heads fitted
with it are nearer to the truth from other sides than with random weights (benchmarks/README.md).
"""

import math
import warnings
from pathlib import Path
from typing import Any, Protocol
from urllib.error import URLError

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmv.errors import AssetsError, PmvError, quoted
from pmv.files.artifacts import file_hash
from pmv.files.reading import is_file
from pmv.fitting.efficientnet import is_efficientnet, load_efficientnet
from pmv.fitting.heads_features import load_heads_features
from pmv.fitting.losses import masked_mean

BACKBONES = {  # torchvision's file in the torch cache
    "alex": "alexnet-owt-7be5be79.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
    "vgg": "vgg16-397923af.pth",
}
EFFICIENTNET = "efficientnet"
NAMES = (*(f"lpips-{kind}{net}" for kind in ("", "random-") for net in BACKBONES), EFFICIENTNET)
_SEED = 0
_SMALLEST = 32


class Perceptual(Protocol):
    """What stages call: a distance of pictures."""

    def __call__(self, a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
        """Images [N,3,H,W] in [-1,1] and a mask [N,1,H,W] (or [1,1,H,W]) in [0,1] → [N], differentiable in a and b."""
        ...


class PerceptualLoss(nn.Module):
    """Frozen perceptual distance; build it with `load_perceptual`. `name` says which, for reports."""

    def __init__(self, name: str, network: Any):
        super().__init__()
        self.name = name
        self.network: Any = network.requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
        """Distance of images [N,3,H,W] in [-1,1] (at least 32 pixels a side): [N].

        With a mask [N,1,H,W] in [0,1] the distance map is averaged inside it. The features themselves still
        see a surrounding of some pixels, so content just outside the mask has a little influence.
        """
        if min(a.shape[-2:]) < _SMALLEST:
            raise ValueError(f"{self.name} needs images of at least {_SMALLEST} pixels, got {tuple(a.shape)}")
        return self.network(a, b, mask)


def identity(name: str) -> str:
    """What tells whether two distances are the same: a name of `NAMES` itself, or the sha256 of the file.

    Raises:
        PmvError: neither a name nor the path of a .safetensors file.
        AssetsError: no such file.
    """
    if name in NAMES:
        return name
    path = Path(name)
    if path.suffix != ".safetensors":
        known = ", ".join(NAMES)
        raise PmvError(f"unknown perceptual loss {quoted(name)}: choose one of {known}, or a .safetensors file")
    if not is_file(path):
        raise AssetsError(f"{path}: no such file; give the weights that pmv.training.perceptual wrote")
    return file_hash(path)


class _Lpips(nn.Module):
    """The package's network, with the mask."""

    def __init__(self, network: Any):
        super().__init__()
        self.network: Any = network

    def forward(self, a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
        self.network.spatial = mask is not None
        return masked_mean(self.network(a, b), mask)


class _QuickLpips(_Lpips):
    """The same distance without maps of the picture's size where there is a mask: that is brought to each level by the
    transpose of what would bring the level's map to the picture. So its gradient is summed in one order, which an
    interpolation's is not on a GPU.

    Convolutions stay in single precision: in bfloat16 a tenth (alex) to a quarter (squeeze) of the gradient is noise.
    """

    def forward(self, a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
        features = [self.network.net(self.network.scaling_layer(image.contiguous())) for image in (a, b)]
        total = a.new_zeros(())
        for level, (f, g) in enumerate(zip(*features)):
            difference = (_unit(f) - _unit(g)).square()
            if self.network.lpips:
                difference = difference * self.network.lins[level].model[-1].weight
            map = difference.sum(1, keepdim=True)
            if mask is None:
                total = total + map.mean((1, 2, 3))
            else:
                rows, columns = (_enlarging(map.shape[d], a.shape[d], a) for d in (-2, -1))
                total = total + (map * (rows.t() @ mask @ columns)).sum((1, 2, 3))
        if mask is None:
            return total
        area = mask.sum((1, 2, 3))
        return total / torch.where(area > 0, area, torch.ones_like(area))


def _unit(features: Tensor) -> Tensor:
    """[N,C,H,W] of unit length over C, as the package makes it, but with a gradient at zero."""
    return features * (features.square().sum(1, keepdim=True) + 1e-20).rsqrt()


def _enlarging(size: int, target: int, like: Tensor) -> Tensor:
    """[target,size]: the matrix of a linear interpolation along one axis."""
    eye = torch.eye(size, device=like.device, dtype=torch.float32)
    return F.interpolate(eye[None], target, mode="linear", align_corners=False)[0].t()


def load_perceptual(name: str, device: torch.device | str = "cpu", quick: bool = False) -> PerceptualLoss:
    """The perceptual distance called `name` (one of `NAMES`, or the path of weights that `training/perceptual.py` or
    `training/efficientnet.py` wrote), frozen, on a device. The global random state is left alone.

    Args:
        quick: LPIPS without maps of the picture's size; others are as they are.

    A distance from a file is called "heads-features-" or "efficientnet-" and the first digits of its sha256, because
    distances of different weights cannot be compared.

    Raises:
        PmvError: unknown name.
        AssetsError: weights neither in the torch cache nor downloadable; or the file is missing, changed or of
            another kind.
    """
    content = identity(name)
    if content != name:
        path = Path(name)
        if is_efficientnet(path):
            kind, network = EFFICIENTNET, load_efficientnet(path)
        else:
            kind, network = "heads-features", load_heads_features(path)
        return PerceptualLoss(f"{kind}-{content[:8]}", network).eval().to(device)
    if name == EFFICIENTNET:
        return PerceptualLoss(name, load_efficientnet()).eval().to(device)
    net, random = name.rsplit("-", 1)[-1], "-random-" in name
    # importing lpips takes torchvision along, seconds that only this function should cost
    from lpips import LPIPS

    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # torchvision deprecates the argument `pretrained`, which lpips still uses
            warnings.simplefilter("ignore")
            network = LPIPS(net=net, pnet_rand=random, lpips=not random, verbose=False)
    except (URLError, OSError, RuntimeError) as error:
        file = Path(torch.hub.get_dir()) / "checkpoints" / BACKBONES[net]
        raise AssetsError(
            f"{name} needs torchvision's weights at {file}, which could not be read or downloaded: put the file "
            f"there, or choose lpips-random-{net}"
        ) from error
    if random:
        _initialise(network)
    return PerceptualLoss(name, (_QuickLpips if quick else _Lpips)(network)).eval().to(device)


def _initialise(network: nn.Module) -> None:
    """He initialisation from the fixed seed. torchvision's own default lets biases outgrow the signal in the
    deep layers."""
    generator = torch.Generator().manual_seed(_SEED)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            fan_in = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
            with torch.no_grad():
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * math.sqrt(2.0 / fan_in))
                if layer.bias is not None:
                    layer.bias.zero_()
