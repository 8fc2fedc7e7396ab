"""The perceptual network's training, on balls drawn by formula."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pmv.errors import InputError
from pmv.files.artifacts import file_hash
from pmv.fitting.heads_features import load_heads_features
from pmv.training.augment import Augment, surface
from pmv.training.batches import Batch, HeadStore
from pmv.training.data import DEPTH_ORIGIN, HELD_OUT, HELD_OUT_SEED, HeadPack, PackLayout
from pmv.training.perceptual import FirstHeads, PerceptualConfig, Trainer, calibrate, explained_variance, main
from tests.training.balls import draw_balls

CPU = torch.device("cpu")
RESOLUTION = 64
ROOT = Path(__file__).resolve().parents[2]
QUICK = PerceptualConfig(steps=40, batch=4, size="tiny", learning_rate=4e-3)


def ball_pack(path: Path, heads: int, kind: str = "training", views: int = 6) -> HeadPack:
    """See `draw_balls`."""
    first = HELD_OUT_SEED if kind == HELD_OUT else 0
    return draw_balls(HeadPack.create(path, PackLayout(heads, views, first, 4, RESOLUTION, kind=kind)))


@pytest.fixture(scope="module")
def packs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("packs")
    ball_pack(folder / "training", 8)
    ball_pack(folder / "held-out", 3, HELD_OUT)
    return folder


def trainer(packs: Path, config: PerceptualConfig = QUICK) -> Trainer:
    store = HeadStore(HeadPack(packs / "training"), CPU)
    store.refresh()
    return Trainer(config, store, CPU)


def test_learns_and_leaves_frozen_weights_with_their_hash(packs, tmp_path):
    command = ["--packs", str(packs), "--out", str(tmp_path), "--device", "cpu", "--size", "tiny", "--steps", "40"]
    main([*command, "--batch", "4", "--start-heads", "8", "--learning-rate", "0.004", "--log-seconds", "0"])
    rows = [line.split(",") for line in (tmp_path / "log.csv").read_text().splitlines()]
    total = [float(value) for _, name, value in rows if name == "total"]
    assert np.mean(total[-5:]) < 0.8 * np.mean(total[:5])
    notes = json.loads((tmp_path / "heads.json").read_text())
    assert notes["trained"]["steps"] == 40 and notes["held_out"]["heads"] == 3
    assert 0 < notes["held_out"]["normal_error_degrees"] < 60
    assert notes["sha256"] == file_hash(tmp_path / "heads.safetensors")
    network = load_heads_features(tmp_path / "heads.safetensors")
    assert network.shape.channels == tuple(notes["channels"])
    assert not any(p.requires_grad for p in network.parameters())


def test_an_entry_that_hardly_varies_does_not_spoil_what_is_explained():
    true = torch.linspace(-1, 1, 8)[:, None] * torch.tensor([1.0, 1.0, 1e-5])
    guess = true * torch.tensor([1.0, 0.5, 1.0]) + torch.tensor([0.0, 0.0, 0.1])
    explained, best = explained_variance(true, guess)
    assert 0.8 < explained < 0.875  # the second entry is explained to three quarters, the third is a little off
    assert best == pytest.approx(1)
    assert explained_variance(true[:1], guess[:1]) == (0.0, 0.0)


def test_resumed_run_equals_an_uninterrupted_one(packs, tmp_path):
    whole = trainer(packs)
    for _ in range(8):
        whole.step()
    first = trainer(packs)
    for _ in range(5):
        first.step()
    first.save(tmp_path / "state.pt")
    second = trainer(packs)
    second.load(tmp_path / "state.pt")
    for _ in range(3):
        second.step()
    assert second.step_count == 8 and second.progress == pytest.approx(0.2)
    for (name, a), b in zip(whole.learner.state_dict().items(), second.learner.state_dict().values()):
        assert torch.equal(a, b), name
    with pytest.raises(InputError, match="another network"):
        trainer(packs, PerceptualConfig(steps=40, batch=4)).load(tmp_path / "state.pt")


def test_folded_network_gives_the_learners_features(packs):
    run = trainer(packs)
    for _ in range(3):
        run.step()
    image = run.store.sample(2, 1, torch.Generator().manual_seed(3)).image
    learner, network = run.learner.eval(), run.learner.fold()
    for after, unit in zip(learner.features(image), network.features(image)):
        before = torch.where(after > 0, after, after / 0.1)
        expected = before / (before.square().mean(1, keepdim=True) + 0.01).sqrt() / before.shape[1] ** 0.5
        torch.testing.assert_close(unit, expected, atol=1e-4, rtol=1e-3)


def test_calibrated_levels_contribute_alike(packs):
    run = trainer(packs)
    for _ in range(3):
        run.step()
    network = run.learner.fold()
    distances = calibrate(network, run.store)
    weights = network.level_weights.double()
    other, near = (torch.tensor(distances[name], dtype=torch.float64) for name in ("other heads", "near"))
    share = weights * (other * near).sqrt()
    torch.testing.assert_close(share, share.mean().expand_as(share), rtol=1e-4, atol=0.0)
    assert float((weights * other).sum()) == pytest.approx(0.5, rel=1e-4)


def test_surface_of_a_ball_is_exact_and_turns_with_the_picture(packs):
    pack = HeadPack(packs / "training")
    store = HeadStore(pack, CPU)
    store.refresh()
    batch = store.batch(torch.tensor([0]), torch.arange(6)[None])
    position, normal, known = surface(batch)
    inside = known[:, 0] > 0
    radius = 0.22 + 0.05 * float(batch.z[0, 0])
    assert inside.sum() > 300
    assert (position.norm(dim=1)[inside] - radius).abs().max() < 0.02
    axes = batch.cameras.cam2world[:, :3, :3].transpose(1, 2)
    exact = torch.einsum("nij,njhw->nihw", axes, position) / radius
    assert ((exact * normal).sum(1)[inside]).mean() > 0.99
    # a camera that is rolled sees what the turned picture shows: turn by the augmentation and compare with the ball
    sample = Augment(torch.Generator().manual_seed(1))(
        Batch(batch.z.expand(6, -1), batch.cameras, batch.image, batch.alpha, batch.depth)
    )
    inside = sample.known[:, 0] > 0
    assert inside.sum() > 300
    assert (sample.position.norm(dim=1)[inside] - radius).abs().max() < 0.03
    # on a ball the normal's part in the picture plane points away from the silhouette's centre
    v, u = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    for i in range(6):
        shown = inside[i]
        full = sample.alpha[i, 0]
        if shown.sum() < 40 or full[(0, -1), :].amax() > 0 or full[:, (0, -1)].amax() > 0:
            continue  # cut off: its centre is not the ball's
        away = torch.stack([u[shown] - u[shown].mean(), v[shown] - v[shown].mean()])
        assert torch.nn.functional.cosine_similarity(away, sample.normal[i, :2][:, shown], dim=0).mean() > 0.9
    assert sample.image.abs().max() <= 1 and torch.isfinite(sample.image).all()


def test_depths_of_the_pack_are_the_balls(packs):
    pack = HeadPack(packs / "training")
    assert np.isfinite(pack.depth[0]).any() and abs(float(np.nanmin(pack.depth[0])) + DEPTH_ORIGIN - 2.45) < 0.3


def test_first_heads_hides_the_rest(packs):
    store = HeadStore(FirstHeads(packs / "training", 3), CPU)
    assert store.refresh() == 3 and store.slots.tolist() == [0, 1, 2]


def test_needs_nothing_but_the_training_machines_packages():
    code = """
import sys
class Block:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("lpips", "kornia", "skimage", "trimesh", "torchvision", "yaml", "platformdirs"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
import pmv.training.perceptual
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": ""})
