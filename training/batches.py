"""Batches of true views from a pack of heads that may still be growing, kept where the training runs."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.geometry.camera import Camera
from pmv.training.data import DEPTH_ORIGIN, HeadPack


@dataclass(frozen=True)
class Batch:
    """B heads with V views each; the views of one head lie side by side.

    Attributes:
        z: [B,D].
        cameras: B·V cameras.
        image: [B·V,3,R,R] in [-1,1] over mid grey.
        alpha: [B·V,1,R,R] in [0,1].
        depth: [B·V,1,R/2,R/2] z-depth, NaN where it is not known.
    """

    z: Tensor
    cameras: Camera
    image: Tensor
    alpha: Tensor
    depth: Tensor

    def raw(self, resolution: int) -> tuple[Tensor, Tensor, Tensor]:
        """image, alpha and depth at `resolution` ≤ R/2 by area averaging; depth is NaN in cells where any of it is."""

        def smaller(x: Tensor) -> Tensor:
            return F.interpolate(x, (resolution, resolution), mode="area")

        return smaller(self.image), smaller(self.alpha), smaller(self.depth)


class HeadStore:
    """The ready heads of a pack on a device: copied there once on a GPU, read from the memory map on the CPU.

    Args:
        pack: the pack, whose layout fixes how much memory is taken.
        device: where batches come out.
        share: (k, n): only every n-th head from k on, where n processes train together.

    Attributes:
        slots: the ready heads.
    """

    NAMES = ("rgb", "alpha", "depth", "z", "cameras")

    def __init__(self, pack: HeadPack, device: torch.device, share: tuple[int, int] = (0, 1)) -> None:
        self.pack, self.device, self.share = pack, device, share
        self.sources = {name: torch.from_numpy(getattr(pack, name)[share[0] :: share[1]]) for name in self.NAMES}
        if device.type == "cpu":
            self.arrays = self.sources
        else:
            self.arrays = {k: torch.empty(v.shape, dtype=v.dtype, device=device) for k, v in self.sources.items()}
        self.slots = torch.empty(0, dtype=torch.long)

    def __len__(self) -> int:
        return len(self.slots)

    def refresh(self, limit: int | None = None) -> int:
        """Takes in heads that became ready, at most `limit`; returns how many. Heads are in slot order if the pack
        was complete."""
        ready = torch.from_numpy(self.pack.slots())
        ready = ready[ready % self.share[1] == self.share[0]]
        new = ready[~torch.isin(ready, self.slots)][:limit]
        if self.arrays is not self.sources:
            for slot in (new // self.share[1]).tolist():
                for name, source in self.sources.items():
                    self.arrays[name][slot].copy_(source[slot])
        self.slots = torch.cat([self.slots, new])
        return len(new)

    def latents(self, count: int, generator: torch.Generator) -> Tensor:
        """[count,D] latents of no head here: entry by entry that of one of two heads.

        So each entry is distributed as in the pictures that a discriminator takes for true. Standard normal ones are
        not (the heads' entries are no Gaussians, see `PackLayout.gaussian`): a discriminator learns to tell them by
        what they are, and drove the generator to coloured patches there (docs/training.md).
        """
        parents = torch.randint(len(self), (2, count), generator=generator)
        second = torch.rand(count, self.arrays["z"].shape[1], generator=generator) < 0.5
        second, rows = (self._sent(x) for x in (second, self.slots[parents]))
        a, b = self.arrays["z"][rows // self.share[1]]
        return torch.where(second, b, a)

    def _sent(self, x: Tensor) -> Tensor:
        return x.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else x

    def sample(self, heads: int, views: int, generator: torch.Generator) -> Batch:
        """A random batch of different heads (with repeats only if the store holds fewer) and different views of
        each."""
        order = torch.cat([torch.randperm(len(self), generator=generator) for _ in range(-(-heads // len(self)))])
        total = self.pack.layout.views
        chosen = torch.rand(heads, total, generator=generator).argsort(1)[:, :views]
        return self.batch(self.slots[order[:heads]], chosen)

    def batch(self, slots: Tensor, views: Tensor) -> Batch:
        """slots [B], views [B,V] (CPU, long) → their batch."""
        index = self._sent(torch.cat([slots[:, None] // self.share[1], views], 1))
        head, view = index[:, :1], index[:, 1:]
        rgb = self.arrays["rgb"][head, view].flatten(0, 1).permute(0, 3, 1, 2).float() / 127.5 - 1
        alpha = self.arrays["alpha"][head, view].flatten(0, 1)[:, None].float() / 255
        depth = self.arrays["depth"][head, view].flatten(0, 1)[:, None].float() + DEPTH_ORIGIN
        cameras = Camera.from_labels(self.arrays["cameras"][head, view].flatten(0, 1))
        # without the gaps that views of the labels have: a copy of the batch must not be another shape to a compiler
        cameras = Camera(cameras.cam2world.contiguous(), cameras.intrinsics.contiguous())
        return Batch(
            self.arrays["z"][head[:, 0]],
            cameras,
            rgb * alpha,
            alpha,
            torch.where(depth.isfinite(), depth, torch.nan),
        )
