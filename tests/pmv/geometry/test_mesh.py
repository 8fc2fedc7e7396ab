"""Meshes: an analytic sphere's surface, its colours, and PLY round trips."""

import math

import pytest
import torch
import trimesh

from pmv.errors import InputError
from pmv.geometry.camera import Camera
from pmv.geometry.mesh import extract_mesh, read_ply, vertex_colours, write_ply
from tests.scenes import sphere_view, texture


def sphere(points: torch.Tensor) -> torch.Tensor:
    """Density 20 inside a sphere of radius 0.2 at (0.1, 0, -0.05), falling linearly through 10 at its surface."""
    return 10 + 100 * (0.2 - (points - torch.tensor([0.1, 0.0, -0.05])).norm(dim=-1, keepdim=True))


@pytest.fixture(scope="module")
def ball() -> tuple[torch.Tensor, torch.Tensor]:
    return extract_mesh(sphere, box=0.75, resolution=48, level=10.0)


def test_mesh_of_a_sphere_in_world_units(ball):
    vertices, faces = ball
    radius = (vertices - torch.tensor([0.1, 0.0, -0.05])).norm(dim=-1)
    assert (radius - 0.2).abs().max() < 1e-3
    mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.2**3, rel=0.02)  # positive: outward faces


def test_only_the_largest_piece_is_kept():
    def two(points):
        speck = 10 + 100 * (0.05 - (points + torch.tensor([0.25, 0.25, 0.25])).norm(dim=-1, keepdim=True))
        return torch.maximum(sphere(points), speck)

    vertices, _ = extract_mesh(two, box=0.75, resolution=32, level=10.0)
    assert (vertices - torch.tensor([0.1, 0.0, -0.05])).norm(dim=-1).max() < 0.21


def test_a_surface_that_leaves_the_box_is_closed():
    vertices, faces = extract_mesh(lambda p: 12 + 0 * p[..., :1], box=0.5, resolution=8, level=10.0)
    assert trimesh.Trimesh(vertices.numpy(), faces.numpy()).is_watertight
    assert 0.25 <= vertices.abs().max() < 0.25 + 0.5 / 7


def test_no_surface_gives_an_empty_mesh():
    vertices, faces = extract_mesh(lambda p: 0 * p[..., :1], box=1.0, resolution=4, level=10.0)
    assert vertices.shape == (0, 3) and faces.shape == (0, 3)
    with pytest.raises(ValueError, match="at least 2"):
        extract_mesh(sphere, 1.0, 1, 10.0)


def test_chunks_do_not_change_the_mesh(ball, monkeypatch):
    monkeypatch.setattr("pmv.geometry.mesh._CHUNK", 1000)
    again = extract_mesh(sphere, box=0.75, resolution=48, level=10.0)
    assert torch.equal(again[0], ball[0]) and torch.equal(again[1], ball[1])


def test_colours_come_from_the_views_that_see_them():
    vertices, faces = extract_mesh(
        lambda p: 10 + 100 * (0.2 - p.norm(dim=-1, keepdim=True)), box=0.75, resolution=48, level=10.0
    )
    cameras = Camera.orbit(torch.tensor([-0.6, 0.0, 0.6]), 0.0)
    images, _, _ = sphere_view(cameras, 128)
    colours = vertex_colours(vertices, faces, images, cameras, tolerance=0.02)
    assert colours.shape == vertices.shape and colours.dtype == torch.uint8
    front = vertices[:, 2] > 0.08
    expected = (texture(vertices[front]) + 1) * 127.5
    assert (colours[front].float() - expected).abs().mean() < 3
    back = vertices[:, 2] < -0.15  # unseen: the nearest seen colour, not grey
    assert (colours[back].float() - 128).abs().mean() > 20


def test_no_view_gives_grey(ball):
    vertices, faces = ball
    away = Camera.orbit(torch.tensor([0.0]), 0.0, pivot=(5.0, 0.0, 0.0))
    assert (vertex_colours(vertices, faces, torch.ones(1, 3, 32, 32), away, 0.02) == 128).all()


@pytest.mark.parametrize("coloured", [True, False])
def test_ply_round_trip(ball, tmp_path, coloured):
    vertices, faces = ball
    colours = torch.randint(0, 256, vertices.shape, dtype=torch.uint8) if coloured else None
    write_ply(tmp_path / "head.ply", vertices, faces, colours)
    read_vertices, read_faces, read_colours = read_ply(tmp_path / "head.ply")
    assert torch.equal(read_vertices, vertices)
    assert torch.equal(read_faces, faces)
    assert read_colours is None if colours is None else torch.equal(read_colours, colours)
    assert [p.name for p in tmp_path.iterdir()] == ["head.ply"]


def test_a_bad_ply_is_refused(tmp_path):
    (tmp_path / "bad.ply").write_text("not a mesh")
    for name in ("bad.ply", "missing.ply"):
        with pytest.raises(InputError, match=name):
            read_ply(tmp_path / name)
