"""The losses of every fitting stage alone: nothing to ask for costs nothing, and each weight moves its own term."""

from dataclasses import replace

import pytest
import torch

from pmv.fitting.losses import masked_l2
from pmv.generators.base import Render
from pmv.geometry.camera import Camera
from pmv.stages.coarse import CoarseConfig, coarse_losses
from pmv.stages.latent import Guess, LatentConfig, LatentTarget, latent_losses
from pmv.stages.retune import RetuneConfig, RetuneTargets, retune_losses
from pmv.stages.tune import TuneConfig, TuneTargets, tune_losses

SIZE, RAYS = 16, 8
ONES = torch.ones(1, 1, SIZE, SIZE)


def seen(views: int, seed: int = 0) -> Render:
    draw = torch.Generator().manual_seed(seed)
    image = torch.rand(views, 3, SIZE, SIZE, generator=draw) * 2 - 1
    alpha = torch.rand(views, 1, RAYS, RAYS, generator=draw)
    alpha[..., 2:6, 2:6] = 1.0
    return Render(image, image, 2.5 + 0.1 * torch.rand(views, 1, RAYS, RAYS, generator=draw), alpha)


def values(losses: dict[str, torch.Tensor]) -> dict[str, float]:
    assert all(term.ndim == 0 for term in losses.values())
    return {name: term.item() for name, term in losses.items()}


def tune_asked(out: Render) -> TuneTargets:
    count = len(out.image)
    cameras = Camera.orbit(torch.linspace(0, 0.5, count), 0.0)
    weights, trust = ONES.expand(count, -1, -1, -1), torch.linspace(1, 0.5, count)
    return TuneTargets(cameras, out.image, weights, trust, out.depth, out.alpha, out.alpha)


def test_tune_asks_for_nothing_where_all_is_met_and_each_weight_is_its_own():
    out, config = seen(3), TuneConfig()
    assert values(tune_losses(out, tune_asked(out), None, config, masked_l2)) == dict.fromkeys(
        ("l2", "perceptual", "views", "hold"), 0.0
    )
    other = seen(3, 1)
    before = values(tune_losses(other, tune_asked(out), None, config, masked_l2))
    for key, terms in {"view_weight": {"views"}, "hold_weight": {"hold"}}.items():
        after = values(tune_losses(other, tune_asked(out), None, replace(config, **{key: 2.0}), masked_l2))
        assert after == pytest.approx({name: value * (1 + (name in terms)) for name, value in before.items()})
    assert "hold" not in tune_losses(other, tune_asked(out), None, replace(config, hold_weight=0.0), masked_l2)
    alone = torch.zeros(1, dtype=torch.long)
    first = Render(*(getattr(other, name)[:1] for name in ("image", "raw", "depth", "alpha")))
    assert "views" not in tune_losses(first, tune_asked(out)[alone], None, config, masked_l2)


def test_tune_trusts_views_by_their_confidence_and_leaves_out_the_mirrored_border():
    out, config = seen(2), TuneConfig(hold_weight=0.0)
    asked = tune_asked(seen(2, 1))
    whole = values(tune_losses(out, asked, None, config, masked_l2))
    half = values(tune_losses(out, replace(asked, confidences=asked.confidences / 2), None, config, masked_l2))
    assert half == pytest.approx({**whole, "views": whole["views"] / 2})
    valid = ONES.clone()
    valid[..., :5] = 0
    spoilt = replace(asked, pictures=asked.pictures * torch.cat([valid, ONES]), weights=torch.cat([valid, ONES]))
    asked = replace(asked, weights=spoilt.weights)
    assert values(tune_losses(out, spoilt, valid, config, masked_l2)) == values(
        tune_losses(out, asked, valid, config, masked_l2)
    )


def test_coarse_holds_the_second_view_only():
    out, config = seen(2), CoarseConfig()
    held = out.depth[1:], out.alpha[1:]
    assert values(coarse_losses(out, out.image[:1], ONES, held, config, masked_l2)) == dict.fromkeys(
        ("l2", "perceptual", "hold"), 0.0
    )
    assert values(coarse_losses(out, out.image[:1], ONES, (held[0] + 1, held[1]), config, masked_l2))["hold"] > 1
    assert set(coarse_losses(out, out.image[:1], ONES, None, config, masked_l2)) == {"l2", "perceptual"}


def test_retune_asks_for_the_edit_here_and_for_the_rest_there():
    out = seen(2)
    edits = torch.zeros(2, 1, SIZE, SIZE)
    edits[0, :, 4:8, 4:8] = 1
    show = torch.tensor([True, False])
    asked = RetuneTargets(
        Camera.orbit(torch.zeros(2), 0.0), out.image, edits, 1 - edits, show, torch.ones(2), out.depth, out.alpha
    )
    config = RetuneConfig(perceptual_weight=0.0)
    assert set(values(retune_losses(out, asked, config, masked_l2)).values()) == {0.0}
    painted = replace(asked, targets=asked.targets + 0.5 * edits)
    moved = values(retune_losses(out, painted, config, masked_l2))
    assert moved["edit"] > 0 and moved["rest"] == 0
    changed = values(retune_losses(out, replace(asked, targets=asked.targets + 0.5 * (1 - edits)), config, masked_l2))
    assert changed["edit"] == 0 and changed["rest"] > 0


def test_latent_prior_of_the_camera_widens_with_doubt_and_hidden_pixels_count_nothing():
    out, config = seen(1), LatentConfig()
    target = LatentTarget(out.image, ONES, ONES, ONES, 1.0)
    guess = Guess(torch.randn(1, 4, 8), {"a": torch.randn(8, 8)}, torch.tensor([0.1, 0.0, 0.0]), torch.zeros(3))

    def terms(target: LatentTarget, config: LatentConfig = config) -> dict[str, float]:
        return values(latent_losses(out, guess, target, config, masked_l2))

    sure = terms(target)
    assert set(sure) == {"l2", "perceptual", "w_distance", "alpha", "camera"} and sure["l2"] == 0
    assert terms(replace(target, reach=2.0))["camera"] == pytest.approx(sure["camera"] / 4)
    assert terms(replace(target, spread=2.0))["w_distance"] == pytest.approx(sure["w_distance"] / 4)
    assert "alpha" not in terms(replace(target, silhouette=None))
    assert "noise" in terms(target, replace(config, optimise_noise=True))
    assert "camera" not in terms(target, replace(config, camera_rate=0.0))
    hidden = torch.zeros_like(ONES)
    hidden[..., 4:8] = 1
    other = replace(target, image=out.image + hidden, keep=1 - hidden)
    assert terms(other)["l2"] == 0 and terms(replace(other, keep=ONES))["l2"] > 0
