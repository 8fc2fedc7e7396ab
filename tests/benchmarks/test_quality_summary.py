"""Means, intervals and tables of the quality benchmark."""

import math

import numpy as np
import pytest

from benchmarks.quality.summary import COLUMNS, bootstrap, gains, values_of
from benchmarks.quality.table import cell, gain_table, table, unfit
from benchmarks.quality.views import VIEWS

VIEWS_OF = {"a": VIEWS, "b": VIEWS, "c": VIEWS}


def result(psnr: float) -> dict:
    part = {"psnr": psnr, "aligned_psnr": psnr + 1, "depth_median_out": 0.01}
    return {"views": {view.name: {"visible": dict(part), "iou": 0.9} for view in VIEWS}, "carried": {}}


def test_bootstrap_of_constants_has_no_width_and_of_nothing_no_mean():
    assert bootstrap([3.0] * 5) == (3.0, 3.0, 3.0, 5)
    assert bootstrap([2.0, math.nan]) == (2.0, 2.0, 2.0, 1)
    empty = bootstrap([])
    assert math.isnan(empty.mean) and empty.heads == 0


def test_bootstrap_covers_the_mean_as_a_normal_sample_says():
    values = np.random.default_rng(0).normal(10, 2, 400)
    found = bootstrap(values)
    assert found.mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(found.mean - half, abs=0.04)
    assert found.high == pytest.approx(found.mean + half, abs=0.04)
    assert bootstrap(values) == found  # seeded


def test_paired_gains_are_sure_where_heads_differ_more_than_methods():
    heads = np.random.default_rng(1).normal(25, 4, 12)
    found = gains(heads + 0.5, heads)
    assert found.mean == pytest.approx(0.5) and found.low == pytest.approx(0.5) and found.high == pytest.approx(0.5)


def test_a_column_is_the_mean_over_its_views_and_its_own_part():
    column = next(column for column in COLUMNS if column.title == "±30° (dB)")
    rows = {"PTI": {"a": result(20.0), "c": result(30.0)}}
    rows["PTI"]["a"]["views"]["yaw-30"]["visible"]["aligned_psnr"] = 25.0
    values = values_of(column, "PTI", rows, VIEWS_OF)
    assert values[0] == pytest.approx((25 + 21) / 2) and values[2] == 31
    assert math.isnan(values[1]) and np.isnan(values_of(column, "pmv", rows, VIEWS_OF)).all()
    depth = next(column for column in COLUMNS if column.title.startswith("depth"))
    assert depth.of(rows["PTI"]["a"], VIEWS) == pytest.approx(10)


def test_tables_have_a_row_for_each_method_and_say_why_one_is_empty():
    rows = {
        "PTI": {name: result(24.0) for name in VIEWS_OF},
        "pmv": {name: result(25.0) for name in VIEWS_OF},
        "oracle-latent": {name: {"unfit": "nobody knows"} for name in VIEWS_OF},
    }
    lines = table(rows, VIEWS_OF).splitlines()
    assert len(lines) == 5 and len({line.count("|") for line in lines}) == 1
    assert "| 25.00 [25.00, 25.00] |" in lines[2] and "–" in lines[4]
    over = gain_table(rows, VIEWS_OF, "PTI").splitlines()
    assert len(over) == 4 and over[2].startswith("| pmv | +1.00 [+1.00, +1.00]")
    assert unfit(rows) == ["oracle-latent: nobody knows"]
    assert cell(bootstrap([1.5]), 1) == "1.5"
