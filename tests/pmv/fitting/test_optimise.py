"""The loop: it finds a minimum, keeps to its schedule, recovers from losses that are no numbers, stops when told."""

import itertools
import math

import pytest
import torch

from pmv.errors import FitError, Stopped
from pmv.fitting.optimise import Group, Ramp, Step, optimise


def test_the_ramp_rises_stays_and_falls():
    ramp = Ramp(0.1, 0.3)
    rates = [ramp(i, 100) for i in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[20] == 1.0 and rates[60] == 1.0
    assert 0 < rates[-1] < 0.01 and all(a >= b for a, b in itertools.pairwise(rates[70:]))
    assert Ramp()(0, 100) == Ramp()(99, 100) == 1.0


def test_it_is_adam_with_the_schedule_and_tells_every_step():
    x, y = (torch.tensor([2.0, -1.0], requires_grad=True) for _ in range(2))
    optimizer = torch.optim.Adam([y], 0.1)
    ramp = Ramp(0.2, 0.5)
    for step in range(30):
        optimizer.param_groups[0]["lr"] = 0.1 * ramp(step, 30)
        optimizer.zero_grad()
        (y.square().sum() + 3 * (y[0] - 1).square()).backward()
        optimizer.step()
    steps: list[Step] = []
    after: list[int] = []
    made = optimise(
        [Group([x], 0.1)],
        lambda step: {"size": x.square().sum(), "place": 3 * (x[0] - 1).square()},
        30,
        ramp=ramp,
        after=after.append,
        callback=steps.append,
    )
    assert made == 30 and torch.equal(x, y) and after == list(range(30))
    assert [step.number for step in steps] == after and steps[0].losses == {"size": 5.0, "place": 3.0}
    assert [step.rate for step in steps] == [ramp(i, 30) for i in range(30)] and all(s.seconds > 0 for s in steps)


def test_groups_have_their_own_rates_and_a_parameter_without_gradient_rests():
    fast, slow, late = (torch.ones(1, requires_grad=True) for _ in range(3))

    def losses(step: int) -> dict[str, torch.Tensor]:
        late.requires_grad_(step >= 2)
        return {"all": (fast + slow + late).square().sum()}

    optimise([Group([fast], 0.1), Group([slow, late], 0.01)], losses, 2)
    assert fast.item() == pytest.approx(0.8, abs=1e-3) and slow.item() == pytest.approx(0.98, abs=1e-3)
    assert late.item() == 1.0
    optimise([Group([late], 0.01)], losses, 3)
    assert late.item() == pytest.approx(0.99, abs=1e-3)


def test_enough_ends_before_that_steps_update():
    x = torch.tensor([1.0], requires_grad=True)
    seen: list[float] = []
    made = optimise(
        [Group([x], 0.1)],
        lambda step: {"x": x.sum()},
        100,
        enough=lambda values: values["x"] <= 0.75,
        callback=lambda step: seen.append(step.losses["x"]),
    )
    assert (
        made == 3 and seen == pytest.approx([1.0, 0.9, 0.8, 0.7], abs=1e-5) and x.item() == pytest.approx(0.7, abs=1e-5)
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_rolled_back_and_the_rate_halved(bad, caplog):
    """A cliff at x < 0.45: steps of 0.1 fall off it again and again, until they are small enough to see the minimum."""
    x = torch.tensor([1.0], requires_grad=True)
    steps: list[Step] = []

    def losses(step: int) -> dict[str, torch.Tensor]:
        return {"x": (x - 0.5).square().sum() if x.item() > 0.45 else x.sum() * bad}

    optimise([Group([x], 0.2)], losses, 200, callback=steps.append)
    back = [step for step in steps if step.rolled_back]
    assert back and all(step.losses == {} for step in back) and x.isfinite().all()
    assert steps[-1].rate == 0.5 ** len(back) and x.item() == pytest.approx(0.5, abs=0.05)
    assert [step.number for step in steps] == list(range(200))
    assert f"x is {bad}" in caplog.text.replace("-inf", "inf")


def test_a_gradient_that_is_no_number_in_the_last_step_does_not_reach_the_result():
    x = torch.tensor([1.0], requires_grad=True)

    def losses(step: int) -> dict[str, torch.Tensor]:
        # the root of zero has a finite value and no finite gradient
        return {"x": x.sum() if step < 4 else (x - x.detach()).abs().sum().sqrt()}

    optimise([Group([x], 0.1)], losses, 5)
    assert x.isfinite().all()


def test_without_hope_it_says_so_in_one_line():
    x = torch.tensor([1.0], requires_grad=True)
    with pytest.raises(FitError, match="picture is nan before the first step"):
        optimise([Group([x], 0.1)], lambda step: {"picture": x.sum() * math.nan}, 10)
    assert x.item() == 1.0
    with pytest.raises(FitError, match=r"x is nan in step \d+, even at 1/64 of the learning rate; lower"):
        optimise([Group([x], 0.1)], lambda step: {"x": x.sum() * (math.nan if step else 1.0)}, 100)
    assert x.item() == 1.0


def test_it_stops_between_two_steps():
    x = torch.tensor([1.0], requires_grad=True)
    steps: list[Step] = []
    with pytest.raises(Stopped):
        optimise(
            [Group([x], 0.1)], lambda step: {"x": x.sum()}, 10, callback=steps.append, stop=lambda: len(steps) == 2
        )
    assert x.item() == pytest.approx(0.8, abs=1e-5)
