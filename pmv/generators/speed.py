"""Which short cuts a generator takes. Every one is a switch of its own, and with all of them off it computes as it is
written in the papers: the reference that tests compare with."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TypeVar

import torch
from torch import nn

G = TypeVar("G")


@dataclass(frozen=True)
class Speed:
    """Short cuts of one generator; none of them changes what is computed by more than rounding.

    Attributes:
        folded: where all views show one latent, modulation, demodulation and the activation's gain are multiplied into
            the convolutions' weights, in the place of two passes over the activations a layer.
        channels_last: the channels of a pixel lie side by side in memory.
        brief: on a CPU, the pass that finds out which samples matter takes a way of its own to densities
            (`pmv/generators/cpu_density.py`), and no fine samples on rays whose coarse ones found nothing.
        mixed: the super-resolution's convolutions in bfloat16; styles and what is summed up over resolutions stay in
            single precision.
        mixed_planes: those of the backbone too, which moves depths by some tenths of a percent.
        fused: Triton kernels in the place of the steps of a layer after its convolution and of tri-plane sampling with
            its decoder; needs CUDA.
        ordered: sums over threads are made so that the same inputs give the same bytes: gradients of planes as whole
            numbers (with `fused`; PyTorch's own sampling cannot), cuDNN's algorithms by choice.
    """

    folded: bool = False
    channels_last: bool = False
    brief: bool = False
    mixed: bool = False
    mixed_planes: bool = False
    fused: bool = False
    ordered: bool = False


REFERENCE = Speed()


def fast(device: torch.device) -> Speed:
    """The short cuts that pay on a device (`benchmarks/speed.py`)."""
    if device.type == "cuda":
        return Speed(folded=True, channels_last=True, mixed=True, fused=has_triton(), ordered=True)
    return Speed(folded=True, channels_last=True, brief=True)


def chosen_speed(name: str, device: torch.device) -> Speed:
    """What `RunConfig.speed` stands for: "reference", "fast", "fastest" (fast, in any order), or "auto", which is fast
    on CUDA and the reference on a CPU."""
    if name == "reference" or (name == "auto" and device.type != "cuda"):
        return REFERENCE
    best = fast(device)
    return replace(best, ordered=False, mixed_planes=best.mixed) if name == "fastest" else best


@contextmanager
def in_order(wanted: bool) -> Iterator[None]:
    """Where cuDNN takes only algorithms that sum in one order, so that the same inputs give the same bytes."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = wanted or before
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


def has_triton() -> bool:
    """Whether kernels can be compiled here."""
    return find_spec("triton") is not None


def with_speed(generator: G, speed: Speed) -> G:
    """A generator that takes these short cuts; itself where it does so already, else a copy, weights and all.

    What knows no short cuts, because it is of another make, is returned as it is.
    """
    if not isinstance(generator, nn.Module) or getattr(generator, "speed", speed) == speed:
        return generator
    generator = copy.deepcopy(generator)
    for module in generator.modules():
        if hasattr(module, "speed"):
            object.__setattr__(module, "speed", speed)
    if speed.channels_last:
        generator.to(memory_format=torch.channels_last)
    return generator
