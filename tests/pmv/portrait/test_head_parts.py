"""Parts of heads in a generator's world: the face's by geometry, hair by colour as well."""

import numpy as np
import pytest
import torch

from pmv.portrait.crop import FRAMINGS
from pmv.portrait.head_parts import (
    PARTS,
    MeanHead,
    SurfaceSamples,
    face_share,
    hair_share,
    mean_head,
    part_volume,
    skin_places,
)

SKIN, HAIR = np.array([0.5, 0.2, 0.0]), np.array([-0.7, -0.8, -0.9])


@pytest.fixture(scope="module")
def mean() -> MeanHead:
    return mean_head(FRAMINGS["heads"])


def painted(mean: MeanHead, hair: np.ndarray) -> SurfaceSamples:
    """The mean head, its hair where `hair` [V] says so."""
    return SurfaceSamples(mean.vertices, np.where(hair[:, None], HAIR, SKIN))


def test_hair_is_what_has_the_crowns_colour_outside_the_face(mean: MeanHead):
    brows = mean.landmarks[[105, 334], 1].mean()
    y, z = mean.vertices[:, 1], mean.vertices[:, 2]
    scalp = (y > brows) & (mean.skin < 0.1) & (z < 0)
    nape = (y < brows) & (z < -0.1)
    beard = (mean.skin > 0.8) & (y < mean.landmarks[0, 1])
    share = hair_share(painted(mean, scalp | nape | beard), mean)
    assert share is not None
    assert share[scalp].min() == 1 and share[nape & (mean.skin == 0)].min() == 1
    assert share[beard].max() == 0, "a beard is the face's"
    assert share[skin_places(painted(mean, scalp), mean)].max() == 0


def test_a_bald_head_has_no_hair(mean: MeanHead):
    assert hair_share(painted(mean, np.zeros(len(mean.vertices), bool)), mean) is None


def test_hair_that_is_not_where_hair_can_be_is_none(mean: MeanHead):
    ball = SurfaceSamples(0.01 * mean.vertices, np.zeros_like(mean.vertices))
    assert hair_share(ball, mean) is None


def test_parts_of_the_face_lie_where_their_landmarks_do(mean: MeanHead):
    for part in PARTS[1:]:
        share = face_share(part, mean)
        assert share.shape == mean.skin.shape and share.min() == 0 and share.max() == 1, part
    tip = np.linalg.norm(mean.vertices - mean.landmarks[1], axis=1).argmin()
    lips = np.linalg.norm(mean.vertices - mean.landmarks[13], axis=1).argmin()
    assert face_share("nose", mean)[tip] == 1 and face_share("mouth", mean)[tip] == 0
    assert face_share("mouth", mean)[lips] == 1 and face_share("eyes", mean)[lips] == 0


def test_a_volume_says_of_every_place_what_the_nearest_surface_does():
    points = np.random.default_rng(0).normal(size=(2000, 3))
    points *= 0.2 / np.linalg.norm(points, axis=1, keepdims=True)
    volume = part_volume(points, (points[:, 0] > 0).astype(float), 1.0, 0.01)
    places = torch.tensor([[[0.2, 0.0, 0.0], [-0.2, 0.1, 0.0], [0.4, 0.1, 0.1], [9.0, 0.0, 0.0], [-9.0, 0.0, 0.0]]])
    assert torch.allclose(volume(places), torch.tensor([[1.0, 0, 1, 1, 0]]), atol=1e-3)
    wider = part_volume(points, (points[:, 0] > 0).astype(float), 1.0, 0.01, wider=0.1)
    near = torch.tensor([[[-0.05, 0.19, 0.0]]])
    assert volume(near) < 0.1 < 0.9 < wider(near)
