"""The methods of the quality benchmark on a tiny generator and a ball whose surface is known; the door; resuming."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.quality import jobs as work
from benchmarks.quality.budget import BUDGETS, Budget
from benchmarks.quality.door import is_replaced, outputs_of, replace_outputs, stage_that_gives
from benchmarks.quality.jobs import CEILING, Job, run_job
from benchmarks.quality.methods import METHODS, Task, Unfit, share
from benchmarks.quality.methods.base import start
from benchmarks.quality.methods.oracles import blended, known_part
from benchmarks.quality.truth import Subject, Truth, is_written, write_subject
from benchmarks.quality.views import VIEWS, View, cameras_of
from pmv.errors import InputError
from pmv.generators import load_generator
from pmv.generators.native import save_generator
from pmv.geometry.camera import Camera
from pmv.pipeline.folder import RunFolder
from pmv.stages.table import TABLE
from tests.encoder_files import write_encoders

SIZE, RADIUS = 32, 0.22
SEEN_FROM = VIEWS[:5]
TINY = (
    "coarse.views=2",
    "coarse.rings=1",
    "coarse.around=1",
    "coarse.depth_resolution=16",
    "latent.mean_samples=8",
    "evaluate.frames=0",
)
BUDGET = Budget("quick", 2, 2, 2, settings=TINY, depth=16)


def ball(cameras: Camera, size: int) -> Tensor:
    """z-depth [V,1,size,size] of a ball at the origin, 0 beside it."""
    origins, directions = cameras.rays(size)
    a, b = (directions**2).sum(-1), (origins * directions).sum(-1)
    root = b**2 - a * ((origins**2).sum(-1) - RADIUS**2)
    depth = torch.where(root > 0, (-b - root.clamp_min(0).sqrt()) / a, torch.zeros_like(b))
    return depth.reshape(len(cameras), 1, size, size)


def colour(cameras: Camera, depth: Tensor) -> Tensor:
    points = cameras.unproject(torch.where(depth > 0, depth, torch.ones_like(depth)))
    return (0.9 * points / RADIUS).clamp(-1, 1).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    cameras = cameras_of(SEEN_FROM, 5, 0)
    depth = ball(cameras, 64)
    truth = Truth.of(colour(cameras, depth), (depth > 0).float(), depth, cameras, SIZE)
    folder = tmp_path_factory.mktemp("truth") / "ball"
    write_subject(folder, truth, Camera.orbit(0.05, 0.02), "key")
    assert is_written(folder, "key") and not is_written(folder, "other")
    return Subject("ball", "balls", folder, SEEN_FROM, ball)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tests.conftest import make_tiny_generator

    path = tmp_path_factory.mktemp("generator") / "ball.safetensors"
    save_generator(make_tiny_generator(), path)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


def job(subject: Subject, method: str, folder: Path, generator: str) -> Job:
    return Job(subject, method, BUDGET, 1.0, folder, "cpu", generator)


@pytest.fixture(scope="module")
def shared(subject: Subject, folder: Path, generator: str) -> Path:
    assert run_job(job(subject, "", folder, generator)) is None
    return folder


@pytest.mark.parametrize("method", ["W", "PTI", "pmv", "no-inpaint", "oracle-depth", "oracle-camera"])
def test_a_method_draws_all_views_and_is_judged(method, subject, shared, generator):
    one = job(subject, method, shared, generator)
    assert run_job(one) is None
    result = one.stored()
    assert result is not None
    assert result["steps"] == BUDGET.total
    assert result["views"].keys() == {view.name for view in SEEN_FROM}
    assert result["views"]["yaw+30"]["visible"]["psnr"] > 5 and 0 <= result["views"]["input"]["iou"] <= 1
    assert "psnr" in result["carried"]["yaw+15"]["visible"]
    assert work.pictures(one).shape == (len(SEEN_FROM), SIZE, SIZE, 3)
    # what is finished stays, and what depends on something else is not taken for it
    assert replace(one, budget=replace(BUDGET, tune=3)).stored() is None
    before = one.result.stat().st_mtime_ns
    work.run_all([one], 1, 1)
    assert one.result.stat().st_mtime_ns == before


def test_the_ceiling_is_near_the_truth(subject, folder, generator):
    one = job(subject, CEILING, folder, generator)
    assert run_job(one) is None
    result = one.stored()
    assert result is not None and result["views"]["yaw+15"]["visible"]["psnr"] > 25
    assert "occluded" not in result["views"]["yaw+30"]


def test_encoded_and_seeded_heads_are_judged_where_there_are_encoders(subject, shared, generator, tmp_path):
    for method in ("encode", "pmv+seed"):
        one = job(subject, method, shared, generator)
        assert run_job(one) is None
        assert "no encoders for this generator" in json.loads(one.result.read_text())["unfit"]
    encoders = write_encoders(tmp_path / "encoders.safetensors", load_generator(generator))
    for method, steps in (("encode", 0), ("encode-E2", 0), ("pmv+seed", BUDGET.total), ("seed-no-fill", BUDGET.total)):
        one = replace(job(subject, method, shared, generator), encoders=str(encoders))
        assert one.stored() is None, "the row without encoders is not taken for it"
        assert run_job(one) is None
        result = one.stored()
        assert result is not None and result["steps"] == steps
        assert result["views"].keys() == {view.name for view in SEEN_FROM}


def test_every_switch_of_the_seed_has_its_rows():
    switches = {"start", "surface", "coarse", "residual", "fill"}
    assert {name[8:] for name in METHODS if name.startswith("seed-no-")} == switches
    assert all(f"seed-{name}" in METHODS for name in switches)


def test_what_means_nothing_says_why(subject, shared, generator):
    with pytest.raises(Unfit, match="real head"):
        METHODS["oracle-latent"].run(subject, job(subject, "oracle-latent", shared, generator).task())
    one = job(subject, "oracle-latent", shared, generator)
    assert run_job(one) is None
    assert json.loads(one.result.read_text())["unfit"]


def test_a_failing_job_is_told_and_leaves_no_result(subject, tmp_path, generator):
    one = job(replace(subject, folder=tmp_path / "nothing"), "pmv", tmp_path, generator)
    assert "Error" in (run_job(one) or "") and not one.result.exists()


def test_the_door_replaces_what_comes_next_and_nothing_before(subject, shared, generator, tmp_path):
    task = replace(job(subject, "pmv", shared, generator).task(), folder=tmp_path / "run")
    start(subject, task, "visibility")
    run = RunFolder(task.folder, TABLE)
    assert stage_that_gives(run, "view_depths").name == "coarse"
    records = {name: run.record(TABLE[TABLE.find(name)]) for name in ("latent", "coarse", "visibility")}
    coarse = outputs_of(run, "coarse")
    replace_outputs(run, "coarse", {"view_depths": coarse.view_depths + 0.5})
    assert torch.equal(outputs_of(run, "coarse").view_depths, coarse.view_depths + 0.5)
    assert torch.equal(outputs_of(run, "coarse").view_alphas, coarse.view_alphas)
    assert (run / "03_coarse" / "views.png").exists() and is_replaced(run)
    assert run.record(TABLE[TABLE.find("coarse")])["replaced"] == ["view_depths"]  # type: ignore[index]
    start(subject, task, "visibility")
    after = {name: run.record(TABLE[TABLE.find(name)]) for name in records}
    assert after["latent"] == records["latent"]
    assert after["coarse"]["losses"] == records["coarse"]["losses"]  # it did not run again …
    assert after["visibility"]["outputs"] != records["visibility"]["outputs"]  # … and what follows saw the difference
    assert torch.equal(outputs_of(run, "coarse").view_depths, coarse.view_depths + 0.5)
    with pytest.raises(InputError, match="view_depths"):
        replace_outputs(run, "coarse", {"view_depths": coarse.view_depths[:1]})
    with pytest.raises(InputError, match="not finished"):
        replace_outputs(run, "tune", {})


def test_a_stopped_run_is_not_replaced_twice(subject, shared, generator, tmp_path, monkeypatch):
    one = job(subject, "oracle-depth", shared, generator)
    monkeypatch.setattr(Job, "task", lambda self: replace(one_task, folder=tmp_path / "run"))
    one_task = Task(BUDGET, tmp_path / "run", shared / "runs" / "ball" / "shared", "cpu", generator)
    start(subject, one.task(), "coarse")
    run = RunFolder(tmp_path / "run", TABLE)
    assert not is_replaced(run)
    replace_outputs(run, "coarse", {"view_depths": outputs_of(run, "coarse").view_depths + 9})
    assert run_job(one) is None
    assert outputs_of(run, "coarse").view_depths.max() < 9


def test_all_methods_share_what_they_have_in_common(subject, shared, generator, tmp_path):
    task = replace(job(subject, "pmv", shared, generator).task(), folder=tmp_path / "run")
    start(subject, task, "edit")
    record, about = RunFolder(task.folder, TABLE), json.loads((tmp_path / "run" / "run.json").read_text())
    assert record.is_run and [about["stages"][s]["ran"] for s in ("prepare", "latent", "coarse")] == [False] * 3
    share(subject, task)  # nothing to do


def test_a_surface_is_laid_in_only_where_the_photo_shows_it():
    cameras = cameras_of((VIEWS[0], View("side", "±90°", 70)), 0, 0)
    depth = ball(cameras, 64)
    foreground = (depth[:1] > 0).float()
    known = known_part(depth, cameras, foreground)
    assert torch.equal(known[:1], foreground)
    coarse = torch.where(depth > 0, depth + 0.05, torch.full_like(depth, 3.0))
    alpha = torch.nn.functional.max_pool2d((depth > 0).float(), 5, 1, 2)  # an outline that is too large
    depths, alphas = blended(coarse, alpha, depth, known, foreground)
    solid = depth > 0
    assert torch.equal(depths[0][solid[0]], depth[0][solid[0]]) and torch.equal(alphas[0], solid[0].float())
    full, none = known[1] > 0.999, known[1] == 0
    assert full.sum() > 50 and (none & solid[1]).sum() > 50
    assert torch.allclose(depths[1][full], depth[1][full])
    assert torch.equal(depths[1][none], coarse[1][none]) and torch.equal(alphas[1][none], alpha[1][none])
    between = (known[1] > 0.2) & (known[1] < 0.8)
    assert ((depths[1] > depth[1]) & (depths[1] < coarse[1]))[between].all() and between.any()


def test_a_surface_that_knows_half_of_the_head_leaves_the_other_half():
    cameras = cameras_of((VIEWS[0], View("side", "±30°", 30)), 0, 0)
    whole = ball(cameras, 64)
    half = whole.clone()
    half[0, :, :, :32] = 0
    coarse, alpha, foreground = whole + 0.05, (whole > 0).float(), (whole[:1] > 0).float()
    known = known_part(half, cameras, foreground)
    depths, alphas = blended(coarse, alpha, half, known, foreground)
    assert torch.equal(depths[0, :, :, :32], coarse[0, :, :, :32]) and torch.equal(alphas[:1], foreground)
    assert known[0, 0, 32, 32] < 0.6 < 0.99 < known[0, 0, 32, 44]  # it fades at its border, not at the head's
    far = half[0, 0] > 0
    far[:, :40] = False
    assert torch.allclose(depths[0, 0][far], whole[0, 0][far], atol=1e-5)
    # what the half does not show in the input view is not visible in the other one
    points = cameras.unproject(torch.where(whole > 0, whole, torch.ones_like(whole)))
    assert known[1, 0][(points[1, ..., 0] < -0.03) & (whole[1, 0] > 0)].max() == 0


def test_budgets_give_every_method_the_same_number_of_steps():
    assert [b.name for b in BUDGETS.values()] == list(BUDGETS)
    totals = [b.total for b in BUDGETS.values()]
    assert totals == sorted(totals)
    half = BUDGETS["demo"].scaled(0.5)
    assert (half.latent, half.coarse, half.tune) == (60, 30, 55)
    assert list(half.steps(tune=7)) == ["latent.steps=60", "coarse.steps=30", "tune.steps=7"]
