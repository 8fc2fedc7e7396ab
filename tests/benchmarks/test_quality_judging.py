"""What the quality benchmark judges by, on scenes whose answers are known: planes, spheres, shifts, tied worlds."""

import math

import pytest
import torch
from torch import Tensor

from benchmarks.quality.align import best_shift, shifted
from benchmarks.quality.carried import carried
from benchmarks.quality.measure import Drawn, measure
from benchmarks.quality.metrics import METRICS, detail_correlation, detail_energy, high_pass, identity
from benchmarks.quality.parts import find_parts
from benchmarks.quality.surface import depth_errors, iou, normal_error, normals_of
from benchmarks.quality.truth import Truth
from benchmarks.quality.views import INPUT, VIEWS, Tie, View, cameras_of
from pmv.geometry.camera import Camera

SIZE = 128
SIDE = View("yaw+30", "±30°", 30)


def texture(points: Tensor) -> Tensor:
    """A smooth colour [N,3,H,W] for points [N,H,W,3] of the world."""
    waves = torch.stack(
        [torch.sin(14 * points[..., 0]), torch.cos(11 * points[..., 1]), torch.sin(9 * points.sum(-1))], 1
    )
    return 0.6 * waves


def scene(depth: Tensor, cameras: Camera) -> Truth:
    """Truth of a textured surface that is given by its depth."""
    solid = (depth > 0).float()
    colour = texture(cameras.unproject(torch.where(depth > 0, depth, torch.ones_like(depth)))) * solid
    return Truth(colour, solid, depth, cameras)


def plane(cameras: Camera) -> Tensor:
    """z-depth of the plane z = 0 of the world, everywhere in the picture."""
    origins, directions = cameras.rays(SIZE)
    return (-origins[..., 2] / directions[..., 2]).reshape(len(cameras), 1, SIZE, SIZE)


def sphere(cameras: Camera, radius: float = 0.25) -> Tensor:
    """z-depth of a sphere at the origin, 0 beside it."""
    origins, directions = cameras.rays(SIZE)
    a, b = (directions**2).sum(-1), (origins * directions).sum(-1)
    root = b**2 - a * ((origins**2).sum(-1) - radius**2)
    depth = torch.where(root > 0, (-b - root.clamp_min(0).sqrt()) / a, torch.zeros_like(b))
    return depth.reshape(len(cameras), 1, SIZE, SIZE)


def two_cameras(yaw: float = 30.0) -> Camera:
    return cameras_of((INPUT, View("side", "±30°", yaw)), 0, 0)


def test_a_plane_carried_by_its_true_depth_is_exact():
    cameras = two_cameras()
    truth = scene(plane(cameras), cameras)
    images = carried(truth.over(0.0)[:1], cameras[0], cameras, truth.depth, truth.solid, 0.0)
    parts = find_parts(truth)
    assert parts.visible[1].mean() > 0.7  # what the oblique view sees beyond the photo's frame is not visible
    figures = measure(Drawn(images), truth, parts, (INPUT, SIDE), 0.0)
    for view in ("input", "yaw+30"):
        assert figures[view]["visible"]["psnr"] > 50
        assert figures[view]["visible"]["detail_correlation"] > 0.97
        assert figures[view]["visible"]["shift"] < 0.001


def test_a_plane_carried_by_a_wrong_depth_lies_beside_its_place_by_what_parallax_says():
    cameras, error = two_cameras(), 0.025
    truth = scene(plane(cameras), cameras)
    images = carried(truth.over(0.0)[:1], cameras[0], cameras, truth.depth + error, truth.solid, 0.0)
    parts = find_parts(truth)
    figures = measure(Drawn(images), truth, parts, (INPUT, SIDE), 0.0)["yaw+30"]["visible"]
    # a point that is `error` further along the side view's axis is seen by the input camera moved by error · sin 30°;
    # what covers a length there covers cos 30° of it in the side view
    pixels = error * math.sin(math.radians(30)) * math.cos(math.radians(30)) * 4.2647 / 2.7
    assert figures["shift"] == pytest.approx(pixels, rel=0.15)
    assert figures["aligned_psnr"] > figures["psnr"] + 6


def test_the_visible_part_of_a_sphere_is_the_cap_that_both_cameras_face():
    cameras = two_cameras(60.0)
    truth = scene(sphere(cameras), cameras)
    parts = find_parts(truth)
    points = cameras.unproject(torch.where(truth.depth > 0, truth.depth, torch.ones_like(truth.depth)))
    normals = torch.nn.functional.normalize(points, dim=-1)
    to_input = torch.nn.functional.normalize(cameras[0].position[:, None, None] - points, dim=-1)
    angle = torch.acos((normals * to_input).sum(-1).clamp(-1, 1)).rad2deg()
    own = torch.nn.functional.normalize(cameras.position[:, None, None] - points, dim=-1)
    own_angle = torch.acos((normals * own).sum(-1).clamp(-1, 1)).rad2deg()
    side, solid = 1, truth.solid[1, 0]
    surely = solid & (angle[side] < 62) & (own_angle[side] < 74)
    hidden = solid & (angle[side] > 92)
    assert parts.visible[side, 0][surely].mean() > 0.99 and surely.sum() > 500
    assert parts.visible[side, 0][hidden].max() == 0 and hidden.sum() > 500
    assert parts.occluded[side, 0][hidden & (own_angle[side] < 70)].mean() > 0.98
    assert (parts.visible * parts.occluded).max() == 0
    assert parts.occluded[0, 0][(angle[0] < 62) & truth.solid[0, 0]].max() == 0


@pytest.mark.parametrize("dx,dy", [(3, -2), (0, 5), (2.4, 0.0), (-1.5, 1.3)])
def test_the_best_shift_is_found_and_taken_out(dx, dy):
    line = torch.linspace(-1, 1, SIZE)
    image = torch.stack([torch.sin(9 * line)[None] * torch.cos(7 * line)[:, None]] * 3)[None]
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., 20:100, 20:100] = 1
    moved = shifted(image, -dx, -dy)
    found = best_shift(moved, image, mask, reach=0.05)
    assert found == pytest.approx((dx, dy), abs=0.12)
    assert ((shifted(moved, *found) - image) ** 2 * mask).sum() < ((moved - image) ** 2 * mask).sum() / 50
    assert best_shift(image, image, mask) == (0, 0)
    assert best_shift(image, image, torch.zeros_like(mask)) == (0, 0)


def test_tied_worlds_undo_a_camera_error():
    """The same head in another world, where all cameras are moved alike, is drawn the same from tied cameras."""
    true = cameras_of(VIEWS, 10, 3)
    motion = Camera.orbit(0.05, -0.04, 0.1).cam2world  # any rigid motion
    run = Camera(motion @ true.cam2world, true.intrinsics)
    tie = Tie(true[0], run[0])
    torch.testing.assert_close(tie.to_run(true).cam2world, run.cam2world, atol=1e-6, rtol=0)
    torch.testing.assert_close(tie.to_true(run).cam2world, true.cam2world, atol=1e-6, rtol=0)
    torch.testing.assert_close(tie.to_run(true)[0].cam2world, run[0].cam2world, atol=1e-6, rtol=0)


def test_views_lie_where_their_names_say():
    yaw, pitch = cameras_of(VIEWS, 50, 0).yaw_pitch()
    by_name = {view.name: i for i, view in enumerate(VIEWS)}
    assert yaw[by_name["input"]].rad2deg() == pytest.approx(50, abs=1e-3)
    assert yaw[by_name["yaw-30"]].rad2deg() == pytest.approx(20, abs=1e-3)
    assert pitch[by_name["pitch+20"]].rad2deg() == pytest.approx(20, abs=1e-3)


def test_detail_tells_blur_from_displacement():
    noise = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 0.2
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., 16:112, 16:112] = 1
    assert detail_correlation(noise, noise, mask) == pytest.approx(1, abs=1e-5)
    assert detail_energy(noise, noise, mask) == pytest.approx(1, abs=1e-5)
    half = 0.5 * noise + 0.1
    assert detail_correlation(half, noise, mask) == pytest.approx(1, abs=1e-4)
    assert detail_energy(half, noise, mask) == pytest.approx(0.5, abs=1e-4)
    away = noise.roll(9, 3)
    assert abs(detail_correlation(away, noise, mask) or 1) < 0.1
    assert detail_energy(away, noise, mask) == pytest.approx(1, abs=0.1)
    assert detail_energy(noise, noise, torch.zeros_like(mask)) is None
    # an even picture has no detail, nor does the mask's border make any
    assert high_pass(torch.ones(1, 3, SIZE, SIZE), mask).abs().max() < 1e-5


def test_depth_figures_forgive_what_they_say():
    truth = 2.5 + 0.1 * torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    everywhere = torch.ones_like(truth, dtype=torch.bool)
    moved = depth_errors(truth + 0.02, truth, everywhere)
    assert moved["depth"] == pytest.approx(0.02, abs=1e-6) and moved["depth_median_out"] < 1e-6
    scaled = depth_errors(1.1 * truth - 0.2, truth, everywhere)
    assert scaled["depth_affine_out"] < 1e-6 < scaled["depth_median_out"]
    assert depth_errors(truth, truth, ~everywhere) == {}


def test_normals_of_a_sphere_and_of_one_that_is_turned():
    camera = two_cameras()[0]
    depth = sphere(camera)
    normals = normals_of(depth, depth > 0, camera)
    middle = torch.zeros_like(depth, dtype=torch.bool)
    middle[..., 50:78, 50:78] = True
    assert normals[0, 2, 64, 64] < -0.99  # towards the camera, in its own frame
    assert normal_error(normals, normals, middle) == pytest.approx(0, abs=0.1)
    angle = math.radians(10)
    turn = torch.tensor([[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]])
    turned = torch.einsum("ij,njhw->nihw", turn, normals)
    assert 5 < (normal_error(turned, normals, middle) or 0) < 10.1
    assert normal_error(normals, normals, ~(depth > -1)) is None


def test_iou_of_half_a_picture():
    one, half = torch.ones(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    half[..., 4:] = 0
    assert iou(one, half) == 0.5 and iou(half, half) == 1


def test_the_truth_itself_is_perfect_in_every_figure():
    cameras = two_cameras()
    truth = scene(sphere(cameras), cameras)
    drawn = Drawn(truth.over(0.3), truth.alpha, truth.depth)
    figures = measure(drawn, truth, find_parts(truth), (INPUT, SIDE), 0.3)
    for row in figures.values():
        visible = row["visible"]
        assert row["iou"] == 1 and visible["psnr"] == 100 and visible["ssim"] > 0.999
        assert visible["perceptual"] == pytest.approx(0, abs=1e-6)
        assert visible["depth"] == 0 and visible["normals"] < 0.1
        assert {metric.name for metric in METRICS if not metric.whole} <= visible.keys()
        assert row["identity"] == pytest.approx(0, abs=1e-5)
    assert "occluded" in figures["yaw+30"]


def test_identity_is_silent_about_profiles_and_tells_pictures_apart():
    rng = torch.Generator().manual_seed(0)
    one, other = (torch.rand(1, 3, 64, 64, generator=rng) * 2 - 1 for _ in range(2))
    front, side = cameras_of((INPUT, View("side", "±90°", 60)), 0, 0)[0], cameras_of((SIDE,), 40, 0)
    assert identity(one, one, front) == pytest.approx(0, abs=1e-5) and (identity(one, other, front) or 0) > 0.05
    assert identity(one, other, side) is None
