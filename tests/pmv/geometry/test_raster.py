"""The rasteriser: the torch twin against a slow reference, against the camera's conventions, and against nvdiffrast."""

import time

import pytest
import torch
import trimesh

from pmv.errors import PmvError
from pmv.geometry.camera import Camera
from pmv.geometry.raster import _import_nvdiffrast, interpolate, rasterize

CAMERAS = Camera.orbit(torch.tensor([0.0, 0.5]), torch.tensor([0.1, -0.2]))


def ball(subdivisions: int, radius: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    mesh = trimesh.creation.icosphere(subdivisions, radius)
    return torch.tensor(mesh.vertices, dtype=torch.float32), torch.tensor(mesh.faces, dtype=torch.long)


def reference(vertices, faces, camera, height, width):
    """Ray-triangle intersection (Möller-Trumbore) of every pixel with every face: index [H,W], z-depth [H,W]."""
    origins, directions = (x[0].double() for x in camera.rays(height, width))
    a, b, c = vertices.double()[faces].unbind(1)
    depth = torch.full((height * width, len(faces)), float("inf"), dtype=torch.float64)
    p = torch.linalg.cross(directions[:, None], (c - a)[None])
    determinant = (p * (b - a)).sum(-1)
    s = origins[:, None] - a
    u = (s * p).sum(-1) / determinant
    q = torch.linalg.cross(s, (b - a).expand_as(s))
    v = (directions[:, None] * q).sum(-1) / determinant
    t = ((c - a) * q).sum(-1) / determinant
    inside = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
    depth = torch.where(inside, t, depth)
    nearest, index = depth.min(1)
    index = torch.where(torch.isfinite(nearest), index, -1)
    return index.reshape(height, width), nearest.reshape(height, width)


@pytest.mark.parametrize(("height", "width"), [(24, 24), (17, 30)])
def test_agrees_with_ray_casting(height, width):
    generator = torch.Generator().manual_seed(0)
    centre = (torch.rand(40, 1, 3, generator=generator) - 0.5) * 0.5
    vertices = (centre + 0.2 * (torch.rand(40, 3, 3, generator=generator) - 0.5)).reshape(-1, 3)
    faces = torch.arange(120).reshape(40, 3)
    fragments = rasterize(vertices, faces, CAMERAS, height, width, backend="torch")
    for i in range(2):
        index, depth = reference(vertices, faces, CAMERAS[i], height, width)
        seen = index >= 0
        assert seen.sum() > 50
        assert (fragments.face_index[i] == index).float().mean() > 0.995  # rounding on edges
        same = seen & (fragments.face_index[i] == index)
        assert torch.allclose(fragments.depth[i][same].double(), depth[same], atol=1e-5)
        assert not fragments.depth[i][fragments.face_index[i] < 0].any()


def test_round_trip_with_the_camera():
    """The interpolated world position of a fragment projects to its own pixel centre, at its own depth."""
    vertices, faces = ball(3)
    fragments = rasterize(vertices, faces, CAMERAS, 40, 40)
    position = interpolate(vertices, fragments, faces)
    uv, z = CAMERAS.project(position.reshape(2, -1, 3))
    seen = fragments.face_index >= 0
    row, column = torch.meshgrid(torch.arange(40), torch.arange(40), indexing="ij")
    pixel = torch.stack([column, row], -1) + 0.5
    assert torch.allclose(uv.reshape(2, 40, 40, 2)[seen] * 40, pixel.expand(2, -1, -1, -1)[seen], atol=1e-3)
    assert torch.allclose(z.reshape(2, 40, 40)[seen], fragments.depth[seen], atol=1e-5)
    assert torch.allclose(CAMERAS.unproject(fragments.depth[:, None])[seen], position[seen], atol=1e-5)
    assert torch.allclose(fragments.barycentric.sum(-1)[seen], torch.ones(1), atol=1e-5)
    assert fragments.barycentric.min() > -1e-4


def test_a_closed_mesh_has_no_cracks():
    vertices, faces = ball(4)
    seen = rasterize(vertices, faces, CAMERAS[0], 128, 128).face_index[0] >= 0
    axis = (torch.arange(128) + 0.5) / 128 - 0.5
    inside = (axis[:, None] ** 2 + axis**2).sqrt() < 4.2647 * 0.2 / 2.7 * 0.98
    assert seen[inside].all()


def test_the_nearer_face_wins_and_ties_go_to_the_first():
    square = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [0, 1, 0]]) * 0.3
    vertices = torch.cat([square, square + torch.tensor([0, 0, 0.1]), square + torch.tensor([0, 0, 0.1])])
    faces = torch.arange(9).reshape(3, 3)
    fragments = rasterize(vertices, faces, CAMERAS[0], 16, 16)
    assert set(fragments.face_index.unique().tolist()) <= {-1, 0, 1}
    assert fragments.face_index[0, 8, 8] == 1
    assert rasterize(vertices, faces.flip(1), CAMERAS[0], 16, 16).face_index[0, 8, 8] == 1  # both sides are seen


def test_faces_behind_the_camera_and_empty_meshes_are_not_drawn():
    vertices = torch.tensor([[-1.0, -1, 5], [1, -1, 5], [0, 1, 1]])
    assert (rasterize(vertices, torch.tensor([[0, 1, 2]]), CAMERAS, 8, 8).face_index == -1).all()
    empty = rasterize(vertices, torch.zeros(0, 3, dtype=torch.long), CAMERAS, 8, 8)
    assert empty.face_index.shape == (2, 8, 8) and (empty.face_index == -1).all()
    assert interpolate(vertices, empty, torch.zeros(0, 3, dtype=torch.long)).shape == (2, 8, 8, 3)


def test_chunks_do_not_change_the_result(monkeypatch):
    vertices, faces = ball(3)
    whole = rasterize(vertices, faces, CAMERAS, 32, 32)
    monkeypatch.setattr("pmv.geometry.raster._CANDIDATES", 50)
    for a, b in zip(whole, rasterize(vertices, faces, CAMERAS, 32, 32)):
        assert torch.equal(a, b)


def test_gradcheck():
    vertices = torch.tensor([[-0.3, -0.3, 0.1], [0.3, -0.2, -0.1], [0.0, 0.3, 0.05]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2]])
    camera = CAMERAS[0].to(torch.float64)

    def both(v):
        fragments = rasterize(v, faces, camera, 6, 6)
        return fragments.barycentric, fragments.depth

    assert torch.autograd.gradcheck(both, vertices.requires_grad_())


def test_speed():
    """30 000 faces at 256² in well under a second."""
    vertices, faces = ball(5)
    start = time.process_time()
    rasterize(vertices, torch.cat([faces, faces[:10000]]), CAMERAS[0], 256, 256)
    assert time.process_time() - start < 2.0  # CPU seconds of all threads


def test_unknown_and_missing_backends_say_what_to_do():
    vertices, faces = ball(0)
    with pytest.raises(PmvError, match="choose one of"):
        rasterize(vertices, faces, CAMERAS, 8, 8, backend="gl")
    with pytest.raises(PmvError, match="backend torch"):
        rasterize(vertices, faces, CAMERAS, 8, 8, backend="nvdiffrast")
    with pytest.raises(ValueError, match=r"vertices \[V,3\]"):
        rasterize(vertices[None], faces, CAMERAS, 8, 8)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available() or _import_nvdiffrast() is None, reason="needs CUDA and nvdiffrast")
def test_nvdiffrast_agrees_with_the_twin():
    # large faces: nvdiffrast moves corners to whole sixteenths of a pixel, which settles pixels near edges another way
    # (5120 faces of about two pixels: 0.7 % of this picture)
    vertices, faces = (x.cuda() for x in ball(2))
    cameras = CAMERAS.to("cuda")
    twin = rasterize(vertices, faces, cameras, 128, 128, backend="torch")
    fast = rasterize(vertices, faces, cameras, 128, 128, backend="nvdiffrast")
    assert (twin.face_index == fast.face_index).float().mean() > 0.995
    same = twin.face_index == fast.face_index
    assert torch.allclose(twin.depth[same], fast.depth[same], atol=1e-5)
