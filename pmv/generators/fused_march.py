"""The ray marcher of `pmv/generators/volume.py` on kernels that sample and decode in one (`decode_kernels.py`).

Every sample is evaluated once, features and all: that costs less than a pass of its own that finds out which samples
matter. Only those that do get gradients, by the rule of `_march_sparse`. All shapes are known beforehand and nothing is
asked back from the GPU, so that a step can be recorded as a CUDA graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.generators.decode_kernels import Rays, Volume, decode, decode_backward
from pmv.generators.volume import (
    BLOCKED,
    CLEAR,
    Jitter,
    March,
    composite_weights,
    expected_depth,
    importance,
    stratified,
)


@dataclass
class _Samples:
    """What the passes of one march share beside autograd's own tensors.

    Attributes:
        t: [R,S] ray lengths, coarse samples before fine ones; features: [R,S,C].
        matters: [R,S] bool, which samples get gradients.
        half, summed_gradient: [R,S] and [R,C]: the product of the two is the gradient of the features, known before
            that of the density is.
    """

    t: Tensor
    features: Tensor
    matters: Tensor | None = None
    half: Tensor | None = None
    summed_gradient: Tensor | None = None


def march_fused(
    planes: Tensor,
    decoder: tuple[Tensor, Tensor, Tensor, Tensor],
    axes: tuple[tuple[int, int], ...],
    box: float,
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    coarse: int,
    fine: int,
    jitter: Jitter,
    hit: Tensor | None,
    ordered: bool,
) -> March:
    """As `pmv.generators.volume.march` with a sparse backward pass, for one latent.

    Args:
        planes: [1,3,C,H,W] fp32.
        decoder: see `Volume`.
        axes: of a plane convention.
        origins, directions: [1,R,3]; near, far: [1,R]; hit: [1,R] or None.
        ordered: see `decode_backward`.
    """
    first, second = jitter if isinstance(jitter, tuple) else (jitter, jitter)
    height, width = planes.shape[-2:]
    texels = planes[0].permute(2, 3, 0, 1).reshape(height, width, -1).contiguous()
    t = stratified(near, far, coarse, first)[0]
    samples = _Samples(
        torch.cat([t, t.new_zeros(len(t), fine)], 1), t.new_empty(len(t), coarse + fine, planes.shape[2])
    )
    settings = _Settings(samples, axes, box, coarse, fine, second, ordered)
    rays = origins[0].contiguous(), directions[0].contiguous()
    density = _Decoded.apply(settings, texels, *decoder, *rays)
    assert isinstance(density, Tensor)
    t, order = torch.sort(samples.t, dim=-1)
    density = density.gather(-1, order)
    weights, middles = composite_weights(t, density)
    if hit is not None:
        weights = weights * hit[0, :, None]
    with torch.no_grad():
        thickness = F.softplus((density[:, :-1] + density[:, 1:]) / 2 - 1.0) * (t[:, 1:] - t[:, :-1])
        before = torch.exp(-F.pad(thickness, (1, 0))[:, :-1].cumsum(-1))
        matters = (before > BLOCKED) & (thickness > CLEAR)
        if hit is not None:
            matters &= hit[0, :, None]
        matters = F.pad(matters, (1, 0)) | F.pad(matters, (0, 1))
        samples.matters = torch.empty_like(matters).scatter_(-1, order, matters)
    half = F.pad(weights, (1, 0)) / 2 + F.pad(weights, (0, 1)) / 2
    half = torch.zeros_like(half).scatter(-1, order, half)  # back to the unsorted order
    summed = _Summed.apply(samples, half)
    assert isinstance(summed, Tensor)
    alpha = weights.sum(-1, keepdim=True)
    return March(summed[None], expected_depth(weights, middles, alpha, t)[None], alpha[None])


@dataclass(frozen=True)
class _Settings:
    samples: _Samples
    axes: tuple[tuple[int, int], ...]
    box: float
    coarse: int
    fine: int
    jitter: torch.Generator | Tensor | None
    ordered: bool


def _volume(parts: Sequence[Tensor], settings: _Settings) -> Volume:
    texels, first, first_bias, last, last_bias = parts
    return Volume(texels, first, first_bias, last, last_bias, settings.axes, settings.box)


class _Decoded(torch.autograd.Function):
    """Texels, the decoder's weights and rays → density [R,S] of all samples; their places and features are left in
    `_Samples`."""

    @staticmethod
    def forward(ctx: Any, settings: _Settings, *tensors: Tensor) -> Tensor:
        *parts, origins, directions = tensors
        samples = settings.samples
        volume = _volume(parts, settings)
        rays = Rays(origins, directions, samples.t)
        density = torch.empty_like(samples.t)
        decode(volume, rays, 0, settings.coarse, density, samples.features)
        if settings.fine:
            t, found = samples.t[None, :, : settings.coarse], density[None, :, : settings.coarse]
            weights = composite_weights(t, found)[0]
            samples.t[:, settings.coarse :] = importance(t, weights, settings.fine, settings.jitter)[0]
            decode(volume, rays, settings.coarse, settings.fine, density, samples.features)
        ctx.settings = settings
        ctx.save_for_backward(*tensors)
        return density

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *parts, origins, directions = ctx.saved_tensors
        settings: _Settings = ctx.settings
        samples = settings.samples
        assert samples.matters is not None
        half, summed = samples.half, samples.summed_gradient
        if half is None or summed is None:  # nobody looked at the colours
            half, summed = torch.zeros_like(samples.t), samples.t.new_zeros(len(samples.t), samples.features.shape[-1])
        wants_rays = any(ctx.needs_input_grad[-2:])
        found = decode_backward(
            _volume(parts, settings),
            Rays(origins, directions, samples.t),
            _places(samples.matters.t().flatten()),
            gradients[0].contiguous(),
            half,
            summed.contiguous(),
            wants_rays,
            settings.ordered,
        )
        of_origins = of_directions = None
        if found.points is not None:
            of_origins, of_directions = found.points.sum(1), (found.points * samples.t[..., None]).sum(1)
        weights = (found.hidden_weight, found.hidden_bias, found.out_weight, found.out_bias)
        return None, found.planes, *weights, of_origins, of_directions


class _Summed(torch.autograd.Function):
    """Sums [R,C] over a ray's samples of half [R,S] times their features. The gradient of the features is left in
    `_Samples` as its two factors."""

    @staticmethod
    def forward(ctx: Any, samples: _Samples, half: Tensor) -> Tensor:
        ctx.samples = samples
        ctx.save_for_backward(half)
        return torch.bmm(half[:, None], samples.features)[:, 0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        samples: _Samples = ctx.samples
        # as it came it would hold the node that holds `samples`, and neither would ever go
        samples.half, samples.summed_gradient = ctx.saved_tensors[0].detach(), gradients[0].detach()
        return None, torch.bmm(samples.features, gradients[0][:, :, None])[..., 0]


def _places(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The places of the true entries of chosen [M], as the first n of [M] int32, and n as [1] int32; unlike `nonzero`,
    it does not wait for the GPU."""
    up_to = chosen.cumsum(0)
    slot = torch.where(chosen, up_to - 1, len(chosen))
    places = torch.zeros(len(chosen) + 1, dtype=torch.int32, device=chosen.device)
    places.scatter_(0, slot, torch.arange(len(chosen), dtype=torch.int32, device=chosen.device))
    return places[:-1], up_to[-1:].to(torch.int32)
