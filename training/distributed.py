"""Several processes that train one model, a GPU each: gradients are averaged, everything else runs in step.

Started by `torchrun --nproc-per-node gpu -m pmv.training.generator …`; without it there is one process, and nothing is
exchanged. Every decision that changes what is computed must come from what all processes share (pictures seen, never a
clock of their own): two that disagree wait for each other for ever.
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = timedelta(minutes=5)
"""A process that waits longer for the others ends with an error; compilation of the first step takes up to three."""


@dataclass(frozen=True)
class Peers:
    """This process among those that train together.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls, device: torch.device) -> Self:
        """Meets the processes that torchrun started (its environment says so); alone without it."""
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            return cls()
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        return cls(dist.get_rank(), count)

    @property
    def leads(self) -> bool:
        """Whether this is the process that renders, judges, saves and writes the log."""
        return self.rank == 0

    def leave(self) -> None:
        if self.count > 1:
            dist.destroy_process_group()

    def wait(self) -> None:
        """Returns when all processes are here."""
        if self.count > 1:
            dist.barrier()

    def average_(self, tensor: Tensor) -> None:
        """Replaces a tensor by its mean over the processes."""
        if self.count > 1:
            dist.all_reduce(tensor)
            tensor /= self.count

    def any(self, said: bool, device: torch.device) -> bool:
        """Whether any process says so."""
        if self.count == 1:
            return said
        flag = torch.tensor(float(said), device=device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag > 0)


def own_device(name: str) -> torch.device:
    """The device of this process: torchrun gives each of its own a GPU."""
    device = torch.device(name)
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    return device


ALONE = Peers()
"""One process, which exchanges nothing."""
