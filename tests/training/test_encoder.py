"""The encoders' training, on balls drawn by formula."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pmv.encoders.dual import load_encoders
from pmv.encoders.network import Encoder
from pmv.errors import InputError
from pmv.files.artifacts import read_json, write_json
from pmv.fitting.efficientnet import load_efficientnet
from pmv.generators import EG3DGenerator, save_generator
from pmv.geometry.camera import Camera
from pmv.portrait.five_points import anchor_points
from pmv.training.batches import HeadStore
from pmv.training.data import HELD_OUT_SEED, PORTRAITS, HeadPack, PackLayout, photos_of, portrait_cameras
from pmv.training.encoder.__main__ import COLUMNS, SIZES, main
from pmv.training.encoder.evaluate import FIGURES, evaluate
from pmv.training.encoder.join import join
from pmv.training.encoder.judge import PlaneJudge, judge_loss, synthetic_planes
from pmv.training.encoder.lessons import Teacher, reframed
from pmv.training.encoder.objective import Judges, pose_error, relief_loss, surface_loss
from pmv.training.encoder.trainer import WHOLE, EncoderConfig, EncoderTrainer, average_of
from tests.training.balls import draw_balls

CPU = torch.device("cpu")
QUICK = EncoderConfig(pictures=200, look_steps=0, looks=2, heads=2, views=2, raw_until=0.0, identity=0.0, keep=0)
QUICK = replace(QUICK, warmup=4, ema_half_life=8)


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs")
    for name, heads, seed in (("training", 6, 0), ("held-out", 2, HELD_OUT_SEED)):
        draw_balls(HeadPack.create(folder / name, PackLayout(heads, 4, seed, 4, 32, kind=PORTRAITS)))
    return folder


def trainer(packs: Path, generator: EG3DGenerator, config: EncoderConfig = QUICK) -> EncoderTrainer:
    store = HeadStore(HeadPack(packs / "training"), CPU)
    store.refresh()
    torch.manual_seed(0)
    encoder = Encoder.for_generator(generator, **SIZES["tiny"])
    return EncoderTrainer(config, encoder, generator, store, Judges(load_efficientnet(), None, anchor_points("heads")))


def test_a_pack_of_portraits_has_photos_first_and_other_sides_after():
    cameras = Camera.from_labels(torch.from_numpy(portrait_cameras(range(40), 8)))
    yaw = cameras.yaw_pitch()[0].rad2deg().reshape(40, 8)
    assert photos_of(8) == 4 and yaw[:, :4].abs().max() < 80 and yaw[:, 4:].abs().max() > 150
    assert (yaw[:, :4].abs() < 40).float().mean() > 0.6
    assert torch.equal(torch.from_numpy(portrait_cameras([3], 8)), cameras.labels()[24:32])


def test_a_reframed_picture_is_what_its_camera_sees():
    camera = Camera.orbit(torch.tensor([0.3, -0.4]), torch.tensor([0.1, 0.2]))
    angle, scale = 0.1, 0.9
    turn = torch.tensor([[scale, 0.0], [0.0, scale]]) @ torch.linalg.matrix_exp(torch.tensor([[0, -angle], [angle, 0]]))
    shift = torch.tensor([0.05, -0.02])
    theta = torch.cat([turn, shift[:, None]], 1).expand(2, 2, 3)
    points = 0.2 * torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(0))
    (before, z), (after, same) = camera.project(points), reframed(camera, theta).project(points)
    torch.testing.assert_close(2 * before - 1, (2 * after - 1) @ turn.T + shift, atol=1e-5, rtol=0)
    torch.testing.assert_close(z, same)


def test_lessons_show_what_is_true(packs: Path, tiny_generator: EG3DGenerator):
    store = HeadStore(HeadPack(packs / "training"), CPU)
    store.refresh()
    draws, picks = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    teacher = Teacher(store, tiny_generator, draws, picks, views=3)
    rendered, own = teacher.rendered(4), teacher.generated(4)
    for lesson in (rendered, own):
        assert lesson.image.shape == (4, 3, 32, 32) and len(lesson.truth.cameras) == 12 and lesson.views == 3
        assert lesson.image.abs().max() <= 1 and 0 <= lesson.foreground.min() and lesson.foreground.max() <= 1
        # the given camera is as wrong as a found one; the true one sees the surface where depth says
        true = Camera(lesson.first(lesson.truth.cameras.cam2world), lesson.first(lesson.truth.cameras.intrinsics))
        assert 0.2 < pose_error(lesson.camera, true)[0].mean() < 8
    assert rendered.planes is None and own.planes is not None
    radii = true_radii(rendered)
    assert ((radii > 0.15) & (radii < 0.29)).all(), "the surface lies on the ball in its own camera's world"


def true_radii(lesson) -> torch.Tensor:
    depth = lesson.first(lesson.truth.depth)
    camera = Camera(lesson.first(lesson.truth.cameras.cam2world), lesson.first(lesson.truth.cameras.intrinsics))
    points = camera.unproject(depth)
    return points[~depth[:, 0].isnan()].norm(dim=-1)


def test_surface_loss_is_least_at_the_truth_and_its_own_error():
    class Said:
        depth = torch.full((1, 1, 4, 4), 2.7)
        scale = torch.full((1, 1, 4, 4), 0.02)

    true = torch.full((1, 1, 4, 4), 2.68)
    true[..., 0] = torch.nan
    at = float(surface_loss(Said(), true))  # type: ignore[arg-type]
    assert at == pytest.approx(1 + torch.log(torch.tensor(20.0)).item(), abs=1e-4)
    for scale in (0.015, 0.03):
        Said.scale = torch.full((1, 1, 4, 4), scale)
        assert float(surface_loss(Said(), true)) > at  # type: ignore[arg-type]


def test_relief_loss_counts_slopes_and_no_distance():
    true = torch.full((1, 1, 16, 16), 2.7)
    true[..., :3] = torch.nan
    focal = torch.tensor([4.0])
    assert float(relief_loss(true.nan_to_num(2.7) + 0.1, true, focal)) == pytest.approx(0, abs=1e-5)
    pixel = 2.7 / 4 / 16
    leaning = true.nan_to_num(2.7) + 0.5 * pixel * torch.arange(16)
    assert float(relief_loss(leaning, true, focal)) == pytest.approx(0.25, abs=1e-4), "a half along x, none along y"


def test_a_look_learns_the_surface_without_a_head_drawn(packs: Path, tiny_generator: EG3DGenerator):
    learner = trainer(packs, tiny_generator, replace(QUICK, look_steps=40, looks=4, learning_rate=2e-3))
    held_out = HeadStore(HeadPack(packs / "held-out"), CPU)
    held_out.refresh()
    before = evaluate(learner.average, tiny_generator, held_out, 2)["surface_error"]
    first = learner.step()
    assert set(first) == {"surface", "relief", "pose"}
    while learner.step_count < 40:
        learner.step()
    assert learner.pictures == 0 and "image" in learner.step()
    assert evaluate(learner.average, tiny_generator, held_out, 2)["surface_error"] < 0.9 * before


def test_pose_error_in_degrees():
    a, b = (
        Camera.orbit(torch.tensor([0.1]), torch.tensor([0.0])),
        Camera.orbit(torch.tensor([0.2]), torch.tensor([0.0])),
    )
    degrees, moved = pose_error(a, b)
    assert float(degrees) == pytest.approx(5.73, abs=0.02) and float(moved) == pytest.approx(0.27, abs=0.001)


def test_the_judge_tells_planes_apart(tiny_generator: EG3DGenerator):
    torch.manual_seed(0)
    real = synthetic_planes(tiny_generator, 4, torch.Generator().manual_seed(0))
    real = real / real.std()
    judge = PlaneJudge(*real.shape[1:3], (8, 8))
    optimizer = torch.optim.Adam(judge.parameters(), 3e-3)
    fake = torch.randn_like(real)
    first = float(judge_loss(judge, fake, real, False)["judge"].detach())
    for step in range(30):
        terms = judge_loss(judge, fake, real, step % 8 == 0)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
    assert float(judge_loss(judge, fake, real, False)["judge"].detach()) < 0.8 * first
    assert "penalty" in judge_loss(judge, fake, real, True)


def test_an_encoder_learns_balls(packs: Path, tiny_generator: EG3DGenerator):
    learner = trainer(packs, tiny_generator, replace(QUICK, learning_rate=2e-3, pictures=120))
    held_out = HeadStore(HeadPack(packs / "held-out"), CPU)
    held_out.refresh()
    before = evaluate(learner.average, tiny_generator, held_out, 2)
    assert set(before) <= set(FIGURES) and before["turn"] == pytest.approx(before["turn_before"], abs=1e-3)
    while learner.progress < 1:
        terms = learner.step()
    assert all(value.isfinite() for value in terms.values())
    after = evaluate(learner.average, tiny_generator, held_out, 2)
    assert after["psnr_input"] > before["psnr_input"] + 0.5
    assert after["surface_error"] < 0.9 * before["surface_error"]


@pytest.mark.parametrize("which", ["visible", WHOLE])
def test_a_piece_goes_on_elsewhere(packs: Path, tiny_generator: EG3DGenerator, tmp_path: Path, which: str):
    config = replace(QUICK, which=which)
    one = trainer(packs, tiny_generator, config)
    for _ in range(3):
        terms = one.step()
    assert ("opinion" in terms and "judge" in terms) == (which == WHOLE)
    one.save(tmp_path)
    other = trainer(packs, tiny_generator, config)
    other.load(tmp_path)
    assert other.pictures == one.pictures == 6
    mine, theirs = one.average.state_dict(), other.encoder.state_dict()
    assert all(torch.allclose(mine[k], theirs[k], atol=2e-3) for k in mine)
    assert all(value.isfinite() for value in other.step().values())
    begun = trainer(packs, tiny_generator, config)
    begun.load(tmp_path, begin=True)
    assert begun.pictures == 0 and torch.equal(begun.encoder.state_dict()["plane.which"], theirs["plane.which"]) is (
        other.step_count == 3
    )


def test_a_chain_without_its_average_goes_on_from_what_ships(
    packs: Path, tiny_generator: EG3DGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    one = trainer(packs, tiny_generator)
    one.step()
    one.save(tmp_path / "state")
    whole = average_of(tmp_path / "state", tiny_generator).state_dict()
    save_generator(tiny_generator, tmp_path / "tiny.safetensors")
    join(tmp_path / "state", None, str(tmp_path / "tiny.safetensors"), tmp_path / "shipped.safetensors")
    monkeypatch.setattr("pmv.training.encoder.trainer.cached", lambda name: tmp_path / "shipped.safetensors")
    (tmp_path / "state" / "average.safetensors").unlink()
    other = trainer(packs, tiny_generator)
    other.load(tmp_path / "state")
    learned = dict(other.average.named_parameters())
    assert learned and all(torch.equal(value, whole[name]) for name, value in learned.items())
    told = read_json(tmp_path / "state" / "state.json")
    write_json(tmp_path / "state" / "state.json", told | {"pictures": 4000})
    with pytest.raises(InputError, match="another place in the chain"):
        other.load(tmp_path / "state")


def test_states_of_others_are_refused(packs: Path, tiny_generator: EG3DGenerator, tmp_path: Path):
    import copy

    one = trainer(packs, tiny_generator)
    with pytest.raises(InputError):
        one.load(tmp_path)
    one.save(tmp_path)
    changed = copy.deepcopy(tiny_generator)
    changed.get_parameter("decoder.net.0.weight").data += 1
    with pytest.raises(InputError, match="another generator"):
        trainer(packs, changed).load(tmp_path)
    (tmp_path / "average.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="holds no state of an encoder"):
        one.load(tmp_path)
    with pytest.raises(InputError, match="neither visible nor whole"):
        trainer(packs, tiny_generator, replace(QUICK, which="both"))


def test_the_command_trains_both_and_joins_them(packs: Path, tiny_generator: EG3DGenerator, tmp_path: Path):
    save_generator(tiny_generator, tmp_path / "tiny.safetensors")
    common = ["--assets", "none", "--packs", str(packs), "--workers", "0", "--size", "tiny", "--device", "cpu"]
    common += ["--generator", str(tmp_path / "tiny.safetensors"), "--start-heads", "4", "--held-out", "2"]
    common += ["--heads", "2", "--views", "2", "--look-steps", "1", "--looks", "2", "--keep", "0"]
    common += ["--log-seconds", "0", "--judge-seconds", "0"]
    main([*common, "--out", str(tmp_path / "visible"), "--pictures", "8", "--identity", "0"])
    main(
        [*common, "--out", str(tmp_path / "whole"), "--pictures", "4", "--which", "whole", "--raw-until", "0"]
        + ["--begin", str(tmp_path / "visible" / "state")]
    )
    rows = list(csv.DictReader((tmp_path / "visible" / "state" / "curve.csv").open()))
    assert int(rows[-1]["pictures"]) == 8 and float(rows[-1]["psnr_input"]) > 0
    assert len(set(COLUMNS)) == len(COLUMNS), "a loss and a figure of one name would be one column"
    assert (tmp_path / "whole" / "sheet.png").exists()
    whole = list(csv.DictReader((tmp_path / "whole" / "state" / "curve.csv").open()))
    assert float(whole[1]["judge"]) > 0 and float(whole[1]["identity"]) >= 0
    # the same command has nothing left to do
    main([*common, "--out", str(tmp_path / "visible"), "--pictures", "8", "--identity", "0"])
    out = tmp_path / "encoders.safetensors"
    join(tmp_path / "visible" / "state", tmp_path / "whole" / "state", str(tmp_path / "tiny.safetensors"), out)
    encoders = load_encoders(out, tiny_generator)
    assert encoders.visible.shape == encoders.whole.shape
