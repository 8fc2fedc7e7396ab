"""The pieces that the optimising stages share: what is tuned, the learning-rate schedule, views of one latent."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pmv.generators.base import Generator, Render
from pmv.geometry.camera import Camera


def ramped_rate(step: int, steps: int, ramp_up: float, ramp_down: float) -> float:
    """Factor in [0,1] on the learning rate: linear rise, plateau, half-cosine fall (StyleGAN2's projector,
    arXiv:1912.04958 §5.3).

    Args:
        step: 0 … steps − 1.
        ramp_up, ramp_down: parts of the whole that rise and fall; 0 switches either off.
    """
    t = step / steps
    fall = min(1.0, (1.0 - t) / ramp_down) if ramp_down else 1.0
    rise = min(1.0, (step + 1) / (ramp_up * steps)) if ramp_up else 1.0
    return (0.5 - 0.5 * math.cos(fall * math.pi)) * rise


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Scales every group's learning rate to `factor` times the rate it was made with."""
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = group["initial_lr"] * factor


def trainable(generator: Generator, groups: tuple[str, ...]) -> dict[str, nn.Parameter]:
    """Switches the gradients of the named parameter groups on, and returns those parameters by state-dict name."""
    parameters: dict[str, nn.Parameter] = {}
    for group in groups:
        parameters.update(generator.tunable_parameters(group))
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    return parameters


def tuner(
    generator: Generator,
    w: Tensor,
    noise: dict[str, Tensor],
    groups: tuple[str, ...],
    learning_rate: float,
    residual_rate: float,
) -> tuple[dict[str, nn.Parameter], torch.optim.Adam]:
    """The parameters of pivotal tuning by state-dict name, gradients switched on, and Adam over them.

    Args:
        groups: parameter groups, at `learning_rate`.
        residual_rate: of the residual of the tri-planes, in units of the standard deviation of the latent's planes; 0 =
            it is not tuned.
    """
    parameters = trainable(generator, groups)
    rates: list[dict] = [{"params": list(parameters.values()), "lr": learning_rate}]
    if residual_rate:
        with torch.no_grad():
            spread = generator.planes(w, noise).std().item()
        residual = trainable(generator, ("residual",))
        rates.append({"params": list(residual.values()), "lr": residual_rate * spread})
        parameters.update(residual)
    return parameters, torch.optim.Adam(rates)


def snapshot(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """A detached copy of parameters by name, which `load_state_dict(…, strict=False)` takes back."""
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


@torch.no_grad()
def render_views(
    generator: Generator,
    w: Tensor,
    noise: dict[str, Tensor],
    cameras: Camera,
    resolution: int | None = None,
    batch: int = 4,
) -> Render:
    """Views of one latent from many cameras without gradients, a few at a time so that memory stays flat.

    Args:
        w: [1,num_ws,w_dim].
        cameras: batch of V.
        resolution: rays a side, None = the generator's own.

    Returns: `Render` of batch V.
    """
    planes = generator.planes(w, noise)
    parts = [generator.render(planes, w, cameras[i : i + batch], resolution) for i in range(0, len(cameras), batch)]
    return Render(*(torch.cat([getattr(p, name) for p in parts]) for name in ("image", "raw", "depth", "alpha")))
