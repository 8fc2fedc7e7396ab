"""Who is it? Descriptors of faces by dlib's face recognition network, whose weights are in the public domain.

The network (King, dlib; a residual network of 29 convolutions after He et al. 2016, arXiv:1512.03385, trained with
dlib's metric loss) turns an aligned face of 150×150 pixels into 128 numbers. Two pictures show the same person, in the
sense it was trained for, when their descriptors lie less than 0.6 apart (Euclidean, not normalised); other views of one
head cost 0.2 (20° of yaw) to 0.45 (40°), other persons lie at about 0.8. Beyond 45° of yaw it no longer tells persons
apart: `frontal_weight` is 0 there.

**As a loss** it must not see the same crop twice: descending on the pixels of one fixed crop finds a pattern that the
network takes for the other person and nobody else does. `identity_loss` therefore turns, scales and shifts the crop at
random at every call. Judge with crops or views that the loss has not seen.

`pmv/pictures/chips.py` cuts the faces out.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pmv import data_path
from pmv.errors import AssetsError
from pmv.geometry.camera import Camera
from pmv.pictures.chips import CHIP, face_chips

SAME_PERSON = 0.6
"""Distance of descriptors under which the network was trained to say "the same person"."""
_MEAN_RGB = (122.782, 117.001, 104.298)
_FRONTAL, _PROFILE = 30.0, 45.0  # degrees of yaw from which identity counts less, and not at all

_LAYOUT = (  # levels from the input to the output: channels in, channels out, blocks; all but the first halve the side
    ("level4", 32, 32, 3),
    ("level3", 32, 64, 4),
    ("level2", 64, 128, 3),
    ("level1", 128, 256, 3),
    ("level0", 256, 256, 1),
)


class _Affine(nn.Module):
    """A batch normalisation that is frozen: x·γ + β by channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma[:, None, None] + self.beta[:, None, None]


class _Residual(nn.Module):
    """Two 3×3 convolutions and a shortcut, which is an average over 2×2 where the block halves the side."""

    def __init__(self, before: int, after: int, halves: bool):
        super().__init__()
        self.halves = halves
        self.conv1 = nn.Conv2d(before, after, 3, 2 if halves else 1, 0 if halves else 1)
        self.affine1 = _Affine(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1)
        self.affine2 = _Affine(after)

    def forward(self, x: Tensor) -> Tensor:
        y = self.affine2(self.conv2(F.relu(self.affine1(self.conv1(x)))))
        if not self.halves:
            return F.relu(x + y)
        # dlib adds tensors of unequal shape by filling up with zeros: channels at the end, rows below, columns right.
        # The unpadded convolution may be a pixel smaller than the average.
        short = F.avg_pool2d(x, 2)
        short = F.pad(short, (0, 0, 0, 0, 0, y.shape[1] - short.shape[1]))
        return F.relu(short + F.pad(y, (0, short.shape[3] - y.shape[3], 0, short.shape[2] - y.shape[2])))


class IdentityNetwork(nn.Module):
    """dlib's face_recognition_resnet_model_v1; weights come from `load_identity`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem_conv = nn.Conv2d(3, 32, 7, 2)
        self.stem_affine = _Affine(32)
        self.levels = [name for name, *_ in _LAYOUT]
        for name, before, after, count in _LAYOUT:
            blocks = [_Residual(before, after, after > before or name == "level0")]
            blocks += [_Residual(after, after, False) for _ in range(count - 1)]
            self.add_module(name, nn.Sequential(*blocks))
        self.fc = nn.Linear(256, 128, bias=False)
        self.register_buffer("mean", torch.tensor(_MEAN_RGB)[:, None, None], persistent=False)
        self.mean: Tensor

    def forward(self, chips: Tensor) -> Tensor:
        """Aligned faces [N,3,150,150] in [-1,1], as `face_chips` makes them → descriptors [N,128], of length 1.3 to
        1.6."""
        if chips.ndim != 4 or chips.shape[1:] != (3, CHIP, CHIP):
            raise ValueError(f"the identity network sees chips [N,3,{CHIP},{CHIP}], got {tuple(chips.shape)}")
        x = ((chips + 1) * 127.5 - self.mean) / 256
        x = F.max_pool2d(F.relu(self.stem_affine(self.stem_conv(x))), 3, 2)
        for name in self.levels:
            x = self.get_submodule(name)(x)
        return self.fc(x.mean((2, 3)))


def load_identity(device: torch.device | str = "cpu", path: Path | None = None) -> IdentityNetwork:
    """The shipped network, in fp32 and frozen, on a device.

    Raises:
        AssetsError: its file is missing or damaged.
    """
    path = path or data_path("assets", "identity", "face_resnet.safetensors")
    network = IdentityNetwork()
    try:
        network.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise AssetsError(f"{path}: missing or damaged ({type(error).__name__}); reinstall pmv") from error
    return network.eval().requires_grad_(False).to(device)


def identity_distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distance of descriptors [N,128]: [N]; see `SAME_PERSON`. Its gradient at 0 is 0."""
    square = (a - b).square().sum(-1)
    # the root's own slope is infinite at 0
    return torch.where(square > 0, square.clamp_min(1e-12).sqrt(), torch.zeros_like(square))


@dataclass(frozen=True)
class Jitter:
    """How far crops of a loss are moved at random, each uniformly: `turn` in radians, `scale` as a part, `shift` in
    parts of the chip's side."""

    turn: float = 0.1
    scale: float = 0.1
    shift: float = 0.02

    def draw(self, count: int, generator: torch.Generator, like: Tensor) -> tuple[Tensor, Tensor]:
        """Matrices [N,2,2] and shifts [N,2] (parts of the side) about the chip's middle; `generator` is the CPU's."""
        random = (torch.rand(count, 4, generator=generator) * 2 - 1).to(like)
        angle, size = random[:, 0] * self.turn, torch.exp(random[:, 1] * self.scale)
        cosine, sine = size * angle.cos(), size * angle.sin()
        return torch.stack([cosine, -sine, sine, cosine], -1).reshape(-1, 2, 2), random[:, 2:] * self.shift


def frontal_weight(camera: Camera) -> Tensor:
    """[N] how much a view says about identity: 1 to 30° of yaw, falling linearly to 0 at 45°."""
    yaw = camera.yaw_pitch()[0].detach().abs().rad2deg()
    return ((_PROFILE - yaw) / (_PROFILE - _FRONTAL)).clamp(0.0, 1.0)


def identity_loss(
    network: IdentityNetwork,
    image: Tensor,
    points: Tensor,
    target: Tensor,
    generator: torch.Generator,
    jitter: Jitter | None = None,
    looks: int = 1,
) -> Tensor:
    """Mean squared distance [N] of faces in images to known descriptors, over crops that are moved at random.

    Args:
        image: [N,3,H,W] in [-1,1]; points: [N,5,2], see `face_chips`.
        target: descriptors [N,128] or [1,128], for instance of `describe`.
        generator: of the CPU; what the crops are drawn from.
        jitter: how far; None = the usual.
        looks: crops of each image.
    """
    found = _looks(network, image, points, generator, jitter or Jitter(), looks)
    return (found - target[:, None]).square().sum(-1).mean(1)


@torch.no_grad()
def describe(network: IdentityNetwork, image: Tensor, points: Tensor, looks: int = 8, seed: int = 0) -> Tensor:
    """Mean descriptors [N,128] of faces over the exact crop and `looks` that are moved a little: a target that hangs
    on no single crop. Arguments as in `identity_loss`; equal arguments give equal numbers."""
    exact = network(face_chips(image, points))[:, None]
    if not looks:
        return exact[:, 0]
    moved = _looks(network, image, points, torch.Generator().manual_seed(seed), Jitter(), looks)
    return torch.cat([exact, moved], 1).mean(1)


def _looks(
    network: IdentityNetwork, image: Tensor, points: Tensor, generator: torch.Generator, jitter: Jitter, looks: int
) -> Tensor:
    """Descriptors [N,looks,128] of crops that are moved at random."""
    images, places = image.repeat_interleave(looks, 0), points.repeat_interleave(looks, 0)
    chips = face_chips(images, places, jitter.draw(len(images), generator, places))
    return network(chips).reshape(len(image), looks, -1)
