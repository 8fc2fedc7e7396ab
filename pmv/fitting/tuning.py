"""What of a generator is tuned, and in which order its views are asked for."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pmv.errors import InputError
from pmv.fitting.optimise import Group
from pmv.generators.base import Generator


def trainable(generator: Generator, groups: tuple[str, ...]) -> dict[str, nn.Parameter]:
    """Switches the gradients of the named parameter groups on, and returns those parameters by state-dict name."""
    parameters: dict[str, nn.Parameter] = {}
    for group in groups:
        parameters.update(generator.tunable_parameters(group))
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    return parameters


def check_groups(generator: Generator, groups: tuple[str, ...], setting: str) -> None:
    """Whether a generator has these parameter groups.

    Args:
        setting: where they were asked for, such as "tune.groups", for the message.

    Raises:
        InputError: none is named, one is not the generator's, or it is the residual, which has a rate of its own.
    """
    if not groups:
        raise InputError(f"{setting} is empty; name what is tuned, such as [all]")
    for group in groups:
        if group == "residual":
            raise InputError(f"{setting}: the residual is tuned by tune.residual_rate; take it out of the groups")
        try:
            generator.tunable_parameters(group)
        except ValueError as error:
            raise InputError(f"{setting}: {error}") from error


def tuned_groups(
    generator: Generator,
    w: Tensor,
    noise: dict[str, Tensor],
    groups: tuple[str, ...],
    learning_rate: float,
    residual_rate: float,
) -> tuple[dict[str, nn.Parameter], list[Group]]:
    """The parameters of pivotal tuning by state-dict name, gradients switched on, and with their rates.

    Args:
        groups: parameter groups, at `learning_rate`.
        residual_rate: of the residual of the tri-planes, in units of the standard deviation of the latent's planes; 0 =
            it is not tuned.
    """
    parameters = trainable(generator, groups)
    rates = [Group(list(parameters.values()), learning_rate)]
    if residual_rate:
        with torch.no_grad():
            spread = generator.planes(w, noise).std().item()
        residual = trainable(generator, ("residual",))
        rates.append(Group(list(residual.values()), residual_rate * spread))
        parameters.update(residual)
    return parameters, rates


@torch.no_grad()
def start_from_planes(
    generator: Generator, planes: Tensor, w: Tensor, noise: dict[str, Tensor]
) -> dict[str, nn.Parameter]:
    """Gives a generator the residual with which it makes these planes of a latent.

    Args:
        planes: of `Generator.planes`, one latent's.

    Returns: the residual by state-dict name.
    """
    residual = generator.tunable_parameters("residual")
    for parameter in residual.values():
        parameter.zero_()
        parameter.copy_(planes - generator.planes(w, noise))
    return residual


def snapshot(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """A detached copy of parameters by name, which `load_state_dict(…, strict=False)` takes back."""
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


class RandomOrder:
    """Indices in random order, every one once before any twice.

    Args:
        indices: [N], long.
        rng: CPU generator.
    """

    def __init__(self, indices: Tensor, rng: torch.Generator) -> None:
        self.indices, self.rng = indices.cpu(), rng
        self.left = torch.empty(0, dtype=torch.long)

    def next(self, count: int) -> Tensor:
        """The next `count` of them, or as many as there are."""
        count = min(count, len(self.indices))
        if len(self.left) < count:
            self.left = torch.cat([self.left, self.indices[torch.randperm(len(self.indices), generator=self.rng)]])
        chosen, self.left = self.left[:count], self.left[count:]
        return chosen
