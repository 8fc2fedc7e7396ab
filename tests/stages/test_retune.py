"""Stage retune on a tiny generator: the edit comes, and the rest of the head stays."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pmv.fitting.losses import masked_l2
from pmv.generators.views import render_views
from pmv.geometry.camera import Camera
from pmv.geometry.scene import SeenFrom
from pmv.geometry.warping import inverse_warp
from pmv.pipeline.context import Context
from pmv.stages import coarse, retune, tune

SIZE = 32
VIEWS = coarse.CoarseConfig(views=6, rings=1, around=2)
TUNE = tune.TuneConfig(steps=30, learning_rate=3e-3, views_per_step=2)
CONFIG = retune.RetuneConfig(steps=30, learning_rate=1e-3, views_per_step=2, held_views=12, held_per_step=3)


@pytest.fixture
def context(tiny_generator) -> Context:
    rng = torch.Generator().manual_seed(0)
    return Context(tiny_generator, torch.device("cpu"), rng, masked_l2)


@pytest.fixture(scope="module")
def tune_inputs(tiny_generator) -> tune.TuneInputs:
    """A photo and pseudo-views in colours that the generator does not have."""
    spec, w = tiny_generator.spec, tiny_generator.mean_w(16)
    camera = spec.orbit(0.1, 0.0)
    cameras = coarse.pseudo_cameras(spec, camera, VIEWS)
    seen = render_views(tiny_generator, w, {}, Camera.cat([camera, cameras]))
    pictures = (seen.image * 0.5 + 0.3).clamp(-1, 1)
    return tune.TuneInputs(
        original=pictures[:1],
        foreground=torch.nn.functional.interpolate(seen.alpha[:1], SIZE),
        camera=camera,
        pivot_w=w,
        noise={},
        pseudo_cameras=cameras,
        pseudo_views=pictures[1:],
        blend_masks=torch.ones(len(cameras), 1, SIZE, SIZE),
        view_alphas=seen.alpha[1:],
        view_depths=seen.depth[1:],
        input_depth=seen.depth[:1],
        input_alpha=seen.alpha[:1],
        confidences=torch.full((len(cameras),), 0.8),
    )


@pytest.fixture(scope="module")
def inputs(tiny_generator, tune_inputs: tune.TuneInputs) -> retune.RetuneInputs:
    """A black patch on the finished head, carried to the pseudo-views before it."""
    given = tune_inputs
    fresh = Context(tiny_generator, torch.device("cpu"), torch.Generator().manual_seed(0), masked_l2)
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., 13:19, 13:19] = 1
    seen = SeenFrom(given.pseudo_cameras, given.view_depths, given.view_alphas > 0.5)
    carried, _ = inverse_warp(mask, given.camera, seen)
    before = given.pseudo_cameras.angle_to(given.camera) < math.radians(60)
    carried = carried.clamp(0, 1) * before[:, None, None, None]
    return retune.RetuneInputs(
        image=torch.lerp(given.original, -torch.ones_like(given.original), mask),
        edit_mask=mask,
        camera=given.camera,
        pivot_w=given.pivot_w,
        noise={},
        pseudo_cameras=given.pseudo_cameras,
        edited_views=torch.lerp(given.pseudo_views, -torch.ones_like(given.pseudo_views), carried),
        warped_edit_masks=carried,
        confidences=given.confidences,
        unedited_state=tune.run(given, TUNE, fresh).unedited_state,
    )


def views_of(generator, state: dict[str, Tensor], inputs: retune.RetuneInputs, cameras: Camera) -> Tensor:
    tuned = copy.deepcopy(generator)
    tuned.load_tuned(state)
    return render_views(tuned, inputs.pivot_w, inputs.noise, cameras).image


def test_the_edit_comes_and_the_rest_stays(tiny_generator, context, inputs, tune_inputs):
    """Nearer to the unedited head than a tuning that is given the edit from the start, also from other sides."""
    spec = tiny_generator.spec
    beside = spec.orbit(0.1 + torch.tensor([-0.5, 0.0, 0.5, 2.0, 3.0]), 0.0)
    plain = views_of(tiny_generator, inputs.unedited_state, inputs, beside)
    retuned = views_of(tiny_generator, retune.run(inputs, CONFIG, context).tuned_state, inputs, beside)
    together = replace(tune_inputs, original=inputs.image, pseudo_views=inputs.edited_views)
    fresh = replace(context, rng=torch.Generator().manual_seed(0))
    independent = views_of(tiny_generator, tune.run(together, TUNE, fresh).unedited_state, inputs, beside)

    part = inputs.edit_mask[0, 0] > 0
    assert (retuned[1] - plain[1])[:, part].mean() < -0.5, "the patch is dark in the input view"
    rest = torch.ones_like(retuned[:, :1])
    rest[:3, ..., 8:24] = 0  # the patch and its surroundings, from before
    changes = [masked_l2(picture, plain, rest) for picture in (retuned, independent)]
    assert (changes[0] < 0.6 * changes[1]).all()


def test_without_edits_the_weights_stay_to_the_bit(context, inputs):
    nothing = replace(inputs, edited_views=None, edit_mask=0 * inputs.edit_mask)
    state = retune.run(nothing, CONFIG, context).tuned_state
    assert state.keys() == inputs.unedited_state.keys()
    assert all(torch.equal(state[name], value) for name, value in inputs.unedited_state.items())


def test_only_its_groups_are_tuned_and_all_weights_are_kept(context, inputs):
    config = replace(CONFIG, steps=2, groups=("decoder",), residual_rate=0.0)
    state = retune.run(inputs, config, context).tuned_state
    assert state.keys() == inputs.unedited_state.keys()
    changed = {name for name, value in state.items() if not torch.equal(value, inputs.unedited_state[name])}
    assert changed and all(name.startswith("decoder.") for name in changed)


def test_it_is_deterministic_and_leaves_the_generator_alone(tiny_generator, context, inputs):
    before = {name: value.clone() for name, value in tiny_generator.state_dict().items()}
    states = [
        retune.run(inputs, replace(CONFIG, steps=2), replace(context, rng=torch.Generator().manual_seed(5))).tuned_state
        for _ in range(2)
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert all(torch.equal(value, before[name]) for name, value in tiny_generator.state_dict().items())


def test_an_edit_that_no_pseudo_view_shows_and_no_held_views(context, inputs):
    hidden = replace(inputs, warped_edit_masks=0 * inputs.warped_edit_masks, valid=torch.ones_like(inputs.edit_mask))
    rows: list[dict] = []
    recording = replace(context, record=lambda **row: rows.append(row))
    retune.run(hidden, replace(CONFIG, steps=8, held_views=0, hold_weight=0.0), recording)
    assert rows[-1]["edit"] < rows[0]["edit"] and "hold" not in rows[0]


def test_held_cameras_lie_where_the_pseudo_views_do(tiny_generator):
    spec, rng = tiny_generator.spec, torch.Generator().manual_seed(0)
    camera = spec.orbit(0.3, 0.1)
    for full_head in (True, False):
        views = coarse.pseudo_cameras(replace(spec, full_head=full_head), camera, VIEWS)
        held = retune.held_cameras(spec, camera, views, 60, rng)
        yaw, pitch = (angle - at for angle, at in zip(held.yaw_pitch(spec.pivot), camera.yaw_pitch(spec.pivot)))
        assert torch.rad2deg(pitch).abs().max() < 16
        behind = yaw.cos() < 0
        assert behind.any() if full_head else torch.rad2deg(yaw).abs().max() < 41
        torch.testing.assert_close(held.position.norm(dim=1), camera.position.norm(dim=1).expand(60))
