"""One training run on several GPUs: a process a GPU, each on its own share of the heads, with averaged gradients.

`torchrun --nproc-per-node 2 -m training.generator …` starts the processes; without torchrun there is one, and nothing
here does anything.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Peers:
    """The processes of a run.

    Attributes:
        rank: this process's number; 0 renders, judges, logs and saves.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @classmethod
    def join(cls, device: str) -> "tuple[Peers, torch.device]":
        """Meets the others, as torchrun's environment says, and gives each process a GPU of its own.

        Args:
            device: "cuda" or "cpu".
        """
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world == 1:
            return cls(), torch.device(device)
        place = torch.device("cpu")
        if device != "cpu":
            place = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(place)
        dist.init_process_group("gloo" if place.type == "cpu" else "cpu:gloo,cuda:nccl")
        return cls(dist.get_rank(), world), place

    @staticmethod
    def leave() -> None:
        """Parts from the others."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replaces tensors, the same shapes in every process, by their means over the processes."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        dist.all_reduce(flat)
        flat /= self.world
        for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors])):
            tensor.copy_(mean.reshape(tensor.shape))

    def heed(self, *values: float) -> tuple[float, ...]:
        """The values that process 0 holds; the others wait for it here."""
        if self.world == 1:
            return values
        told = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(told, 0)
        return tuple(told.tolist())
