"""Where a run computes, and on what."""

import platform
import resource
import sys
from pathlib import Path

import torch

from pmv.errors import InputError


def pick_device(name: str) -> torch.device:
    """The device called "cpu", "cuda" or "auto"; InputError where CUDA is asked for and absent."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("run.device is cuda, but PyTorch finds no CUDA device; use --device cpu")
    return torch.device(name)


def cpu_name() -> str:
    """The processor's model, as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def system_name() -> str:
    """The system, its version and machine, as `platform.platform` says it, which starts a program to find out more."""
    parts = [platform.system(), platform.release(), platform.machine(), *platform.libc_ver()]
    return "-".join(part for part in parts if part)


def peak_memory(device: torch.device) -> dict[str, int]:
    """Megabytes (2²⁰ bytes): ``process_peak_mb`` of the process so far and, on a GPU, ``cuda_peak_mb`` since the last
    `torch.cuda.reset_peak_memory_stats`."""
    # ru_maxrss is in KiB on Linux and in bytes on macOS
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = {"process_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)}
    if device.type == "cuda":
        peak["cuda_peak_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return peak
