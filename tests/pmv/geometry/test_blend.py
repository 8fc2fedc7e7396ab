"""Two depths made one: a bump that is known in the middle of a plane."""

import pytest
import torch

from pmv.geometry.blend import blend_surface, carry_surface
from pmv.geometry.camera import Camera
from pmv.geometry.scene import edge_step, pixel_grid

SIZE = 48
CAMERA = Camera.orbit(0.0, 0.0)
EDGE = edge_step(CAMERA, SIZE)
RADIUS = (pixel_grid(SIZE, SIZE, torch.zeros(1))[0] - 0.5).norm(dim=-1)
COARSE = (2.7 + 0.05 * (pixel_grid(SIZE, SIZE, torch.zeros(1))[0, ..., 0] - 0.5))[None, None]
TRUE = COARSE - 0.03 * torch.exp(-((RADIUS / 0.12) ** 2))
SURE = (1.6 - RADIUS / 0.2).clamp(0, 1)[None, None]
SOLID = torch.ones_like(COARSE)


def relief(depth: torch.Tensor) -> torch.Tensor:
    part = depth[SURE > 0.3]
    return part - part.median()


def test_the_relief_is_taken_whatever_the_scale():
    for scale in (1.0, 1.3):
        found = blend_surface(COARSE, SOLID, TRUE * scale, SURE, EDGE)
        assert (relief(found) - relief(TRUE)).abs().mean() < 0.25 * (relief(COARSE) - relief(TRUE)).abs().mean()


def test_no_step_at_the_border_and_nothing_far_from_it():
    shifted = TRUE + 0.02 * (RADIUS - 0.1)[None, None]
    found = blend_surface(COARSE, SOLID, shifted, SURE, EDGE)
    change = (found - COARSE)[0, 0]
    steps = torch.cat([change.diff(dim=0).abs().flatten(), change.diff(dim=1).abs().flatten()])
    assert steps.max() < 0.008, "as steep as the bump itself, no more"
    assert change[:3].abs().max() < 2e-3


def test_outlines_hair_and_the_empty_stay():
    alpha = SOLID.clone()
    alpha[..., :12] = 0.0
    hair = COARSE.clone()
    hair[..., 20:28, 20:28] -= 0.3
    found = blend_surface(hair, alpha, TRUE, SURE, EDGE)
    assert torch.equal(found[..., :12], hair[..., :12])
    assert (found - hair)[..., 21:27, 21:27].abs().max() < 0.01
    nothing = blend_surface(COARSE, SOLID, TRUE, torch.zeros_like(SURE), EDGE)
    assert torch.equal(nothing, COARSE)
    with pytest.raises(ValueError, match="one D"):
        blend_surface(COARSE, SOLID, TRUE[..., :20, :20], SURE, EDGE)


def test_other_views_follow_the_surface():
    blended = blend_surface(COARSE, SOLID, TRUE, SURE, EDGE)
    changed = SURE > 0
    same = carry_surface(blended, changed, CAMERA, CAMERA, COARSE, SOLID, EDGE)
    inside = RADIUS[None, None] < 0.2
    assert (same - blended)[inside].abs().max() < 2e-3
    aside = Camera.orbit(0.3, 0.0)
    flat = torch.full_like(COARSE, 2.7)
    moved = carry_surface(blended, changed, CAMERA, aside, flat, SOLID, EDGE)
    assert (moved != flat).float().mean() > 0.1
    far = carry_surface(blended, changed, CAMERA, aside, flat - 0.5, SOLID, EDGE)
    assert torch.equal(far, flat - 0.5), "what lies elsewhere is another surface"
    none = carry_surface(blended, torch.zeros_like(changed), CAMERA, aside, flat, SOLID, EDGE)
    assert torch.equal(none, flat)
