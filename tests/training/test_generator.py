"""The trainer on balls that are drawn by formula, and one real head where MakeHuman's data is there."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from pmv.errors import InputError
from pmv.generators import load_generator
from pmv.geometry.camera import Camera
from pmv.training.batches import HeadStore
from pmv.training.data import (
    DEPTH_ORIGIN,
    EVALUATION_VIEWS,
    HELD_OUT,
    HELD_OUT_SEED,
    HeadPack,
    PackLayout,
    RenderPool,
    half_depth,
    training_cameras,
    wait_for,
)
from pmv.training.discriminator import DualDiscriminator, feature_matching, r1_penalty
from pmv.training.evaluate import (
    evaluate,
    fit_front,
    held_out_sheet,
    interpolation_sheet,
    random_sheet,
    turntable_sheet,
)
from pmv.training.generator import export, shape_of
from pmv.training.objective import gradient_difference, gradient_share, learn
from pmv.training.trainer import LAZY, TrainConfig, Trainer

MAKEHUMAN = Path(__file__).resolve().parents[3] / "shared" / "makehuman"
CPU = torch.device("cpu")
RESOLUTION = 64
Z_DIM = 4
QUICK = TrainConfig(
    pictures=48,  # a step has 2 heads × 2 views until half of it, then × 1
    heads=2,
    views=1,
    random=0.5,
    warmup=8,
    judge_warmup=4,
    half_until=0.25,
    raw_until=0.5,
    adversarial_from=0.65,
    ema_half_life=200,
)


def draw_ball(camera: Camera, radius: float, colour: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """rgb uint8 [R,R,3], alpha [R,R], z-depth [R,R] (0 where empty) of a ball at the origin, exact."""
    origins, directions = camera.rays(RESOLUTION)
    a, b = directions.square().sum(-1), (origins * directions).sum(-1)
    root = b.square() - a * (origins.square().sum(-1) - radius**2)
    depth = torch.where(root > 0, (-b - root.clamp_min(0).sqrt()) / a, 0.0).reshape(RESOLUTION, RESOLUTION).numpy()
    rgb = np.broadcast_to(colour * 255, (RESOLUTION, RESOLUTION, 3)).astype(np.uint8)
    return rgb, (depth > 0).astype(np.float32), depth


def ball_pack(path: Path, heads: int, kind: str = "training", views: int = 4) -> HeadPack:
    """A pack of balls whose latent is their radius and colour."""
    first = HELD_OUT_SEED if kind == HELD_OUT else 0
    pack = HeadPack.create(path, PackLayout(heads, views, first, Z_DIM, RESOLUTION, kind=kind))
    for slot in range(heads):
        z = np.random.default_rng(slot).uniform(-1, 1, Z_DIM).astype(np.float32)
        cameras = Camera.from_labels(torch.from_numpy(np.array(pack.cameras[slot])))
        for view in range(views):
            rgb, alpha, depth = draw_ball(cameras[view], 0.22 + 0.05 * z[0], 0.5 + 0.4 * z[1:])
            pack.rgb[slot, view], pack.alpha[slot, view], pack.depth[slot, view] = rgb, alpha * 255, half_depth(depth)
        pack.z[slot] = z
        pack.ready[slot] = 1
    return pack


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> HeadStore:
    store = HeadStore(ball_pack(tmp_path_factory.mktemp("pack") / "balls", 2), CPU)
    store.refresh()
    return store


@pytest.fixture(scope="module")
def held_out(tmp_path_factory) -> HeadStore:
    path = tmp_path_factory.mktemp("pack") / "held-out"
    store = HeadStore(ball_pack(path, 2, HELD_OUT, len(EVALUATION_VIEWS)), CPU)
    store.refresh()
    return store


def trainer(store: HeadStore, config: TrainConfig = QUICK) -> Trainer:
    return Trainer(config, shape_of("tiny", Z_DIM), store, CPU)


def test_training_lowers_the_loss_and_learns_shape_and_colour(store, held_out):
    config = TrainConfig(pictures=252, heads=2, views=1, warmup=20, half_until=0.1, raw_until=0.88, adversarial_from=1)
    config = TrainConfig(**{**config.__dict__, "ema_half_life": 18.0, "learning_rate": 5e-3})
    run = trainer(store, config)
    before = evaluate(run.average, held_out)
    losses = []
    while run.progress < 1:
        losses.append({k: float(v) for k, v in run.step().items()})
    assert losses[-1]["raw"] < 0.5 * losses[0]["raw"]
    assert losses[-1]["image"] < losses[56]["image"]  # 56 = the first step with super-resolution
    after = evaluate(run.average, held_out)  # the held-out balls here are the same two, from other cameras
    assert after["iou"] > 0.75 > before["iou"]
    assert after["psnr"] > before["psnr"] + 3
    assert after["depth_error"] < 0.1


def test_latents_fitted_to_the_front_draw_it(store, held_out, tmp_path):
    config = TrainConfig(pictures=360, heads=2, views=2, warmup=40, half_until=0.0, raw_until=0.67, adversarial_from=1)
    run = trainer(store, TrainConfig(**{**config.__dict__, "ema_half_life": 30.0, "learning_rate": 5e-3}))
    while run.progress < 1:
        run.step()
    start = run.average.mean_w().expand(2, -1, -1)
    fitted = fit_front(run.average, held_out, 2, 60)
    before, after = (evaluate(run.average, held_out, 2, w) for w in (start, fitted))
    assert after["psnr_front"] > before["psnr_front"] + 1
    alone = fit_front(run.average, held_out, 2, 20, together=1)
    torch.testing.assert_close(alone, fit_front(run.average, held_out, 2, 20), atol=2e-3, rtol=0)
    sheet = held_out_sheet(run.average, held_out, 2, fitted)
    assert sheet.shape == held_out_sheet(run.average, held_out, 2).shape


def test_a_tri_grid_trains(store):
    config = TrainConfig(
        pictures=88, heads=2, views=1, warmup=16, raw_until=0.9, adversarial_from=1, learning_rate=5e-3
    )
    run = Trainer(config, shape_of("tiny", Z_DIM, grid_depth=3), store, CPU)
    losses = [float(run.step()["raw"]) for _ in range(24)]
    assert run.average.config.plane_shape == (3, 8, 3, 32, 32)
    assert losses[-1] < 0.8 * losses[0]


def to_the_end(run: Trainer) -> list[str]:
    """The phases that it went through."""
    phases = []
    while run.progress < 1:
        phases.append(run.phase)
        run.step()
    return list(dict.fromkeys(phases))


def test_resumed_run_equals_an_uninterrupted_one(store, tmp_path):
    whole = trainer(store)
    assert to_the_end(whole) == ["half", "raw", "full", "adversarial"]
    first = trainer(store)
    for _ in range(14):  # stops inside the adversarial phase
        first.step()
    assert first.phase == "adversarial" and first.judge_steps > 0
    first.save(tmp_path / "state.pt")
    second = trainer(store, TrainConfig(**{**QUICK.__dict__}))
    second.load(tmp_path / "state.pt")
    to_the_end(second)
    assert second.step_count == whole.step_count
    for module in ("generator", "average", "judge"):
        for (name, a), b in zip(
            getattr(whole, module).state_dict().items(), getattr(second, module).state_dict().values()
        ):
            assert torch.equal(a, b), f"{module} {name}"


def test_export_loads_and_draws_the_same(store, held_out, tmp_path):
    run = trainer(store)
    run.step()
    export(run, tmp_path, {"evaluation": {"psnr": 1.0}})
    loaded = load_generator(tmp_path / "heads.safetensors")
    assert loaded.config == run.average.config
    z = store.batch(torch.tensor([0, 1]), torch.tensor([[0], [1]])).z
    camera = loaded.spec.orbit(torch.tensor([0.3, -1.0]), 0.1)
    drawn = []
    for generator in (run.average, loaded):
        w = generator.map(z, camera)
        drawn.append(generator.render(generator.planes(w), w, camera).image)
    assert (drawn[0] - drawn[1]).abs().max() < 2e-2  # stored as float16
    torch.testing.assert_close(loaded.backbone.mapping.w_avg, loaded.mean_w()[0, 0], atol=2e-3, rtol=2e-3)
    assert held_out_sheet(loaded, held_out, 1).ndim == 3
    assert random_sheet(loaded, 2).dtype == np.uint8
    turns, mixtures = turntable_sheet(loaded, 1, 4), interpolation_sheet(loaded, 1, 4)
    assert turns.shape == mixtures.shape
    assert np.array_equal(turns, turntable_sheet(loaded, 1, 4)) and not np.array_equal(turns, mixtures)


def test_average_follows_slowly_and_the_cameras_embedding_stays(store):
    run = trainer(store, TrainConfig(**{**QUICK.__dict__, "ema_half_life": 1e9}))
    start = {name: p.clone() for name, p in run.generator.named_parameters()}
    for _ in range(3):
        run.step()
    for name, p in run.generator.named_parameters():
        moved = (p - start[name]).abs().max()
        if name.startswith("backbone.mapping.embed"):
            assert moved == 0
    moved = (run.generator.decoder.net[0].weight - start["decoder.net.0.weight"]).abs().max()
    assert 0 < (run.average.decoder.net[0].weight - start["decoder.net.0.weight"]).abs().max() < moved


def test_store_takes_in_heads_as_they_become_ready(tmp_path):
    pack = ball_pack(tmp_path / "pack", 3)
    pack.ready[:] = (0, 0, 1)
    store = HeadStore(pack, CPU)
    assert store.refresh() == 1 and store.slots.tolist() == [2]
    pack.ready[:] = 1
    assert store.refresh(limit=1) == 1 and store.refresh() == 1 and store.refresh() == 0
    assert store.slots.tolist() == [2, 0, 1]
    batch = store.sample(4, 2, torch.Generator().manual_seed(0))  # more heads than there are: repeats
    assert batch.image.shape == (8, 3, RESOLUTION, RESOLUTION) and len(batch.cameras) == 8
    assert batch.image[(batch.alpha == 0).expand_as(batch.image)].abs().max() == 0  # mid grey around the subject


def test_batch_geometry_is_the_balls(store):
    batch = store.batch(torch.tensor([1]), torch.tensor([[0, 1, 2]]))
    radius = 0.22 + 0.05 * float(batch.z[0, 0])
    image, alpha, depth = batch.raw(16)
    assert image.shape == (3, 3, 16, 16) and alpha.shape == depth.shape == (3, 1, 16, 16)
    points = batch.cameras.unproject(batch.depth)
    distance = points[~batch.depth[:, 0].isnan()].norm(dim=-1)
    assert distance.numel() > 100
    assert (distance - radius).abs().max() < 0.02  # a cell's mean depth lies a little inside
    half = half_depth(np.array([[2.7, 2.7], [2.7, 0.0]]))
    assert half.shape == (1, 1) and math.isinf(half[0, 0])
    assert half_depth(np.full((2, 2), 2.9))[0, 0] == np.float16(2.9 - DEPTH_ORIGIN)


def test_training_cameras_are_repeatable_and_mostly_in_front():
    assert np.array_equal(training_cameras(5, 12), training_cameras(5, 12))
    cameras = Camera.from_labels(torch.from_numpy(np.concatenate([training_cameras(s, 12) for s in range(100)])))
    yaw, pitch = cameras.yaw_pitch((0.0, 0.0, 0.0))
    in_front = (yaw.abs() < math.radians(63)).float().mean()
    assert 0.6 < in_front < 0.85
    assert (yaw.abs() > math.radians(150)).float().mean() > 0.04
    assert pitch.min() < math.radians(-20) and pitch.max() > math.radians(40)
    focal = cameras.intrinsics[:, 0, 0]
    assert focal.min() < 3.5 and focal.max() > 6


def test_packs_refuse_what_is_not_theirs(tmp_path):
    with pytest.raises(InputError, match="is no pack of heads"):
        HeadPack(tmp_path)
    HeadPack.create(tmp_path / "a", PackLayout(2, 1, 0, Z_DIM, 8))
    with pytest.raises(InputError, match="another set of heads"):
        HeadPack.create(tmp_path / "a", PackLayout(3, 1, 0, Z_DIM, 8))


def test_failing_renderers_end_the_wait_with_their_message(tmp_path, monkeypatch):
    pack = HeadPack.create(tmp_path / "a", PackLayout(2, 1, 0, Z_DIM, 8))
    monkeypatch.setattr(RenderPool, "RESTARTS", 0)
    pool = RenderPool(pack, tmp_path / "missing", 1)
    with pytest.raises(InputError, match="0 of 2 heads"):
        wait_for(pack, 2, pool)
    pool.stop()


@pytest.mark.skipif(not MAKEHUMAN.is_dir(), reason="needs ../shared/makehuman")
def test_one_real_head_lands_in_a_pack(tmp_path):
    pytest.importorskip("moderngl")
    from pmv.training.data import head_vector

    layout = PackLayout(1, 2, 7, len(head_vector(7, 0.0)), 64, supersample=1)
    pack = HeadPack.create(tmp_path / "heads", layout)
    pool = RenderPool(pack, MAKEHUMAN, 1)
    try:
        wait_for(pack, 1, pool)
    finally:
        pool.stop()
    np.testing.assert_array_equal(pack.z[0], head_vector(7, 0.0))
    assert (pack.alpha[0] > 128).mean() > 0.1
    seen = pack.depth[0][np.isfinite(pack.depth[0])] + DEPTH_ORIGIN
    assert 1.8 < seen.min() < seen.max() < 3.4


def test_discriminator_sees_both_resolutions_and_its_penalties_are_finite():
    torch.manual_seed(0)
    judge = DualDiscriminator(32, base=256, maximum=16)
    image, raw, alpha = torch.randn(3, 3, 32, 32), torch.randn(3, 3, 8, 8), torch.rand(3, 1, 8, 8)
    pair, labels = DualDiscriminator.pair(image, raw, alpha), Camera.orbit(torch.tensor([0.0, 1.0, 3.0]), 0.2).labels()
    logits, features = judge(pair, labels)
    assert pair.shape == (3, 7, 32, 32) and logits.shape == (3, 1) and len(features) == 3
    assert not torch.equal(judge(DualDiscriminator.pair(image, raw + 1, alpha), labels)[0], logits)
    assert feature_matching(features, features) == 0
    penalty = r1_penalty(judge, pair, labels)
    penalty.backward()
    assert penalty > 0 and all(p.grad is not None for n, p in judge.named_parameters() if n == "entry.weight")


def test_gradient_difference_ignores_brightness_and_sees_blur():
    torch.manual_seed(0)
    image = torch.rand(1, 3, 16, 16)
    assert gradient_difference(image, image + 0.3) == pytest.approx(0, abs=1e-5)
    blurred = torch.nn.functional.avg_pool2d(image, 3, 1, 1)
    assert gradient_difference(image, blurred) > 0.1


def test_gradient_share_balances_norms():
    image = torch.randn(2, 3, 4, 4, requires_grad=True)
    reference, term = (3 * image).sum(), (0.5 * image).square().sum()
    for known in (None, 1):
        factor = gradient_share(reference, term, image, known)
        (a,) = torch.autograd.grad(reference, image, retain_graph=True)
        (b,) = torch.autograd.grad(factor * term, image, retain_graph=True)
        torch.testing.assert_close(a[:known].norm(), b[:known].norm())


def test_a_step_is_one_graph_for_a_compiler_and_gives_the_same(store):
    """With the compiler's front alone: what it makes of the graph takes minutes, and is its own business."""
    run = trainer(store)
    batch = store.sample(2, 1, torch.Generator().manual_seed(0))
    shape = run.generator.config
    draws = torch.rand(2, 256, shape.coarse_samples), torch.rand(2 * 256, shape.fine_samples)
    arguments = (run.generator, batch, run.condition, 16, draws, True, False, 8, 2)
    _, plain, loss = learn(*arguments)
    _, traced, total = torch.compile(learn, backend="eager", fullgraph=True, dynamic=False)(*arguments)
    for name, value in plain.items():
        torch.testing.assert_close(traced[name], value)
    weight = run.generator.decoder.net[-1].weight
    (wanted,), (got,) = (torch.autograd.grad(x, weight) for x in (loss, total))
    torch.testing.assert_close(got, wanted)


def test_steps_of_the_heaviest_samples_learn_in_every_phase(store):
    config = TrainConfig(**{**vars(QUICK), "keep": 8, "random": 0.0, "pictures": 96, "learning_rate": 5e-3})
    run = trainer(store, config)
    batch = store.batch(torch.tensor([0, 1]), torch.zeros(2, 1, dtype=torch.long))

    def error() -> dict[str, float]:
        jitter = torch.full((2, 256, 12), 0.5), torch.full((2 * 256, 12), 0.5)
        with torch.no_grad():
            losses = learn(run.generator, batch, run.condition, 16, jitter, True, False, 8, 2)[1]
        return {name: float(value) for name, value in losses.items()}

    first = error()
    assert to_the_end(run) == ["half", "raw", "full", "adversarial"] and run.judge_steps > 0
    last = error()
    assert last["raw"] < 0.9 * first["raw"] and last["image"] < 0.9 * first["image"]


def test_a_compiled_run_goes_on_between_two_looks_at_the_shares(store, monkeypatch):
    """The first backward pass through the compiled judge must leave its graph for later looks (PyTorch's donated
    buffers)."""
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **o: f if f is learn else compiled(f, backend="aot_eager", **o))
    changes = {"keep": 8, "compiled": True, "adversarial_from": 0.0, "half_until": 0.0, "raw_until": 0.0}
    run = trainer(store, TrainConfig(**{**vars(QUICK), **changes}))
    run.judge_steps = LAZY - 2  # as a checkpoint may leave it
    run.judge_pictures = int(run.config.judge_warmup)
    run.shares = torch.ones(2)
    for _ in range(3):
        run.step()
    assert run.judge_steps == LAZY + 1 and not torch.equal(run.shares, torch.ones(2))


def test_compiling_wants_shapes_that_stay(store):
    with pytest.raises(InputError, match="--keep"):
        trainer(store, TrainConfig(**{**vars(QUICK), "compiled": True}))
