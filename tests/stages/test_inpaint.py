"""Stage inpaint: pseudo-views are complete; the photo stays where it is seen and the render fills the rest."""

from dataclasses import replace

import pytest
import torch

from stages.context import Context
from stages.inpaint import InpaintConfig, InpaintInputs, run

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
    alphas = torch.zeros(2, 1, 32, 32)
    alphas[..., 4:28, 4:28] = 1
    return InpaintInputs(warped, visible, edit * visible, torch.full((2, 3, SIZE, SIZE), 0.2), alphas)


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
    out = run(inputs, InpaintConfig(feather=0.1), context)
    edited = inputs.warped_edit_masks > 0.5
    assert (out.blend_masks[edited] == 1).all()
    strong = inputs.warped_views.clone()
    strong[edited.expand(-1, 3, -1, -1)] = -1.0
    changed = run(replace(inputs, warped_views=strong), InpaintConfig(feather=0.1), context)
    rest = (~edited).expand(-1, 3, -1, -1)
    assert torch.equal(changed.pseudo_views[rest], out.pseudo_views[rest])
    assert (changed.pseudo_views[edited.expand(-1, 3, -1, -1)] == -1).all()
