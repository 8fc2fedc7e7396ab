"""Stage visibility on a sphere: masks are right, switches do what they say."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pmv.geometry.camera import Camera
from pmv.pipeline.context import Context
from pmv.stages.visibility import VisibilityConfig, VisibilityInputs, run
from tests.scenes import sphere_view

INPUT = Camera.orbit(0.0, 0.0)
VIEWS = Camera.orbit(torch.tensor([-0.6, 0.0, 0.3]), torch.tensor([0.0, 0.1, 0.1]))
SIZE, DEPTH = 96, 64


@pytest.fixture(scope="module")
def context():
    spec = SimpleNamespace(box=1.0, background=0.0)
    return Context(SimpleNamespace(spec=spec), torch.device("cpu"), torch.Generator(), lambda a, b: a)


@pytest.fixture(scope="module")
def inputs():
    _, depth, alpha = sphere_view(INPUT, DEPTH)
    _, view_depths, view_alphas = sphere_view(VIEWS, DEPTH)
    _, _, foreground = sphere_view(INPUT, SIZE)
    return VisibilityInputs(INPUT, VIEWS, depth, alpha, view_depths, view_alphas, foreground, 0 * foreground)


@pytest.fixture(scope="module")
def base(inputs, context):
    return run(inputs, VisibilityConfig(), context)


def test_masks_mark_what_both_views_see(base):
    out = base
    assert out.visible_masks.shape == (3, 1, SIZE, SIZE)
    assert set(out.visible_masks.unique().tolist()) == {0.0, 1.0}
    _, depth, alpha = sphere_view(VIEWS, SIZE)
    normal = torch.nn.functional.normalize(VIEWS.unproject(depth), dim=-1)
    ray = torch.nn.functional.normalize(INPUT.position[:, None, None] - VIEWS.unproject(depth), dim=-1)
    degrees = torch.rad2deg(torch.acos((normal * ray).sum(-1)))[:, None]
    visible = out.visible_masks > 0
    assert (visible & ((alpha == 0) | (degrees > 74))).sum() < 0.01 * visible.sum()
    assert visible[degrees < 45].float().mean() > 0.9
    assert out.confidences[1] > out.confidences[2] > out.confidences[0]


@pytest.mark.parametrize(
    "change",
    [
        {"tolerance": 0.0005},
        {"max_angle": 40.0},
        {"view_max_angle": 40.0},
        {"silhouette_erode": 0.08},
        {"mask_erode": 0.04},
    ],
)
def test_stricter_settings_see_less(inputs, context, base, change):
    strict = run(inputs, replace(VisibilityConfig(), **change), context).visible_masks
    assert strict.sum() < 0.97 * base.visible_masks.sum()
    assert not (strict > base.visible_masks).any()


def test_mutual_test_catches_a_surface_that_only_the_input_has(inputs, context):
    """A second ball before the first in the input's depth: behind it, the first ball must not be painted."""
    ball = sphere_view(INPUT, DEPTH, radius=0.05, centre=(0.0, 0.0, 0.3))
    depth = torch.where(ball[2] > 0, ball[1], inputs.input_depth)
    changed = replace(inputs, input_depth=depth)
    both = run(changed, VisibilityConfig(edge_erode=0), context).visible_masks
    single = run(changed, VisibilityConfig(edge_erode=0, mutual=False), context).visible_masks
    assert not (both > single).any()
    # from the side the ball stands before texels whose surface the input does see
    assert both[0].sum() < single[0].sum() - 20


def test_a_photo_mask_limits_what_is_used(inputs, context):
    half = inputs.foreground.clone()
    half[..., : SIZE // 2] = 0
    out = run(replace(inputs, foreground=half), VisibilityConfig(), context)
    points = VIEWS.unproject(sphere_view(VIEWS, SIZE)[1])
    assert out.visible_masks.any()
    assert not (out.visible_masks[:, 0] * (points[..., 0] < 0)).any()


def test_an_edit_is_carried_up_to_the_outline(inputs, context, base):
    edit = torch.zeros_like(inputs.foreground)
    edit[..., SIZE // 2 :] = 1
    config = VisibilityConfig(silhouette_erode=0.06)
    plain, both = run(inputs, config, context), run(replace(inputs, edit_mask=edit), config, context)
    eroded, edited = plain.visible_masks, both.edited_visible_masks
    assert plain.edited_visible_masks is None and edited is not None
    assert torch.equal(both.visible_masks, eroded), "what the photo itself shows does not depend on its edits"
    assert not (edited < eroded).any() and edited[2].sum() > eroded[2].sum() + 50
    points = VIEWS.unproject(sphere_view(VIEWS, SIZE)[1])
    assert not ((edited > eroded)[:, 0] & (points[..., 0] < -0.01)).any(), "what is not edited is eroded as before"
    same = run(replace(inputs, edit_mask=edit), replace(config, edit_erode=1.0), context).edited_visible_masks
    assert same is not None and torch.equal(same, eroded)


def test_nothing_visible_is_not_an_error(inputs, context):
    out = run(replace(inputs, foreground=torch.zeros_like(inputs.foreground)), VisibilityConfig(), context)
    assert not out.visible_masks.any()


def test_previews_and_records_are_made(inputs, context):
    previews, rows = {}, []
    shown = replace(context, preview=lambda n, x: previews.__setitem__(n, x), record=lambda **r: rows.append(r))
    run(inputs, VisibilityConfig(), shown)
    assert {"visible", "trusted_texels"} <= previews.keys()
    assert [row["view"] for row in rows] == [0, 1, 2]
