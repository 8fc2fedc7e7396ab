"""What a training step spends its time on, as a GPU tells it."""

import re
import time
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity

from pmv.training.trainer import Trainer

KINDS = {
    "exchange between GPUs": r"nccl",
    "layout changes for convolutions": r"nchwToNhwc|nhwcToNchw",
    "convolutions and matrix products": r"conv|gemm|cutlass|xmma|wgrad|dgrad|fprop|sm\d\d_|nvjet|cublas|cudnn",
    "sorting and searching": r"sort|searchsorted|scan|radix|bitonic",
    "sampling the planes": r"grid_sampler|index_put|_WeightedRows|fused_.*index",
    "optimisers": r"adam|foreach|multi_tensor|lerp",
    "fused element-wise passes": r"^triton",
    "copies": r"memcpy|memset|copy",
}
"""Kind of work → pattern of its kernels' names; the first that fits counts."""


def kind_of(kernel: str) -> str:
    """The kind of a kernel, by its name; "other" where no pattern fits."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, kernel, re.IGNORECASE)), "other")


@dataclass(frozen=True)
class StepCost:
    """What a step costs.

    Attributes:
        seconds: that a step takes without anyone watching.
        kernels: name → seconds and calls a step.
    """

    seconds: float
    kernels: dict[str, tuple[float, float]]

    def kinds(self) -> dict[str, float]:
        """Kind of work → seconds a step, the longest first."""
        kinds: dict[str, float] = defaultdict(float)
        for name, (seconds, _) in self.kernels.items():
            kinds[kind_of(name)] += seconds
        return dict(sorted(kinds.items(), key=lambda item: -item[1]))

    def table(self) -> str:
        """Milliseconds a step by kind, then the forty longest kernels."""
        kinds = self.kinds()
        busy = sum(kinds.values())
        rows = [
            f"a step takes {1e3 * self.seconds:.2f} ms, {1e3 * busy:.2f} ms of kernels in {len(self.kernels)} kinds"
        ]
        for kind, seconds in kinds.items():
            rows.append(f"{1e3 * seconds:9.3f} ms  {100 * seconds / busy:5.1f} %  {kind}")
        for name, (seconds, calls) in sorted(self.kernels.items(), key=lambda item: -item[1][0])[:40]:
            rows.append(f"{1e3 * seconds:9.3f} ms in {calls:6.1f} calls  {name[:150]}")
        return "\n".join(rows) + "\n"


def profile(trainer: Trainer, steps: int) -> StepCost:
    """Trains on for 2 · `steps` steps: half of them timed with a clock, half watched by PyTorch's profiler."""
    device = trainer.device

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    start = time.perf_counter()
    for _ in range(steps):
        trainer.step()
    wait()
    seconds = (time.perf_counter() - start) / steps
    on_gpu = device.type == "cuda"
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity], acc_events=True) as watched:
        for _ in range(steps):
            trainer.step()
        wait()
    kernels = {}
    for event in watched.key_averages():
        microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if microseconds > 0:
            kernels[event.key] = microseconds * 1e-6 / steps, event.count / steps
    return StepCost(seconds, kernels)
