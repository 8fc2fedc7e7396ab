"""Stage warp: the photo's texels arrive where they are visible, and nothing else does."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pmv.fitting.metrics import psnr
from pmv.geometry.camera import Camera
from pmv.pipeline.context import Context
from pmv.stages.warp import WarpConfig, WarpInputs, run
from tests.scenes import sphere_view

INPUT = Camera.orbit(0.0, 0.0)
VIEWS = Camera.orbit(torch.tensor([-0.3, 0.25]), 0.1)
SIZE = 96


@pytest.fixture
def context():
    spec = SimpleNamespace(box=1.0, background=-0.5)
    return Context(SimpleNamespace(spec=spec), torch.device("cpu"), torch.Generator(), lambda a, b: a)


@pytest.fixture(scope="module")
def inputs():
    image, _, _ = sphere_view(INPUT, SIZE)
    _, depths, alphas = sphere_view(VIEWS, 64)
    _, depth, alpha = sphere_view(VIEWS, SIZE)
    visible = ((VIEWS.unproject(depth)[..., 2] > 0.1)[:, None] & (alpha > 0)).float()
    edit = torch.zeros(1, 1, SIZE, SIZE)
    edit[..., 40:56, 40:56] = 1
    return WarpInputs(image, -image, edit, INPUT, VIEWS, depths, alphas, visible, visible)


@pytest.mark.parametrize("antialias", [True, False])
def test_texels_and_background(inputs, context, antialias):
    out = run(inputs, WarpConfig(antialias), context)
    truth, _, _ = sphere_view(VIEWS, SIZE)
    assert out.warped_views.shape == (2, 3, SIZE, SIZE)
    assert psnr(out.warped_views, truth, inputs.visible_masks).min() > 38
    assert (out.warped_views[(inputs.visible_masks == 0).expand(-1, 3, -1, -1)] == -0.5).all()


def test_the_edit_mask_moves_with_the_texels(inputs, context):
    out = run(inputs, WarpConfig(), context)
    assert out.warped_edit_masks.shape == (2, 1, SIZE, SIZE)
    assert 0 <= out.warped_edit_masks.min() and out.warped_edit_masks.max() <= 1
    assert not (out.warped_edit_masks * (1 - inputs.visible_masks)).any()
    # a picture that is the mask itself lands in the same place
    picture = replace(inputs, original=inputs.edit_mask.expand(-1, 3, -1, -1))
    same = run(picture, WarpConfig(), context).warped_views[:, :1]
    visible = inputs.visible_masks > 0
    assert torch.allclose(same.clamp(0, 1)[visible], out.warped_edit_masks[visible], atol=1e-6)
    assert out.warped_edit_masks.sum((1, 2, 3)).min() > 150


def test_an_edit_is_carried_beside_the_unedited_photo(inputs, context):
    """Visible where the edit's own mask says so, and the photo's texels are the same whether or not there is one."""
    more = torch.ones_like(inputs.visible_masks)
    out = run(replace(inputs, edited_visible_masks=more), WarpConfig(), context)
    plain = run(replace(inputs, image=inputs.original, edited_visible_masks=None), WarpConfig(), context)
    assert torch.equal(out.warped_views, plain.warped_views)
    assert plain.warped_edits is None and not plain.warped_edit_masks.any()
    both = (out.warped_edit_masks == 1) & (inputs.visible_masks > 0)
    assert out.warped_edits is not None and both.sum() > 200
    assert (out.warped_edits + out.warped_views)[both.expand(-1, 3, -1, -1)].abs().max() < 1e-5
    assert out.warped_edit_masks.sum() >= run(inputs, WarpConfig(), context).warped_edit_masks.sum()


def test_no_surface_gives_background(inputs, context):
    out = run(
        replace(inputs, view_alphas=0 * inputs.view_alphas, visible_masks=0 * inputs.visible_masks),
        WarpConfig(),
        context,
    )
    assert (out.warped_views == -0.5).all()
