"""A statistical face fitted to landmarks that were projected from the model itself, and what it says of a picture."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pmv.errors import InputError
from pmv.geometry.camera import EG3D_FOCAL, Camera
from pmv.geometry.raster import rasterize
from pmv.portrait import face_fit
from pmv.portrait.face_depth import face_depth
from pmv.portrait.face_fit import FaceFit, fit_face
from pmv.portrait.statistical_face import StatisticalFace, shipped_face

FACE = shipped_face()
INTRINSICS = np.array([[EG3D_FOCAL, 0, 0.5], [0, EG3D_FOCAL, 0.5], [0, 0, 1]])
SKIN = FACE.skin > 0.9


def person(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of somebody who smiles a little."""
    rng = np.random.default_rng(seed)
    expression = np.zeros(len(FACE.expression_names))
    expression[[FACE.expression_names.index(f"mouthSmile_{side}") for side in "LR"]] = 0.4
    return rng.normal(size=FACE.identity.shape[-1]), expression


def seen_from(yaw: float, pitch: float, seed: int) -> tuple[Camera, np.ndarray, np.ndarray, np.ndarray]:
    """A camera in EG3D's world, the landmarks that it sees of a person, his depth at the vertices, and his vertices."""
    camera = Camera.orbit(float(np.radians(yaw)), float(np.radians(pitch)), 2.7, (0.0, 0.0, 0.1))
    away = camera.cam2world.double().numpy()[0]
    away[:3, 3] *= 2.7 / np.linalg.norm(away[:3, 3])
    camera = Camera(torch.from_numpy(away).float()[None], camera.intrinsics)
    shape = FACE.shape(*person(seed))
    offset = face_fit._PHOTO_SHARE * FACE.landmark_offset
    points, landmarks = FACE.anchor.apply(shape), FACE.anchor.apply(FACE.at_landmarks(shape) + offset)
    uv = camera.project(torch.from_numpy(landmarks).float()[None])[0][0].double().numpy()
    depth = camera.project(torch.from_numpy(points).float()[None])[1][0].double().numpy()
    return camera, uv, depth, points


def depth_error(fit: FaceFit, depth: np.ndarray) -> float:
    """Mean error of the skin's depth in world units, scale taken out."""
    found = fit.vertices[SKIN, 2]
    found = found * np.median(depth[SKIN] / found)
    return float(np.abs(found - depth[SKIN]).mean())


def degrees(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip((np.trace(a.T @ b) - 1) / 2, -1, 1))))


@pytest.mark.parametrize("yaw, pitch, seed", [(0, 0, 1), (25, -10, 2), (-35, 12, 3)])
def test_a_face_of_the_model_is_found_again(yaw: float, pitch: float, seed: int):
    camera, uv, depth, _ = seen_from(yaw, pitch, seed)
    fit = fit_face(uv, INTRINSICS, noise=0.2)
    mean = fit_face(uv, INTRINSICS, modes=0, noise=0.2)
    found = fit.camera()
    assert degrees(camera.cam2world[0, :3, :3].numpy(), found.cam2world[0, :3, :3].numpy()) < 1.5
    assert depth_error(fit, depth) < 0.004 and depth_error(fit, depth) < 0.6 * depth_error(mean, depth)
    assert float(found.position.norm()) == pytest.approx(2.7, abs=1e-5)
    assert (found.position - camera.position).norm() < 0.08
    assert fit.residual < 0.002
    assert (fit.expression >= 0).all() and (fit.expression <= 1).all()


def test_the_similarity_is_that_of_the_world():
    """Vertices of the fit, taken to the world by its own camera and scale, lie where the person is."""
    _, uv, _, points = seen_from(10, 0, 4)
    fit = fit_face(uv, INTRINSICS, noise=0.2)
    pose = fit.camera().cam2world[0].double().numpy()
    world = fit.scale() * fit.vertices @ pose[:3, :3].T + pose[:3, 3]
    assert np.linalg.norm(world - points, axis=1)[SKIN].mean() < 0.02
    assert fit.scale() == pytest.approx(FACE.anchor.scale, rel=0.05)


def test_noise_and_a_few_wild_landmarks_do_not_turn_the_head():
    camera, uv, depth, _ = seen_from(15, 5, 5)
    rng = np.random.default_rng(0)
    noisy = uv + rng.normal(size=uv.shape) * 0.002
    noisy[rng.choice(468, 12, replace=False)] += 0.15
    fit = fit_face(noisy, INTRINSICS)
    assert degrees(camera.cam2world[0, :3, :3].numpy(), fit.camera().cam2world[0, :3, :3].numpy()) < 4
    assert depth_error(fit, depth) < 0.009
    assert fit.residual > 2 * fit_face(uv, INTRINSICS).residual


def test_a_given_depth_is_a_second_witness():
    camera, uv, depth, points = seen_from(0, 0, 6)
    size = 96
    seen = rasterize(torch.from_numpy(points).float(), torch.from_numpy(FACE.triangles), camera, size, size).depth
    seen = seen[0].numpy()
    without, right = fit_face(uv, INTRINSICS), fit_face(uv, INTRINSICS, depth=3.0 * seen)  # in another unit
    assert depth_error(right, depth) < depth_error(without, depth) + 2e-4
    # a depth of somebody who nods 5° more draws the fit that way
    down = np.linspace(0, 1, size)[:, None] - 0.5
    nodding = seen * (1 + np.tan(np.radians(5)) / EG3D_FOCAL * down)

    def nod(fit: FaceFit) -> float:
        turn = fit.rotation @ right.rotation.T
        return float(np.degrees(np.arctan2(turn[2, 1], turn[2, 2])))

    little, more = (nod(fit_face(uv, INTRINSICS, depth=nodding, depth_sigma=s)) for s in (0.005, 0.001))
    assert 0.2 < abs(little) < abs(more) < 6 and little * more > 0
    nothing = fit_face(uv, INTRINSICS, depth=np.zeros((size, size)))
    np.testing.assert_allclose(nothing.vertices, without.vertices)


def test_what_no_landmark_tells_is_less_sure():
    fit = fit_face(seen_from(0, 0, 7)[1], INTRINSICS)
    mouth = FACE.landmark_vertices[13]
    crown = FACE.mean[:, 1].argmax()
    assert fit.deviation[crown] > 1.5 * fit.deviation[mouth].mean()
    assert np.isfinite(fit.deviation).all() and (fit.deviation >= face_fit._UNMODELLED).all()


def test_depth_of_the_face_in_its_picture():
    camera, uv, _, points = seen_from(20, 0, 8)
    fit = fit_face(uv, INTRINSICS, noise=0.2)
    drawn = face_depth(fit, camera, 96)
    sure = drawn.confidence[0, 0] > 0.5
    assert 0.1 < sure.float().mean() < 0.4
    assert (drawn.depth[0, 0][sure] > 2).all() and (drawn.depth[0, 0][sure] < 3.2).all()
    assert drawn.confidence.min() >= 0 and drawn.confidence.max() <= 1
    normals = drawn.normals[0, :, sure]
    torch.testing.assert_close(normals.norm(dim=0), torch.ones(normals.shape[1]), atol=1e-4, rtol=0)
    toward = -(camera.forward[0][:, None] * normals).sum(0)
    assert (toward > 0).float().mean() > 0.95
    # normals are those of the depth
    world = camera.unproject(drawn.depth)[0]
    nose = points[FACE.landmark_vertices[4]].mean(0)
    nearest = (world - torch.from_numpy(nose).float()).norm(dim=-1).min()
    assert nearest < 0.02
    with pytest.raises(ValueError, match="other intrinsics"):
        face_depth(fit, Camera(camera.cam2world, camera.intrinsics * 1.1), 32)


def test_landmarks_that_are_none_are_refused():
    uv = seen_from(0, 0, 1)[1]
    for wrong in (uv[:467], np.full_like(uv, np.nan), np.zeros_like(uv)):
        with pytest.raises(InputError, match="468"):
            fit_face(wrong, INTRINSICS)


def test_the_file_holds_what_was_saved(tmp_path: Path):
    FACE.save(tmp_path / "face.npz")
    again = StatisticalFace.load(tmp_path / "face.npz")
    np.testing.assert_allclose(again.identity, FACE.identity, atol=1e-5)
    np.testing.assert_array_equal(again.triangles, FACE.triangles)
    assert again.expression_names == FACE.expression_names and again.anchor.turn == FACE.anchor.turn
    (tmp_path / "other.npz").write_bytes(b"no face")
    with pytest.raises(InputError, match="not a statistical face"):
        StatisticalFace.load(tmp_path / "other.npz")


def test_the_shipped_face_is_a_head():
    mean = FACE.mean
    assert FACE.landmark_vertices.max() < len(mean) and np.allclose(FACE.landmark_weights.sum(1), 1, atol=1e-5)
    points = FACE.at_landmarks(mean)
    eyes = np.linalg.norm(points[[33, 133]].mean(0) - points[[263, 362]].mean(0))
    assert 5.5 < eyes < 7.0, "centimetres"
    assert points[4, 2] > points[:, 2].max() - 0.5, "the nose tip is in front"
    assert points[152, 1] < points[13, 1] < points[1, 1] < points[168, 1] < points[10, 1]
    normals = FACE.normals(mean)
    assert (normals[SKIN, 2] > -0.3).mean() > 0.85, "outwards, all but the insides of nostrils and lips"
    narrower = replace(FACE, identity=FACE.identity[..., :5])
    assert narrower.shape(np.zeros(5), np.zeros(len(FACE.expression_names))).shape == mean.shape
