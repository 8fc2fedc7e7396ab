"""Tri-plane sampling and the decoder as one Triton kernel each way; what `pmv/generators/fused_march.py` is made of.

In plain PyTorch every step between planes and features writes a tensor of all samples to memory and reads it back: the
features of three planes, their mean, the hidden layer before and after its softplus, the result. Here a sample's texels
are gathered into registers and go through both layers there. The gradient is recomputed from the points, so nothing but
the planes is kept for it.

The twin is `sample_planes` of `pmv/generators/volume.py` followed by `pmv.generators.eg3d.Decoder`.
"""

# kernels are written in a language of their own, in which types are other than Python's
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportIndexIssue=false, reportOptionalOperand=false, reportAttributeAccessIssue=false

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

_FORWARD_BLOCK = 128
_BACKWARD_BLOCK = 64
_PROGRAMS_PER_PROCESSOR = 3
_FIXED_BITS = 32
"""Binary places below the largest incoming gradient at which gradients of texels are added up as whole numbers."""


def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; one of anything else, where Triton's interpreter runs."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


@dataclass(frozen=True)
class Volume:
    """What is sampled and decoded.

    Attributes:
        planes: [H,W,3·C] fp32, contiguous: the channels of a texel lie side by side.
        hidden_weight [D,C], hidden_bias [D], out_weight [1+C,D], out_bias [1+C]: the decoder's two layers, as they are
            multiplied.
        axes: of each plane the world axes of its columns and rows.
        box: side of the cube.
    """

    planes: Tensor
    hidden_weight: Tensor
    hidden_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor
    axes: tuple[tuple[int, int], ...]
    box: float

    @property
    def sizes(self) -> dict[str, int]:
        """Shapes as the kernels want them; matrix units take no fewer than 16 columns."""
        channels, hidden = self.hidden_weight.shape[1], self.hidden_weight.shape[0]
        return {
            "CHANNELS": channels,
            "CHANNELS_PADDED": max(16, triton.next_power_of_2(channels)),
            "HIDDEN": hidden,
            "HIDDEN_PADDED": max(16, triton.next_power_of_2(hidden)),
            # two bits an axis: columns and rows of each plane
            "AXES": sum(axis << (4 * k + 2 * i) for k, plane in enumerate(self.axes) for i, axis in enumerate(plane)),
        }

    @property
    def arguments(self) -> tuple[Tensor | float | int, ...]:
        height, width = self.planes.shape[:2]
        weights = (self.hidden_weight, self.hidden_bias, self.out_weight, self.out_bias)
        return self.planes, *(w.contiguous() for w in weights), 2.0 / self.box, height, width


@dataclass(frozen=True)
class Rays:
    """R rays and the S samples of each: origins, directions [R,3], contiguous, and ray lengths t [R,S]."""

    origins: Tensor
    directions: Tensor
    t: Tensor


def decode(volume: Volume, rays: Rays, first: int, count: int, density: Tensor, features: Tensor) -> None:
    """Density and features of samples `first` … `first` + `count` of every ray, written into [R,S] and [R,S,C]."""
    many = len(rays.t) * count
    _decode[(triton.cdiv(many, _FORWARD_BLOCK),)](
        *volume.arguments,
        rays.origins,
        rays.directions,
        rays.t,
        density,
        features,
        many,
        first,
        COUNT=count,
        TOTAL=rays.t.shape[1],
        **volume.sizes,
        BLOCK=_FORWARD_BLOCK,
        num_warps=4,
    )


@dataclass(frozen=True)
class Gradients:
    """Of a `Volume` and, where they are asked for, the points of all samples [R,S,3]."""

    planes: Tensor
    hidden_weight: Tensor
    hidden_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor
    points: Tensor | None


def decode_backward(
    volume: Volume,
    rays: Rays,
    chosen: tuple[Tensor, Tensor],
    density_gradient: Tensor,
    half: Tensor,
    summed_gradient: Tensor,
    points: bool,
    ordered: bool,
) -> Gradients:
    """Gradients from those of density [R,S] and of the sum over a ray's samples of half [R,S] times features [R,C].

    Args:
        chosen: the samples that count, sample · R + ray, [R·S] int32 of which the first n are set, and n, [1] int32.
            In this order, neighbours in memory are neighbours in the picture, which meet other texels, and their
            additions do not wait for one another.
        points: give the gradient of the points too.
        ordered: the gradients of texels are added up as whole numbers, for which the order in which threads arrive does
            not matter, so that the same inputs give the same bytes; False: as floating-point numbers.
    """
    sizes, planes = volume.sizes, volume.planes
    device = planes.device
    programs = _PROGRAMS_PER_PROCESSOR * processors(device)
    padded, hidden, channels = sizes["CHANNELS_PADDED"], sizes["HIDDEN_PADDED"], sizes["CHANNELS"]
    if ordered:
        # no sample's gradient exceeds this by much: the decoder's weights are of the order of one
        largest = torch.maximum(
            density_gradient.abs().amax(), summed_gradient.abs().amax() * half.abs().amax()
        ).clamp_min(1e-30)
        scale = torch.exp2(_FIXED_BITS - largest.log2().ceil()).reshape(1)
        texels = torch.zeros(planes.shape, dtype=torch.int64, device=device)
    else:
        scale = torch.ones(1, device=device)
        texels = torch.zeros_like(planes)
    sums = planes.new_zeros(programs, 2 * hidden * padded + 2 * hidden + padded + 16)
    of_points = rays.t.new_zeros(*rays.t.shape, 3) if points else None
    _decode_backward[(programs,)](
        *volume.arguments,
        rays.origins,
        rays.directions,
        rays.t,
        *chosen,
        density_gradient,
        half,
        summed_gradient,
        scale,
        texels,
        sums,
        sums if of_points is None else of_points,
        sums.shape[1],
        programs,
        len(rays.t),
        TOTAL=rays.t.shape[1],
        **sizes,
        POINTS=points,
        ORDERED=ordered,
        BLOCK=_BACKWARD_BLOCK,
        num_warps=4,
    )
    total = sums.sum(0)
    first, second, biases = total.split([hidden * padded, hidden * padded, 2 * hidden + padded + 16])
    hidden_bias, density_row, out_bias, density_bias = biases.split([hidden, hidden, padded, 16])
    wide = volume.hidden_weight.shape[0]
    return Gradients(
        texels.to(torch.float32) / scale if ordered else texels,
        first.reshape(hidden, padded)[:wide, :channels],
        hidden_bias[:wide],
        torch.cat([density_row[None, :wide], second.reshape(hidden, padded)[:wide, :channels].t()]),
        torch.cat([density_bias[:1], out_bias[:channels]]),
        of_points,
    )


@triton.jit
def _axis(AXES: tl.constexpr, plane, which: tl.constexpr):
    """The world axis of a plane's columns (which = 0) or rows (1)."""
    return (AXES >> (4 * plane + 2 * which)) & 3


@triton.jit
def _along(x, y, z, axis):
    """That coordinate of points."""
    return tl.where(axis == 0, x, tl.where(axis == 1, y, z))


@triton.jit
def _corners(u, v, height, width):
    """The texels around places in [-1,1]: column and row of the first, and how far beyond it."""
    column, row = (u + 1) * (width / 2) - 0.5, (v + 1) * (height / 2) - 0.5
    left, top = tl.floor(column), tl.floor(row)
    # far outside, where all corners lie outside too, numbers must still fit whole ones
    left, top = tl.minimum(tl.maximum(left, -2.0), width + 1.0), tl.minimum(tl.maximum(top, -2.0), height + 1.0)
    return left.to(tl.int32), top.to(tl.int32), column - left, row - top


@triton.jit
def _texel(planes, x, y, height, width, plane, CHANNELS: tl.constexpr, c, some):
    """Channels [B,CP] of one corner of one plane; zero outside."""
    inside = some & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    at = (y * width + x) * (3 * CHANNELS) + plane * CHANNELS
    return tl.load(planes + at[:, None] + c[None, :], mask=inside[:, None] & (c < CHANNELS)[None, :], other=0.0)


@triton.jit
def _plane(planes, u, v, height, width, plane, CHANNELS: tl.constexpr, c, some):
    """Channels [B,CP] of one plane, linearly interpolated."""
    x, y, a, b = _corners(u, v, height, width)
    total = _texel(planes, x, y, height, width, plane, CHANNELS, c, some) * ((1 - a) * (1 - b))[:, None]
    total += _texel(planes, x + 1, y, height, width, plane, CHANNELS, c, some) * (a * (1 - b))[:, None]
    total += _texel(planes, x, y + 1, height, width, plane, CHANNELS, c, some) * ((1 - a) * b)[:, None]
    total += _texel(planes, x + 1, y + 1, height, width, plane, CHANNELS, c, some) * (a * b)[:, None]
    return total


@triton.jit
def _mean(
    planes, x, y, z, height, width, AXES: tl.constexpr, CHANNELS: tl.constexpr, CHANNELS_PADDED: tl.constexpr, c, some,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Mean [B,CP] of the planes at points in units of half the box."""
    total = tl.zeros([BLOCK, CHANNELS_PADDED], tl.float32)
    # a loop that stays one: unrolled, it takes the compiler half a minute
    for plane in range(3):
        u, v = _along(x, y, z, _axis(AXES, plane, 0)), _along(x, y, z, _axis(AXES, plane, 1))
        total += _plane(planes, u, v, height, width, plane, CHANNELS, c, some)
    return total * (1.0 / 3.0)


@triton.jit
def _softplus(x):
    return tl.where(x > 20.0, x, tl.log(1.0 + tl.exp(tl.minimum(x, 20.0))))


@triton.jit
def _points(origins, directions, t, at, ray, some, scale):
    """Points in units of half the box."""
    length = tl.load(t + at, mask=some, other=0.0)
    x = tl.load(origins + ray * 3, mask=some, other=0.0) + length * tl.load(directions + ray * 3, mask=some, other=0.0)
    y = tl.load(origins + ray * 3 + 1, mask=some, other=0.0) + length * tl.load(
        directions + ray * 3 + 1, mask=some, other=0.0
    )
    z = tl.load(origins + ray * 3 + 2, mask=some, other=0.0) + length * tl.load(
        directions + ray * 3 + 2, mask=some, other=0.0
    )
    return x * scale, y * scale, z * scale


@triton.jit
def _decode(
    planes,
    hidden_weight,
    hidden_bias,
    out_weight,
    out_bias,
    scale,
    height,
    width,
    origins,
    directions,
    t,
    density,
    features,
    many,
    first,
    COUNT: tl.constexpr,
    TOTAL: tl.constexpr,
    CHANNELS: tl.constexpr,
    CHANNELS_PADDED: tl.constexpr,
    HIDDEN: tl.constexpr,
    HIDDEN_PADDED: tl.constexpr,
    AXES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    item = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    some = item < many
    ray = item // COUNT
    at = ray * TOTAL + first + item % COUNT
    c, h = tl.arange(0, CHANNELS_PADDED), tl.arange(0, HIDDEN_PADDED)
    real_c, real_h = c < CHANNELS, h < HIDDEN
    both = real_c[:, None] & real_h[None, :]
    w1 = tl.load(hidden_weight + h[None, :] * CHANNELS + c[:, None], mask=both, other=0.0)  # [C,D]
    b1 = tl.load(hidden_bias + h, mask=real_h, other=0.0)
    w2 = tl.load(out_weight + (c[None, :] + 1) * HIDDEN + h[:, None], mask=real_c[None, :] & real_h[:, None], other=0.0)
    row = tl.load(out_weight + h, mask=real_h, other=0.0)
    b2 = tl.load(out_bias + 1 + c, mask=real_c, other=0.0)
    x, y, z = _points(origins, directions, t, at, ray, some, scale)
    mean = _mean(planes, x, y, z, height, width, AXES, CHANNELS, CHANNELS_PADDED, c, some, BLOCK)
    hidden = _softplus(tl.dot(mean, w1, input_precision="tf32x3") + b1[None, :])
    raw = tl.sum(hidden * row[None, :], 1) + tl.load(out_bias)
    tl.store(density + at, raw, mask=some)
    colour = tl.sigmoid(tl.dot(hidden, w2, input_precision="tf32x3") + b2[None, :]) * 1.002 - 0.001
    place = at.to(tl.int64)[:, None] * CHANNELS + c[None, :]
    tl.store(features + place, colour, mask=some[:, None] & real_c[None, :])


@triton.jit
def _add_texel(texels, x, y, height, width, value, plane, CHANNELS: tl.constexpr, c, some, ORDERED: tl.constexpr):
    inside = some & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    at = (y * width + x) * (3 * CHANNELS) + plane * CHANNELS
    mask = inside[:, None] & (c < CHANNELS)[None, :]
    if ORDERED:
        rounded = tl.floor(value + 0.5).to(tl.int64)
        tl.atomic_add(texels + at[:, None] + c[None, :], rounded, mask=mask, sem="relaxed")
    else:
        tl.atomic_add(texels + at[:, None] + c[None, :], value, mask=mask, sem="relaxed")


@triton.jit
def _scatter(texels, u, v, height, width, value, plane, CHANNELS: tl.constexpr, c, some, ORDERED: tl.constexpr):
    """The transpose of `_plane`."""
    x, y, a, b = _corners(u, v, height, width)
    _add_texel(texels, x, y, height, width, value * ((1 - a) * (1 - b))[:, None], plane, CHANNELS, c, some, ORDERED)
    _add_texel(texels, x + 1, y, height, width, value * (a * (1 - b))[:, None], plane, CHANNELS, c, some, ORDERED)
    _add_texel(texels, x, y + 1, height, width, value * ((1 - a) * b)[:, None], plane, CHANNELS, c, some, ORDERED)
    _add_texel(texels, x + 1, y + 1, height, width, value * (a * b)[:, None], plane, CHANNELS, c, some, ORDERED)


@triton.jit
def _slopes(planes, u, v, height, width, value, plane, CHANNELS: tl.constexpr, c, some):
    """Gradient at places in [-1,1] of one plane, given that of its channels."""
    x, y, a, b = _corners(u, v, height, width)
    p00 = tl.sum(_texel(planes, x, y, height, width, plane, CHANNELS, c, some) * value, 1)
    p01 = tl.sum(_texel(planes, x + 1, y, height, width, plane, CHANNELS, c, some) * value, 1)
    p10 = tl.sum(_texel(planes, x, y + 1, height, width, plane, CHANNELS, c, some) * value, 1)
    p11 = tl.sum(_texel(planes, x + 1, y + 1, height, width, plane, CHANNELS, c, some) * value, 1)
    du = ((p01 - p00) * (1 - b) + (p11 - p10) * b) * (width / 2)
    dv = ((p10 - p00) * (1 - a) + (p11 - p01) * a) * (height / 2)
    return du, dv


@triton.jit
def _decode_backward(
    planes,
    hidden_weight,
    hidden_bias,
    out_weight,
    out_bias,
    scale,
    height,
    width,
    origins,
    directions,
    t,
    chosen,
    count,
    density_gradient,
    half,
    summed_gradient,
    fixed,
    texels,
    sums,
    points,
    stride,
    programs,
    rays,
    TOTAL: tl.constexpr,
    CHANNELS: tl.constexpr,
    CHANNELS_PADDED: tl.constexpr,
    HIDDEN: tl.constexpr,
    HIDDEN_PADDED: tl.constexpr,
    AXES: tl.constexpr,
    POINTS: tl.constexpr,
    ORDERED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    c, h = tl.arange(0, CHANNELS_PADDED), tl.arange(0, HIDDEN_PADDED)
    real_c, real_h = c < CHANNELS, h < HIDDEN
    both = real_c[:, None] & real_h[None, :]
    w1 = tl.load(hidden_weight + h[None, :] * CHANNELS + c[:, None], mask=both, other=0.0)  # [C,D]
    w2 = tl.load(out_weight + (c[None, :] + 1) * HIDDEN + h[:, None], mask=real_c[None, :] & real_h[:, None], other=0.0)
    b1 = tl.load(hidden_bias + h, mask=real_h, other=0.0)
    row = tl.load(out_weight + h, mask=real_h, other=0.0)
    b2 = tl.load(out_bias + 1 + c, mask=real_c, other=0.0)
    d_w1 = tl.zeros([HIDDEN_PADDED, CHANNELS_PADDED], tl.float32)
    d_w2 = tl.zeros([HIDDEN_PADDED, CHANNELS_PADDED], tl.float32)
    d_b1 = tl.zeros([HIDDEN_PADDED], tl.float32)
    d_row = tl.zeros([HIDDEN_PADDED], tl.float32)
    d_b2 = tl.zeros([CHANNELS_PADDED], tl.float32)
    d_bias = 0.0
    factor = tl.load(fixed) * (1.0 / 3.0)
    number = tl.load(count)
    tile = tl.program_id(0)
    while tile * BLOCK < number:
        item = tile * BLOCK + tl.arange(0, BLOCK)
        some = item < number
        place = tl.load(chosen + item, mask=some, other=0)
        ray = place % rays
        at = ray * TOTAL + place // rays
        x, y, z = _points(origins, directions, t, at, ray, some, scale)
        mean = _mean(planes, x, y, z, height, width, AXES, CHANNELS, CHANNELS_PADDED, c, some, BLOCK)
        before = tl.dot(mean, w1, input_precision="tf32x3") + b1[None, :]
        hidden = _softplus(before)
        colour = tl.sigmoid(tl.dot(hidden, w2, input_precision="tf32") + b2[None, :])
        g_density = tl.load(density_gradient + at, mask=some, other=0.0)
        share = tl.load(half + at, mask=some, other=0.0)
        g_sum = tl.load(
            summed_gradient + ray[:, None] * CHANNELS + c[None, :], mask=some[:, None] & real_c[None, :], other=0.0
        )
        g_colour = g_sum * share[:, None] * (1.002 * colour * (1.0 - colour))
        g_hidden = tl.dot(g_colour, tl.trans(w2), input_precision="tf32") + g_density[:, None] * row[None, :]
        # hidden rows of samples that are none are not zero
        kept = tl.where(some[:, None], hidden, 0.0)
        d_w2 += tl.dot(tl.trans(kept), g_colour, input_precision="tf32")
        d_b2 += tl.sum(g_colour, 0)
        d_row += tl.sum(kept * g_density[:, None], 0)
        d_bias += tl.sum(g_density, 0)
        g_before = g_hidden * tl.sigmoid(before)
        d_w1 += tl.dot(tl.trans(g_before), mean, input_precision="tf32")
        d_b1 += tl.sum(g_before, 0)
        g_mean = tl.dot(g_before, tl.trans(w1), input_precision="tf32")
        g_texel = g_mean * factor
        for plane in range(3):
            u, v = _along(x, y, z, _axis(AXES, plane, 0)), _along(x, y, z, _axis(AXES, plane, 1))
            _scatter(texels, u, v, height, width, g_texel, plane, CHANNELS, c, some, ORDERED)
        if POINTS:
            g_mean = g_mean * (scale / 3.0)
            g_x, g_y, g_z = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
            for plane in range(3):
                across, down = _axis(AXES, plane, 0), _axis(AXES, plane, 1)
                u, v = _along(x, y, z, across), _along(x, y, z, down)
                du, dv = _slopes(planes, u, v, height, width, g_mean, plane, CHANNELS, c, some)
                g_x += tl.where(across == 0, du, 0.0) + tl.where(down == 0, dv, 0.0)
                g_y += tl.where(across == 1, du, 0.0) + tl.where(down == 1, dv, 0.0)
                g_z += tl.where(across == 2, du, 0.0) + tl.where(down == 2, dv, 0.0)
            tl.store(points + at * 3, g_x, mask=some)
            tl.store(points + at * 3 + 1, g_y, mask=some)
            tl.store(points + at * 3 + 2, g_z, mask=some)
        tile += programs
    part = sums + tl.program_id(0) * stride
    square = h[:, None] * CHANNELS_PADDED + c[None, :]
    tl.store(part + square, d_w1)
    part += HIDDEN_PADDED * CHANNELS_PADDED
    tl.store(part + square, d_w2)
    part += HIDDEN_PADDED * CHANNELS_PADDED
    tl.store(part + h, d_b1)
    tl.store(part + HIDDEN_PADDED + h, d_row)
    tl.store(part + 2 * HIDDEN_PADDED + c, d_b2)
    tl.store(part + 2 * HIDDEN_PADDED + CHANNELS_PADDED, d_bias)
