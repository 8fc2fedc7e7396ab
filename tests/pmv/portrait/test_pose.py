"""The camera from landmarks, and the face that it is found with."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pmv.errors import InputError
from pmv.geometry.camera import Camera
from pmv.portrait.align import align_landmarks, confidence_of, expected_error, shipped_model
from pmv.portrait.crop import FRAMINGS, five_points
from pmv.portrait.face_model import FaceModel, Sample, fit_face_model, project
from pmv.portrait.landmarks import Landmarks
from pmv.portrait.photo import Photo
from pmv.portrait.pose import find_camera

MODEL = shipped_model()


def seen(camera: Camera, model: FaceModel = MODEL, people: float = 0.0, seed: int = 0) -> np.ndarray:
    """Landmarks of the model from a camera, with modes and noise of `people` standard deviations."""
    rng = np.random.default_rng(seed)
    rotation, position = camera.cam2world[0, :3, :3].double().numpy(), camera.position[0].double().numpy()
    uv = project(model.points, rotation, position)
    noise = model.modes @ rng.normal(size=model.modes.shape[-1]) + 0.5 * model.sigma * rng.normal(size=uv.shape)
    return uv + people * noise


def degrees(a: Camera, b: Camera) -> float:
    """Angle of the rotation between two cameras, roll included."""
    turn = a.cam2world[0, :3, :3].T @ b.cam2world[0, :3, :3]
    return float(torch.rad2deg(torch.acos(((turn.trace() - 1) / 2).clamp(-1, 1))))


@pytest.mark.parametrize("yaw, pitch, roll", [(0, 0, 0), (0.5, -0.2, 0.1), (-0.6, 0.3, -0.2)])
def test_a_known_camera_is_found(yaw: float, pitch: float, roll: float):
    truth = Camera.orbit(yaw, pitch, pivot=(0, 0, 0.15), roll=roll)
    truth.cam2world[:, :3, 3] *= 2.7 / truth.position.norm()
    exact = find_camera(seen(truth), MODEL, correct=False)
    assert degrees(exact.camera, truth) < 0.3 and exact.residual < 1e-3
    assert float(exact.camera.position.norm()) == pytest.approx(2.7, abs=1e-4)
    other = find_camera(seen(truth, people=1.0), MODEL, correct=False)
    assert degrees(other.camera, truth) < 2.5 and other.surprise < 1.2


def test_outliers_do_not_rule():
    truth = Camera.orbit(0.2, 0.1, pivot=(0, 0, 0.15))
    uv = seen(truth)
    uv[np.random.default_rng(0).choice(468, 60, replace=False)] += 0.08
    found = find_camera(uv, MODEL, correct=False)
    assert degrees(found.camera, truth) < 1.5 and found.surprise > 1.5


def test_a_mirrored_face_has_the_mirrored_camera():
    uv = seen(Camera.orbit(0.75, 0.1, pivot=(0, 0, 0.15)), people=1.0)
    mirrored = uv[MODEL.partner] * [-1, 1] + [1, 0]
    a, b = find_camera(uv, MODEL).camera, find_camera(mirrored, MODEL).camera
    flip = torch.diag(torch.tensor([-1.0, 1, 1]))
    rotation = flip @ a.cam2world[:, :3, :3] @ flip
    assert (
        degrees(
            Camera(torch.cat([torch.cat([rotation, b.cam2world[:, :3, 3:]], 2), b.cam2world[:, 3:]], 1), b.intrinsics),
            b,
        )
        < 0.5
    )


def test_turned_heads_are_turned_further():
    uv = seen(Camera.orbit(0.9, 0.0, pivot=(0, 0, 0.15)))
    plain, corrected = find_camera(uv, MODEL, correct=False), find_camera(uv, MODEL)
    assert 6 < degrees(plain.camera, corrected.camera) < 16
    yaws = [float(pose.camera.yaw_pitch()[0]) for pose in (plain, corrected)]
    assert yaws[1] > yaws[0] + 0.08
    front = seen(Camera.orbit(0.3, 0.0, pivot=(0, 0, 0.15)))
    assert degrees(find_camera(front, MODEL, correct=False).camera, find_camera(front, MODEL).camera) < 0.01


def test_a_face_is_learned_from_portraits_with_cameras():
    samples = []
    for i, (yaw, pitch) in enumerate([(0, 0), (0.3, 0.1), (-0.3, -0.1), (0.15, 0.2), (-0.5, 0.1), (0.5, -0.1)]):
        camera = Camera.orbit(yaw, pitch, pivot=(0, 0, 0.15))
        pose = camera.cam2world[0].double().numpy()
        samples.append(Sample(seen(camera, people=0.5, seed=i), pose[:3, :3], pose[:3, 3]))
    model = fit_face_model(samples, MODEL.partner, modes=2)
    middle = np.abs(MODEL.points[:, 0]) < 0.1
    assert np.median(np.linalg.norm(model.points - MODEL.points, axis=1)[middle]) < 0.01
    assert (np.linalg.norm(model.normals, axis=1) - 1).max() < 1e-6 and model.modes.shape == (468, 2, 2)
    camera = Camera.orbit(-0.2, 0.15, pivot=(0, 0, 0.15))
    assert degrees(find_camera(seen(camera), model, correct=False).camera, camera) < 3
    with pytest.raises(InputError, match="at least 3"):
        fit_face_model(samples[:2], MODEL.partner)


def test_the_model_survives_the_disk(tmp_path):
    MODEL.save(tmp_path / "a.npz")
    again = FaceModel.load(tmp_path / "a.npz")
    assert np.array_equal(again.partner, MODEL.partner) and np.allclose(again.points, MODEL.points)
    assert np.array_equal(MODEL.partner[MODEL.partner], np.arange(468)), "a mirror's mirror"
    (tmp_path / "b.npz").write_bytes(b"no")
    with pytest.raises(InputError, match=r"b\.npz"):
        FaceModel.load(tmp_path / "b.npz")


def test_a_generators_framing_looks_at_its_own_middle():
    camera = Camera.orbit(0.3, 0.1, pivot=(0, 0, 0.15))
    photo = Photo(np.full((900, 1200, 3), 128, np.uint8))
    points = seen(camera) * 300 + [500, 200]
    found = Landmarks(points, five_points(points), 1.0, 0.004)
    eg3d = align_landmarks(photo, found, FRAMINGS["eg3d"], 256, 8, MODEL)
    pano = align_landmarks(photo, found, FRAMINGS["panohead"], 256, 8, MODEL)
    assert degrees(eg3d.camera, pano.camera) < 1e-2  # the same turn
    assert float(torch.linalg.cross(pano.camera.forward, pano.camera.position).norm()) < 1e-5  # straight at the origin
    assert np.linalg.det(pano.matrix[:, :2]) * 1.07**2 == pytest.approx(np.linalg.det(eg3d.matrix[:, :2]))
    assert eg3d.picture.shape == (256, 256, 3) and eg3d.valid.all() and eg3d.confidence > 0.7


def test_confidence_falls_with_everything_that_is_wrong():
    pose = find_camera(seen(Camera.orbit(0.1, 0.0, pivot=(0, 0, 0.15))), MODEL)
    good = Landmarks(np.zeros((468, 2)), np.zeros((5, 2)), 1.0, 0.004)
    usual = expected_error(pose, good)
    worse = [
        expected_error(replace(pose, surprise=3.0), good),
        expected_error(replace(pose, yaw=-60.0), good),
        expected_error(pose, replace(good, spread=0.03)),
        expected_error(pose, replace(good, presence=0.6)),
    ]
    assert min(worse) > usual + 1 and confidence_of(usual) > 0.8 > max(map(confidence_of, worse))
