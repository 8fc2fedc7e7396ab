"""The generator benchmark runs, and measures what it says."""

import json
import sys

import pytest
import torch
from click.testing import CliRunner

from benchmarks.generators import main
from benchmarks.official_layout import FFHQ512_128, PANOHEAD, write_official
from pmv.generators import EG3DConfig, EG3DGenerator, load_generator
from pmv.generators.panohead import PanoHeadConfig, PanoHeadGenerator


def test_it_prints_a_table_and_writes_json(tmp_path):
    out = tmp_path / "figures.json"
    options = ["--case", "tiny", "--repeats", "2", "--resolution", "8", "--threads", "1", "--out", str(out)]
    done = CliRunner().invoke(main, options, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    header, _, row, _, machine = done.stdout.splitlines()
    assert header.count("|") == row.count("|") == 11 and "forward 8²" in header and "tiny" in row
    figures = json.loads(out.read_text())
    assert figures["machine"]["cpu"] in machine and figures["machine"]["threads"] == 1
    (model,) = figures["models"]
    for key in ("load.safetensors", "forward", "backward"):
        assert len(model[key]["seconds"]) == len(model[key]["cpu_seconds"]) == 2
        assert min(model[key]["seconds"]) > 0
        assert model[key]["peak_mb"] > 50
    assert model["parameters"] > 1000


def test_the_full_size_models_are_the_published_ones():
    eg3d, panohead = EG3DConfig.from_init_kwargs(FFHQ512_128, 128), PanoHeadConfig.from_init_kwargs(PANOHEAD, 64)
    assert eg3d == EG3DConfig() and panohead == PanoHeadConfig()
    with torch.device("meta"):
        assert sum(p.numel() for p in EG3DGenerator(eg3d).parameters()) == pytest.approx(30.7e6, rel=0.002)
        assert sum(p.numel() for p in PanoHeadGenerator(panohead).parameters()) > 50e6


def test_the_official_layout_is_read_back(tmp_path):
    small = {**FFHQ512_128, "z_dim": 8, "w_dim": 8, "channel_base": 256, "channel_max": 8}
    generator = EG3DGenerator(EG3DConfig.from_init_kwargs(small, 64))
    write_official(generator, small, 64, tmp_path / "small.pkl")
    assert "torch_utils" not in sys.modules
    loaded = load_generator(tmp_path / "small.pkl")
    assert loaded.config == generator.config
    for name, tensor in generator.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
