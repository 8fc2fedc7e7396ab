"""Camera conventions, by round trip."""

import json
import math

import numpy as np
import pytest
import torch

from pmv.errors import InputError
from pmv.geometry.camera import Camera
from pmv.pictures.images import pixel_grid


def random_cameras(n: int = 5, seed: int = 0) -> Camera:
    g = torch.Generator().manual_seed(seed)
    u = torch.rand(6, n, generator=g)
    pivot = torch.rand(n, 3, generator=g) * 0.2
    return Camera.orbit(u[0] * 6.28, u[1] - 0.5, 2 + u[2], pivot, 3 + 2 * u[3], roll=u[4] - 0.5)


def test_frontal_camera_is_eg3ds():
    camera = Camera.orbit(0.0, 0.0)
    expected = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    expected[2, 3] = 2.7
    torch.testing.assert_close(camera.cam2world[0], expected)
    torch.testing.assert_close(camera.intrinsics[0], torch.tensor([[4.2647, 0, 0.5], [0, 4.2647, 0.5], [0, 0, 1]]))


def test_signs_of_yaw_pitch_and_roll():
    assert Camera.orbit(0.5, 0.0).position[0, 0] > 0
    assert Camera.orbit(0.0, 0.5).position[0, 1] > 0
    up = torch.tensor([[[0.0, 0.3, 0.0]]])
    uv, _ = Camera.orbit(0.0, 0.0).project(up)
    assert uv[0, 0, 1] < 0.5  # up in the world is up in the picture
    uv, _ = Camera.orbit(0.0, 0.0).project(torch.tensor([[[0.3, 0.0, 0.0]]]))
    assert uv[0, 0, 0] > 0.5  # the person's left, +x, is on the picture's right
    uv, _ = Camera.orbit(0.0, 0.0, roll=0.3).project(up)
    assert uv[0, 0, 0] < 0.5  # the picture turns counter-clockwise


def test_cameras_are_rigid_and_look_at_the_pivot():
    camera = random_cameras()
    camera.validate("test")
    g = torch.Generator().manual_seed(0)
    torch.rand(6, 5, generator=g)
    pivot = torch.rand(5, 3, generator=g) * 0.2
    uv, _ = camera.project(pivot[:, None])
    torch.testing.assert_close(uv, torch.full_like(uv, 0.5), atol=1e-5, rtol=0)


def test_yaw_pitch_inverts_orbit():
    yaw, pitch = torch.tensor([0.3, -2.0, 3.0]), torch.tensor([0.2, -0.4, 0.1])
    got = Camera.orbit(yaw, pitch, pivot=(0.1, 0.0, 0.2)).yaw_pitch((0.1, 0.0, 0.2))
    torch.testing.assert_close(got[0], yaw)
    torch.testing.assert_close(got[1], pitch)


def test_unproject_then_project_returns_pixel_centres_and_depth():
    camera = random_cameras()
    depth = 2 + torch.rand(5, 1, 6, 6)
    points = camera.unproject(depth)
    uv, z = camera.project(points.flatten(1, 2))
    centres = (torch.arange(6) + 0.5) / 6
    grid = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1).reshape(1, -1, 2).expand(5, -1, -1)
    torch.testing.assert_close(uv, grid, atol=1e-5, rtol=0)
    torch.testing.assert_close(z, depth.flatten(1), atol=1e-5, rtol=0)


def test_ray_parameter_is_z_depth():
    camera = random_cameras()
    origins, directions = camera.rays(4)
    _, z = camera.project(origins + 1.7 * directions)
    torch.testing.assert_close(z, torch.full_like(z, 1.7), atol=1e-5, rtol=0)


def test_gradients_reach_yaw_pitch_and_intrinsics():
    def projected(yaw, pitch, radius, focal, roll):
        camera = Camera.orbit(yaw, pitch, radius, focal=focal, roll=roll).to(torch.float64)
        return camera.project(torch.tensor([[[0.1, 0.2, 0.15]]], dtype=torch.float64))[0]

    values = [torch.tensor([v], dtype=torch.float32, requires_grad=True) for v in (0.3, 0.1, 2.7, 4.2, 0.1)]
    projected(*values).sum().backward()
    for i, value in enumerate(values):
        with torch.no_grad():
            nudged = [v + 1e-2 if i == j else v for j, v in enumerate(values)]
            lower = [v - 1e-2 if i == j else v for j, v in enumerate(values)]
            slope = (projected(*nudged).sum() - projected(*lower).sum()) / 2e-2
        assert value.grad is not None
        assert value.grad.item() == pytest.approx(slope.item(), rel=2e-2, abs=1e-3)


def test_indexing_and_cat_stay_batched():
    camera = random_cameras()
    assert len(camera[2]) == 1 and len(camera[-1]) == 1 and len(camera[1:3]) == 2
    torch.testing.assert_close(Camera.cat([camera[0], camera[1:]]).labels(), camera.labels())
    assert len(camera[0].expand(4)) == 4
    with pytest.raises(IndexError):
        camera[5]


@pytest.mark.parametrize("name", ["dataset.json", "cameras.npy", "transforms.json", "colmap"])
def test_file_formats_round_trip(tmp_path, name):
    camera = random_cameras()
    names = [f"view{i}.png" for i in range(5)]
    camera.save(tmp_path / name, names, resolution=640)
    loaded = Camera.load(tmp_path / name)
    torch.testing.assert_close(loaded.labels(), camera.labels(), atol=2e-5, rtol=0)
    if name != "cameras.npy":
        one = Camera.load(tmp_path / name, "somewhere/view3.png")
        torch.testing.assert_close(one.labels(), camera[3].labels(), atol=2e-5, rtol=0)


def test_single_label_file(tmp_path):
    label = Camera.orbit(0.2, 0.1).labels()
    (tmp_path / "camera.json").write_text(json.dumps({"label": label[0].tolist(), "confidence": 0.9}))
    torch.testing.assert_close(Camera.load(tmp_path / "camera.json", "x.png").labels(), label)
    np.save(tmp_path / "label.npy", label[0].numpy())
    torch.testing.assert_close(Camera.load(tmp_path / "label.npy", "x.png").labels(), label)


def test_nerfstudio_axes_are_opengl(tmp_path):
    Camera.orbit(0.0, 0.0).save(tmp_path / "transforms.json")
    matrix = np.array(json.loads((tmp_path / "transforms.json").read_text())["frames"][0]["transform_matrix"])
    np.testing.assert_allclose(
        matrix[:3, :3], np.eye(3), atol=1e-7
    )  # OpenGL camera in front of the face: no turn at all


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"labels": []}', '{"labels": [["a.png", [1, 2]]]}', '{"frames": [{}]}'],
)
def test_bad_json_is_one_line_error(tmp_path, content):
    path = tmp_path / "dataset.json"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        Camera.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_bad_cameras_are_refused(tmp_path):
    label = Camera.orbit(0.0, 0.0).labels()[0]
    for i, value in ((0, math.nan), (0, 5.0), (16, -1.0)):
        broken = label.clone()
        broken[i] = value
        np.save(tmp_path / "bad.npy", broken.numpy())
        with pytest.raises(InputError, match=r"bad\.npy"):
            Camera.load(tmp_path / "bad.npy")
    with pytest.raises(InputError, match="no such camera file"):
        Camera.load(tmp_path / "none.json")
    label_file = tmp_path / "dataset.json"
    Camera.orbit(0.0, 0.0).save(label_file, ["a.png"])
    with pytest.raises(InputError, match=r"no camera for b\.png"):
        Camera.load(label_file, "b.png")


def test_a_turned_camera_keeps_its_roll_and_distance():
    camera = Camera.orbit(0.2, 0.1, 2.7, (0, 0, 0.2), roll=0.1)
    assert camera.turned(0, 0, (0, 0, 0)) is camera
    moved = camera.turned(0.3, -0.05, (0.0, 0.0, 0.2))
    wanted = Camera.orbit(0.5, 0.05, 2.7, (0, 0, 0.2), roll=0.1)
    torch.testing.assert_close(moved.cam2world, wanted.cam2world, atol=1e-5, rtol=0)


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return {"atol": 1e-5 if dtype == torch.float32 else 1e-12, "rtol": 0.0}


def rigid_cameras(dtype: torch.dtype, device: torch.device) -> Camera:
    """`random_cameras`, whose rotations are only float32's (`orbit` computes so), made exact to `dtype`."""
    camera = random_cameras().to(torch.float64)
    u, _, v = torch.linalg.svd(camera.cam2world[:, :3, :3])
    cam2world = camera.cam2world.clone()
    cam2world[:, :3, :3] = u @ v
    return Camera(cam2world, camera.intrinsics).to(device, dtype)


def world_points(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """[5,7,3], in front of all of `random_cameras`."""
    return (torch.rand(5, 7, 3, generator=torch.Generator().manual_seed(1)) - 0.5).to(device, dtype)


def test_projecting_what_was_unprojected_gives_it_back(device: torch.device, dtype: torch.dtype):
    camera = rigid_cameras(dtype, device)
    depth = (2 + torch.rand(5, 1, 4, 6, generator=torch.Generator().manual_seed(2))).to(device, dtype)
    uv, z = camera.project(camera.unproject(depth).flatten(1, 2))
    assert uv.dtype == z.dtype == dtype and uv.device.type == device.type
    torch.testing.assert_close(uv, pixel_grid(4, 6, depth).reshape(1, -1, 2).expand_as(uv), **tolerance(dtype))
    torch.testing.assert_close(z, depth.flatten(1), **tolerance(dtype))


def test_depth_is_the_third_coordinate_behind_the_inverse_matrix(device: torch.device, dtype: torch.dtype):
    camera, points = rigid_cameras(dtype, device), world_points(dtype, device)
    world2cam = torch.linalg.inv(camera.cam2world)
    local = points @ world2cam[:, :3, :3].transpose(1, 2) + world2cam[:, None, :3, 3]
    uv, z = camera.project(points)
    torch.testing.assert_close(z, local[..., 2], **tolerance(dtype))
    seen = (local @ camera.intrinsics.transpose(1, 2))[..., :2] / local[..., 2:]
    torch.testing.assert_close(uv, seen, **tolerance(dtype))


def test_a_turn_is_undone_by_its_inverse(device: torch.device):
    camera, pivot = random_cameras()[:1].to(device), (0.0, 0.1, 0.2)
    back = camera.turned(0.3, 0.2, pivot).turned(-0.3, -0.2, pivot)
    torch.testing.assert_close(back.cam2world, camera.cam2world, atol=1e-5, rtol=0)


def test_a_mirrored_world_gives_the_mirrored_picture_and_twice_the_first(device: torch.device, dtype: torch.dtype):
    """The camera of a mirrored photo: x of the world and x of the camera change their sign together."""
    camera, points = rigid_cameras(dtype, device), world_points(dtype, device)
    flip = torch.diag(points.new_tensor([-1.0, 1.0, 1.0, 1.0]))

    def mirrored(one: Camera) -> Camera:
        return Camera(flip @ one.cam2world @ flip, one.intrinsics)

    uv, z = camera.project(points)
    other, depth = mirrored(camera).validate("mirrored").project(points @ flip[:3, :3])
    torch.testing.assert_close(other, torch.stack([1 - uv[..., 0], uv[..., 1]], -1), **tolerance(dtype))
    torch.testing.assert_close(depth, z, **tolerance(dtype))
    assert torch.equal(mirrored(mirrored(camera)).cam2world, camera.cam2world)


def test_gradcheck_of_project_and_unproject():
    camera = random_cameras(2).to(torch.float64)
    points = world_points(torch.float64, torch.device("cpu"))[:2, :3].requires_grad_()
    depth = (2 + torch.rand(2, 1, 2, 2, dtype=torch.float64)).requires_grad_()
    matrices = (camera.cam2world.clone().requires_grad_(), camera.intrinsics.clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda c, k, p: Camera(c, k).project(p), (*matrices, points))
    assert torch.autograd.gradcheck(lambda c, k, d: Camera(c, k).unproject(d), (*matrices, depth))


def test_an_adjusted_camera_keeps_the_pivot_in_view():
    pivot = (0.0, 0.1, 0.2)
    cameras = Camera.orbit(torch.tensor([0.4, -0.3]), torch.tensor([0.2, 0.0]), pivot=pivot)
    same = cameras.adjusted(torch.zeros(2, 3), torch.zeros(2, 3), pivot)
    torch.testing.assert_close(same.cam2world, cameras.cam2world)
    turned = cameras.adjusted(torch.tensor([[0.0, 0.1, 0.0]] * 2), torch.zeros(2, 3), pivot)
    wanted = Camera.orbit(torch.tensor([0.5, -0.2]), torch.tensor([0.2, 0.0]), pivot=pivot)
    torch.testing.assert_close(turned.cam2world, wanted.cam2world, atol=1e-5, rtol=0)
    moved = cameras.adjusted(torch.zeros(2, 3), torch.tensor([[0.0, 0.0, 0.1]] * 2), pivot)
    torch.testing.assert_close(moved.position, cameras.position + 0.1 * cameras.forward, atol=1e-5, rtol=0)
