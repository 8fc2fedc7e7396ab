"""The subjects of the quality benchmark: scans read from a folder, paint, props, cameras in error."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.quality.__main__ import gather, sets_of
from benchmarks.quality.paint import PAINTS, painting
from benchmarks.quality.props import KINDS, PropPainter, crown, join, prop_depth, prop_for, sheet_mesh, tube
from benchmarks.quality.scan import scan_subjects, view_of
from benchmarks.quality.synthetic import CAMERA_ERROR, GROUPS, HEADS, Recipe, mistaken
from benchmarks.quality.truth import Subject
from benchmarks.quality.views import INPUT, VIEWS
from pmv.errors import InputError
from pmv.geometry.camera import Camera
from pmv.training.data import HELD_OUT_SEED


def test_names_of_a_scans_views():
    assert view_of("front") is INPUT
    for name, group, yaw, pitch in (
        ("yawm30", "±30°", -30, 0),
        ("yaw45", "45–60°", 45, 0),
        ("yaw90", "±90°", 90, 0),
        ("up20", "pitch ±20°", 0, 20),
        ("back", "180°", 180, 0),
    ):
        view = view_of(name)
        assert (view.group, view.yaw, view.pitch) == (group, yaw, pitch)
    with pytest.raises(InputError, match="sideways"):
        view_of("sideways")


def test_a_folder_of_scans_becomes_subjects(tmp_path):
    """A square plate that faces the camera, seen from two sides."""
    scans = tmp_path / "scans"
    scans.mkdir()
    corners = np.array([[-0.2, -0.2, 0], [0.2, -0.2, 0], [0.2, 0.2, 0], [-0.2, 0.2, 0]], np.float32)
    np.savez(scans / "mesh.npz", v=corners, f=np.array([[0, 1, 2], [0, 2, 3]]))
    cameras = Camera.orbit(torch.tensor([0.0, math.radians(30)]), torch.zeros(2))
    labels = []
    for i, name in enumerate(("plate_front.png", "plate_yaw30.png")):
        rgba = np.zeros((64, 64, 4), np.uint8)
        rgba[12:52, 12:52] = [200, 100, 50, 255]
        Image.fromarray(rgba).save(scans / name)
        labels.append([name, cameras[i].labels()[0].tolist()])
    (scans / "dataset.json").write_text(json.dumps({"labels": labels}))
    (scans / "plate_found.json").write_text(json.dumps({"labels": [labels[0]]}))
    (subject,) = scan_subjects(scans, tmp_path / "work", 32)
    assert (subject.name, subject.group) == ("plate", "scan") and [v.name for v in subject.views] == ["input", "yaw+30"]
    truth = subject.truth()
    assert truth.colour.shape == (2, 3, 32, 32) and truth.depth[0, 0, 16, 16] == pytest.approx(2.7, abs=1e-4)
    assert truth.over(0.0)[0, :, 16, 16].tolist() == pytest.approx([c / 127.5 - 1 for c in (200, 100, 50)], abs=0.01)
    assert truth.over(0.25)[0, :, 0, 0].tolist() == [0.25] * 3 and truth.depth[0, 0, 0, 0] == 0
    depth = subject.geometry(cameras, 16)
    assert depth.shape == (2, 1, 16, 16) and depth[1, 0, 8, 8] == pytest.approx(2.7, abs=0.02)
    assert all(path.exists() for path in (subject.photo, subject.mask, subject.found_camera, subject.true_camera))
    before = (subject.folder / "truth.safetensors").stat().st_mtime_ns
    scan_subjects(scans, tmp_path / "work", 32)
    assert (subject.folder / "truth.safetensors").stat().st_mtime_ns == before


def test_what_cannot_be_had_is_skipped_with_a_reason(tmp_path, capsys):
    with pytest.raises(InputError, match="nothing to invert"):
        gather(None, tmp_path / "no", tmp_path, 32, (), 1, 1)
    said = capsys.readouterr().out
    assert "no --makehuman" in said and "dataset.json" in said


@pytest.mark.parametrize("index", range(len(PAINTS)))
def test_paintings_cover_some_of_the_face_and_leave_most_of_it(index):
    picture = painting(index, seed=1)
    assert picture.shape == (1024, 1024, 4) and picture.dtype == np.float32
    assert picture.min() >= 0 and picture.max() <= 1
    assert 0.002 < (picture[..., 3] > 0.3).mean() < 0.2
    rows, columns = np.nonzero(picture[..., 3] > 0.3)
    assert rows.min() > 200 and rows.max() < 850 and columns.min() > 150 and columns.max() < 870
    assert np.array_equal(picture, painting(index, seed=1)) and not np.array_equal(picture, painting(index, seed=2))


def ball_head(radius: float = 0.2) -> SimpleNamespace:
    """A ball with eyes and ears in the places of a head's."""
    rng = np.random.default_rng(0)
    skin = rng.normal(size=(20000, 3))
    skin *= radius / np.linalg.norm(skin, axis=1, keepdims=True)
    eyes = np.concatenate([rng.normal(scale=0.005, size=(50, 3)) + [side * 0.073, 0.024, 0.155] for side in (-1, 1)])
    parts = [SimpleNamespace(name="skin", positions=skin), SimpleNamespace(name="eyes", positions=eyes)]
    return SimpleNamespace(parts=parts)


@pytest.mark.parametrize("kind", sorted(set(KINDS)))
def test_props_sit_on_the_head_and_inside_the_box(kind):
    mesh = prop_for(ball_head(), kind, seed=0)
    assert np.isfinite(mesh.vertices).all() and np.abs(mesh.vertices).max() < 0.375
    assert mesh.faces.max() < len(mesh.vertices) and mesh.faces.min() >= 0
    assert np.allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=0.01)
    assert mesh.colours.min() >= 0 and mesh.colours.max() <= 1
    outside = np.linalg.norm(mesh.vertices, axis=1) > 0.2
    assert outside.mean() > 0.6
    front = prop_depth(mesh, Camera.orbit(0.0, 0.0), 64)
    assert 0.005 < (front > 0).float().mean() < 0.5


def test_a_crown_holds_all_that_is_above_it():
    points = ball_head(0.2).parts[0].positions
    centre = np.array([0.0, 0.08, 0.0])
    shell = crown(points, centre, 0.01)
    above = points[points[:, 1] > centre[1] + 0.02] - centre
    directions = (shell - centre).reshape(-1, 3)
    lengths = np.linalg.norm(directions, axis=1)
    nearest = ((above / np.linalg.norm(above, axis=1, keepdims=True)) @ (directions / lengths[:, None]).T).argmax(1)
    assert (lengths[nearest] > np.linalg.norm(above, axis=1)).mean() > 0.99


def test_the_nearer_surface_wins_and_a_prop_throws_a_shadow():
    """A plate before another: from above the light comes, so the shadow lies below."""
    flat = np.stack(np.meshgrid([-0.1, 0.1], [0.1, -0.1], indexing="xy"), -1)
    plate = sheet_mesh(np.concatenate([flat, np.full((2, 2, 1), 0.05)], 2), np.array([0.2, 0.4, 0.6]))
    up = np.array([0, 1, 1]) / math.sqrt(2)
    light = {"key_direction": up, "key_colour": np.ones(3), "sky": np.ones(3), "ground": np.ones(3)}
    light |= {"fill_x": np.zeros(3), "fill_z": np.zeros(3), "exposure": 1.0}
    light |= {"second_direction": up, "second_colour": np.zeros(3)}
    painter = PropPainter(plate, light)
    camera = Camera.orbit(0.0, 0.0)
    grey, solid = torch.full((3, 128, 128), 0.5), torch.ones(1, 128, 128)
    behind = torch.full((1, 128, 128), 2.7)
    rgb, alpha, depth = painter.over(grey, solid, behind, camera)
    assert depth[0, 64, 64] == pytest.approx(2.65, abs=1e-3) and alpha.min() == 1
    assert rgb[2, 64, 64] > rgb[0, 64, 64] + 0.1  # blue
    above, below = rgb[:, 35, 64], rgb[:, 88, 64]
    assert depth[0, 88, 64] == behind[0, 88, 64] and (below < 0.45).all() and torch.allclose(above, grey[:, 0, 0])
    rgb, _, depth = painter.over(grey, solid, torch.full((1, 128, 128), 2.5), camera)
    assert torch.equal(depth, torch.full_like(depth, 2.5)) and torch.allclose(rgb, grey, atol=1e-4)


def test_meshes_are_joined_without_mixing_their_corners():
    path = np.stack([np.linspace(0, 1, 5), np.zeros(5), np.zeros(5)], 1)
    one = tube(path, 0.1, (1, 0, 0))
    both = join([one, one])
    assert len(both.vertices) == 2 * len(one.vertices) and np.array_equal(
        both.faces[len(one.faces) :], one.faces + len(one.vertices)
    )
    distance = np.linalg.norm(one.vertices[:, 1:], axis=1)
    assert distance == pytest.approx(0.1)


def test_cameras_are_in_error_as_said():
    camera = Camera.orbit(0.1, 0.05)
    angles = []
    for seed in range(300):
        wrong = mistaken(camera, seed).validate("mistaken")
        relative = wrong.cam2world[0, :3, :3] @ camera.cam2world[0, :3, :3].T
        angles.append(math.degrees(math.acos(min(1.0, (float(relative.trace()) - 1) / 2))))
        assert wrong.position.norm() == pytest.approx(2.7, abs=1e-3)
    assert np.mean(angles) == pytest.approx(CAMERA_ERROR, rel=0.08)


def test_synthetic_heads_are_held_out_and_the_hard_ones_are_turned():
    recipes = [Recipe(group, i, 256) for group in GROUPS for i in range(HEADS)]
    assert len({recipe.seed for recipe in recipes}) == len(recipes) == 24
    assert min(recipe.seed for recipe in recipes) >= HELD_OUT_SEED
    for recipe in recipes:
        yaw = abs(recipe.camera[0])
        assert 45 <= yaw <= 70 if recipe.group == "pose" else yaw <= 6


def test_sets_are_scans_all_synthetic_heads_and_each_group(tmp_path):
    def of(name: str, group: str) -> Subject:
        return Subject(name, group, tmp_path, VIEWS, lambda cameras, size: torch.zeros(1))

    subjects = [of("a", "painted"), of("b", "props"), of("c", "scan")]
    assert {k: [s.name for s in v] for k, v in sets_of(subjects).items()} == {
        "scan": ["c"],
        "synthetic": ["a", "b"],
        "painted": ["a"],
        "props": ["b"],
    }
    assert list(sets_of(subjects[1:])) == ["scan", "synthetic"]
