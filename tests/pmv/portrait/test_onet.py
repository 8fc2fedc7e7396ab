"""Five points by O-Net: where looks lie in the photo, mostly with a network that says the same of every picture."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pmv.pictures.images import read_bytes
from pmv.portrait import landmarks, onet
from pmv.portrait.align import find_faces, shipped_model
from pmv.portrait.crop import apply, five_points
from pmv.portrait.photo import Photo, from_tensor
from tests.conftest import ROOT

FIVE = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.55], [0.35, 0.75], [0.65, 0.75]])
"""Eyes, nose and mouth corners in the box of a look."""
PHOTO = Photo(np.full((400, 500, 3), 128, np.uint8))
MESH = np.array([[200.0, 120], [300, 120], [200, 240], [300, 240]])
CENTRE, SIDE = np.array([250.0, 180]), 120.0
STEP = (1 + 2 * np.cos(np.radians(6))) / 3  # turning to and fro draws the mean together


Says = Callable[..., None]


@pytest.fixture
def network_says(monkeypatch: pytest.MonkeyPatch) -> Says:
    """Puts a network there that says the same of every picture."""

    def says(five: np.ndarray, score: float = 5.0, box: tuple[float, ...] = (0, 0, 0, 0)) -> None:
        answers = {"dense6_1": [0.0, score], "dense6_2": box, "dense6_3": five.T.reshape(-1)}
        tensors = {name: torch.tensor(np.array(value), dtype=torch.float32) for name, value in answers.items()}
        monkeypatch.setattr(
            onet,
            "network",
            lambda kind: (
                lambda image: {k: v[None, :, None, None].repeat(len(image), 1, 1, 1) for k, v in tensors.items()}
            ),
        )

    return says


@pytest.mark.parametrize("degrees", [0, 30, -100])
def test_points_lie_in_the_photo_where_the_looks_have_them(network_says: Says, degrees: float):
    network_says(FIVE)
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    found = onet.find_five_points(PHOTO, (MESH - CENTRE) @ turn.T + CENTRE, angle)
    np.testing.assert_allclose(found, CENTRE + STEP * SIDE * (FIVE - 0.5) @ turn.T, atol=1e-3)


def test_a_network_that_leans_to_one_side_is_put_right_by_its_mirror(network_says: Says):
    network_says(FIVE + [0.1, 0.0])
    found = onet.find_five_points(PHOTO, MESH, 0.0)
    np.testing.assert_allclose(found, CENTRE + STEP * SIDE * (FIVE - 0.5), atol=1e-3)


def test_the_box_goes_where_the_network_wants_it(network_says: Says):
    network_says(FIVE, box=(0.0, -0.05, 0.0, 0.05))  # a tenth higher than wide: the square grows
    found = onet.find_five_points(PHOTO, MESH, 0.0)
    np.testing.assert_allclose(found, CENTRE + STEP * SIDE * 1.1**3 * (FIVE - 0.5), atol=1e-3)


def test_no_face_is_no_points(network_says: Says):
    network_says(FIVE, score=-5.0)
    assert onet.find_five_points(PHOTO, MESH, 0.0) is None


@pytest.mark.parametrize("degrees", [0, 140])
def test_both_networks_see_the_same_face(degrees: float):
    plain = from_tensor(read_bytes(ROOT / "assets" / "portraits" / "plain.png")[0])
    mesh = landmarks.find_landmarks(plain, find_faces(plain)[0], shipped_model().partner).points
    angle, side = np.radians(degrees), plain.width
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.concatenate([turn, (np.array([side, side]) - turn @ [side / 2, side / 2])[:, None]], 1)
    large = Photo(landmarks.sample(plain.pixels, matrix, 2 * side))
    found = onet.find_five_points(large, apply(matrix, mesh), angle)
    wanted = apply(matrix, five_points(mesh))
    assert found is not None
    assert np.linalg.norm(found - wanted, axis=1).max() < 0.08 * np.ptp(mesh, axis=0).max()
