"""Every way in which two runs can differ is told, and equal ones pass."""

from pathlib import Path

import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from benchmarks.same_run import differences, main


def run(folder: Path, **tensors: torch.Tensor) -> Path:
    (folder / "02_latent").mkdir(parents=True)
    save_file(tensors, folder / "02_latent" / "outputs.safetensors")
    return folder


def test_equal_runs_pass_and_each_difference_is_told(tmp_path: Path):
    w = torch.arange(4.0)
    first = run(tmp_path / "a", w=w, noise=w + 1)
    assert differences(first, run(tmp_path / "b", w=w.clone(), noise=w + 1)) == (2, [])
    count, lines = differences(first, run(tmp_path / "c", w=w + 0.5, noise=(w + 1).double(), more=w))
    assert count == 3 and [line.split(": ")[1].split()[0] for line in lines] == ["more", "noise", "w"]
    assert "AFTER alone" in lines[0] and "float64" in lines[1] and "up to 0.5" in lines[2]
    (tmp_path / "empty").mkdir()
    assert len(differences(first, tmp_path / "empty")[1]) == 2


def test_the_exit_code_says_it(tmp_path: Path):
    first, same = run(tmp_path / "a", w=torch.ones(2)), run(tmp_path / "b", w=torch.ones(2))
    other = run(tmp_path / "c", w=torch.zeros(2))
    assert CliRunner().invoke(main, [str(first), str(same)]).exit_code == 0
    assert CliRunner().invoke(main, [str(first), str(other)]).exit_code == 1
    (tmp_path / "empty").mkdir()
    assert CliRunner().invoke(main, [str(tmp_path / "empty")] * 2).exit_code == 1
