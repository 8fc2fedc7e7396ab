"""The benchmark of speed on the tiny generator."""

import json

import torch

from benchmarks.speed import main, table


def test_it_measures_steps_and_parts_with_and_without_short_cuts(tmp_path, capsys):
    out = tmp_path / "speed.json"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shared = ["--size", "tiny", "--what", "steps", "--what", "parts", "--device", device]
    main([*shared, "--steps", "2", "--repeats", "1", "--out", str(out)])
    found = json.loads(out.read_text())["tiny"]
    assert {"reference", "fast"} <= found["steps"].keys() and found["steps"]["fast"]["ms"] > 0
    parts = {row["part"]: row for row in found["parts"]}
    assert parts["backbone"]["tflop"] > 0 and parts["backbone"]["gigabytes"] > 0
    assert all(row[kind]["launches"] > 0 for row in parts.values() for kind in ("reference", "fast"))
    assert table(found["parts"]) in capsys.readouterr().out
