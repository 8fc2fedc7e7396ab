"""Mattes: the guided filter, refinement, and finders by name."""

import cv2
import numpy as np
import pytest

from pmv.errors import InputError
from pmv.portrait import matte


def test_guided_filter_solves_its_equations():
    """Against He et al.'s definition, window by window, away from the border."""
    rng = np.random.default_rng(0)
    guide, mask, r, eps = rng.random((12, 12, 3), np.float32), rng.random((12, 12), np.float32), 1, 1e-2
    slope, offset = np.zeros((12, 12, 3)), np.zeros((12, 12))
    for y in range(r, 12 - r):
        for x in range(r, 12 - r):
            i = guide[y - r : y + r + 1, x - r : x + r + 1].reshape(-1, 3).astype(float)
            p = mask[y - r : y + r + 1, x - r : x + r + 1].reshape(-1).astype(float)
            centred = i - i.mean(0)
            slope[y, x] = np.linalg.solve(centred.T @ centred / len(p) + eps * np.eye(3), centred.T @ p / len(p))
            offset[y, x] = p.mean() - slope[y, x] @ i.mean(0)
    found = matte.guided_filter(guide, mask, r, eps)
    for y in range(2 * r, 12 - 2 * r):
        for x in range(2 * r, 12 - 2 * r):
            around = (slice(y - r, y + r + 1), slice(x - r, x + r + 1))
            wanted = slope[around].reshape(-1, 3).mean(0) @ guide[y, x] + offset[around].mean()
            assert found[y, x] == pytest.approx(wanted, abs=1e-5)


def test_a_coarse_mask_moves_to_the_pictures_edge():
    y, x = np.mgrid[0:200, 0:200]
    truth = np.hypot(x - 100, y - 110) < 60
    picture = np.where(truth[..., None], [200, 150, 120], [40, 60, 90]).astype(np.uint8)
    coarse = np.clip((63 - np.hypot(x - 98, y - 112)) / 6 + 0.5, 0, 1).astype(np.float32)
    fine = matte.refine_matte(picture, coarse)
    assert fine.min() >= 0 and fine.max() <= 1
    assert np.abs(fine - truth).mean() < 0.7 * np.abs(coarse - truth).mean()
    flat = np.full_like(picture, 90)
    assert np.abs(matte.refine_matte(flat, coarse) - coarse).mean() < 0.04


def test_other_people_are_left_out_and_hair_is_kept():
    mask = np.zeros((200, 200), np.float32)
    mask[60:200, 50:150] = 1
    mask[58, 60:70] = 1  # a hair just off the head
    mask[20:80, 180:200] = 1  # somebody else
    kept = mask * matte._near_middle(mask)
    assert kept[58, 60:70].all() and not kept[20:80, 180:].any() and kept[60:, 50:150].all()


def test_finders_by_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(matte.MATTES, "half", None)
    matte.register("half", lambda picture: np.full(picture.shape[:2], 0.5, np.float32))
    assert matte.find_matte(np.zeros((8, 8, 3), np.uint8), "half").max() == 0.5
    with pytest.raises(InputError, match="selfie, grabcut"):
        matte.find_matte(np.zeros((8, 8, 3), np.uint8), "magic")
    with pytest.raises(InputError, match="no matte is called 'magic'"):
        matte.check_name("magic")


def test_where_the_network_sees_nobody_colours_tell_the_foreground():
    picture = np.full((128, 128, 3), 200, np.uint8)
    cv2.circle(picture, (64, 64), 44, (30, 60, 160), -1)
    assert matte.selfie(picture).mean() < matte.LEAST_FOREGROUND
    found = matte.find_matte(picture)
    assert found[64, 64] > 0.99 and found[4, 4] < 0.01
