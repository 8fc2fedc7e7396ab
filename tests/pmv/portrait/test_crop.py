"""Crops by EG3D's five-point rule, other framings of them, and their padding."""

import numpy as np
import pytest

from pmv.portrait import crop
from pmv.portrait.photo import Photo

_HALF = crop._STANDARD[[0, 1, 2, 3, 4], :2], crop._STANDARD[[1, 0, 2, 4, 3], :2] * [-1, 1]
FIVE = 256 + (_HALF[0] + _HALF[1]) / 2 * [1, -1] * 300 * 512 / 700
"""Eyes, nose and mouth corners of the mean face where EG3D's 512² pictures have them."""


def similarity(degrees: float, zoom: float, shift: tuple[float, float]) -> np.ndarray:
    a = np.radians(degrees)
    turn = zoom * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return np.concatenate([turn, np.array(shift)[:, None]], 1)


def test_an_aligned_face_is_its_own_crop():
    found = crop.corners(crop.eg3d_crop(FIVE, 512, 8), 512)
    assert np.abs(found - [[0, 0], [512, 0], [512, 512], [0, 512]]).max() < 1.5
    assert crop.tilt(FIVE) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("degrees", [12, 90, -170])
def test_the_crop_follows_a_face_that_is_moved_turned_and_scaled(degrees: float):
    moved = similarity(degrees, 2.5, (700, 300))
    straight = crop.eg3d_crop(FIVE, 256, 8)
    found = crop.eg3d_crop(crop.apply(moved, FIVE), 256, 8)
    assert crop.tilt(crop.apply(moved, FIVE)) == pytest.approx(degrees)
    np.testing.assert_allclose(crop.apply(found, crop.apply(moved, FIVE)), crop.apply(straight, FIVE), atol=1e-6)


def test_a_little_tilt_stays():
    matrix = crop.eg3d_crop(crop.apply(similarity(5, 1, (0, 0)), FIVE), 512, 8)
    assert matrix[1, 0] == 0 and matrix[0, 1] == 0
    assert crop.eg3d_crop(crop.apply(similarity(5, 1, (0, 0)), FIVE), 512, 4)[1, 0] != 0


def test_points_that_are_drawn_apart_stay_in_their_place():
    apart = crop.spanning(FIVE, 1.25)
    np.testing.assert_allclose(apart.mean(0), FIVE.mean(0))
    assert crop.eg3d_crop(apart, 512, 8)[0, 0] * 1.25 == pytest.approx(crop.eg3d_crop(FIVE, 512, 8)[0, 0])


def test_a_framing_is_wider_about_its_middle():
    base = similarity(20, 0.7, (30, -40))
    found = crop.framed_crop(base, np.array([0.4, 0.6]), 1.25, 512)
    there = crop.apply(crop.invert(base), np.array([0.4, 0.6]) * 512)
    np.testing.assert_allclose(crop.apply(found, there), [256, 256])
    assert np.sqrt(np.linalg.det(found[:, :2])) == pytest.approx(0.7 / 1.25)


def test_padding_continues_the_photo_and_is_told():
    rng = np.random.default_rng(0)
    pixels = (150 + 40 * rng.random((120, 100, 3))).astype(np.uint8)
    picture, valid = crop.cut(Photo(pixels), similarity(0, 1.0, (30, 40)), 128)
    assert set(np.unique(valid)) == {0.0, 1.0} and valid[60, 60] == 1 and valid[10, 60] == 0 and valid[60, 10] == 0
    np.testing.assert_array_equal(picture[42:126, 32:126], pixels[2:86, 2:96])  # the photo itself, untouched
    assert picture.min() > 140, "no black edge"
    far, near = picture[:12].astype(float), picture[60:100, 60:100].astype(float)
    assert far.std() < 0.6 * near.std(), "blurred outside"
    whole, all_valid = crop.cut(Photo(pixels), similarity(0, 1.0, (-10, -10)), 64)
    assert all_valid.all() and whole.shape == (64, 64, 3)


def test_a_photo_far_smaller_than_the_crop_still_fills_it():
    pixels = np.full((20, 16, 3), 200, np.uint8)
    picture, valid = crop.cut(Photo(pixels), similarity(0, 1.0, (50, 60)), 128)
    assert picture.min() >= 198 and 0 < valid.mean() < 0.05
