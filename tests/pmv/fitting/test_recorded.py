"""Steps recorded as CUDA graphs are the steps that they were recorded from."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from pmv.errors import FitError
from pmv.fitting import optimise as loop
from pmv.fitting.optimise import Drawn, Group, Ramp, Step, optimise


class _Repeated:
    """In the place of `Replay` where there is no CUDA: calls the function."""

    def __init__(self, function: Callable[..., Any], inputs: Sequence[Tensor] = (), warm_up: int = 2) -> None:
        self.function = function
        for _ in range(warm_up):
            function(*inputs)

    def __call__(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


@pytest.fixture
def recording(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    if device.type == "cpu":
        monkeypatch.setattr(loop, "Replay", _Repeated)
    return device


def fit(device: torch.device, recorded: bool, broken: Sequence[int] = (), **options: Any) -> tuple[Tensor, list[Step]]:
    """Fits x to numbers that are drawn; from step 12 on y moves too; in `broken` steps the loss is none."""
    x, y = (torch.zeros(3, device=device, requires_grad=True) for _ in range(2))
    random = torch.Generator().manual_seed(0)

    def draw(step: int) -> tuple[Tensor, ...]:
        y.requires_grad_(step >= 12)
        return torch.randn(3, generator=random), torch.tensor(math.nan if step in broken else 1.0)

    def terms(aim: Tensor, factor: Tensor) -> dict[str, Tensor]:
        aim, factor = aim.to(device), factor.to(device)
        return {"near": factor * (x + y - aim).square().sum(), "small": 0.1 * x.square().sum()}

    steps: list[Step] = []
    optimise(
        [Group([x], 0.1), Group([y], 0.05)],
        Drawn(draw, terms, lambda step: step >= 12),
        35,
        ramp=Ramp(0.2, 0.3),
        callback=steps.append,
        recorded=recorded,
        **options,
    )
    assert x.grad is None or not recorded
    return torch.stack([x.detach(), y.detach()]), steps


def test_they_end_at_the_same_place_by_the_same_losses(recording):
    (plain, told), (replayed, heard) = fit(recording, False), fit(recording, True)
    assert torch.allclose(plain, replayed, atol=1e-5)
    assert [s.number for s in heard] == list(range(35)) and [s.rate for s in heard] == [s.rate for s in told]
    for a, b in zip(told, heard, strict=True):
        assert a.losses == pytest.approx(b.losses, rel=1e-4) and b.seconds > 0


def test_who_asks_whether_it_is_enough_is_asked_in_every_step(recording):
    def enough(values):
        asked.append(values)
        return len(asked) == 7

    asked: list[Any] = []
    plain, _ = fit(recording, False, enough=enough)
    asked = []
    replayed, steps = fit(recording, True, enough=enough)
    assert torch.allclose(plain, replayed, atol=1e-5) and len(steps) == 7


def test_a_loss_that_is_no_number_is_taken_back_though_it_is_seen_late(recording):
    found, steps = fit(recording, True, broken=[23])
    assert found.isfinite().all()
    # steps 20 to 29 are looked at together: what came after the bad one goes with it
    assert [s.number for s in steps if s.rolled_back] == list(range(23, 30)) and len(steps) == 35
    assert steps[-1].rate < fit(recording, True)[1][-1].rate
    with pytest.raises(FitError, match="before the first step"):
        fit(recording, True, broken=[0])
