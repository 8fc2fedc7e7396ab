"""The command of the quality benchmark, from a folder of scans to tables, sheets and JSON."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from click.testing import CliRunner
from PIL import Image

from benchmarks.quality import __main__ as command
from benchmarks.quality.budget import BUDGETS, Budget
from benchmarks.quality.jobs import CEILING
from benchmarks.quality.scan import mesh_depth
from pmv.generators.native import save_generator
from pmv.geometry.camera import Camera
from tests.conftest import make_tiny_generator

TINY = ("coarse.views=2", "coarse.rings=1", "coarse.around=0", "coarse.depth_resolution=16", "latent.mean_samples=8")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A ball, coloured by direction, from three sides."""
    folder = tmp_path / "scans"
    folder.mkdir()
    ball = trimesh.creation.icosphere(3, radius=0.22)
    np.savez(folder / "mesh.npz", v=np.asarray(ball.vertices, np.float32), f=np.asarray(ball.faces))
    names = ("front", "yaw30", "yaw90")
    cameras = Camera.orbit(torch.tensor([0.0, 30.0, 90.0]).deg2rad(), torch.zeros(3))
    depth = mesh_depth(folder / "mesh.npz", cameras, 64)
    points = cameras.unproject(torch.where(depth > 0, depth, torch.ones_like(depth)))
    colours = torch.cat([0.5 + 0.45 * points / 0.22, (depth > 0).permute(0, 2, 3, 1).float()], -1).clamp(0, 1)
    labels = []
    for i, name in enumerate(names):
        Image.fromarray((colours[i] * 255).byte().numpy()).save(folder / f"ball_{name}.png")
        labels.append([f"ball_{name}.png", cameras[i].labels()[0].tolist()])
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    (folder / "ball_found.json").write_text(json.dumps({"labels": labels[:1]}))
    return folder


def test_one_command_makes_tables_sheets_and_json_and_goes_on_where_it_stopped(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(BUDGETS, "quick", Budget("quick", 2, 1, 2, settings=TINY, depth=16))
    generator = tmp_path / "ball.safetensors"
    save_generator(make_tiny_generator(), generator)
    out = tmp_path / "out" / "quality.json"
    options = ["--scans", str(scans), "--work", str(tmp_path / "work"), "--budget", "quick", "--out", str(out)]
    options += ["--generator", str(generator), "--method", "PTI", "--method", "pmv", "--method", "oracle-latent"]
    options += ["--curve", "0.5"]
    done = CliRunner().invoke(command.main, options, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    said = done.output
    assert "synthetic heads are skipped: no --makehuman" in said and "failed" not in said
    assert "**scan**, 1 heads" in said and "| over PTI |" in said and "- oracle-latent: nobody knows" in said
    assert f"| {CEILING} | 100.00 |" in said and "- PTI: single-view pivotal tuning" in said
    value = json.loads(out.read_text())
    assert value["about"]["budget"] == "quick" and len(value["heads"]) == 7
    rows = {(row["method"], row["part"]): row for row in value["heads"]}
    column = value["columns"].index("±30° (dB)")
    assert rows[CEILING, 1.0]["values"][column] > rows["pmv", 1.0]["values"][column] > 0
    assert rows["pmv", 1.0]["steps"] == rows["PTI", 1.0]["steps"] == 5 and rows["pmv", 0.5]["steps"] == 4
    (folder,) = (tmp_path / "work").glob("*-quick")
    with Image.open(folder / "sheet_ball.png") as sheet:
        assert sheet.width > 3 * 192 and sheet.height > 4 * 192
    assert (folder / "table.md").read_text() in said
    if command.plots.can_plot():
        assert (folder / "scan.png").exists() and (folder / "scan_tradeoff.png").exists()
    again = CliRunner().invoke(command.main, options, catch_exceptions=False)
    assert "0 of 7 results to be made" in again.output and f"| {CEILING} | 100.00 |" in again.output


def test_nothing_to_invert_is_a_usage_error(tmp_path: Path):
    done = CliRunner().invoke(command.main, ["--work", str(tmp_path), "--scans", str(tmp_path / "none")])
    assert done.exit_code == 2 and "nothing to invert" in done.output
