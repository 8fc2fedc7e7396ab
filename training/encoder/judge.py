"""The discriminator of occluded tri-planes: whether what an encoder made up where the picture sees nothing is such as
the generator itself would have there.

Table 6 of arXiv:2409.20530, sized for the generator: 3×3 convolutions of stride 1 (a receptive field of 11 texels: it
judges texture, not shape), leaky slopes of 0.2, no biases, one number a patch. Two things are left out on purpose: its
batch normalisation couples the samples of a batch, which R1 differentiates one by one; and its equations 8 and 9, as
printed, have their arguments swapped.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmv.generators import EG3DGenerator

WIDTHS = (64, 96, 128, 192)
"""Channels after each convolution but the last; the paper's 64, 128, 256, 512 are for planes with three times as
many."""
R1, EVERY = 10.0, 16
"""γ of the R1 penalty, and how many steps lie between two looks at it (the paper's)."""


class PlaneJudge(nn.Module):
    """Masked planes [N,3,C,H,W] in units of their deviation → one logit each [N]: the mean over patches."""

    def __init__(self, planes: int, channels: int, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        rows = (planes * channels, *widths)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in itertools.pairwise(rows))
        self.last = nn.Conv2d(widths[-1], 1, 3, bias=False)

    def forward(self, planes: Tensor) -> Tensor:
        x = planes.flatten(1, 2)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
        return self.last(x).mean((1, 2, 3))


@torch.no_grad()
def synthetic_planes(generator: EG3DGenerator, count: int, draws: torch.Generator) -> Tensor:
    """[count,3,C,H,W]: planes of Z+ samples, every row of w from a z of its own (the paper's T_synth)."""
    spec = generator.spec
    z = torch.randn(count * spec.num_ws, spec.z_dim, generator=draws, device=generator.device)
    w = generator.map(z, spec.canonical_camera)[:, 0].unflatten(0, (count, spec.num_ws))
    return generator.planes(w)


def judge_loss(judge: PlaneJudge, fake: Tensor, real: Tensor, penalised: bool) -> dict[str, Tensor]:
    """The terms that the discriminator minimises (Goodfellow et al. 2014, non-saturating; R1 of Mescheder et al. 2018).

    Args:
        fake, real: masked planes [N,3,C,H,W], detached. penalised: add R1, which counts for `EVERY` steps.
    """
    terms = {"judge": F.softplus(judge(fake)).mean() + F.softplus(-judge(real)).mean()}
    if penalised:
        given = real.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(judge(given).sum(), given, create_graph=True)
        terms["penalty"] = 0.5 * R1 * EVERY * slope.square().sum((1, 2, 3, 4)).mean()
    return terms
