"""Atlases and painting on a ball, whose every point is known."""

import sys

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from pmv.errors import AssetsError
from pmv.geometry.atlas import Atlas, Texels, as_texture, sample_texture, texels, unwrap, vertex_texels
from pmv.geometry.camera import Camera
from pmv.geometry.mesh import simplified, smoothed, surface_level, vertex_normals
from pmv.geometry.painting import Painted, fill_weights, paint
from pmv.geometry.raster import rasterize
from pmv.geometry.scene import SeenFrom

RADIUS = 0.3


@pytest.fixture(scope="module")
def ball() -> tuple[Tensor, Tensor, Tensor]:
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=RADIUS)
    vertices, faces = torch.tensor(mesh.vertices).float(), torch.tensor(mesh.faces).long()
    return vertices, faces, vertices / RADIUS


@pytest.fixture(scope="module")
def atlas(ball: tuple[Tensor, Tensor, Tensor]) -> Atlas:
    return unwrap(*ball[:2], ball[2], 256)


def test_what_textures_need_is_said(ball: tuple[Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "xatlas", None)
    with pytest.raises(AssetsError, match="need xatlas: pip install xatlas; or export ply or stl"):
        unwrap(*ball[:2], ball[2], 256)


def test_a_texture_shows_what_lies_on_the_surface(ball: tuple[Tensor, Tensor, Tensor], atlas: Atlas):
    """Coloured by place, the texture gives each point of the surface its place back."""
    vertices, faces, _ = ball
    assert len(atlas.faces) == len(faces) and 0 <= atlas.uv.min() and atlas.uv.max() <= 1
    assert torch.allclose(vertices[atlas.source], atlas.vertices)
    shown = texels(atlas, 256)
    assert len(shown.index) > 0.3 * 256**2, "the charts fill a good part of the texture"
    assert torch.allclose(shown.points.norm(dim=1), torch.tensor(RADIUS), rtol=0.02)
    assert torch.allclose((vertices[shown.corners] * shown.barycentric[..., None]).sum(1), shown.points, atol=1e-5)
    texture = as_texture(shown.points / RADIUS, shown.index, 256)
    assert (sample_texture(texture, atlas.uv) - atlas.vertices / RADIUS).abs().max() < 0.06
    assert texture.reshape(-1, 3).any(1).all(), "texels between the charts take a neighbour's colour"


def seen(ball: tuple[Tensor, Tensor, Tensor], yaw: float, colour: tuple[float, float, float]) -> Painted:
    camera = Camera.orbit(yaw, 0.0)
    fragments = rasterize(ball[0], ball[1], camera, 128, 128)
    view = SeenFrom(camera, fragments.depth[:, None], fragments.face_index[:, None] >= 0)
    return Painted(torch.tensor(colour).reshape(1, 3, 1, 1).expand(1, 3, 64, 64).contiguous(), view, 75.0)


def test_the_photo_comes_first_then_the_squarest_view_then_the_nearest_texel(ball: tuple[Tensor, Tensor, Tensor]):
    vertices, _, normals = ball
    red, green, blue = (1.0, -1.0, -1.0), (-1.0, 1.0, -1.0), (-1.0, -1.0, 1.0)
    photo = seen(ball, 0.0, red)
    fills = [seen(ball, 0.0, green), seen(ball, np.pi / 2, blue)]
    weights = fill_weights(vertices, normals, fills, 0.02)
    assert torch.allclose(weights.sum(1)[weights.sum(1) > 0], torch.tensor(1.0))
    points = vertex_texels(vertices, normals)
    front, side, back = (
        int((vertices @ torch.tensor(axis)).argmax()) for axis in ([0, 0, 1.0], [1.0, 0, 0], [0, 0, -1.0])
    )
    painted = paint(points, photo, fills, weights, 0.02)
    assert painted[front].tolist() == pytest.approx(red, abs=1e-3)
    assert painted[side].tolist() == pytest.approx(blue, abs=1e-3)
    assert painted[back, 1] < 0 and painted[back, 2] > 0.5, "nobody sees the back: it takes the nearest colour"
    alone = paint(points, None, fills, weights, 0.02)
    assert alone[front].tolist() == pytest.approx(green, abs=1e-3)
    blind = Texels(points.index, points.points, -points.normals, points.corners, points.barycentric)
    nothing = paint(blind, photo, fills, torch.zeros_like(weights), 0.02)
    assert (nothing == 0).all(), "where nothing shows any point"


def test_a_surface_lies_where_the_volume_is_seen():
    """A wall whose density rises slowly: the level is that of the depth map, not where it begins."""

    def density(points: Tensor) -> Tensor:
        return 1000 * (RADIUS - points.norm(dim=-1, keepdim=True))

    places = torch.nn.functional.normalize(torch.randn(999, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert surface_level(density, 0.25 * places) == pytest.approx(50, abs=1)


def test_fewer_faces_and_smoother_ones(ball: tuple[Tensor, Tensor, Tensor]):
    vertices, faces, _ = ball
    fewer, triangles = simplified(vertices, faces, 400)
    assert len(triangles) <= 400 and torch.allclose(fewer.norm(dim=1).mean(), torch.tensor(RADIUS), rtol=0.03)
    assert simplified(vertices, faces, len(faces))[0] is vertices
    rough = vertices + 0.01 * torch.randn(vertices.shape, generator=torch.Generator().manual_seed(0))
    smooth = smoothed(rough, faces, 5)
    assert smooth.norm(dim=1).std() < 0.5 * rough.norm(dim=1).std()
    assert smooth.norm(dim=1).mean() == pytest.approx(RADIUS, rel=0.02), "and it did not shrink"
    assert smoothed(rough, faces, 0) is rough
    assert (vertex_normals(vertices, faces) * vertices / RADIUS).sum(1).min() > 0.99
