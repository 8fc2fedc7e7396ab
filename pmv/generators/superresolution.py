"""EG3D's super-resolution heads: two StyleGAN2 blocks that turn the ray-marched features into the output image.

All official heads are one module with different numbers (`HEADS`), read off their published state dicts.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from pmv.generators.stylegan import SynthesisBlock, resample_filter


@dataclass(frozen=True)
class SuperResolutionHead:
    """Numbers of one head.

    Attributes:
        input_resolution: features are resized to this before the first block.
        channels: output channels of the two blocks.
        up: whether each block doubles the resolution.
        only_enlarge: True if features larger than `input_resolution` are left as they are.
        stores_filter: True if the official module itself keeps a copy of the resampling filter in its state dict.
    """

    input_resolution: int
    channels: tuple[int, int]
    up: tuple[bool, bool]
    only_enlarge: bool = False
    stores_filter: bool = True

    @property
    def output_resolution(self) -> int:
        return self.input_resolution * 2 ** sum(self.up)


HEADS = {
    "SuperresolutionHybrid2X": SuperResolutionHead(64, (128, 64), (False, True)),
    "SuperresolutionHybrid4X": SuperResolutionHead(128, (128, 64), (False, True), only_enlarge=True),
    "SuperresolutionHybridDeepfp32": SuperResolutionHead(128, (128, 64), (False, True), only_enlarge=True),
    "SuperresolutionHybrid8X": SuperResolutionHead(128, (128, 64), (True, True)),
    "SuperresolutionHybrid8XDC": SuperResolutionHead(128, (256, 128), (True, True), stores_filter=False),
}
"""Class names of the official heads → their numbers."""


class SuperResolution(nn.Module):
    """Features [N,C,r,r] and the raw image [N,3,r,r] → image [N,3,R,R], modulated by the last row of w.

    Args:
        antialias: low-pass the features when they are made smaller (EG3D's `sr_antialias`).
        use_noise: constant noise in the blocks (EG3D's noise mode "const"); the published FFHQ models use none.
    """

    def __init__(
        self,
        head: SuperResolutionHead,
        in_channels: int,
        w_dim: int,
        antialias: bool,
        use_noise: bool,
        conv_clamp: float | None,
    ) -> None:
        super().__init__()
        self.head, self.antialias, self.use_noise = head, antialias, use_noise
        resolution, previous = head.input_resolution, in_channels
        for i, (channels, up) in enumerate(zip(head.channels, head.up, strict=True)):
            resolution *= 2 if up else 1
            self.add_module(
                f"block{i}", SynthesisBlock(previous, channels, w_dim, resolution, 3, up=up, conv_clamp=conv_clamp)
            )
            previous = channels
        if head.stores_filter:
            self.register_buffer("resample_filter", resample_filter())

    def _resize(self, x: Tensor) -> Tensor:
        size, target = x.shape[-1], self.head.input_resolution
        if size == target or (self.head.only_enlarge and size > target):
            return x
        return F.interpolate(x, (target, target), mode="bilinear", align_corners=False, antialias=self.antialias)

    def forward(self, raw: Tensor, features: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the image, and the raw image as the official code reports it; w [N,num_ws,w_dim] or, of all alike,
        [1,…].

        Official heads whose first block keeps the resolution add that block's picture to the raw image *in place*, so
        what their callers (losses, discriminators, reference outputs) know as the raw image is the picture after that
        block.
        """
        rows = w[:, -1:].expand(-1, 3, -1)
        x, image = self._resize(features), self._resize(raw)
        in_place = not self.head.up[0] and image is raw
        for i in range(2):
            block = self.get_submodule(f"block{i}")
            assert isinstance(block, SynthesisBlock)
            noise = {name: layer.noise_const if self.use_noise else None for name, layer in block.layers()}
            x, image = block(x, image, rows, noise)
            if i == 0 and in_place:
                raw = image
        return image, raw
