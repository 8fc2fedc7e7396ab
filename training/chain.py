"""What of a chain travels from one machine to the next: a folder of small files that the next piece begins with.

    average.safetensors   the averaged generator, half precision (12 MB)
    judge.safetensors     the discriminator, half precision (13 MB)
    moments.safetensors   both optimisers' second moments, factored (`training.moments`, under 1 MB)
    state.json            position, the chain's configuration, z's names, what is told of every piece
    curve.csv             the learning curve (`training.curve`)

The generator itself does not travel: the next piece begins from the average, which is the better of the two.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pmv.errors import InputError
from pmv.files.artifacts import atomic_path, read_json, write_json
from pmv.generators import EG3DConfig, EG3DGenerator
from pmv.generators.native import FORMAT
from pmv.training import moments
from pmv.training.latents import FIRST, widened
from pmv.training.trainer import COUNTERS, Trainer

CURVE, DESCRIPTION = "curve.csv", "state.json"
_SAVED = ("average", "judge")
COMMITTED = Path(__file__).resolve().parent / "state"
"""Where the repository keeps the open chain: 25 MB that no installation needs, and that no wheel holds."""


def save(trainer: Trainer, folder: Path, z_names: list[str]) -> None:
    """Writes the state, each file whole or as it was before."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: {k: v.half().contiguous() for k, v in getattr(trainer, name).state_dict().items()} for name in _SAVED
    }
    tensors["moments"] = moments.pack(trainer.optimizer, {"generator": trainer.generator})
    tensors["moments"] |= moments.pack(trainer.judge_optimizer, {"judge": trainer.judge})
    for name, content in tensors.items():
        with atomic_path(folder / f"{name}.safetensors") as temporary:
            save_file(content, temporary)
    shares = None if trainer.shares is None else trainer.shares.tolist()
    counters = {name: getattr(trainer, name) for name in COUNTERS if name not in ("elapsed", "fresh_at")}
    description = {"format": FORMAT, "config": asdict(trainer.config), "shares": shares, **counters}
    description |= {"generator": trainer.average.config.to_json(), "z_names": z_names}
    write_json(folder / DESCRIPTION, description)


def config(folder: Path) -> dict[str, Any]:
    """The chain's configuration. Raises InputError if the folder holds no state."""
    return _description(folder)["config"]


def _description(folder: Path) -> dict[str, Any]:
    """What state.json says. Raises InputError if there is none, or no JSON."""
    return read_json(folder / DESCRIPTION)


def average(folder: Path, z_names: list[str]) -> EG3DGenerator:
    """The averaged generator of a state, ready for use, for the given entries of z (`pmv.training.latents`).

    Raises InputError if the folder holds no state of tri-planes.
    """
    description = _description(folder)
    try:
        generator = EG3DGenerator(EG3DConfig.from_json({**description["generator"], "z_dim": len(z_names)}))
        weights = {k: v.float() for k, v in load_file(folder / "average.safetensors").items()}
        weights[FIRST] = widened(weights[FIRST], description["z_names"], z_names)
        generator.load_state_dict(weights)
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder} holds no state of this generator ({error})") from error
    return generator.eval().requires_grad_(False)


def load(trainer: Trainer, folder: Path, z_names: list[str]) -> None:
    """Puts a saved state into a new trainer, whose z may have entries that the state's has not (`training.latents`).

    Raises:
        InputError: it is not there or of another shape.
    """
    description = _description(folder)
    try:
        average, judge, carried = (
            load_file(folder / f"{name}.safetensors", str(trainer.device)) for name in (*_SAVED, "moments")
        )
        average[FIRST] = widened(average[FIRST].float(), description["z_names"], z_names)
        for module in (trainer.generator, trainer.average):
            module.load_state_dict(average)
        trainer.judge.load_state_dict(judge)
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder} holds no state of this generator ({error})") from error
    moments.unpack(trainer.optimizer, {"generator": trainer.generator}, carried)
    moments.unpack(trainer.judge_optimizer, {"judge": trainer.judge}, carried)
    for name in COUNTERS:
        setattr(trainer, name, description.get(name, getattr(trainer, name)))
    shares = description["shares"]
    trainer.shares = None if shares is None else torch.tensor(shares, device=trainer.device)
    trainer.fresh_at = trainer.pictures
