"""benchmarks/given_camera.py on the tiny generator, whose mean head is a ball."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.given_camera import CHANGES, Judge, Subject, at_random, judged, labelled, moved, scaled, table
from pmv.generators import EG3DGenerator
from pmv.geometry.camera import Camera
from pmv.pictures.images import resize


def test_right_cameras_are_taken_and_impossible_ones_refused(tiny_generator: EG3DGenerator):
    w, camera = tiny_generator.mean_w(), tiny_generator.spec.orbit(0.2, 0.1)
    view = tiny_generator.render(tiny_generator.planes(w), w, camera)
    mask = resize(view.alpha, view.image.shape[-1]).clamp(0, 1)
    subjects = [Subject("itself", camera, view.image.clamp(-1, 1), mask)]
    changes = {name: CHANGES[name] for name in ("right", "OpenGL axes", "10 times as far")}
    rows, right, longest = judged(Judge(tiny_generator), subjects, changes)
    assert rows["right"] == {"refused": 0, "warned": 0, "taken": 1} and right == {"itself": "taken"}
    assert rows["OpenGL axes"]["refused"] == rows["10 times as far"]["refused"] == 1
    assert longest > 0 and "| OpenGL axes | 1 | 0 | 0 |" in table(rows)


def test_heads_at_random_lie_in_their_foreground(tiny_generator: EG3DGenerator):
    subjects = list(at_random(tiny_generator, 2))
    assert [subject.name for subject in subjects] == ["random 0", "random -15"]
    for subject in subjects:
        side = tiny_generator.spec.resolution
        assert subject.picture.shape == (1, 3, side, side) and 0 < float(subject.foreground.mean()) < 1


def test_changes_are_what_they_are_called():
    camera = Camera.orbit(0.2, 0.1)
    assert scaled(3)(camera).position.norm().item() == pytest.approx(3 * 2.7, rel=1e-5)
    step = moved(0.1, -0.2)(camera).position - camera.position
    torch.testing.assert_close(step @ camera.cam2world[0, :3, :3], torch.tensor([[0.1, -0.2, 0.0]]), atol=1e-6, rtol=0)
    for name, change in CHANGES.items():
        rotation = change(camera).cam2world[0, :3, :3]
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(3), atol=1e-5, rtol=0, msg=name)


def test_labelled_portraits_look_at_the_origin(tmp_path: Path):
    camera = Camera.orbit(0.3, -0.1, pivot=(0, 0, 0.15))
    (tmp_path / "dataset_eg3d.json").write_text(json.dumps({"labels": [["a.png", camera.labels()[0].tolist()]]}))
    y, x = np.mgrid[:96, :96]
    head = ((x - 48) / 24) ** 2 + ((y - 46) / 34) ** 2 < 1
    noise = np.random.default_rng(0).integers(0, 20, (96, 96, 3))
    pixels = np.where(head[..., None], [210, 150, 120], [40, 60, 90]) + noise
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "a.png")
    (subject,) = labelled(tmp_path, 0.0, size=96)
    uv, _ = subject.camera.project(torch.zeros(1, 1, 3))
    torch.testing.assert_close(uv, torch.full_like(uv, 0.5), atol=1e-5, rtol=0)
    assert subject.picture.shape == (1, 3, 96, 96) and 0.1 < float(subject.foreground.mean()) < 0.6
    assert subject.picture[..., 0, 0].abs().max() == 0, "on the background"
