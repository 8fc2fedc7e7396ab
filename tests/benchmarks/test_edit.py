"""The edit benchmark's measures, on edits whose error is known."""

import pytest
import torch
from torch import Tensor

from benchmarks.edit import CASES, around, carried, compare, table
from pmv.errors import InputError
from pmv.geometry.camera import Camera

SIZE = 100


def blob(row: int, column: int, value: float = -0.8) -> Tensor:
    """A grey picture with a dark square of 12 pixels."""
    picture = torch.full((1, 3, SIZE, SIZE), 0.2)
    picture[..., row : row + 12, column : column + 12] = value
    return picture


PLAIN = torch.full((1, 3, SIZE, SIZE), 0.2)


def test_the_same_edit_is_perfect_whatever_it_lies_on():
    figures = compare(PLAIN - 0.1, blob(40, 50) - 0.1, PLAIN, blob(40, 50))
    expected = {"correlation": 1, "iou": 1, "shift": 0, "strength": 1}
    assert figures == pytest.approx(expected, abs=1e-5)


def test_errors_of_place_and_strength_are_told_apart():
    moved = compare(PLAIN, blob(40, 53), PLAIN, blob(40, 50))
    assert moved["shift"] == pytest.approx(3) and moved["iou"] == pytest.approx(9 / 15)
    assert moved["correlation"] == pytest.approx(9 / 12) and moved["strength"] == pytest.approx(1)
    faint = compare(PLAIN, blob(40, 50, -0.3), PLAIN, blob(40, 50))
    assert faint["strength"] == pytest.approx(0.5) and faint["shift"] == pytest.approx(0, abs=1e-4)
    assert faint["correlation"] == pytest.approx(1)
    nothing = compare(PLAIN, PLAIN, PLAIN, blob(40, 50))
    assert nothing["correlation"] == nothing["iou"] == nothing["strength"] == 0


def test_the_surroundings_count_as_the_rest():
    near = around(PLAIN, blob(40, 50))
    assert near[0, 0, 36:56, 50:62].min() == 1 and near[0, 0, :35].max() == 0 and near[0, 0, :, 67:].max() == 0
    with pytest.raises(InputError, match="not in this view"):
        compare(PLAIN, PLAIN, PLAIN, PLAIN)


def test_views_are_carried_to_another_camera():
    views = Camera.orbit(torch.tensor([0.3, 0.5]), torch.tensor([0.1, 0.0]))
    front, side = Camera.orbit(0.0, 0.0), Camera.orbit(0.2, 0.0)
    torch.testing.assert_close(carried(front, front, views).labels(), views.labels())
    torch.testing.assert_close(carried(side, front, carried(front, side, views)).labels(), views.labels())
    same = carried(front, side, Camera.orbit(0.3, 0.0)).labels()
    torch.testing.assert_close(same, Camera.orbit(0.5, 0.0).labels(), atol=1e-5, rtol=0)


def test_the_table_has_a_row_for_each_view():
    figures = {"correlation": 0.9, "iou": 0.8, "shift": 0.2, "strength": 1.1}
    views = {"input": {**figures, "rest": 44.0}, "pseudo-views": {**figures, "views": 5}}
    lines = table({name: {"views": views} for name in CASES}).splitlines()
    assert len(lines) == 2 + 2 * len(CASES) and len({line.count("|") for line in lines}) == 1
    assert "44.0" in lines[2] and "pseudo-views (5)" in lines[3]
