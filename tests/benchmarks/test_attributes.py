"""The figures of benchmarks/attributes.py, on changes that are known."""

import pytest
import torch

from benchmarks.attributes import compare, table


def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A head [1,3,64,64], what truly changes on it, and where it is."""
    rng = torch.Generator().manual_seed(0)
    head = torch.zeros(1, 1, 64, 64)
    head[..., 8:56, 8:56] = 1
    change = torch.zeros(1, 3, 64, 64)
    change[..., 20:30, 20:40] = 0.5
    return 0.3 * torch.rand(1, 3, 64, 64, generator=rng), change, head


def test_the_same_change_is_perfect_and_half_of_it_half_as_strong():
    head, change, where = scene()
    same = compare(head, head + change, head, head + change, where)
    assert same["correlation"] == pytest.approx(1) and same["strength"] == pytest.approx(1)
    assert same["edited"] > 90 and same["unedited"] < 25 and same["rest"] == 100
    half = compare(head, head + change / 2, head, head + change, where)
    assert half["correlation"] == pytest.approx(1) and half["strength"] == pytest.approx(0.5)
    assert same["unedited"] < half["edited"] < 100


def test_a_change_elsewhere_is_neither_like_it_nor_does_the_rest_stay():
    head, change, where = scene()
    other = change.roll(20, 2)
    result = compare(head, head + other, head, head + change, where)
    assert result["correlation"] == pytest.approx(0) and result["strength"] == pytest.approx(0)
    assert result["rest"] < 30 and result["edited"] < result["unedited"]


def test_the_table_has_a_row_each():
    head, change, where = scene()
    row = {"by": 2.0, "left": 10.0, **compare(head, head + change, head, head + change, where)}
    text = table({"smile": row, "age": row})
    assert text.count("\n") == 3 and "| smile | +2.0 | 1.00 |" in text
