"""The judge of the adversarial phase: EG3D's dual discriminator (Chan et al. 2022, §4.3), told the camera, with alpha,
in a small size."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmv.generators.stylegan import FullyConnected, normalize_second_moment


class EqualizedConv(nn.Module):
    """Convolution with equalised learning rate (Karras et al. 2018, §4.1) and 'same' zero padding."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.gain = 1.0 / math.sqrt(in_channels * kernel * kernel)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.gain, self.bias, padding=self.weight.shape[-1] // 2)


def _activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2) * math.sqrt(2.0)


def _halve(x: Tensor) -> Tensor:
    """[N,C,H,W] → [N,C,H/2,W/2], means of 2×2 (on a GPU the gradient of average pooling takes twice the time)."""
    return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))


class DownBlock(nn.Module):
    """Residual block that halves the resolution (StyleGAN2's discriminator block, with average pooling as its
    filter)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv0 = EqualizedConv(in_channels, in_channels, 3)
        self.conv1 = EqualizedConv(in_channels, out_channels, 3)
        self.skip = EqualizedConv(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = _activate(self.conv1(_halve(_activate(self.conv0(x)))))
        return (y + self.skip(_halve(x))) * math.sqrt(0.5)


class CameraEmbedding(nn.Module):
    """Camera labels [N,L] → directions [N,width] that the discriminator's last features are projected on.

    The label's numbers range from 0 (the last row of a pose) to 10 (a close-up's focal length): after the first layer
    they have unit second moment, as StyleGAN2-ADA embeds a class.
    """

    def __init__(self, label: int, width: int) -> None:
        super().__init__()
        self.embed = FullyConnected(label, width)
        self.layers = nn.Sequential(*(FullyConnected(width, width, lrelu=True) for _ in range(2)))

    def forward(self, labels: Tensor) -> Tensor:
        return normalize_second_moment(self.layers(normalize_second_moment(self.embed(labels))))


class DualDiscriminator(nn.Module):
    """Judges an image together with the raw image and the alpha that it was made from, so that the two resolutions
    agree, and together with its camera, so that a face where a nape belongs is no good picture.

    The logit is the projection of the image's features on an embedding of the camera (Miyato & Koyama 2018, eq. 3,
    without its unconditional part, as StyleGAN2-ADA and EG3D have it).

    Args:
        resolution: side of the image, a power of two, at least 8.
        base, maximum: channels at resolution r are min(base / r, maximum).
        label: numbers of a camera's label.
    """

    def __init__(self, resolution: int, base: int, maximum: int, label: int = 25) -> None:
        super().__init__()
        sizes = [2**i for i in range(int(math.log2(resolution)), 2, -1)]
        channels = [min(base // r, maximum) for r in [*sizes, 4]]
        self.entry = EqualizedConv(7, channels[0], 1)
        self.blocks = nn.ModuleList(DownBlock(a, b) for a, b in itertools.pairwise(channels))
        self.last = EqualizedConv(channels[-1] + 1, channels[-1], 3)
        self.hidden = FullyConnected(channels[-1] * 16, channels[-1], lrelu=True)
        self.out = FullyConnected(channels[-1], channels[-1])
        self.camera = CameraEmbedding(label, channels[-1])

    @staticmethod
    def pair(image: Tensor, raw: Tensor, alpha: Tensor) -> Tensor:
        """image [N,3,R,R], raw [N,3,r,r] in [-1,1], alpha [N,1,r,r] in [0,1] → what it sees [N,7,R,R]."""
        low = torch.cat([raw, alpha * 2 - 1], 1)
        low = F.interpolate(low, image.shape[-2:], mode="bilinear", align_corners=False)
        return torch.cat([image, low], 1).contiguous(memory_format=torch.channels_last)

    def forward(self, pair: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """pair [N,7,R,R], camera labels [N,L] → logits [N,1] and the features of every block, finest first."""
        x = _activate(self.entry(pair))
        features = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        # minibatch standard deviation (Karras et al. 2018, §3) over the whole batch
        deviation = (x.var(0, unbiased=False) + 1e-8).sqrt().mean().expand(len(x), 1, *x.shape[2:])
        x = _activate(self.last(torch.cat([x, deviation], 1)))
        judged = self.out(self.hidden(x.flatten(1)))
        agreement = (judged * self.camera(labels)).sum(1, keepdim=True)
        return agreement / math.sqrt(judged.shape[1]), features


def r1_penalty(discriminator: DualDiscriminator, pair: Tensor, labels: Tensor) -> Tensor:
    """Half the mean squared gradient norm of the logits at real pairs (Mescheder et al. 2018, eq. 9, γ = 1)."""
    pair = pair.detach().requires_grad_(True)
    logits, _ = discriminator(pair, labels)
    (gradient,) = torch.autograd.grad(logits.sum(), pair, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean() / 2


def feature_matching(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """Mean L1 distance of the features of fakes from those of the true pictures of the same views (Wang et al. 2018,
    eq. 4)."""
    return torch.stack([(a - b.detach()).abs().mean() for a, b in zip(fake, real)]).mean()
