"""CUDA graphs: a piece of a step recorded once and replayed, without the host's work of launching it.

A step launches over a thousand kernels, which takes the host longer than the GPU needs to run them.
"""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Outputs = TypeVar("Outputs")


class Replay(Generic[Outputs]):
    """A function of tensors, recorded.

    It must be the same work every time: fixed shapes, no waiting for the device, no random numbers of its own, and what
    it reads beside its inputs (weights) must stay where it is in memory.

    Args:
        function: called for real before it is recorded, which may not change what later calls compute.
        inputs: tensors like those of later calls.
        warm_up: how often it is called before.

    Attributes:
        outputs: what the function returned; every call fills the same tensors anew.
    """

    def __init__(self, function: Callable[..., Outputs], inputs: Sequence[Tensor] = (), warm_up: int = 2) -> None:
        self.inputs = [x.clone(memory_format=torch.preserve_format) for x in inputs]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(warm_up):
                function(*self.inputs)
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        # thread-local: the thread that watches over exchanges between GPUs may go on asking for its events
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.outputs = function(*self.inputs)

    def __call__(self, *inputs: Tensor) -> Any:
        """Runs it on other inputs; returns `outputs`."""
        for mine, other in zip(self.inputs, inputs, strict=True):
            mine.copy_(other, non_blocking=True)
        self.graph.replay()
        return self.outputs
