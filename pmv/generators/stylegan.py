"""StyleGAN2's mapping and synthesis networks in plain PyTorch (Karras et al. 2020, arXiv:1912.04958).

Module and buffer names give the state-dict keys of the official checkpoints, so that their weights load as they are.
Modulated convolutions scale the activations before and after one ordinary convolution (the equations of §2.2
rearranged): the same numbers as scaling the weights, without a kernel per sample.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmv.generators.speed import REFERENCE, Speed

RESAMPLE_TAPS = (1.0, 3.0, 3.0, 1.0)
"""StyleGAN2's low-pass filter for up-sampling, before normalisation."""
_LRELU_GAIN = math.sqrt(2.0)


def resample_filter() -> Tensor:
    """[4,4] normalised outer product of `RESAMPLE_TAPS`, as official checkpoints store it in every layer."""
    taps = torch.tensor(RESAMPLE_TAPS)
    kernel = torch.outer(taps, taps)
    return kernel / kernel.sum()


def normalize_second_moment(x: Tensor) -> Tensor:
    """x [N,C] scaled so that the mean of its squares over C is 1."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def upsample_twice(image: Tensor) -> Tensor:
    """[N,C,H,W] → [N,C,2H,2W] by zero insertion and the (1,3,3,1) filter, zeros beyond the border.

    The filter's two phases are (1,3)/4 and (3,1)/4: exactly bilinear interpolation, but with a border of zeros.
    """
    if torch.compiler.is_compiling():  # a compiler makes one pass over memory of this
        for dim in (2, 3):
            around = F.pad(image, (0, 0, 1, 1) if dim == 2 else (1, 1, 0, 0))
            before, after = (around.narrow(dim, i, image.shape[dim]) for i in (0, 2))
            phases = [0.25 * before + 0.75 * image, 0.75 * image + 0.25 * after]
            image = torch.stack(phases, dim + 1).flatten(dim, dim + 1)
        return image
    padded = F.pad(image, (1, 1, 1, 1))
    return F.interpolate(padded, scale_factor=2, mode="bilinear", align_corners=False)[..., 2:-2, 2:-2]


def filter_after_transposed(x: Tensor) -> Tensor:
    """[N,C,2H+1,2W+1] → [N,C,2H,2W]: the (1,3,3,1)/4 filter along both axes, one pixel of zeros around (gain 4 in
    all)."""
    if torch.compiler.is_compiling():  # sums of shifted copies, which a compiler makes one pass over memory
        for dim in (2, 3):
            x = F.pad(x, (0, 0, 1, 1) if dim == 2 else (1, 1, 0, 0))
            a, b, c, d = (x.narrow(dim, i, x.shape[dim] - 3) for i in range(4))
            x = (a + d) * 0.25 + (b + c) * 0.75
        return x
    channels = x.shape[1]
    # (1,3,3,1) computed where x is: copied from the host, it would stall a GPU in every layer
    taps = (4.0 - (2.0 * torch.arange(4, device=x.device) - 3.0).abs()).to(x.dtype) / 4.0
    kernel = torch.outer(taps, taps).expand(channels, 1, 4, 4)
    return F.conv2d(x, kernel, padding=1, groups=channels)


class FullyConnected(nn.Module):
    """Linear layer with equalised learning rate; the stored weight is randn / lr_multiplier."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias_init: float = 0.0,
        lr_multiplier: float = 1.0,
        lrelu: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr_multiplier))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier
        self.lrelu = lrelu

    def scaled(self) -> tuple[Tensor, Tensor]:
        """Weight [O,I] and bias [O] as they are multiplied."""
        return self.weight * self.weight_gain, self.bias * self.bias_gain

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, *self.scaled())
        return F.leaky_relu(y, 0.2) * _LRELU_GAIN if self.lrelu else y


class MappingNetwork(nn.Module):
    """z [N,z_dim] and a condition c [N,c_dim] → w [N,num_ws,w_dim].

    Args:
        normalize_z: scale z to unit second moment, as StyleGAN2 does; False where the length of z carries meaning.
        lr_multiplier: of the layers' stored weights.
        linear_end: the last layer has no activation.
    """

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int,
        num_layers: int,
        normalize_z: bool = True,
        lr_multiplier: float = 0.01,
        linear_end: bool = False,
    ) -> None:
        super().__init__()
        self.num_ws, self.num_layers, self.c_dim, self.normalize_z = num_ws, num_layers, c_dim, normalize_z
        if c_dim:
            self.embed = FullyConnected(c_dim, w_dim)
        widths = [z_dim + (w_dim if c_dim else 0)] + [w_dim] * num_layers
        for i in range(num_layers):
            lrelu = not (linear_end and i == num_layers - 1)
            self.add_module(f"fc{i}", FullyConnected(widths[i], widths[i + 1], 0.0, lr_multiplier, lrelu))
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor, c: Tensor | None, truncation: float = 1.0, cutoff: int | None = None) -> Tensor:
        x = normalize_second_moment(z) if self.normalize_z else z
        if self.c_dim:
            if c is None:
                raise ValueError("this mapping network is conditioned on a camera")
            x = torch.cat([x, normalize_second_moment(self.embed(c))], 1)
        for i in range(self.num_layers):
            x = self.get_submodule(f"fc{i}")(x)
        w = x[:, None].expand(-1, self.num_ws, -1)
        if truncation == 1.0:
            return w
        cutoff = self.num_ws if cutoff is None else cutoff
        return torch.cat([self.w_avg.lerp(w[:, :cutoff], truncation), w[:, cutoff:]], 1)


def modulated_convolution(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool, up: bool = False) -> Tensor:
    """x [N,I,H,W] convolved with weight [O,I,k,k] whose input channels are scaled by style [N,I] → [N,O,H',W'].

    With `demodulate` every output channel is divided by the L2 norm of its scaled weights (StyleGAN2 eq. 3). With `up`
    the result has twice the size: transposed convolution, then the low-pass filter.
    """
    y = x * style[:, :, None, None]
    if up:
        y = filter_after_transposed(F.conv_transpose2d(y, weight.transpose(0, 1), stride=2))
    else:
        y = F.conv2d(y, weight, padding=weight.shape[-1] // 2)
    if demodulate:
        energy = style.square() @ weight.square().sum((2, 3)).t()
        y = y * (energy + 1e-8).rsqrt()[:, :, None, None]
    return y


def folded_weight(weight: Tensor, style: Tensor, gain: float, demodulate: bool) -> Tensor:
    """[O,I,k,k] times style [I] and gain and, with `demodulate`, over the L2 norm of an output's weights times style
    (StyleGAN2 eq. 3)."""
    weight = weight * style[:, None, None]
    if demodulate:
        return weight * ((weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt() * gain)
    return weight * gain


def _folded_weight(weight: Tensor, style: Tensor, gain: float, demodulate: bool, fused: bool) -> Tensor:
    if fused:
        from pmv.generators.weight_kernels import folded_weight_fused

        return folded_weight_fused(weight, style, gain, demodulate)
    return folded_weight(weight, style, gain, demodulate)


def finish(y: Tensor, bias: Tensor, noise: Tensor | None, clamp: float | None, filtered: bool) -> Tensor:
    """What follows a convolution whose weights hold modulation, demodulation and the activation's gain.

    Args:
        y: [N,O,H,W], or [N,O,2H+1,2W+1] of an up-sampling convolution, which is filtered; it may be overwritten.
        bias: [O]; noise: [H',W'] or [N,1,H',W'] of the result's size, or None; both times the gain.
        clamp: ± of the result, None = not at all.
    """
    if filtered:
        y = filter_after_transposed(y)
    y = y.add_(bias[:, None, None].to(y.dtype))
    if noise is not None:
        y = y.add_(noise.to(y.dtype))
    y = F.leaky_relu_(y, 0.2)
    return y if clamp is None else y.clamp(-clamp, clamp)


def _style(affine: FullyConnected, w: Tensor) -> Tensor:
    """Scales [N,I] of input channels, in single precision whatever the convolutions are computed in."""
    with torch.autocast(w.device.type, enabled=False):
        return affine(w)


class SynthesisLayer(nn.Module):
    """Modulated 3×3 convolution, noise, bias, leaky ReLU.

    Args:
        conv_clamp: the output is clamped to ±this; None = not at all.
    """

    speed: Speed

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, resolution: int, up: bool, conv_clamp: float | None
    ) -> None:
        super().__init__()
        self.up, self.conv_clamp, self.speed = up, conv_clamp, REFERENCE
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("resample_filter", resample_filter())

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """x [N,I,H,W], w [N,w_dim] or, of all alike, [1,w_dim]; noise [R,R] or [N,1,R,R], or None for no noise."""
        if self.speed.folded and len(w) == 1:
            return self._folded(x, w, noise)
        y = modulated_convolution(x, self.weight, self.affine(w), demodulate=True, up=self.up)
        if noise is not None:
            y = y + noise * self.noise_strength
        y = F.leaky_relu(y + self.bias[:, None, None], 0.2) * _LRELU_GAIN
        return y if self.conv_clamp is None else y.clamp(-self.conv_clamp, self.conv_clamp)

    def _folded(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """The same with one kernel for all images."""
        fused = self.speed.fused and x.is_cuda
        weight = _folded_weight(self.weight, _style(self.affine, w)[0], _LRELU_GAIN, True, fused)
        if self.speed.channels_last:
            weight = weight.contiguous(memory_format=torch.channels_last)
            x = x.contiguous(memory_format=torch.channels_last)
        if self.up:
            y = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        else:
            y = F.conv2d(x, weight, padding=1)
        noise = None if noise is None else noise * (self.noise_strength * _LRELU_GAIN)
        bias = self.bias * _LRELU_GAIN
        if fused and (noise is None or noise.numel() == noise.shape[-1] * noise.shape[-2]):
            from pmv.generators.layer_kernels import finish_fused

            flat = None if noise is None else noise.reshape(noise.shape[-2:])
            return finish_fused(y, bias, flat, self.conv_clamp, self.up)
        return finish(y, bias, noise, self.conv_clamp, self.up)


class ToRGB(nn.Module):
    """Modulated 1×1 convolution without demodulation: features → picture (or planes)."""

    speed: Speed

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, conv_clamp: float | None) -> None:
        super().__init__()
        self.conv_clamp, self.speed = conv_clamp, REFERENCE
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = 1.0 / math.sqrt(in_channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        if self.speed.folded and len(w) == 1:
            fused = self.speed.fused and x.is_cuda
            weight = _folded_weight(self.weight, _style(self.affine, w)[0], self.weight_gain, False, fused)
            # in single precision, as the sum over resolutions that this goes into
            y = F.conv2d(x, weight).float() + self.bias[:, None, None]
            return y if self.conv_clamp is None else y.clamp(-self.conv_clamp, self.conv_clamp)
        style = self.affine(w) * self.weight_gain
        y = modulated_convolution(x, self.weight, style, demodulate=False) + self.bias[:, None, None]
        return y if self.conv_clamp is None else y.clamp(-self.conv_clamp, self.conv_clamp)


class SynthesisBlock(nn.Module):
    """One resolution of the skip architecture: a constant or an (up-sampling) convolution, a convolution, to-RGB.

    Args:
        in_channels: 0 for the first block, which starts from a learned constant.
        up: True if the block doubles the resolution; False for super-resolution blocks that keep it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        image_channels: int,
        up: bool = True,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.up = in_channels, up
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution, up, conv_clamp)
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution, False, conv_clamp)
        self.torgb = ToRGB(out_channels, image_channels, w_dim, conv_clamp)
        self.register_buffer("resample_filter", resample_filter())
        self.num_convolutions = 1 if in_channels == 0 else 2

    def layers(self) -> Iterator[tuple[str, SynthesisLayer]]:
        """The convolution layers in the order of their rows of w."""
        for name in ("conv0", "conv1"):
            if hasattr(self, name):
                yield name, getattr(self, name)

    def forward(
        self, x: Tensor | None, image: Tensor | None, w: Tensor, noise: dict[str, Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """Features and picture at this block's resolution.

        Args:
            x, image: of the block before; None for the first.
            w: [N,num_convolutions+1,w_dim] or, of all alike, [1,…]; the last row for to-RGB.
            noise: layer name → noise or None.
        """
        y = self.const.expand(len(w), -1, -1, -1) if x is None else x
        for row, (name, layer) in enumerate(self.layers()):
            y = layer(y, w[:, row], noise[name])
        picture = self.torgb(y, w[:, self.num_convolutions])
        if image is not None:
            picture = picture + (self._enlarged(image) if self.up else image)
        return y, picture

    def _enlarged(self, image: Tensor) -> Tensor:
        if self.torgb.speed.fused and image.is_cuda:
            from pmv.generators.layer_kernels import upsample_fused

            return upsample_fused(image)
        return upsample_twice(image)


class SynthesisNetwork(nn.Module):
    """w [N,num_ws,w_dim] → picture (for tri-planes: all feature channels of all planes) [N,image_channels,R,R]."""

    def __init__(
        self,
        w_dim: int,
        resolution: int,
        image_channels: int,
        channel_base: int,
        channel_max: int,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.resolutions = [2**i for i in range(2, int(math.log2(resolution)) + 1)]
        self.num_ws = 1
        previous = 0
        for r in self.resolutions:
            channels = min(channel_base // r, channel_max)
            block = SynthesisBlock(previous, channels, w_dim, r, image_channels, conv_clamp=conv_clamp)
            self.add_module(f"b{r}", block)
            self.num_ws += block.num_convolutions
            previous = channels

    def noise_buffers(self) -> dict[str, Tensor]:
        """Name ("b8.conv0.noise_const") → the constant noise [R,R] of every layer."""
        return {name: buffer for name, buffer in self.named_buffers() if name.endswith("noise_const")}

    def forward(self, w: Tensor, noise: dict[str, Tensor]) -> Tensor:
        """`noise` overrides the constant noise of the layers that it names; see `noise_buffers`."""
        x = image = None
        row = 0
        for r in self.resolutions:
            block = self.get_submodule(f"b{r}")
            assert isinstance(block, SynthesisBlock)
            maps = {name: noise.get(f"b{r}.{name}.noise_const", layer.noise_const) for name, layer in block.layers()}
            x, image = block(x, image, w[:, row : row + block.num_convolutions + 1], maps)
            row += block.num_convolutions
        assert image is not None
        return image


class Backbone(nn.Module):
    """Mapping and synthesis side by side, as the official checkpoints hold them."""

    def __init__(self, mapping: MappingNetwork, synthesis: SynthesisNetwork) -> None:
        super().__init__()
        self.mapping, self.synthesis = mapping, synthesis
