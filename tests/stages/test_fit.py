"""The three optimising stages on a tiny generator: they do what they are for, and what they promise not to do."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from pmv.errors import InputError
from pmv.fitting.losses import masked_l2
from pmv.generators.views import render_views
from pmv.pipeline.context import Context
from pmv.stages import coarse, latent, tune

Pivot = tuple[torch.Tensor, dict[str, torch.Tensor]]


def plain_distance(a, b, mask=None):
    """Stands in for the perceptual distance: pictures of 32 pixels are too small for its networks."""
    return masked_l2(a, b, mask)


@pytest.fixture
def context(tiny_generator):
    return Context(tiny_generator, torch.device("cpu"), torch.Generator().manual_seed(0), plain_distance)


@pytest.fixture(scope="module")
def target(tiny_generator):
    """A view of a latent off the mean, so that there is something to find."""
    torch.manual_seed(1)
    spec = tiny_generator.spec
    w = tiny_generator.mean_w(64) + 0.4 * torch.randn(1, spec.num_ws, spec.w_dim)
    camera = spec.orbit(0.25, 0.1)
    with torch.no_grad():
        out = tiny_generator.render(tiny_generator.planes(w), w, camera)
    foreground = (torch.nn.functional.interpolate(out.alpha, (32, 32), mode="bilinear") > 0.5).float()
    return w, camera, out.image.clamp(-1, 1), foreground


def latent_inputs(target, camera=None):
    _, true_camera, image, foreground = target
    return latent.LatentInputs(image, foreground, camera or true_camera)


FAST = latent.LatentConfig(steps=60, learning_rate=0.05, mean_samples=64, w_distance_weight=0.0, difference_from=1.0)


def view(generator, out):
    return generator.render(generator.planes(out.pivot_w, out.noise), out.pivot_w, out.camera).image


def test_latent_approaches_the_image_and_is_deterministic(context, target, tiny_generator):
    start = tiny_generator.mean_w(64)
    before = (tiny_generator.render(tiny_generator.planes(start), start, target[1]).image - target[2]).square().mean()
    first = latent.run(latent_inputs(target), FAST, context)
    after = (view(tiny_generator, first) - target[2]).square().mean()
    assert after < 0.5 * before
    again = latent.run(latent_inputs(target), FAST, replace(context, rng=torch.Generator().manual_seed(0)))
    assert torch.equal(first.pivot_w, again.pivot_w) and torch.equal(first.camera.labels(), again.camera.labels())


def test_latent_refines_a_wrong_camera(context, target, tiny_generator):
    """With the true latent as the mean, a camera that is 4 degrees off moves back towards the truth."""
    generator = copy.deepcopy(tiny_generator)
    generator.mean_w = lambda *_: target[0].clone()  # type: ignore[method-assign]
    wrong = generator.spec.orbit(0.25 + math.radians(4), 0.1)
    config = replace(
        FAST, steps=80, learning_rate=0.02, w_noise=0.0, camera_rate=5.0, camera_weight=0.0, w_plus_from=2.0
    )
    out = latent.run(latent_inputs(target, wrong), config, replace(context, generator=generator))
    assert out.camera.angle_to(target[1]) < 0.7 * wrong.angle_to(target[1])
    kept = latent.run(
        latent_inputs(target, wrong), replace(config, steps=3, camera_rate=0.0), replace(context, generator=generator)
    )
    torch.testing.assert_close(kept.camera.labels(), wrong.labels())


def test_difference_mask_finds_what_was_painted_on(target):
    _, _, image, foreground = target
    painted = image.clone()
    painted[..., 13:18, 13:18] = -painted[..., 13:18, 13:18].sign()
    mask = latent.find_difference(image, painted, foreground, threshold=0.3, most=0.5)
    assert mask[..., 14:17, 14:17].mean() > 0.9
    assert mask.sum() < 80
    assert latent.find_difference(image, image, foreground, 0.3, 0.5).sum() == 0
    little = latent.find_difference(image, -image, foreground, 0.01, 0.1)
    assert little.sum() <= 0.12 * foreground.sum()


def test_a_given_mask_overrules_what_is_found_and_its_pixels_pull_at_nothing(context, target):
    w, camera, image, foreground = target
    mask = torch.zeros_like(foreground)
    mask[..., 10:20, 10:20] = 1
    hand = image * (1 - mask) - mask
    previews: dict[str, torch.Tensor] = {}

    config = replace(FAST, steps=10, difference_from=0.5, difference_threshold=0.2, difference_most=0.5)

    def fit(picture, ood_mask):
        rng = torch.Generator().manual_seed(0)
        shown = replace(context, rng=rng, preview=previews.__setitem__)
        inputs = replace(latent_inputs((w, camera, picture, foreground)), photo_ood_mask=ood_mask)
        return latent.run(inputs, config, shown)

    occluded, clean = fit(hand, mask), fit(image, mask)
    torch.testing.assert_close(occluded.pivot_w, clean.pivot_w)
    assert torch.equal(occluded.difference_mask, mask)
    assert occluded.out_of_distribution == pytest.approx(float((mask * foreground).sum() / foreground.sum()))
    assert torch.equal(previews["out_of_distribution"][..., 24:, 24:], image[..., 24:, 24:])
    assert not torch.equal(previews["out_of_distribution"][..., 12:18, 12:18], image[..., 12:18, 12:18])
    found = fit(hand, None)
    assert (found.difference_mask * mask).sum() > 20 and found.out_of_distribution > 0
    assert not fit(hand, 0 * mask).difference_mask.any(), "a black mask says that all of it is a head"
    for wrong, message in ((mask[..., :30], "30×32 pixels; make it 32×32"), (mask * 0 + 1, "covers the whole picture")):
        with pytest.raises(InputError, match=message):
            fit(hand, wrong)


@pytest.fixture(scope="module")
def pivot(tiny_generator) -> Pivot:
    w = tiny_generator.mean_w(64)
    return w, {name: value.clone() for name, value in tiny_generator.noise_buffers().items()}


def coarse_inputs(target, pivot: Pivot):
    _, camera, image, foreground = target
    return coarse.CoarseInputs(image, foreground, 0 * foreground, *pivot, camera)


QUICK = coarse.CoarseConfig(steps=15, learning_rate=3e-3, views=5, rings=2, around=2, depth_resolution=24)


def test_pseudo_cameras_lie_on_ellipses_around_the_input(tiny_generator):
    camera = tiny_generator.spec.orbit(0.3, 0.1)
    config = coarse.CoarseConfig(views=40, rings=1, yaw=20, pitch_up=11, pitch_down=7.3, around=0)
    views = coarse.pseudo_cameras(tiny_generator.spec, camera, config)
    assert len(views) == 40
    yaw, pitch = views.yaw_pitch()
    assert yaw.max().item() == pytest.approx(0.3 + math.radians(20), abs=1e-3)
    assert yaw.min().item() == pytest.approx(0.3 - math.radians(20), abs=1e-2)
    assert math.degrees(pitch.max().item() - 0.1) == pytest.approx(11, abs=0.1)
    assert math.degrees(pitch.min().item() - 0.1) == pytest.approx(-7.3, abs=0.1)
    front = coarse.pseudo_cameras(tiny_generator.spec, camera, replace(config, centre="front"))
    assert abs(front.yaw_pitch()[0].mean().item()) < 1e-2
    around = coarse.pseudo_cameras(tiny_generator.spec, camera, replace(config, around=6))[40:]
    angles = around.angle_to(camera).rad2deg()
    assert len(around) == 6 and angles.min() > 20 and angles.max() > 130


def test_coarse_fits_the_input_and_leaves_the_original_generator_alone(context, target, pivot: Pivot, tiny_generator):
    before_weights = {k: v.clone() for k, v in tiny_generator.state_dict().items()}
    out = coarse.run(coarse_inputs(target, pivot), QUICK, context)
    start = render_views(tiny_generator, *pivot, target[1]).image
    assert (out.input_render - target[2]).square().mean() < 0.7 * (start - target[2]).square().mean()
    assert out.view_renders.shape == (7, 3, 32, 32) and out.view_depths.shape == (7, 1, 24, 24)
    assert len(out.pseudo_cameras) == 7
    for name, value in tiny_generator.state_dict().items():
        assert torch.equal(value, before_weights[name])
    tuned = copy.deepcopy(tiny_generator)
    tuned.load_tuned(out.coarse_state)
    torch.testing.assert_close(render_views(tuned, *pivot, target[1]).image, out.input_render)


def test_holding_keeps_the_geometry_of_other_views(context, target, pivot: Pivot, tiny_generator):
    config = replace(QUICK, steps=30)
    runs = {}
    for weight in (0.0, 20.0):
        fresh = replace(context, rng=torch.Generator().manual_seed(0))
        runs[weight] = coarse.run(coarse_inputs(target, pivot), replace(config, hold_weight=weight), fresh)
    reference = render_views(tiny_generator, *pivot, runs[0.0].pseudo_cameras, 24).alpha
    moved = {k: (v.view_alphas - reference).abs().mean().item() for k, v in runs.items()}
    assert moved[20.0] < 0.7 * moved[0.0]


def test_an_occluder_that_is_masked_does_not_bend_the_geometry(context, target, pivot: Pivot):
    w, camera, image, foreground = target
    mask = torch.zeros_like(foreground)
    mask[..., 8:22, 10:20] = 1
    hand = image * (1 - mask) + mask

    def depth(picture, difference):
        inputs = replace(coarse_inputs((w, camera, picture, foreground), pivot), difference_mask=difference)
        return coarse.run(inputs, QUICK, replace(context, rng=torch.Generator().manual_seed(0))).input_depth

    clean, masked, bent = depth(image, mask), depth(hand, mask), depth(hand, 0 * mask)
    torch.testing.assert_close(masked, clean)
    assert (bent - clean).abs().max() > 1e-3


def test_a_mirrored_border_pulls_at_nothing(context, target, pivot: Pivot):
    """What lies beyond the photo's border was made up: neither its colours nor its silhouette may count."""
    w, camera, image, foreground = target
    valid = torch.ones_like(foreground)
    valid[..., :12] = 0
    spoilt = image * valid - 0.7 * (1 - valid)
    filled = torch.maximum(foreground, 1 - valid)

    def fresh():
        return replace(context, rng=torch.Generator().manual_seed(0))

    def fit(picture, matte, known):
        inputs = replace(latent_inputs((w, camera, picture, matte)), valid=known)
        config = replace(FAST, steps=8, difference_from=0.5, difference_threshold=0.05)
        return latent.run(inputs, config, fresh())

    clean, masked, pulled = fit(image, foreground, valid), fit(spoilt, filled, valid), fit(spoilt, filled, None)
    torch.testing.assert_close(masked.pivot_w, clean.pivot_w)
    torch.testing.assert_close(masked.camera.labels(), clean.camera.labels())
    assert not masked.difference_mask[..., :12].any() and (pulled.pivot_w - clean.pivot_w).abs().max() > 1e-3

    def depth(picture, known):
        inputs = replace(coarse_inputs((w, camera, picture, foreground), pivot), valid=known)
        return coarse.run(inputs, QUICK, fresh()).input_depth

    torch.testing.assert_close(depth(spoilt, valid), depth(image, valid))
    assert (depth(spoilt, None) - depth(image, valid)).abs().max() > 1e-3


def test_an_uncertain_camera_may_go_further(context, target):
    """The photo asks for the true camera, the prior for the wrong one that was found; the latent is right already."""
    generator = copy.deepcopy(context.generator)
    generator.mean_w = lambda *_: target[0].clone()
    wrong = generator.spec.orbit(0.25 + math.radians(6), 0.1)
    config = replace(FAST, steps=40, learning_rate=0.02, camera_rate=5.0, w_noise=0.0, w_plus_from=2.0)
    turns = []
    for confidence in (1.0, 0.2):
        inputs = replace(latent_inputs(target, wrong), camera_confidence=confidence)
        out = latent.run(inputs, config, replace(context, generator=generator))
        turns.append(float(out.camera.angle_to(wrong)))
    assert turns[1] > 1.2 * turns[0] > 0


def test_coarse_stops_when_close_enough(context, target, pivot: Pivot):
    rows = []
    recording = replace(context, record=lambda **row: rows.append(row))
    coarse.run(coarse_inputs(target, pivot), replace(QUICK, stop_at=1e9), recording)
    assert len(rows) == 1


def test_tune_fits_input_and_pseudo_views(context, target, pivot: Pivot, tiny_generator):
    """Pseudo-views of another colour: tuning must bring both them and the input view closer."""
    views = coarse.pseudo_cameras(tiny_generator.spec, target[1], QUICK)
    seen = render_views(tiny_generator, *pivot, views, 24)
    wanted = (seen.image * 0.5 + 0.3).clamp(-1, 1)
    image = render_views(tiny_generator, *pivot, target[1], 24)
    inputs = tune.TuneInputs(
        original=(image.image * 0.5 + 0.3).clamp(-1, 1),
        foreground=target[3],
        camera=target[1],
        pivot_w=pivot[0],
        noise=pivot[1],
        pseudo_cameras=views,
        pseudo_views=wanted,
        blend_masks=torch.ones(len(views), 1, 32, 32),
        view_alphas=seen.alpha,
        view_depths=seen.depth,
        input_depth=image.depth,
        input_alpha=image.alpha,
        confidences=torch.ones(len(views)),
    )
    config = tune.TuneConfig(steps=25, learning_rate=3e-3, views_per_step=2)
    out = tune.run(inputs, config, context)
    tuned = copy.deepcopy(tiny_generator)
    tuned.load_tuned(out.unedited_state)
    after = render_views(tuned, *pivot, views, 24)
    assert (after.image - wanted).square().mean() < 0.3 * (seen.image - wanted).square().mean()
    assert (after.alpha - seen.alpha).abs().mean() < 0.05
    # a view without confidence asks for nothing
    blind = tune.run(
        replace(inputs, confidences=torch.zeros(len(views)), pseudo_views=-wanted),
        replace(config, hold_weight=0.0),
        context,
    )
    sighted = copy.deepcopy(tiny_generator)
    sighted.load_tuned(blind.unedited_state)
    assert (render_views(sighted, *pivot, target[1]).image - inputs.original).square().mean() < 0.02
