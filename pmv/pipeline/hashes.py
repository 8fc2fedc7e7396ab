"""What tells whether a stage must run again, and which random numbers it draws."""

import hashlib
from typing import Any

import pmv
from pmv.files.artifacts import value_hash
from pmv.pipeline.config import Config, plain


def stage_seed(seed: int, name: str) -> int:
    """The seed of one stage: another for each name, the same whether or not other stages run before it."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7], "big")


def stage_hash(
    name: str, config: Config, inputs: dict[str, str], generator_hash: str, perceptual: str, identity: str = ""
) -> str:
    """The hash of one run of a stage; equal hashes give equal outputs.

    Args:
        inputs: content hash of each of its inputs by name: not the hash of the stage that made it, so that a change
            that alters nothing ends where it began.
        generator_hash: of the pretrained weights.
        perceptual: what tells perceptual distances apart, `pmv.fitting.perceptual.identity`.
        identity: of what else the stage reads, see `Stage.identity`; "" = nothing.
    """
    parts: dict[str, Any] = {
        "stage": name,
        "config": plain(config.stages[name]),
        "inputs": inputs,
        "generator": [generator_hash, plain(config.generator)],
        "perceptual": perceptual,
        "seed": config.run.seed,
        "code": pmv.__version__,
    }
    if identity:
        parts["identity"] = identity
    return value_hash(parts)
