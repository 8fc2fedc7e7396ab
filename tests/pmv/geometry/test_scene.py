"""Geometry: depth maps of a sphere and of two planes, whose surfaces are known."""

import math

import pytest
import torch

from pmv.geometry.camera import Camera
from pmv.geometry.scene import (
    depth_edges,
    depth_mesh,
    depth_normals,
    edge_step,
    resize_depth,
    sample_depth,
    surface_points,
)
from pmv.pictures.images import pixel_grid
from tests.scenes import sphere_view, steps_view

FRONT = Camera.orbit(0.0, 0.0)
SIDE = Camera.orbit(0.4, 0.2)


def test_edge_step_is_the_step_of_an_inclined_plane():
    """A plane at 60° to the image plane makes exactly this relative step near the image centre."""
    camera, size = FRONT, 512
    directions = camera.pixel_directions(size).reshape(size, size, 3)[size // 2]
    depth = 2.7 / (1 - math.tan(math.radians(60)) * directions[:, 0])
    step = ((depth[257] - depth[256]) / depth[256]).item()
    assert step == pytest.approx(edge_step(camera, size, 60.0), rel=1e-2)
    with pytest.raises(ValueError, match="between 0 and 90"):
        edge_step(camera, size, 90.0)


def test_edges_are_found_at_steps_and_nowhere_else():
    _, depth, alpha = steps_view(SIDE, 64)
    edges = depth_edges(depth, alpha > 0, edge_step(SIDE, 64))
    near = SIDE.unproject(depth)[..., 2][:, None] > 0
    outline = torch.nn.functional.max_pool2d(near.float(), 3, 1, 1) > 0
    outline &= torch.nn.functional.max_pool2d((~near).float(), 3, 1, 1) > 0
    assert edges.any()
    assert not (edges & ~outline).any()
    assert edges.sum() > 0.6 * outline.sum()  # outline also holds diagonal neighbours


@pytest.mark.parametrize("size", [32, 96])
def test_sampling_never_mixes_surfaces(size):
    """Wherever it is sampled, the depth is that of the square or that of the plane, not one in between."""
    _, depth, alpha = steps_view(FRONT, size)
    uv = torch.rand(1, 5000, 2, generator=torch.Generator().manual_seed(0))
    sampled, found = sample_depth(depth, alpha > 0, uv, edge_step(FRONT, size))
    assert found.all()
    assert torch.minimum((sampled - 2.6).abs(), (sampled - 2.8).abs()).max() < 1e-5
    blurred = torch.nn.functional.grid_sample(depth, 2 * uv[None] - 1, align_corners=False)
    assert torch.minimum((blurred - 2.6).abs(), (blurred - 2.8).abs()).max() > 0.05  # the plain way does mix


def test_sampling_reports_what_it_did_not_find():
    _, depth, alpha = sphere_view(FRONT, 32)
    uv = torch.tensor([[[0.5, 0.5], [0.02, 0.02], [1.2, 0.5], [float("nan"), 0.5], [1e12, -1e12]]])
    sampled, found = sample_depth(depth, alpha > 0, uv, edge_step(FRONT, 32))
    assert found.tolist() == [[True, False, False, False, False]]
    assert sampled[0, 0].item() == pytest.approx(2.5, abs=2e-3)
    assert not sampled[0, 1:].any()


def test_sampling_gradcheck():
    _, depth, alpha = sphere_view(SIDE.to(torch.float64), 6, radius=0.28)
    uv = (
        torch.rand(1, 12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.25
    ).requires_grad_()
    edge = 1.0  # one surface: no neighbour may switch while the check moves depths
    assert torch.autograd.gradcheck(lambda d, p: sample_depth(d, alpha > 0, p, edge)[0], (depth.requires_grad_(), uv))


@pytest.mark.parametrize("factor", [2, 4])
def test_resized_sphere_is_the_sphere(factor):
    camera = Camera.cat([FRONT, SIDE])
    _, depth, alpha = sphere_view(camera, 64)
    size = 64 * factor
    fine, valid = resize_depth(depth, alpha > 0, (size, size), edge_step(camera, 64))
    _, truth, true_alpha = sphere_view(camera, size)
    assert fine.shape == valid.shape == (2, 1, size, size)
    assert (valid != (true_alpha > 0)).float().mean() < 0.01
    both = valid & (true_alpha > 0)
    error = (fine - truth)[both].abs()
    assert error.median() < 1e-4
    assert error.quantile(0.8) < 1e-3
    assert not fine[~valid].any()


def test_resized_steps_hold_two_depths_only():
    _, depth, alpha = steps_view(FRONT, 32)
    fine, valid = resize_depth(depth, alpha > 0, (128, 128), edge_step(FRONT, 32))
    assert valid.all()
    assert torch.minimum((fine - 2.6).abs(), (fine - 2.8).abs()).max() < 1e-5


def test_resizing_to_the_same_size_changes_nothing():
    _, depth, alpha = sphere_view(FRONT, 16)
    fine, valid = resize_depth(depth, alpha > 0, (16, 16), 0.1)
    assert torch.equal(fine, depth)
    assert torch.equal(valid, alpha > 0)


def test_infinite_depth_outside_the_surface_is_harmless():
    _, depth, alpha = sphere_view(FRONT, 32)
    broken = torch.where(alpha > 0, depth, torch.full_like(depth, float("inf")))
    edge = edge_step(FRONT, 32)
    for d in (broken, torch.where(alpha > 0, depth, torch.full_like(depth, float("nan")))):
        points, normals, surface = surface_points(d, alpha > 0, FRONT, 64)
        assert torch.isfinite(points).all() and torch.isfinite(normals).all() and surface.any()
        assert torch.isfinite(sample_depth(d, alpha > 0, pixel_grid(64, 64, d), edge)[0]).all()


def test_normals_of_a_sphere():
    camera = Camera.cat([FRONT, SIDE])
    _, depth, alpha = sphere_view(camera, 128)
    normals, known = depth_normals(depth, alpha > 0, camera, edge_step(camera, 128))
    expected = torch.nn.functional.normalize(camera.unproject(depth), dim=-1).permute(0, 3, 1, 2)
    cosine = (normals * expected).sum(1, keepdim=True)[known]
    assert cosine.mean() > 0.999
    assert cosine.min() > 0.95
    assert torch.allclose(normals.norm(dim=1, keepdim=True)[known], torch.ones(1), atol=1e-5)
    assert not normals.norm(dim=1, keepdim=True)[~known].any()


def test_normals_gradcheck():
    camera = SIDE.to(torch.float64)
    _, depth, alpha = sphere_view(camera, 5, radius=0.4)
    assert torch.autograd.gradcheck(lambda d: depth_normals(d, alpha > 0, camera, 1.0)[0], depth.requires_grad_())


def test_mesh_of_a_view_lies_on_the_sphere_and_faces_the_camera():
    _, depth, alpha = sphere_view(SIDE, 48)
    vertices, faces = depth_mesh(depth, alpha > 0, SIDE, edge_step(SIDE, 48))
    assert vertices.shape == (48 * 48, 3)
    corners = vertices[faces]
    assert torch.allclose(corners.norm(dim=-1), torch.tensor(0.2), atol=1e-5)
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert ((normal * (SIDE.position - corners[:, 0])).sum(-1) > 0).all()


def test_mesh_has_no_skirt_between_surfaces():
    _, depth, alpha = steps_view(SIDE, 48)
    vertices, faces = depth_mesh(depth, alpha > 0, SIDE, edge_step(SIDE, 48))
    z = vertices[faces][..., 2]
    assert (z.amax(1) - z.amin(1)).max() < 1e-4
    assert z.max() > 0.09 and z.min() < -0.09


def test_shapes_are_checked():
    depth = torch.ones(1, 1, 4, 4)
    with pytest.raises(ValueError, match="bool of the same shape"):
        depth_edges(depth, depth, 0.1)
    with pytest.raises(ValueError, match=r"uv is \[N,...,2\]"):
        sample_depth(depth, depth > 0, torch.zeros(2, 3, 2), 0.1)
    with pytest.raises(ValueError, match="one view"):
        depth_mesh(depth.expand(2, -1, -1, -1), depth.expand(2, -1, -1, -1) > 0, FRONT, 0.1)
