"""What the benchmark of the published dual encoder measures, at a tiny size."""

from pathlib import Path

import pytest

from benchmarks.official_encoder import measure, write_halves
from pmv.generators import PanoHeadGenerator
from tests.pmv.encoders.test_official import tiny_shape


def test_every_part_is_measured(tiny_panohead: PanoHeadGenerator, tmp_path: Path):
    write_halves(tmp_path, tiny_shape(tiny_panohead))
    row = measure(tmp_path, tiny_panohead, whole=True)
    assert {"read", "latent", "planes", "residual", "render", "head", "peak_mb"} <= row.keys()
    assert row["head"][1] > row["render"][1] and row["peak_mb"] > 10


@pytest.mark.slow
def test_the_published_size_runs(tmp_path: Path):
    from click.testing import CliRunner

    from benchmarks.official_encoder import main

    result = CliRunner().invoke(main, ["--whole", "--out", str(tmp_path / "row.json")])
    assert result.exit_code == 0, result.output
    assert "parameters: 252331488" in result.output
