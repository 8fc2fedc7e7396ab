"""Stage inpaint: pseudo-views are complete; the photo stays where it is seen and the render fills the rest."""

from dataclasses import replace

import pytest
import torch

from pmv.geometry.camera import Camera
from pmv.pipeline.context import Context
from pmv.stages.inpaint import InpaintConfig, InpaintInputs, run

SIZE = 64


@pytest.fixture
def context():
    return Context(None, torch.device("cpu"), torch.Generator(), lambda a, b: a)


@pytest.fixture
def inputs():
    visible = torch.zeros(2, 1, SIZE, SIZE)
    visible[0, :, 16:48, 16:32] = 1
    edit = torch.zeros_like(visible)
    edit[0, :, 20:24, 28:40] = 1
    warped = torch.where(visible > 0, 0.4, 0.0).expand(-1, 3, -1, -1)
    edits = -0.6 * edit.expand(-1, 3, -1, -1)
    alphas = torch.zeros(2, 1, 32, 32)
    alphas[..., 4:28, 4:28] = 1
    cameras = Camera.orbit(0.0, 0.0), Camera.orbit(torch.tensor([-0.3, 0.3]), torch.zeros(2))
    renders, depths = torch.full((2, 3, SIZE, SIZE), 0.2), torch.full_like(alphas, 2.6)
    return InpaintInputs(warped, visible, edit, renders, depths, alphas, *cameras, edits)


@pytest.mark.parametrize("harmonize", [True, False])
def test_complete_and_faithful(inputs, context, harmonize):
    out = run(inputs, InpaintConfig(feather=0.05, harmonize=harmonize), context)
    assert out.pseudo_views.shape == (2, 3, SIZE, SIZE) and out.blend_masks.shape == (2, 1, SIZE, SIZE)
    assert torch.isfinite(out.pseudo_views).all()
    assert torch.allclose(out.pseudo_views[0, :, 30, 24], torch.tensor(0.4))
    assert not out.blend_masks[inputs.visible_masks == 0].any()
    assert torch.equal(out.pseudo_views[1], inputs.view_renders[1])  # nothing seen: the render alone
    outside = torch.nn.functional.interpolate(inputs.view_alphas, SIZE)[0, 0] == 0
    assert torch.allclose(out.pseudo_views[0][:, outside], torch.tensor(0.2))


def test_harmonizing_lowers_the_seam(inputs, context):
    seams = [
        run(inputs, InpaintConfig(harmonize=h), context).pseudo_views[0, 0, 40].diff().abs().max()
        for h in (True, False)
    ]
    assert seams[0] < 0.5 * seams[1]


def test_an_edit_is_kept_to_the_border_and_tints_nothing(inputs, context):
    """Its own texels where it is visible, though the photo is not, and beside it the views without any edit."""
    out = run(inputs, InpaintConfig(feather=0.1), context)
    edited = (inputs.warped_edit_masks > 0).expand(-1, 3, -1, -1)
    assert out.edited_views is not None and (out.edited_views[edited] == -0.6).all()
    assert torch.equal(out.edited_views[~edited], out.pseudo_views[~edited])
    nothing = replace(inputs, warped_edit_masks=0 * inputs.warped_edit_masks, warped_edits=None)
    plain = run(nothing, InpaintConfig(feather=0.1), context)
    assert torch.equal(plain.pseudo_views, out.pseudo_views) and torch.equal(plain.blend_masks, out.blend_masks)
    assert plain.edited_views is None
