"""Directions in w that change one attribute of a head: the file that ships with a generator, and how an edit uses it.

The directions lie beside the generator's weights in `directions.safetensors`, written by `pmv.training.directions`,
with the hash of the weights that they were found with. An edit adds them to the pivot of a finished inversion (GAN
edits after pivotal tuning: Roich et al. 2021, arXiv:2106.05744, §4.3).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pmv.errors import CheckpointError, InputError, shown
from pmv.files.artifacts import load_tensors, read_header, save_tensors
from pmv.files.reading import fitted
from pmv.generators import Generator, resolve_generator
from pmv.generators.residual import follow

FILE_NAME = "directions.safetensors"


@dataclass(frozen=True)
class Direction:
    """What is known of one attribute.

    Attributes:
        name: what users call it.
        plus: what +1 brings more of.
        unit: what the attribute is measured in.
        deviation: how much of that +1 is: one standard deviation over the heads that the generator was trained on.
        span: from the least to the most that any of these heads has, in deviations. More than that is no head any more.
        shape: False where only colours change.
    """

    name: str
    plus: str
    unit: str
    deviation: float
    span: float
    shape: bool = True


@dataclass(frozen=True)
class Directions:
    """Directions of one generator.

    Attributes:
        w: [A,w_dim] change of w for +1 of each attribute; the same is added to every row of W+.
        about: what each is, in the order of `w`.
        generator_hash: `pmv.files.artifacts.tensors_hash` of the weights that they belong to.
    """

    w: Tensor
    about: tuple[Direction, ...]
    generator_hash: str

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(direction.name for direction in self.about)

    def offset(self, amounts: Mapping[str, float]) -> Tensor:
        """[w_dim]: what amounts of attributes add to w.

        Raises:
            InputError: an attribute that is not there, or an amount that no head can have (over twice its `span`).
        """
        total = torch.zeros_like(self.w[0])
        for name, amount in amounts.items():
            if name not in self.names:
                raise InputError(f"--set {shown(name)}: no such attribute; there are {', '.join(self.names)}")
            i = self.names.index(name)
            limit = 2 * self.about[i].span
            if abs(amount) > limit:
                raise InputError(
                    f"--set {name}={amount:+g}: too much; from one end to the other, heads differ by "
                    f"{self.about[i].span:.1f}, so give at most ±{limit:.1f}"
                )
            total = total + amount * self.w[i]
        return total

    def far(self, amounts: Mapping[str, float]) -> list[str]:
        """The attributes that are changed by more than any two heads differ."""
        spans = {direction.name: direction.span for direction in self.about}
        return [name for name, amount in amounts.items() if abs(amount) > spans[name]]


@torch.no_grad()
def edit(
    generator: Generator, w: Tensor, noise: dict[str, Tensor], directions: Directions, amounts: Mapping[str, float]
) -> tuple[Tensor, Tensor | None]:
    """A tuned head with attributes changed.

    Args:
        generator: with the tuned weights and, if tuning left one, the residual of the planes.
        w: [1,num_ws,w_dim] pivot; noise: as `Generator.planes` takes it.
        directions: its own.
        amounts: attribute → deviations, see `Directions.offset`.

    Returns: the changed w, and the residual [1,*plane_shape] moved along with what lies below it
        (`pmv.generators.residual`), as far as the change is one of shape; None where the generator has none.

    Raises:
        InputError: see `Directions.offset`.
    """
    if directions.w.shape[1] != w.shape[-1]:
        raise InputError(f"the directions are of {directions.w.shape[1]} numbers, unlike the latents of the generator")
    edited = w + directions.offset(amounts).to(w)
    residual = generator.plane_residual
    shape = {name: amount for name, amount in amounts.items() if directions.about[directions.names.index(name)].shape}
    if residual is None or not shape:
        return edited, None if residual is None else residual.detach().clone()
    before, after = (generator.planes(x, noise) - residual for x in (w, w + directions.offset(shape).to(w)))
    return edited, follow(residual.detach(), before, after)


def save_directions(path: Path, directions: Directions, method: Mapping[str, Any]) -> None:
    """Write `path` atomically; equal content gives equal bytes.

    Args:
        method: how they were found, for the header.
    """
    header = {
        "kinds": {"w": "tensor"},
        "attributes": [asdict(direction) for direction in directions.about],
        "generator_hash": directions.generator_hash,
        "method": dict(method),
    }
    save_tensors(path, {"w": directions.w.float()}, header)


def load_directions(generator: str | Path, generator_hash: str, device: str | torch.device = "cpu") -> Directions:
    """The directions that ship with a generator.

    Args:
        generator: its name or the path of its checkpoint.
        generator_hash: `tensors_hash` of its weights before any tuning.

    Raises:
        InputError: it has none, or they are damaged.
        CheckpointError: no such generator, or the directions were found with other weights.
    """
    path = resolve_generator(generator).with_name(FILE_NAME)
    if not path.is_file():
        raise InputError(
            f"{generator}: has no attribute directions ({FILE_NAME} beside its weights); "
            "of the generators that pmv knows, only 'heads' has them"
        )
    header = read_header(path)
    try:
        about = fitted(header["attributes"], tuple[Direction, ...], path)
        found = Directions(load_tensors(path, device)["w"], about, fitted(header["generator_hash"], str, path))
    except KeyError as error:
        raise InputError(f"{path}: damaged, or not directions (without {error})") from error
    if (
        found.w.ndim != 2
        or len(found.w) != len(about)
        or not found.w.is_floating_point()
        or not found.w.isfinite().all()
    ):
        raise InputError(f"{path}: damaged (its directions are not those of its attributes)")
    if found.generator_hash != generator_hash:
        raise CheckpointError(
            f"{path}: belongs to other weights than those of {generator}; make it anew with: "
            f"python -m pmv.training.directions --generator {generator} --out {path}"
        )
    return found


def parse_amounts(settings: Sequence[str]) -> dict[str, float]:
    """What the user asks for: ``["smile=+2", "age=-1"]`` → numbers by attribute; the same attribute twice adds up.

    Raises:
        InputError: not of that form, or not a finite number.
    """
    amounts: dict[str, float] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals or not name:
            raise InputError(f"--set {setting}: give ATTRIBUTE=NUMBER, such as smile=+2")
        try:
            amount = float(text)
        except ValueError:
            amount = math.nan
        if not math.isfinite(amount):
            raise InputError(f"--set {setting}: {text!r} is not a number; give standard deviations, such as {name}=+2")
        amounts[name] = amounts.get(name, 0.0) + amount
    return amounts
