"""Which short cuts a generator takes. Every one is a switch of its own, and with all of them off it computes as it is
written in the papers: the reference that tests compare with."""

import copy
from dataclasses import dataclass
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
        mixed: the super-resolution's convolutions in bfloat16; styles and what is summed up over resolutions stay in
            single precision.
        mixed_planes: those of the backbone too, which moves depths by some tenths of a percent.
        fused: Triton kernels in the place of the steps of a layer after its convolution and of tri-plane sampling with
            its decoder; needs CUDA.
        ordered: gradients of tri-planes are summed so that the same inputs give the same bytes (with `fused`; without,
            PyTorch's own sampling does not).
    """

    folded: bool = False
    channels_last: bool = False
    mixed: bool = False
    mixed_planes: bool = False
    fused: bool = False
    ordered: bool = True


REFERENCE = Speed()


def fast(device: torch.device) -> Speed:
    """The short cuts that pay on a device (`benchmarks/speed.py`)."""
    if device.type == "cuda":
        return Speed(folded=True, channels_last=True, mixed=True, fused=has_triton())
    return Speed(folded=True)


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
            module.speed = speed
    if speed.channels_last:
        generator.to(memory_format=torch.channels_last)
    return generator
