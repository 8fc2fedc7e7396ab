"""What every generator must do, whatever its family; further families join by a further parameter."""

import copy
import math

import pytest
import torch

from pmv.errors import CheckpointError
from pmv.generators import EG3DGenerator
from pmv.geometry.camera import Camera


@pytest.fixture(params=["tiny_generator", "tiny_panohead"])
def generator(request) -> EG3DGenerator:
    return request.getfixturevalue(request.param)


@pytest.fixture
def w(generator):
    return generator.mean_w(64)


def test_shapes_and_ranges(generator, w):
    spec = generator.spec
    z = torch.randn(3, spec.z_dim)
    rows = generator.map(z, spec.canonical_camera)
    assert rows.shape == (3, spec.num_ws, spec.w_dim)
    out = generator.render(generator.planes(rows), rows, spec.orbit(torch.tensor([0.0, 1.0, 2.0]), 0.0), resolution=8)
    assert out.image.shape == (3, 3, spec.resolution, spec.resolution)
    assert out.raw.shape == (3, 3, 8, 8) and out.depth.shape == out.alpha.shape == (3, 1, 8, 8)
    assert out.alpha.min() >= 0 and out.alpha.max() <= 1 + 1e-5


def test_rendering_is_deterministic_without_jitter_and_seeded_with_it(generator, w):
    planes, camera = generator.planes(w), generator.spec.canonical_camera

    def view(seed=None):
        return generator.render(planes, w, camera, jitter=torch.Generator().manual_seed(seed) if seed else None).raw

    assert torch.equal(view(), view())
    assert torch.equal(view(1), view(1))
    assert not torch.equal(view(1), view(2))


def test_one_latent_from_many_cameras_equals_one_by_one(generator, w):
    cameras = generator.spec.orbit(torch.tensor([-0.4, 0.0, 0.7]), torch.tensor([0.1, 0.0, -0.2]))
    planes = generator.planes(w)
    together = generator.render(planes, w, cameras)
    for i in range(3):
        alone = generator.render(planes, w, cameras[i])
        torch.testing.assert_close(together.image[i : i + 1], alone.image, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.alpha[i : i + 1], alone.alpha, atol=1e-4, rtol=1e-4)


def test_depth_is_z_depth_of_the_surface(generator, w):
    """The unprojected depth of a view lies on the surface that the density describes, also far off the optical axis."""
    camera = Camera.orbit(0.3, 0.1, focal=2.0)  # wide: at the ball's rim ray length and z-depth differ by 1 %
    out = generator.render(generator.planes(w), w, camera, resolution=24)
    solid = out.alpha[0, 0] > 0.95
    assert solid.sum() > 20
    inner = (
        solid & torch.roll(solid, 1, 0) & torch.roll(solid, -1, 0) & torch.roll(solid, 1, 1) & torch.roll(solid, -1, 1)
    )
    radius = camera.unproject(out.depth)[0].norm(dim=-1)[inner]
    assert abs(radius.median().item() - 0.2) < 0.03


def test_gradients_reach_w_camera_and_weights(generator, w):
    copied = copy.deepcopy(generator).requires_grad_(True)
    w = w.clone().requires_grad_(True)
    yaw = torch.tensor([0.2], requires_grad=True)
    out = copied.render(copied.planes(w), w, copied.spec.orbit(yaw, 0.0))
    (out.image.square().mean() + out.depth.mean()).backward()
    assert w.grad is not None and w.grad.abs().sum() > 0
    assert yaw.grad is not None and math.isfinite(yaw.grad.item()) and yaw.grad.item() != 0
    for group in ("backbone", "decoder", "superresolution"):
        parameters = copied.tunable_parameters(group)
        assert parameters
        assert sum(p.grad.abs().sum() for p in parameters.values() if p.grad is not None) > 0


def test_groups_cover_the_model_and_unknown_groups_are_refused(generator):
    groups = [generator.tunable_parameters(name) for name in generator.GROUPS if name != "residual"]
    names = set(generator.tunable_parameters("all")) | set(generator.tunable_parameters("mapping"))
    assert sum(map(len, groups)) == len(set().union(*groups)) == len(names)
    assert names == {name for name, _ in generator.named_parameters()}
    with pytest.raises(ValueError, match="no parameter group"):
        generator.tunable_parameters("nose")


def test_a_residual_starts_at_zero_and_travels_with_the_tuned_weights(generator, w):
    tuned, fresh = copy.deepcopy(generator), copy.deepcopy(generator)
    before = tuned.planes(w)
    (residual,) = tuned.tunable_parameters("residual").values()
    assert torch.equal(tuned.planes(w), before)
    with torch.no_grad():
        residual += 0.5
    state = {
        name: p.detach().clone()
        for group in ("decoder", "residual")
        for name, p in tuned.tunable_parameters(group).items()
    }
    fresh.load_tuned(state)
    torch.testing.assert_close(fresh.planes(w), before + 0.5)
    assert "plane_residual" not in generator.state_dict()


def test_tuned_weights_of_another_generator_are_refused(generator):
    name, weight = next(iter(generator.tunable_parameters("decoder").items()))
    for state in ({"nose": weight.detach()}, {name: torch.zeros(1, 2, 3)}):
        with pytest.raises(CheckpointError, match="tuned weights"):
            copy.deepcopy(generator).load_tuned(state)


def test_noise_overrides_change_the_planes(generator, w):
    noisy = copy.deepcopy(generator)
    for module in noisy.modules():
        if hasattr(module, "noise_strength"):
            module.noise_strength.data.fill_(0.5)
    buffers = noisy.noise_buffers()
    zero = {name: torch.zeros_like(value) for name, value in buffers.items()}
    assert torch.equal(noisy.planes(w), noisy.planes(w, noise=dict(buffers)))
    assert not torch.allclose(noisy.planes(w), noisy.planes(w, noise=zero))


def test_truncation_moves_to_the_mean(generator):
    spec = generator.spec
    z = torch.randn(2, spec.z_dim)
    full, half, none = (generator.map(z, spec.canonical_camera, psi) for psi in (1.0, 0.5, 0.0))
    average = generator.backbone.mapping.w_avg.expand_as(none)
    torch.testing.assert_close(none, average)
    torch.testing.assert_close(half, (full + average) / 2)
    cut = generator.map(z, spec.canonical_camera, 0.0, cutoff=2)
    torch.testing.assert_close(cut[:, 2:], full[:, 2:])


def test_the_field_is_the_density_that_is_rendered(generator, w):
    """Along a ray through the middle the field has a surface where the render says it is."""
    planes, camera = generator.planes(w), generator.spec.canonical_camera
    depth = generator.render(planes, w, camera, resolution=1).depth.item()
    z = camera.position[0, 2] - torch.linspace(depth - 0.1, depth + 0.1, 41)
    points = torch.stack([torch.zeros(41), torch.zeros(41), z], -1)[None]
    density, features = generator.field(planes).density(points, False)
    assert features.shape == (1, 41, 0)
    assert density[0, 0] < 5 < density[0, -1]
    torch.testing.assert_close(density, generator.density(points, planes)[0])


def test_a_photos_camera_keeps_direction_and_gradients(generator):
    yaw = torch.tensor([0.3, -0.2], requires_grad=True)
    camera = generator.spec.orbit(yaw, 0.1)
    placed = generator.photo_camera(camera)
    assert torch.equal(placed.cam2world[:, :3, :3], camera.cam2world[:, :3, :3])
    assert (placed.position - camera.position).norm(dim=1).max() < 0.1
    placed.position.sum().backward()
    assert yaw.grad is not None and yaw.grad.abs().min() > 0


def test_density_outside_the_rendered_surface_is_clear(generator, w):
    planes = generator.planes(w)
    points = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.33, 0.0], [0.33, 0.0, 0.0]]])
    density, features = generator.density(points, planes)
    assert density[0, 0] > density[0, 1] + 5 and density[0, 0] > density[0, 2] + 5
    assert features.shape[:2] == (1, 3)
