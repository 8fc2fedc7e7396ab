"""A chain of pieces: its schedule, what travels between machines, several processes, z that grows."""

import json
import math

import pytest
import torch
import torch.multiprocessing as multiprocessing

from pmv.errors import InputError
from pmv.generators import EG3DGenerator
from pmv.training import chain, curve, moments
from pmv.training.batches import HeadStore
from pmv.training.data import HeadPack, PackLayout, training_cameras
from pmv.training.distributed import ALONE, Peers
from pmv.training.generator import parse, shape_of
from pmv.training.latents import FIRST, widened, with_entries
from pmv.training.profiling import StepCost, kind_of, profile
from pmv.training.trainer import TrainConfig, Trainer

CPU = torch.device("cpu")
NAMES = ["shape/a", "shape/b", "hair/c"]
CONFIG = TrainConfig(
    pictures=1000,
    heads=2,
    views=1,
    random=0.5,
    warmup=8,
    judge_warmup=4,
    half_until=0,
    raw_until=0,
    adversarial_from=0,
    ema_half_life=50,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> HeadStore:
    """Three heads of noise."""
    pack = HeadPack.create(tmp_path_factory.mktemp("pack") / "noise", PackLayout(3, 2, 0, len(NAMES), 64))
    torch.manual_seed(0)
    for name in ("rgb", "alpha"):
        getattr(pack, name)[:] = torch.randint(0, 256, getattr(pack, name).shape).numpy()
    pack.z[:] = torch.randn(3, len(NAMES)).numpy()
    pack.ready[:] = 1
    store = HeadStore(pack, CPU)
    store.refresh()
    return store


def trainer(store: HeadStore, names: list[str] = NAMES, **changes) -> Trainer:
    return Trainer(TrainConfig(**{**vars(CONFIG), **changes}), shape_of("tiny", len(names)), store, CPU)


@pytest.fixture(scope="module")
def piece(store, tmp_path_factory) -> tuple[Trainer, object]:
    """A piece of six steps and the folder of its state."""
    run, folder = trainer(store), tmp_path_factory.mktemp("chain") / "state"
    for _ in range(6):
        run.step()
    run.pieces.append({"piece": 1, "gpu_minutes": 0.0})
    chain.save(run, folder, NAMES)
    return run, folder


def test_the_schedule_depends_on_pictures_alone(store):
    """Position, phase and learning rate of two processes after n pictures are those of one after n pictures."""
    one, two = trainer(store), trainer(store)
    two.peers = Peers(0, 2)
    for run in (one, two):
        run.config = TrainConfig(**{**vars(CONFIG), "raw_until": 0.3, "half_until": 0.1, "adversarial_from": 0.6})
    for pictures in range(0, 1001, 50):
        one.pictures = two.pictures = pictures
        assert (one.progress, one.phase) == (two.progress, two.phase)
        if pictures > CONFIG.warmup:
            assert one.learning_rate() == two.learning_rate()
        assert two._drawn() == 2 * one._drawn()
    assert one.learning_rate() == pytest.approx(0.05 * CONFIG.learning_rate)


def test_a_state_goes_on_where_it_was(store, piece):
    run, folder = piece
    assert all(file.stat().st_size < 2**24 for file in folder.iterdir())
    after = trainer(store)
    chain.load(after, folder, NAMES)
    for name in ("step_count", "pictures", "judge_steps", "judge_pictures", "pieces", "phase", "untrained"):
        assert getattr(after, name) == getattr(run, name), name
    assert after.pictures == after.fresh_at == 12
    torch.testing.assert_close(after.shares, run.shares)
    weight, kept = run.average.decoder.net[0].weight, after.average.decoder.net[0].weight
    torch.testing.assert_close(kept, weight, rtol=1e-3, atol=1e-4)  # half precision
    assert torch.equal(after.generator.decoder.net[0].weight, kept)  # the average is what goes on
    for name, value in run.judge.state_dict().items():
        torch.testing.assert_close(after.judge.state_dict()[name], value, rtol=1e-3, atol=1e-4)
    assert after.learning_rate() < run.learning_rate()  # rises once more
    losses = after.step()
    assert all(math.isfinite(float(value)) for value in losses.values()) and "opinion" in losses


def test_a_state_refuses_what_is_not_its_own(store, piece, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        chain.load(trainer(store), tmp_path, NAMES)
    (tmp_path / "state.json").write_text((piece[1] / "state.json").read_text())
    with pytest.raises(InputError, match="no state of this generator"):
        chain.load(trainer(store), tmp_path, NAMES)


def test_the_chains_own_numbers_are_the_next_pieces(piece, tmp_path):
    common = ["--assets", "a", "--out", str(tmp_path), "--carried", str(piece[1])]
    assert parse(common).judge_warmup == CONFIG.judge_warmup != TrainConfig.judge_warmup
    assert parse([*common, "--judge-warmup", "7"]).judge_warmup == 7


def test_second_moments_travel_factored(store, piece):
    run, folder = piece
    after = trainer(store)
    chain.load(after, folder, NAMES)
    p = dict(run.generator.named_parameters())
    q = dict(after.generator.named_parameters())
    name = "backbone.synthesis.b8.conv0.weight"
    before, carried = run.optimizer.state[p[name]]["exp_avg_sq"], after.optimizer.state[q[name]]["exp_avg_sq"]
    assert carried.stride() == q[name].stride()
    for dims in ((1, 2, 3), (0,)):  # the means of rows and of columns are kept
        torch.testing.assert_close(carried.mean(dims), before.mean(dims))
    bias = "backbone.synthesis.b8.conv0.bias"
    assert torch.equal(after.optimizer.state[q[bias]]["exp_avg_sq"], run.optimizer.state[p[bias]]["exp_avg_sq"])
    rank_one = torch.rand(4, 1) * torch.rand(1, 6)
    torch.testing.assert_close(moments.unfactored(*moments.factored(rank_one), rank_one.shape), rank_one)


def test_carried_moments_lie_as_their_weights_do():
    """A fused optimiser refuses moments in another order of memory."""
    layers = [torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last) for _ in range(2)]
    first, second = (torch.optim.Adam(layer.parameters()) for layer in layers)
    layers[0](torch.randn(2, 3, 8, 8)).sum().backward()
    first.step()
    assert moments.unpack(second, {"conv": layers[1]}, moments.pack(first, {"conv": layers[0]})) == 2
    for p in layers[1].parameters():
        assert all(second.state[p][name].stride() == p.stride() for name in ("exp_avg", "exp_avg_sq"))


def test_a_copy_of_a_batch_is_no_other_shape(store):
    """Else a recorded step is compiled a second time."""
    batch = store.sample(2, 2, torch.Generator().manual_seed(0))
    cameras = batch.cameras
    for x in (batch.z, cameras.cam2world, cameras.intrinsics, batch.image, batch.alpha, batch.depth):
        assert x.clone(memory_format=torch.preserve_format).stride() == x.stride()


def test_z_may_grow(store, piece):
    """New entries change nothing at first, whatever their order; the others keep their meaning."""
    _, folder = piece
    names = ["new/x", "hair/c", "shape/a", "new/y", "shape/b"]
    wide = chain.average(folder, names)
    z = torch.randn(4, len(names))
    columns = [names.index(name) for name in NAMES]
    camera = wide.spec.canonical_camera
    narrow = chain.average(folder, NAMES)
    torch.testing.assert_close(wide.map(z, camera), narrow.map(z[:, columns], camera))
    again = with_entries(narrow, NAMES, names)
    assert isinstance(again, EG3DGenerator) and again.spec.z_dim == 5
    torch.testing.assert_close(again.map(z, camera), wide.map(z, camera))
    assert with_entries(narrow, NAMES, NAMES) is narrow
    longer = trainer(store, names)
    chain.load(longer, folder, names)
    first = longer.generator.get_parameter(FIRST)
    assert first not in longer.optimizer.state and len(longer.optimizer.state) > 10  # of another shape: anew
    weight = torch.randn(8, 3 + 2)
    assert torch.equal(widened(weight, NAMES, NAMES), weight)


def test_random_latents_mix_entries_of_two_heads(store):
    z = store.latents(200, torch.Generator().manual_seed(0))
    known = store.arrays["z"]
    assert (z[:, None] == known[None]).any(1).all()  # each entry is some head's
    assert not (z[:, None] == known[None]).all(2).any(1).all()  # not all of them of one
    assert torch.equal(z, store.latents(200, torch.Generator().manual_seed(0)))


def test_only_known_heads_have_a_truth(store):
    """Truth losses of a step do not depend on heads whose z is random, nor on how many there are."""
    batch = store.sample(2, 1, torch.Generator().manual_seed(0))
    from pmv.training.objective import Weights, first_views, supervised

    run = trainer(store)
    render, losses, _ = run._learn(run.generator, batch, run.condition, 16, None, True, False, None, 1)
    again = supervised(*first_views(render, batch, 1), Weights())
    batch.image[1:] = 0.5
    changed = supervised(*first_views(render, batch, 1), Weights())
    for name, value in losses.items():
        assert torch.equal(again[name], value) and torch.equal(changed[name], value)
    with pytest.raises(InputError, match="none of 2 heads"):
        trainer(store, random=0.9)


def test_the_discriminators_logit_depends_on_the_camera(store):
    judge = trainer(store).judge
    pair = torch.randn(2, 7, 64, 64)
    labels = torch.from_numpy(training_cameras(0, 2))
    logits, features = judge(pair, labels)
    other, same = judge(pair, labels.flip(0))
    assert not torch.allclose(logits, other)
    assert all(torch.equal(a, b) for a, b in zip(features, same, strict=True))  # the features do not


def test_packs_are_shared_out(store):
    parts = [HeadStore(store.pack, CPU, (k, 2)) for k in range(2)]
    assert [part.refresh() for part in parts] == [2, 1]
    assert torch.equal(torch.cat([part.slots for part in parts]).sort().values, store.slots)
    view = torch.zeros(1, 1, dtype=torch.long)
    for slot in (0, 1, 2):
        mine = parts[slot % 2].batch(torch.tensor([slot]), view)
        assert torch.equal(mine.image, store.batch(torch.tensor([slot]), view).image)


def _meet(rank: int, port: int, results) -> None:
    import os

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    peers = Peers.join(CPU)
    tensor = torch.full((3,), float(rank))
    peers.average_(tensor)
    results[rank] = (tensor.tolist(), peers.any(rank == 1, CPU), peers.any(False, CPU), peers.leads)
    peers.wait()
    peers.leave()


def test_two_processes_agree(unused_tcp_port_of_ours):
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(_meet, (unused_tcp_port_of_ours, results), 2)
        assert dict(results) == {0: ([0.5] * 3, True, False, True), 1: ([0.5] * 3, True, False, False)}
    assert ALONE.any(True, CPU) and not ALONE.any(False, CPU) and ALONE.leads


@pytest.fixture
def unused_tcp_port_of_ours() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_curve_has_fixed_columns(tmp_path):
    path = tmp_path / "curve.csv"
    curve.append(path, {"piece": 1, "step": 10, "machine": "cpu", "raw": 0.123456789})
    curve.append(path, {"piece": 2, "step": 20, "machine": "cpu", "psnr": 25.0})
    assert path.read_text().splitlines()[0] == ",".join(curve.COLUMNS)
    first, second = curve.read(path)
    assert first == {"piece": 1, "step": 10, "machine": "cpu", "raw": 0.12346}
    assert second["psnr"] == 25 and "raw" not in second
    with pytest.raises(ValueError):
        curve.append(path, {"loss": 1.0})


def test_kernels_are_told_apart():
    assert kind_of("ncclDevKernel_AllReduce_Sum_f32_RING_LL") == "exchange between GPUs"
    assert kind_of("sm90_xmma_fprop_implicit_gemm_bf16") == "convolutions and matrix products"
    assert kind_of("triton_poi_fused_div_index_put_mul_85") == "sampling the planes"
    assert kind_of("triton_poi_fused_mul_2") == "fused element-wise passes"
    assert kind_of("something") == "other"
    cost = StepCost(0.005, {"triton_poi_fused_mul_2": (0.001, 2), "sm90_gemm": (0.003, 1), "sm80_gemm": (0.001, 4)})
    assert list(cost.kinds().values()) == [0.004, 0.001]
    assert "a step takes 5.00 ms, 5.00 ms of kernels" in cost.table() and "80.0 %  convolutions" in cost.table()


def test_a_step_can_be_profiled(store):
    cost = profile(trainer(store), 1)
    assert cost.seconds > 0 and "convolutions and matrix products" in cost.kinds()


def test_committed_state_is_whole():
    """What lies in training/state is a chain that this code goes on with."""
    folder = chain.COMMITTED
    if not (folder / "state.json").exists():
        pytest.skip("no chain is open")
    description = json.loads((folder / "state.json").read_text())
    generator = chain.average(folder, description["z_names"])
    assert generator.spec.resolution == 256
    rows = curve.read(folder / chain.CURVE)
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    assert rows[-1]["pictures"] == pytest.approx(description["pictures"], rel=1e-4)
    assert rows[-1]["piece"] == len(description["pieces"])
