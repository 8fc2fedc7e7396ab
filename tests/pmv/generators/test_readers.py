"""Every kind of file that generators are kept in gives the same generator; what `convert` writes is read back."""

import json
import pickle
import sys
import types

import numpy as np
import pytest
import torch

from pmv.errors import CheckpointError, InputError
from pmv.generators import EG3DConfig, EG3DGenerator, load_generator
from pmv.generators.inspection import inspect_checkpoint
from pmv.generators.verify import read_reference, reproduce

ARGUMENTS = {
    "z_dim": 8,
    "c_dim": 25,
    "w_dim": 8,
    "img_resolution": 128,
    "img_channels": 3,
    "sr_num_fp16_res": 0,
    "mapping_kwargs": {"num_layers": 2},
    "channel_base": 512,
    "channel_max": 4,
    "conv_clamp": None,
    "rendering_kwargs": {
        "depth_resolution": 4,
        "depth_resolution_importance": 4,
        "ray_start": 2.25,
        "ray_end": 3.3,
        "box_warp": 1,
        "avg_camera_radius": 2.7,
        "avg_camera_pivot": [0, 0, 0.2],
        "superresolution_module": "training.superresolution.SuperresolutionHybrid2X",
        "c_gen_conditioning_zero": False,
        "c_scale": np.float64(1.0),  # numbers of numpy's stray into official files
        "superresolution_noise_mode": "none",
        "decoder_lr_mul": 1.0,
        "sr_antialias": True,
    },
}
FIXED_AXES = torch.tensor([[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1], [0, 1, 0]],
                           [[0, 0, 1], [0, 1, 0], [1, 0, 0]]]).float()  # fmt: skip


@pytest.fixture(scope="module")
def generator() -> EG3DGenerator:
    torch.manual_seed(0)
    config = EG3DConfig.from_init_kwargs(ARGUMENTS, 16)
    return EG3DGenerator(config).eval().requires_grad_(False)


@pytest.fixture
def official(monkeypatch):
    """A function that wraps a module tree as official files hold it; the modules that these files name exist meanwhile.

    Loading must do without them: they are gone when the fixture's `forget` is called.
    """
    persistence, renderer = types.ModuleType("torch_utils.persistence"), types.ModuleType("training.renderer")

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("the file was executed")

    class Module:
        def __init__(self, state):
            self.__dict__.update(state)

    class Persistent(Module):
        def __reduce__(self):
            source = "raise AssertionError('the source in the file was executed')"
            meta = dict(type="class", version=6, module_src=source, class_name="TriPlaneGenerator", state=self.__dict__)
            return _reconstruct_persistent_obj, (meta,)

    _reconstruct_persistent_obj.__module__, _reconstruct_persistent_obj.__qualname__ = (
        "torch_utils.persistence",
        "_reconstruct_persistent_obj",
    )
    Module.__module__, Module.__qualname__ = "training.renderer", "Module"
    persistence._reconstruct_persistent_obj, renderer.Module = _reconstruct_persistent_obj, Module
    for name, module in {"torch_utils": types.ModuleType("torch_utils"), "torch_utils.persistence": persistence,
                         "training.renderer": renderer}.items():  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)

    def wrap(generator, axes=None):
        top = tree(generator, Persistent)
        top._modules["renderer"] = Module({"_parameters": {}, "_buffers": {}, "_modules": {}, "plane_axes": axes})
        top._init_kwargs, top.neural_rendering_resolution = ARGUMENTS, 16
        top.rendering_kwargs = ARGUMENTS["rendering_kwargs"]
        return top

    def tree(module, kind):
        buffers = dict(module._buffers) | {"scratch": torch.zeros(3)}
        return kind(
            {
                "_parameters": dict(module._parameters),
                "_buffers": buffers,
                "_non_persistent_buffers_set": {"scratch"},
                "_modules": {name: tree(child, Persistent) for name, child in module._modules.items()},
            }
        )

    wrap.forget = monkeypatch.undo
    return wrap


def same(loaded, generator) -> None:
    assert loaded.config == generator.config
    ours, theirs = loaded.state_dict(), generator.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("bare", [False, True])
def test_official_pickles(tmp_path, official, generator, protocol, bare):
    path = tmp_path / "network.pkl"
    content = official(generator) if bare else {"training_set_kwargs": {"path": "x"}, "D": None,
                                                "G": None, "G_ema": official(generator)}  # fmt: skip
    path.write_bytes(pickle.dumps(content, protocol))
    official.forget()
    same(load_generator(path, plane_convention="eg3d"), generator)


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("place", [None, "G_ema"])
def test_saved_modules(tmp_path, official, generator, suffix, is_zip, place):
    """PTI's `torch.save(G)`, in today's format and in that of before PyTorch 1.6."""
    path = tmp_path / f"model{suffix}"
    module = official(generator, FIXED_AXES)
    torch.save(module if place is None else {place: module}, path, _use_new_zipfile_serialization=is_zip)
    official.forget()
    loaded = load_generator(path)
    assert loaded.spec.plane_convention == "fixed", "the planes' axes stand in the file"
    assert all(torch.equal(tensor, generator.state_dict()[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("place", [None, "G_ema", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_state_dicts_borrow_a_configuration(tmp_path, generator, is_zip, place, prefix):
    """EG3D-projector's `.pth`: weights alone, below G_ema."""
    path = tmp_path / "tuned.pth"
    state = {prefix + name: tensor for name, tensor in generator.state_dict().items()}
    torch.save(state if place is None else {place: state}, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(CheckpointError, match="--like"):
        load_generator(path)
    save_as(generator, tmp_path / "base.safetensors")
    same(load_generator(path, like=tmp_path / "base.safetensors"), generator)


def save_as(generator, path) -> None:
    from pmv.generators import save_generator

    save_generator(generator, path)


@pytest.mark.parametrize(
    "changed", [{"mapping_kwargs": {"num_layers": 10**9}}, {"channel_base": 64}, {"w_dim": "512"}, {"z_dim": -1}]
)
def test_sizes_that_no_generator_has(tmp_path, official, generator, monkeypatch, changed):
    path = tmp_path / "network.pkl"
    module = official(generator)
    module._init_kwargs = ARGUMENTS | changed
    path.write_bytes(pickle.dumps({"G_ema": module}))
    with pytest.raises(CheckpointError, match=r"network\.pkl"):
        load_generator(path)


def test_a_state_dict_unlike_its_base(tmp_path, generator, tiny_generator):
    path = tmp_path / "tuned.pt"
    torch.save(generator.state_dict(), path)
    save_as(tiny_generator, tmp_path / "base.safetensors")
    with pytest.raises(CheckpointError, match=r"tuned\.pt"):
        load_generator(path, like=tmp_path / "base.safetensors")


def test_weights_alone_of_the_published_shape(tmp_path, caplog):
    """Cameras and depths of the published model are taken, and that is said."""
    with torch.device("meta"):
        shapes = EG3DGenerator(EG3DConfig()).state_dict()
    path = tmp_path / "ffhq.pth"
    from pmv.generators.stylegan import resample_filter

    state = {}
    for name, tensor in shapes.items():  # one number seen as many would be refused: a small file needs half precision
        state[name] = resample_filter() if name.endswith("resample_filter") else torch.zeros(tensor.shape).half()
    torch.save({"G_ema": state}, path)
    with caplog.at_level("WARNING", "pmv"):
        loaded = load_generator(path)
    assert loaded.config == EG3DConfig() and "--like" in caplog.text


def run(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    from pmv.apps import cli

    monkeypatch.setattr(sys, "argv", ["pmv", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    told = capsys.readouterr()
    return int(left.value.code or 0), told.out, told.err


def test_convert_there_and_back(tmp_path, official, generator, monkeypatch, capsys):
    source, native, plain = (tmp_path / name for name in ("network.pkl", "new/heads.safetensors", "plain.pt"))
    source.write_bytes(pickle.dumps({"G_ema": official(generator, FIXED_AXES)}))
    monkeypatch.delitem(sys.modules, "torch_utils.persistence")
    assert run(monkeypatch, capsys, "convert", source, native)[0] == 0
    description = json.loads(native.with_suffix(".json").read_text())
    assert description["origin"]["file"] == "network.pkl" and len(description["origin"]["sha256"]) == 64
    assert description["licence"] and description["config"]["plane_convention"] == "fixed"
    first, second = load_generator(source), load_generator(native)
    same(second, first)
    w = first.mean_w(8)
    views = [g.render(g.planes(w), w, g.spec.canonical_camera).image for g in (first, second)]
    assert torch.equal(*views)
    assert run(monkeypatch, capsys, "convert", native, plain)[0] == 0
    state = torch.load(plain, weights_only=True)
    assert state.keys() == generator.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in generator.state_dict().items())
    same(load_generator(plain, like=native), first)


def test_convert_refuses_to_write_over_its_source(tmp_path, generator, monkeypatch, capsys):
    path = tmp_path / "a.safetensors"
    save_as(generator, path)
    before = path.read_bytes()
    for out, told in ((path, "is the checkpoint itself"), (tmp_path / "a.bin", "of an unknown kind")):
        code, _, error = run(monkeypatch, capsys, "convert", path, out)
        assert code == 2 and told in error and out.name in error
    assert path.read_bytes() == before and {p.suffix for p in tmp_path.iterdir()} == {".safetensors", ".json"}


@pytest.mark.parametrize("kind", ["pkl", "pth", "safetensors"])
def test_inspect(tmp_path, official, generator, kind):
    path = tmp_path / f"network.{kind}"
    if kind == "pkl":
        path.write_bytes(pickle.dumps({"G_ema": official(generator, FIXED_AXES)}))
    elif kind == "pth":
        torch.save({"G_ema": generator.state_dict()}, path)
    else:
        save_as(generator, path)
    facts = inspect_checkpoint(path)
    assert json.loads(json.dumps(facts)) and facts["family"] == "eg3d"
    assert facts["parameters"] == sum(p.numel() for p in generator.parameters())
    assert sum(facts["parameters_by_part"].values()) == facts["parameters"]
    assert facts["plane_convention"] == {"pkl": "fixed", "pth": None, "safetensors": "eg3d"}[kind]
    assert (facts["config"] is None) == (kind == "pth")


def test_verify(tmp_path, generator, monkeypatch, capsys):
    path, reference = tmp_path / "a.safetensors", tmp_path / "io.npz"
    save_as(generator, path)
    rng = torch.Generator().manual_seed(1)
    given = {"z": torch.randn(2, 8, generator=rng), "points": torch.rand(2, 5, 3, generator=rng) - 0.5}
    given["c"] = generator.spec.orbit(torch.tensor([0.1, -0.3]), torch.zeros(2)).labels()
    given["ws"] = torch.randn(2, generator.spec.num_ws, 8, generator=rng)
    given |= {
        "image_raw": torch.zeros(2, 3, 16, 16),
        "grad_ws_w0_cam0": torch.zeros(1),
        "image_w0_cam1": torch.zeros(1),
    }
    arrays = reproduce(generator, given)
    del arrays["image_mask"]  # PanoHead's
    np.savez(reference, **{name: value.numpy() for name, value in (given | arrays | {"ws": given["ws"]}).items()})
    code, out, _ = run(monkeypatch, capsys, "verify", path, reference)
    assert code == 1 and next(line for line in out.splitlines() if "too large" in line).startswith("ws ")
    ws = generator.map(given["z"], generator.spec.orbit(torch.tensor([0.1, -0.3]), torch.zeros(2)))
    arrays = reproduce(generator, given | {"ws": ws})
    del arrays["image_mask"]
    np.savez(reference, **{name: value.numpy() for name, value in (given | arrays).items()})
    code, out, _ = run(monkeypatch, capsys, "verify", path, reference)
    assert code == 0 and len(out.splitlines()) >= 10
    np.savez(reference, z=np.zeros((2, 3)))
    code, _, error = run(monkeypatch, capsys, "verify", path, reference)
    assert code == 2 and "lacks the array" in error


@pytest.mark.parametrize(
    ("name", "array"),
    [("z", np.zeros((3, 8), "f4")), ("ws", np.zeros((2, 8), "f4")), ("points", np.zeros((2, 0, 3), "f4")),
     ("image_raw", np.zeros((2, 3, 16, 8), "f4")), ("image", np.zeros((1, 1, 2000, 2000), "f4")),
     ("sigma", np.zeros(2, "i8")), ("rgb", np.zeros(2, "c8")), ("c", np.float32(1)), ("image", np.array(["x"]))],
)  # fmt: skip
def test_arrays_of_no_reference(tmp_path, name, array):
    arrays = {"z": np.zeros((2, 8), "f4"), "c": np.zeros((2, 25), "f4")}
    arrays |= {"ws": np.zeros((2, 4, 8), "f4"), "points": np.zeros((2, 5, 3), "f4")}
    np.savez(tmp_path / "io.npz", **arrays | {name: array})
    with pytest.raises(InputError, match=r"io\.npz: its array "):
        read_reference(tmp_path / "io.npz")
