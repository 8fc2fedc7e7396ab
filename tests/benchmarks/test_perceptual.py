"""The benchmark of perceptual distances: what its figures mean."""

import click
import pytest
import torch

from benchmarks.perceptual import ANGLES, METRICS, RANDOM, Fit, Loss, balance, measure, summary, table
from pmv.fitting.losses import masked_l2, masked_mean
from pmv.geometry.camera import Camera
from pmv.training.batches import Batch


def truth(size: int = 32) -> Batch:
    """Discs of noise at z-depth 2.7."""
    views = len(ANGLES)
    generator = torch.Generator().manual_seed(0)
    line = torch.linspace(-1, 1, size)
    alpha = ((line[:, None] ** 2 + line**2) < 0.5).float().expand(views, 1, size, size)
    image = (torch.rand(views, 3, size, size, generator=generator) - 0.5) * alpha
    depth = torch.where(alpha[..., ::2, ::2] > 0, 2.7, torch.nan)
    return Batch(torch.zeros(1, 4), Camera.orbit(torch.zeros(views), 0.0), image, alpha, depth)


def test_the_truth_itself_is_perfect_and_each_metric_sees_its_own_error():
    batch = truth()
    alpha, depth = batch.alpha[..., ::2, ::2], batch.depth.nan_to_num(0.0)
    perfect = measure(batch.image, alpha, depth, batch)
    assert all(len(values) == len(ANGLES) for values in perfect.values()) and perfect.keys() == METRICS.keys()
    assert min(perfect["psnr"]) == 100 and min(perfect["ssim"]) > 0.999
    assert max(perfect["edges"]) == 0 and max(perfect["depth"]) == 0 and min(perfect["iou"]) > 0.85
    deeper = measure(batch.image, alpha, depth + 0.004, batch)
    assert deeper["depth"] == pytest.approx([4.0] * len(ANGLES), rel=1e-3) and deeper["psnr"] == perfect["psnr"]
    smaller = measure(batch.image, alpha * (torch.arange(16) < 8), depth, batch)
    assert smaller["iou"][0] == pytest.approx(0.5, abs=0.1)
    brighter = measure(batch.image + 0.2, alpha, depth, batch)
    assert brighter["psnr"] == pytest.approx([20.0] * len(ANGLES), abs=1e-3)
    assert max(brighter["edges"]) < 1e-5


def test_balanced_weight_gives_gradients_of_equal_norm():
    def distance(a, b):
        return 5 * masked_l2(a, b) + 0 * masked_mean(a)

    truths = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    w = torch.tensor([0.3], requires_grad=True)
    image = w * torch.ones(1, 3, 16, 16)
    assert balance(distance, w, image, truths) == pytest.approx(0.2, rel=1e-4)  # type: ignore[arg-type]


def test_summary_counts_gains_in_the_right_direction():
    def row(**values):
        return {"views": {name: [values.get(name, 1.0)] * len(ANGLES) for name in METRICS}, "seconds": 1.0}

    better = [row(psnr=3.0, depth=0.5), row(psnr=2.0, depth=0.9)]
    results = {"l2": [row(), row()], "random": [row(), row()], "heads": better}
    result = summary(results)
    assert result["means"]["heads"]["±60°"]["psnr"] == 2.5 and result["means"]["l2"]["front"]["depth"] == 1.0
    assert result["against"].keys() == {"heads"}
    against = result["against"]["heads"]
    gain, error, wins = against["l2"]["psnr"]
    assert (gain, wins) == (1.5, 2) and error == pytest.approx(0.5)
    assert against["random"]["depth"][0] == pytest.approx(0.3)
    assert against["random"]["ssim"] == [0.0, 0.0, 0]
    assert "| gain of heads on l2 | novel | +1.500 ± 0.500 (2/2)" in table(result, 2)


def test_a_fits_name_depends_on_what_it_does_and_not_on_where_files_lie(tmp_path):
    fit = Fit("heads", "", "a", 0, 0.0, 2.0, 10, 0.03, 0)
    assert fit.key() == Fit("heads", "", "b", 0, 0.0, 2.0, 10, 0.03, 0).key()
    assert fit.key() != Fit("heads", "", "a", 0, 0.0, 2.0, 11, 0.03, 0).key()
    assert fit.key() != Fit("heads", "efficientnet", "a", 0, 0.0, 2.0, 10, 0.03, 0).key()
    names = []
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        weights = tmp_path / folder / "w.safetensors"
        weights.write_bytes(b"same")
        names.append(Fit("heads", str(weights), "a", 0, 1.0, 1.0, 10, 0.03, 0).key())
    assert names[0] == names[1]


def test_losses_are_named_with_their_share():
    assert Loss.parse("l2") == Loss("l2", "", 1.0)
    assert Loss.parse("random:0.5") == Loss("random × 0.5", RANDOM, 0.5)
    assert Loss.parse("efficientnet") == Loss("efficientnet", "efficientnet", 1.0)
    for wrong in ("nothing", "random:none", "random:-1", "missing.safetensors"):
        with pytest.raises(click.BadParameter, match=wrong):
            Loss.parse(wrong)
