"""Modulation and demodulation of a convolution's weights as one Triton kernel each way; in plain PyTorch it takes a
dozen, and a StyleGAN2 backbone has so many layers that their launches outweigh its arithmetic.

The twin is `folded_weight` of `pmv/generators/stylegan.py`.
"""

# kernels are written in a language of their own, in which types are other than Python's
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportIndexIssue=false, reportOptionalOperand=false, reportAttributeAccessIssue=false

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_EPSILON = tl.constexpr(1e-8)


def folded_weight_fused(weight: Tensor, style: Tensor, gain: float, demodulate: bool) -> Tensor:
    """See `pmv.generators.stylegan.folded_weight`; the result has the weight's layout in memory."""
    out = _Folded.apply(weight, style, gain, demodulate)
    assert isinstance(out, Tensor)
    return out


def _layout(weight: Tensor) -> tuple[int, int]:
    """Distance in memory of an input channel's neighbours, and of a tap's; outputs lie one whole kernel apart."""
    taps = weight.shape[2] * weight.shape[3]
    channels_last = taps > 1 and weight.is_contiguous(memory_format=torch.channels_last)
    return (1, weight.shape[1]) if channels_last else (taps, 1)


class _Folded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, style: Tensor, gain: float, demodulate: bool) -> Tensor:
        if not weight.is_contiguous(memory_format=torch.channels_last):
            weight = weight.contiguous()
        style = style.contiguous()
        out = torch.empty_like(weight)
        scales = torch.empty(len(weight), dtype=torch.float32, device=weight.device)
        _fold[(len(weight),)](weight, style, out, scales, gain, **_sizes(weight), DEMODULATE=demodulate)
        ctx.save_for_backward(weight, style, scales)
        ctx.demodulate, ctx.gain = demodulate, gain
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, style, scales = ctx.saved_tensors
        given = gradients[0]
        if given.stride() != weight.stride():
            given = torch.empty_like(weight).copy_(given)
        of_weight = torch.empty_like(weight)
        of_style = torch.empty(len(weight), len(style), dtype=torch.float32, device=weight.device)
        sizes = _sizes(weight)
        _fold_backward[(len(weight),)](
            weight, style, scales, given, of_weight, of_style, ctx.gain, **sizes, DEMODULATE=ctx.demodulate
        )
        return of_weight, of_style.sum(0), None, None


def _sizes(weight: Tensor) -> dict[str, int]:
    inputs, taps = weight.shape[1], weight.shape[2] * weight.shape[3]
    step, jump = _layout(weight)
    return {
        "INPUTS": inputs,
        "TAPS": taps,
        "STEP": step,
        "JUMP": jump,
        "WIDE": triton.next_power_of_2(inputs),
    }


@triton.jit
def _fold(
    weight, style, out, scales, gain, INPUTS: tl.constexpr, TAPS: tl.constexpr, STEP: tl.constexpr, JUMP: tl.constexpr,
    WIDE: tl.constexpr, DEMODULATE: tl.constexpr,
):  # fmt: skip
    i = tl.arange(0, WIDE)
    real = i < INPUTS
    place = tl.program_id(0) * (INPUTS * TAPS) + i * STEP
    s = tl.load(style + i, mask=real, other=0.0)
    scale = gain
    if DEMODULATE:
        squares = tl.zeros([WIDE], tl.float32)
        for tap in range(TAPS):
            m = tl.load(weight + place + tap * JUMP, mask=real, other=0.0) * s
            squares += m * m
        scale = gain / tl.sqrt(tl.sum(squares, 0) + _EPSILON)
    tl.store(scales + tl.program_id(0), scale)
    for tap in range(TAPS):
        m = tl.load(weight + place + tap * JUMP, mask=real, other=0.0) * s
        tl.store(out + place + tap * JUMP, m * scale, mask=real)


@triton.jit
def _fold_backward(
    weight, style, scales, given, of_weight, of_style, gain, INPUTS: tl.constexpr, TAPS: tl.constexpr,
    STEP: tl.constexpr, JUMP: tl.constexpr, WIDE: tl.constexpr, DEMODULATE: tl.constexpr,
):  # fmt: skip
    """With m = weight · style and r the scale: the gradient at m is r (G − m (r / gain)² ⟨G, m⟩)."""
    i = tl.arange(0, WIDE)
    real = i < INPUTS
    place = tl.program_id(0) * (INPUTS * TAPS) + i * STEP
    s = tl.load(style + i, mask=real, other=0.0)
    scale = tl.load(scales + tl.program_id(0))
    back = 0.0
    if DEMODULATE:
        product = tl.zeros([WIDE], tl.float32)
        for tap in range(TAPS):
            g = tl.load(given + place + tap * JUMP, mask=real, other=0.0)
            product += g * tl.load(weight + place + tap * JUMP, mask=real, other=0.0) * s
        back = tl.sum(product, 0) * scale * scale / (gain * gain)
    total = tl.zeros([WIDE], tl.float32)
    for tap in range(TAPS):
        value = tl.load(weight + place + tap * JUMP, mask=real, other=0.0)
        g = tl.load(given + place + tap * JUMP, mask=real, other=0.0)
        g = scale * (g - value * s * back)
        tl.store(of_weight + place + tap * JUMP, g * s, mask=real)
        total += g * value
    tl.store(of_style + tl.program_id(0) * INPUTS + i, total, mask=real)
