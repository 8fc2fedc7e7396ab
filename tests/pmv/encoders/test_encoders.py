"""The dual encoder: what it lifts lands where it belongs, what it calls visible is, and its two halves are one head."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pmv.encoders.dual import DualEncoder, load_encoders, save_encoders, seen_texels, stitched_field
from pmv.encoders.lifting import lift, texel_points
from pmv.encoders.network import Encoder, EncoderShape, pluecker
from pmv.encoders.occlusion import StitchedField, visible_points, visible_texels
from pmv.errors import CheckpointError, InputError
from pmv.generators import EG3DGenerator, PanoHeadGenerator
from pmv.generators.base import PLANE_AXES
from pmv.generators.volume import sample_planes
from pmv.geometry.camera import Camera
from tests.encoder_files import TINY, speaking_encoder

BOX = 1.0


def ball(camera: Camera, size: int = 64, radius: float = 0.25) -> tuple[Tensor, Tensor]:
    """z-depth and alpha of a ball at the origin."""
    origins, directions = camera.rays(size)
    a, b = directions.square().sum(-1), (origins * directions).sum(-1)
    root = b.square() - a * (origins.square().sum(-1) - radius**2)
    depth = torch.where(root > 0, (-b - root.clamp_min(0).sqrt()) / a, 0.0).reshape(-1, 1, size, size)
    return depth, (depth > 0).float()


@pytest.fixture(scope="module")
def encoder(tiny_generator: EG3DGenerator) -> Encoder:
    return speaking_encoder(tiny_generator)


def photo(generator: EG3DGenerator) -> tuple[Tensor, Tensor, Camera]:
    camera = generator.spec.orbit(torch.tensor([0.2, -0.3]), torch.tensor([0.0, 0.1]))
    w = generator.mean_w(16).expand(2, -1, -1)
    out = generator.render(generator.planes(w), w, camera)
    return out.image, torch.nn.functional.interpolate(out.alpha, out.image.shape[-2:]), camera


@pytest.mark.parametrize("convention", list(PLANE_AXES))
def test_texels_stand_where_the_generator_reads_them(convention: str, tiny_generator: EG3DGenerator):
    points = texel_points(convention, BOX, 8, 4)
    middle = (torch.arange(8) + 0.5) / 8 * BOX - BOX / 2
    for plane, (u, v) in enumerate(PLANE_AXES[convention]):
        # a plane that holds its texels' own coordinates, read at the points over them; what is read is the planes' mean
        planes = torch.zeros(1, 3, 2, 8, 8)
        planes[0, plane, 0], planes[0, plane, 1] = 3 * middle, 3 * middle[:, None]
        read = sample_planes(planes, points[plane].reshape(1, -1, 3), BOX, convention).reshape(4, 8, 8, 2)
        torch.testing.assert_close(read, points[plane][..., [u, v]], atol=1e-5, rtol=0)


@pytest.mark.parametrize("yaw", [0.0, 0.9, -2.0])
def test_features_land_where_the_surface_is(yaw: float):
    camera = Camera.orbit(yaw, 0.1)
    depth, solid = ball(camera)
    features = camera.unproject(depth).permute(0, 3, 1, 2)  # each pixel's feature is the place that it shows
    points = texel_points("fixed", BOX, 32, 48)
    lifted = lift(features * solid, camera, depth, solid, points, 0.03)[0]
    for plane, (u, v) in enumerate(PLANE_AXES["fixed"]):
        found = lifted[plane, 3] > 0.99
        assert found.sum() > 30, "half of the ball is seen"
        wanted = points[plane, 0][..., [u, v]]
        off = (lifted[plane, [u, v]].permute(1, 2, 0) - wanted)[found].abs().amax(1)
        # at the ball's outline the picture's pixels mix with what is behind it
        assert off.median() < 0.01 and off.quantile(0.9) < 0.03, plane
    assert (lifted[:, :3] * (lifted[:, 3:] == 0)).abs().max() == 0


def test_a_mirrored_lift_is_the_lift_of_the_mirrored_head():
    camera, mirrored = Camera.orbit(0.5, 0.1), Camera.orbit(-0.5, 0.1)
    depth, solid = ball(camera)
    torch.manual_seed(0)
    features = torch.rand(1, 2, 64, 64)
    points = texel_points("fixed", BOX, 16, 24)
    one = lift(features, camera, depth, solid, points, 0.05, mirrored=True)
    other = lift(features.flip(3), mirrored, depth.flip(3), solid.flip(3), points, 0.05)
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def test_points_are_seen_before_and_on_the_surface_and_beside_the_head():
    camera = Camera.orbit(0.0, 0.0)
    depth, solid = ball(camera, 128)
    points = torch.tensor(
        [[0.0, 0, 0.4], [0, 0, 0.25], [0, 0, 0.24], [0, 0, 0.2], [0, 0, -0.25], [0.3, 0, 0], [9, 0, 0]]
    )
    seen = visible_points(points[None], camera, depth, solid, 0.01)[0]
    assert seen[:3].min() > 0.9 and seen[3:5].max() == 0 and seen[5] == 1
    assert seen[6] == 0, "outside the picture"


def test_texels_are_seen_where_the_picture_shows_something():
    camera = Camera.orbit(torch.tensor([0.0, 1.2]), torch.tensor([0.0, 0.0]))
    depth, solid = ball(camera, 128)
    points = texel_points("fixed", BOX, 32, 32)
    seen = visible_texels(points, camera, depth, solid, 2 * BOX / 32)
    assert seen.shape == (2, 3, 1, 32, 32)
    front = seen[0, 0, 0]
    assert front[16, 16] == 1 and front[16, 1] == 0, "on the plane across the view all of the ball is seen"
    top = seen[0, 1, 0]  # columns x, rows z: of the ball's outline from above, the half towards the camera
    assert top[22:25, 14:18].max() == 1 and top[6:9, 14:18].max() == 0
    assert not torch.equal(seen[0], seen[1])


def test_a_field_of_two_is_the_first_where_it_is_seen():
    class Constant:
        def __init__(self, density: float, feature: float) -> None:
            self.values = density, feature

        def density(self, points: Tensor, features: bool) -> tuple[Tensor, Tensor]:
            density, feature = (torch.full((*points.shape[:2], 1), value) for value in self.values)
            return density, feature if features else feature[..., :0]

    camera = Camera.orbit(0.0, 0.0)
    depth, solid = ball(camera, 128)
    field = StitchedField(Constant(30.0, 1.0), Constant(-40.0, -1.0), camera, depth, solid, 0.02)
    points = torch.tensor([[[0.0, 0, 0.26], [0, 0, -0.1], [0, 0, 0.22]]])
    density, feature = field.density(points, True)
    torch.testing.assert_close(density[0, 0, 0], torch.tensor(30.0))
    assert density[0, 1, 0] < -10 and feature[0, :2, 0].tolist() == [1, -1]
    half = torch.nn.functional.softplus(density[0, 2, 0] - 1) / 29  # in the seam
    assert 0.2 < half < 0.8
    assert field.density(points, False)[1].shape[-1] == 0


def test_pluecker_tells_a_ray_wherever_its_camera_stands_on_it():
    camera = Camera.orbit(0.3, 0.2)
    rays = pluecker(camera, 8)
    nearer = Camera(camera.cam2world.clone(), camera.intrinsics)
    nearer.cam2world[:, :3, 3] += 0.5 * camera.forward
    centre = rays[:, :, 3:5, 3:5].mean((2, 3))
    torch.testing.assert_close(centre, pluecker(nearer, 8)[:, :, 3:5, 3:5].mean((2, 3)), atol=1e-3, rtol=0)
    direction, moment = rays[0, :3], rays[0, 3:]
    assert (direction * moment).sum(0).abs().max() < 1e-5 and (direction.norm(dim=0) - 1).abs().max() < 1e-5


def test_a_new_encoder_says_the_mean_head(tiny_generator: EG3DGenerator):
    torch.manual_seed(0)
    encoder = Encoder.for_generator(tiny_generator, **TINY)
    image, foreground, camera = photo(tiny_generator)
    said = encoder(tiny_generator, image, foreground, camera)
    torch.testing.assert_close(said.w, encoder.mean_w.expand(2, -1, -1))
    assert said.residual.abs().max() == 0
    torch.testing.assert_close(said.camera.cam2world, camera.cam2world)
    assert (said.depth - tiny_generator.spec.radius).abs().max() < 0.01


def test_all_parts_of_an_encoder_learn(encoder: Encoder, tiny_generator: EG3DGenerator):
    image, foreground, camera = photo(tiny_generator)
    encoder.zero_grad()
    said = encoder(tiny_generator, image, foreground, camera)
    assert said.planes.shape == said.residual.shape == (2, *encoder.shape.planes)
    assert said.depth.shape == said.scale.shape == (2, 1, 16, 16)
    total = said.planes.square().mean() + said.depth.mean() + said.scale.mean() + said.camera.cam2world.square().mean()
    total.backward()
    silent = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not silent, silent


def test_two_encoders_make_one_head(encoder: Encoder, tiny_generator: EG3DGenerator, tmp_path: Path):
    torch.manual_seed(3)
    second = Encoder.for_generator(tiny_generator, **TINY)
    torch.nn.init.normal_(second.plane.leave.weight, std=0.05)
    dual = DualEncoder(encoder, second).eval().requires_grad_(False)
    image, foreground, camera = photo(tiny_generator)
    head = dual(tiny_generator, image, foreground, camera)
    assert head.whole is not None
    assert 0.02 < head.seen.mean() < 0.98
    first, rest = head.seen == 1, head.seen == 0
    assert first.any() and rest.any()
    assert torch.equal(torch.where(first, head.planes, 0.0), torch.where(first, head.visible.planes, 0.0))
    assert torch.equal(torch.where(rest, head.planes, 0.0), torch.where(rest, head.whole.planes, 0.0))
    torch.testing.assert_close(tiny_generator.planes(head.w) + head.residual, head.planes)
    sharp = seen_texels(tiny_generator, head.visible, seam=0)
    assert set(sharp.unique().tolist()) == {0.0, 1.0} and (head.seen <= sharp).all()
    field = stitched_field(tiny_generator, head)
    points = (torch.rand(1, 200, 3) - 0.5) * tiny_generator.spec.box
    assert all(x.isfinite().all() for x in field.density(points, True))

    save_encoders(tmp_path / "encoders.safetensors", dual, tiny_generator, {})
    again = load_encoders(tmp_path / "encoders.safetensors", tiny_generator)
    same = again(tiny_generator, image, foreground, camera)
    assert (same.planes - head.planes).abs().max() < 0.02 * head.planes.std()


def test_one_encoder_alone_is_a_head_too(encoder: Encoder, tiny_generator: EG3DGenerator, tmp_path: Path):
    one = DualEncoder(encoder).eval().requires_grad_(False)
    image, foreground, camera = photo(tiny_generator)
    head = one(tiny_generator, image, foreground, camera)
    assert head.whole is None and (head.seen == 1).all()
    assert torch.equal(head.planes, encoder(tiny_generator, image, foreground, camera).planes)
    with pytest.raises(ValueError, match="nothing to stitch"):
        stitched_field(tiny_generator, head)
    with pytest.raises(InputError, match="these encoders are one"):
        one.only("whole")
    save_encoders(tmp_path / "encoder.safetensors", one, tiny_generator, {})
    again = load_encoders(tmp_path / "encoder.safetensors", tiny_generator)
    assert again.whole is None and not again.training
    both = DualEncoder(encoder, Encoder.for_generator(tiny_generator, **TINY))
    assert both.only("whole").visible is both.whole and both.only("visible").whole is None


def test_files_of_other_kinds_are_refused(encoder: Encoder, tiny_generator: EG3DGenerator, tmp_path: Path):
    import copy

    from pmv.files.artifacts import load_tensors, read_header, save_tensors

    path = tmp_path / "encoders.safetensors"
    with pytest.raises(InputError, match=r"encoders\.safetensors: no such file"):
        load_encoders(path, tiny_generator)
    save_tensors(path, {}, {"format": "something"})
    with pytest.raises(InputError, match="holds no encoders"):
        load_encoders(path, tiny_generator)
    save_encoders(path, DualEncoder(encoder, encoder), tiny_generator, {})
    other = copy.deepcopy(tiny_generator)
    other.get_parameter("decoder.net.0.weight").data += 1
    with pytest.raises(CheckpointError, match="trained on another generator"):
        load_encoders(path, other)
    tensors, header = load_tensors(path), read_header(path)
    for shape in ({}, {"num_ws": "x"}, {**header["shape"], "widths": [3]}):
        save_tensors(path, tensors, header | {"shape": shape})
        with pytest.raises((CheckpointError, InputError), match="damaged"):
            load_encoders(path, tiny_generator)
    huge = header | {"shape": {**header["shape"], "hidden": 4096, "w_dim": 4096}}
    save_tensors(path, tensors, huge)
    with pytest.raises(CheckpointError, match="damaged, or of another version"):
        load_encoders(path, tiny_generator)
    name = next(iter(tensors))
    save_tensors(path, tensors | {name: tensors[name] * float("nan")}, header)
    with pytest.raises(CheckpointError, match="damaged, or of another version"):
        load_encoders(path, tiny_generator)


def test_tri_grids_are_refused(tiny_panohead: PanoHeadGenerator):
    with pytest.raises(ValueError, match="tri-planes"):
        EncoderShape.of(tiny_panohead)
