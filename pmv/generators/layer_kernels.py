"""What follows the convolution of a StyleGAN2 layer, as one Triton kernel each way: the low-pass filter after an
up-sampling one, noise, bias, leaky ReLU and clamp.

In plain PyTorch each is a pass over activations that fill hundreds of megabytes at 512². The twin is
`finish` of `pmv/generators/stylegan.py`.
"""

# kernels are written in a language of their own, in which types are other than Python's
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportIndexIssue=false, reportOptionalOperand=false, reportAttributeAccessIssue=false

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pmv.generators.decode_kernels import processors

SLOPE = tl.constexpr(0.2)
_ELEMENTS = 4096
_PROGRAMS_PER_PROCESSOR = 8


def finish_fused(y: Tensor, bias: Tensor, noise: Tensor | None, clamp: float | None, filtered: bool) -> Tensor:
    """See `pmv.generators.stylegan.finish`; y [N,O,H,W] in channels-last memory, as is the result, of y's type.

    Args:
        noise: [H',W'] fp32 of the result, or None.
    """
    out = _Finished.apply(y, bias, noise, clamp, filtered)
    assert isinstance(out, Tensor)
    return out


class _Finished(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, bias: Tensor, noise: Tensor | None, clamp: float | None, filtered: bool) -> Tensor:
        ctx.clamp, ctx.filtered = clamp, filtered
        out = (
            _filter(y, 1, y.shape[-2] - 1, y.shape[-1] - 1, (bias, noise, clamp))
            if filtered
            else _pointwise(y, bias, noise, clamp)
        )
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (out,) = ctx.saved_tensors
        given = gradients[0].contiguous(memory_format=torch.channels_last)
        wants_noise = ctx.needs_input_grad[2]
        gradient, of_bias, of_noise = _slope(given, out, ctx.clamp, wants_noise)
        if ctx.filtered:  # the filter is symmetric, so its transpose is itself with another border
            gradient = _filter(gradient, 2, out.shape[-2] + 1, out.shape[-1] + 1, None)
        return gradient, of_bias, of_noise, None, None


def upsample_fused(image: Tensor) -> Tensor:
    """See `pmv.generators.stylegan.upsample_twice`; in channels-last memory, fp32."""
    out = _Upsampled.apply(image)
    assert isinstance(out, Tensor)
    return out


class _Upsampled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor) -> Tensor:
        return _resampled(image, True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (_resampled(gradients[0], False),)


def _resampled(image: Tensor, up: bool) -> Tensor:
    """Twice as large, or by the transpose of that half as large."""
    image = image.contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = image.shape
    height, width = (2 * height, 2 * width) if up else (height // 2, width // 2)
    out = torch.empty(
        batch, channels, height, width, dtype=image.dtype, device=image.device, memory_format=torch.channels_last
    )
    wide, rows = _blocks(channels)
    many = batch * height * width
    _resample[(triton.cdiv(many, rows), triton.cdiv(channels, wide))](
        image, out, many, image.shape[2], image.shape[3], height, width, channels, UP=up, ROWS=rows, WIDE=wide
    )
    return out


def _blocks(channels: int) -> tuple[int, int]:
    """Channels and pixels that a program takes at once."""
    wide = min(128, triton.next_power_of_2(channels))
    return wide, max(1, _ELEMENTS // wide)


def _pointwise(y: Tensor, bias: Tensor, noise: Tensor | None, clamp: float | None) -> Tensor:
    y = y.contiguous(memory_format=torch.channels_last)
    out = torch.empty_like(y)
    batch, channels, height, width = y.shape
    wide, rows = _blocks(channels)
    many = batch * height * width
    _finish[(triton.cdiv(many, rows), triton.cdiv(channels, wide))](
        y,
        bias.contiguous(),
        y if noise is None else noise.contiguous(),
        out,
        many,
        height * width,
        channels,
        0.0 if clamp is None else clamp,
        NOISE=noise is not None,
        CLAMP=clamp is not None,
        ROWS=rows,
        WIDE=wide,
    )
    return out


def _filter(
    y: Tensor, border: int, height: int, width: int, ending: tuple[Tensor, Tensor | None, float | None] | None
) -> Tensor:
    """[N,C,H,W] filtered by (1,3,3,1)/4 along both axes with a border of zeros, then, with `ending`, finished."""
    y = y.contiguous(memory_format=torch.channels_last)
    batch, channels = y.shape[:2]
    out = torch.empty(batch, channels, height, width, dtype=y.dtype, device=y.device, memory_format=torch.channels_last)
    bias, noise, clamp = (y, None, None) if ending is None else ending
    wide, rows = _blocks(channels)
    many = batch * height * width
    _filtered[(triton.cdiv(many, rows), triton.cdiv(channels, wide))](
        y,
        bias.contiguous() if ending is not None else bias,
        y if noise is None else noise.contiguous(),
        out,
        many,
        y.shape[2],
        y.shape[3],
        height,
        width,
        channels,
        0.0 if clamp is None else clamp,
        BORDER=border,
        ENDING=ending is not None,
        NOISE=noise is not None,
        CLAMP=clamp is not None,
        ROWS=rows,
        WIDE=wide,
    )
    return out


def _slope(given: Tensor, out: Tensor, clamp: float | None, noise: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """The gradient before leaky ReLU and clamp, of the bias [C] and, where asked for, of the noise [H,W]."""
    batch, channels, height, width = out.shape
    wide, rows = _blocks(channels)
    many = batch * height * width
    parts = triton.cdiv(channels, wide)
    programs = max(1, min(triton.cdiv(many, rows), _PROGRAMS_PER_PROCESSOR * processors(out.device) // parts))
    gradient = torch.empty_like(out)
    of_bias = torch.empty(programs, channels, dtype=torch.float32, device=out.device)
    of_noise = torch.empty(parts, many if noise else 1, dtype=torch.float32, device=out.device)
    _finish_backward[(programs, parts)](
        given,
        out,
        gradient,
        of_bias,
        of_noise,
        many,
        channels,
        programs,
        0.0 if clamp is None else clamp,
        NOISE=noise,
        CLAMP=clamp is not None,
        ROWS=rows,
        WIDE=wide,
    )
    total = of_noise.reshape(-1, height, width).sum(0) if noise else None
    return gradient, of_bias.sum(0), total


@triton.jit
def _ended(x, bias, noise, pixel, area, c, real_c, real_row, clamp, NOISE: tl.constexpr, CLAMP: tl.constexpr):
    x += tl.load(bias + c, mask=real_c, other=0.0)[None, :]
    if NOISE:
        x += tl.load(noise + pixel % area, mask=real_row, other=0.0)[:, None]
    x = tl.where(x > 0, x, SLOPE * x)
    if CLAMP:
        x = tl.minimum(tl.maximum(x, -clamp), clamp)
    return x


@triton.jit
def _finish(
    y, bias, noise, out, many, area, channels, clamp,
    NOISE: tl.constexpr, CLAMP: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    real_row, real_c = pixel < many, c < channels
    at = pixel.to(tl.int64)[:, None] * channels + c[None, :]
    mask = real_row[:, None] & real_c[None, :]
    x = tl.load(y + at, mask=mask, other=0.0).to(tl.float32)
    x = _ended(x, bias, noise, pixel, area, c, real_c, real_row, clamp, NOISE, CLAMP)
    tl.store(out + at, x.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _filtered(
    y, bias, noise, out, many, in_height, in_width, height, width, channels, clamp,
    BORDER: tl.constexpr, ENDING: tl.constexpr, NOISE: tl.constexpr, CLAMP: tl.constexpr, ROWS: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    real_row, real_c = pixel < many, c < channels
    item, place = pixel // (height * width), pixel % (height * width)
    top, left = place // width - BORDER, place % width - BORDER
    x = tl.zeros([ROWS, WIDE], tl.float32)
    for i in tl.static_range(4):
        for j in tl.static_range(4):
            row, column = top + i, left + j
            inside = real_row & (row >= 0) & (row < in_height) & (column >= 0) & (column < in_width)
            at = ((item * in_height + row).to(tl.int64) * in_width + column)[:, None] * channels + c[None, :]
            tap = (3.0 if i == 1 or i == 2 else 1.0) * (3.0 if j == 1 or j == 2 else 1.0) / 16.0
            x += tap * tl.load(y + at, mask=inside[:, None] & real_c[None, :], other=0.0).to(tl.float32)
    if ENDING:
        x = _ended(x, bias, noise, pixel, height * width, c, real_c, real_row, clamp, NOISE, CLAMP)
    at = pixel.to(tl.int64)[:, None] * channels + c[None, :]
    tl.store(out + at, x.to(out.dtype.element_ty), mask=real_row[:, None] & real_c[None, :])


@triton.jit
def _finish_backward(
    given, out, gradient, of_bias, of_noise, many, channels, programs, clamp,
    NOISE: tl.constexpr, CLAMP: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    real_c = c < channels
    total = tl.zeros([WIDE], tl.float32)
    tile = tl.program_id(0)
    while tile * ROWS < many:
        pixel = tile * ROWS + tl.arange(0, ROWS)
        real_row = pixel < many
        at = pixel.to(tl.int64)[:, None] * channels + c[None, :]
        mask = real_row[:, None] & real_c[None, :]
        g = tl.load(given + at, mask=mask, other=0.0).to(tl.float32)
        y = tl.load(out + at, mask=mask, other=0.0).to(tl.float32)
        g = tl.where(y > 0, g, SLOPE * g)
        if CLAMP:
            g = tl.where(tl.abs(y) < clamp, g, 0.0)
        tl.store(gradient + at, g.to(gradient.dtype.element_ty), mask=mask)
        total += tl.sum(g, 0)
        if NOISE:
            tl.store(of_noise + tl.program_id(1) * many + pixel, tl.sum(g, 1), mask=real_row)
        tile += programs
    tl.store(of_bias + tl.program_id(0) * channels + c, total, mask=real_c)


@triton.jit
def _resample(
    image, out, many, in_height, in_width, height, width, channels, UP: tl.constexpr, ROWS: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """Up: each pixel is 9, 3, 3 and 1 sixteenths of the four nearest. Its transpose gathers the 16 that it went to."""
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    real_row, real_c = pixel < many, c < channels
    item, place = pixel // (height * width), pixel % (height * width)
    y, x = place // width, place % width
    total = tl.zeros([ROWS, WIDE], tl.float32)
    for i in tl.static_range(2 if UP else 4):
        for j in tl.static_range(2 if UP else 4):
            if UP:
                row, column = (y + 1) // 2 - 1 + i, (x + 1) // 2 - 1 + j
                a = tl.where(y % 2 == i, 0.25, 0.75)
                b = tl.where(x % 2 == j, 0.25, 0.75)
            else:
                row, column = 2 * y - 1 + i, 2 * x - 1 + j
                a = tl.where((y >= 0) & (i % 3 == 0), 0.25, 0.75)
                b = tl.where((x >= 0) & (j % 3 == 0), 0.25, 0.75)
            inside = real_row & (row >= 0) & (row < in_height) & (column >= 0) & (column < in_width)
            at = ((item * in_height + row).to(tl.int64) * in_width + column)[:, None] * channels + c[None, :]
            value = tl.load(image + at, mask=inside[:, None] & real_c[None, :], other=0.0).to(tl.float32)
            total += (a * b)[:, None] * value
    at = pixel.to(tl.int64)[:, None] * channels + c[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), mask=real_row[:, None] & real_c[None, :])
