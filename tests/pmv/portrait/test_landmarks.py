"""Faces and landmarks in pictures. The faces are synthetic."""

import cv2
import numpy as np
import pytest

from pmv.errors import PhotoError
from pmv.pictures.images import read_bytes
from pmv.portrait import landmarks
from pmv.portrait.align import align, choose_face, draw_faces, find_faces, shipped_model
from pmv.portrait.crop import FRAMINGS, MESH_SPAN, apply, five_points, tilt
from pmv.portrait.landmarks import Face, find_landmarks
from pmv.portrait.photo import Photo, from_tensor
from tests.conftest import ROOT

PLAIN = from_tensor(read_bytes(ROOT / "assets" / "portraits" / "plain.png")[0])


def placed(degrees: float, scale: float, size: tuple[int, int] = (900, 700)) -> tuple[Photo, np.ndarray]:
    """The portrait somewhere in a grey canvas, and the matrix there (pixel i covers [i, i+1))."""
    angle, side = np.radians(degrees), PLAIN.width
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.concatenate([turn, (np.array([450, 340]) - turn @ [side / 2, side / 2])[:, None]], 1)
    warp = matrix.copy()
    warp[:, 2] += turn @ [0.5, 0.5] - 0.5
    return Photo(cv2.warpAffine(PLAIN.pixels, warp, size, flags=cv2.INTER_AREA, borderValue=(90, 90, 90))), matrix


def test_the_chosen_face_is_the_largest_or_the_one_of_a_number():
    faces = [Face(np.array([0.0, 0, s, s]), 0.9, np.zeros((6, 2))) for s in (80, 40)]
    assert choose_face(faces) is faces[0] and choose_face(faces, 2) is faces[1]
    for number, message in ((3, "there is no face 3; it shows 2"), (0, "no face 0")):
        with pytest.raises(PhotoError, match=message):
            choose_face(faces, number)
    with pytest.raises(PhotoError, match="no face was found"):
        choose_face([])


@pytest.mark.parametrize("up", [0, 90, 170, -95])
@pytest.mark.parametrize("told", [0, 60])
def test_the_framing_is_tried_until_a_look_and_its_mirror_agree(up: int, told: int, monkeypatch: pytest.MonkeyPatch):
    """A network that knows a face only within 40° of upright, and a detector that does not know which way that is."""
    rng = np.random.default_rng(0)
    mesh = rng.normal(size=(468, 2)) * 40
    mesh[list(landmarks._EYE_CORNERS)] = [[-50, -30], [50, -30]]
    turn = np.array(
        [[np.cos(np.radians(up)), -np.sin(np.radians(up))], [np.sin(np.radians(up)), np.cos(np.radians(up))]]
    )
    looks = []

    def look(photo, frames, partners):
        off = np.array([(np.degrees(angle) - up + 180) % 360 - 180 for _, _, angle in frames])
        looks.extend(off)
        known = np.abs(off) < 40
        lost = rng.normal(size=(len(frames), 468, 2)) * 60 * ~known[:, None, None]
        return mesh @ turn.T + [200, 150] + lost, np.where(known, 0.99, 0.8)

    monkeypatch.setattr(landmarks, "_looks", look)
    a = np.radians(told)
    eyes_and_mouth = np.array([[-30, -30], [30, -30], [0, 0], [0, 30], [-50, 0], [50, 0]])
    keypoints = eyes_and_mouth @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) + [200, 150]
    face = Face(np.array([150.0, 100, 250, 200]), 0.9, keypoints)
    found = landmarks._framing(PLAIN, face, np.arange(468))
    assert abs((np.degrees(found[2]) - up + 180) % 360 - 180) < 40 and np.abs(found[0] - [200, 150]).max() < 40
    if abs(up - told) < 40:
        assert len(looks) == 4, "a detector that is right costs no more"


def test_two_networks_agree_on_the_five_points_or_one_is_believed(monkeypatch: pytest.MonkeyPatch):
    mesh = shipped_model().points[:, :2] * [200, -200] + [300, 300]
    five = five_points(mesh)
    size = np.sqrt(np.prod(np.ptp(mesh, axis=0)))

    def found(other: np.ndarray | None) -> np.ndarray:
        monkeypatch.setattr(landmarks.onet, "find_five_points", lambda photo, points, angle: other)
        return landmarks.find_five_points(PLAIN, mesh)

    alone = found(None)
    np.testing.assert_allclose(alone, five.mean(0) + MESH_SPAN * (five - five.mean(0)))
    np.testing.assert_allclose(found(five + [0.5 * size, 0]), alone)  # of another face
    lower = five + np.array([0, 0, 0, 0.06, 0.06])[:, None] * size * [0, 1]
    mouth = (found(lower) - found(five)) @ [0, 1]
    assert mouth[3] == pytest.approx(mouth[4]) and 0.01 * size < mouth[3] < 0.04 * size, "between the two"


@pytest.mark.parametrize("degrees, scale", [(0, 1.0), (25, 0.5), (90, 0.8), (180, 1.1)])
def test_landmarks_follow_a_face_wherever_it_lies(degrees: float, scale: float):
    partner = shipped_model().partner
    reference = find_landmarks(PLAIN, find_faces(PLAIN)[0], partner).points
    photo, matrix = placed(degrees, scale)
    faces = find_faces(photo)
    found = find_landmarks(photo, faces[0], partner)
    error = np.linalg.norm(found.points - apply(matrix, reference), axis=1).mean() / found.size
    assert error < 0.03 and found.presence > 0.9 and found.spread < 0.02
    turned = (tilt(five_points(found.points)) - degrees + 180) % 360 - 180
    assert abs(turned) < 6


def test_several_faces_are_found_by_size_and_drawn():
    small = cv2.resize(PLAIN.pixels, (200, 200), interpolation=cv2.INTER_AREA)
    canvas = np.full((600, 900, 3), 120, np.uint8)
    canvas[44:556, 20:532], canvas[100:300, 640:840] = PLAIN.pixels, small
    photo = Photo(canvas)
    faces = find_faces(photo)
    assert len(faces) == 2 and faces[0].size > 2 * faces[1].size and faces[1].box[0] > 600
    drawn = draw_faces(photo, faces, faces[1])
    assert drawn.shape == canvas.shape and (drawn != canvas).any(-1).sum() > 500
    second = align(photo, choose_face(faces, 2), FRAMINGS["eg3d"], 128)
    assert apply(second.matrix, np.array([740.0, 200.0])) == pytest.approx([64, 64], abs=16)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda p: cv2.resize(p, (64, 64), interpolation=cv2.INTER_AREA), "pixels wide"),
        (lambda p: cv2.GaussianBlur(p, (0, 0), 10), "blurred"),
        (lambda p: np.ascontiguousarray(p[:, :300]), "cut off at the right border"),
    ],
)
def test_what_is_wrong_with_a_face_is_said(spoil, message: str):
    photo = Photo(spoil(PLAIN.pixels))
    with pytest.raises(PhotoError, match=message):
        align(photo, choose_face(find_faces(photo)), FRAMINGS["eg3d"], 128)
