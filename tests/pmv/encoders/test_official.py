"""Encoders of the published size: what is known of them by number, their files, and hostile ones."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pmv.encoders.dual import save_encoders, seen_texels
from pmv.encoders.official import OfficialEncoder, OfficialShape, PlaneEncoder, StyleEncoder, mirrored
from pmv.encoders.official_files import AVERAGE, OCCLUDED, load_official, read_average
from pmv.encoders.shipped import files_of, find_encoders, open_encoders
from pmv.errors import CheckpointError, InputError
from pmv.files.manifest import CACHE_VARIABLE
from pmv.generators import EG3DGenerator, PanoHeadGenerator
from pmv.geometry.camera import Camera
from tests.pmv.generators.hostile_files import WITNESS, called, saved

VISIBLE = "visible_net.pt"


def millions(module: nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def tiny_shape(generator: EG3DGenerator, **changes: int) -> OfficialShape:
    planes = generator.planes(generator.mean_w(1))[0]
    channels = planes.flatten(0, -3).shape[0]
    return replace(OfficialShape(generator.spec.num_ws, generator.spec.w_dim, channels, 4), **changes)


def encoder(shape: OfficialShape, seed: int = 0) -> OfficialEncoder:
    torch.manual_seed(seed)
    return OfficialEncoder(shape, torch.randn(shape.num_ws, shape.w_dim)).eval().requires_grad_(False)


def write(folder: Path, generator: EG3DGenerator, prefix: str = "", **changes: int) -> Path:
    """All three files, as TriPlaneNet's code saves: a dict with a state dict, other networks in it. `changes` are of
    the second."""
    folder.mkdir(exist_ok=True)
    for i, name in enumerate((VISIBLE, OCCLUDED)):
        shape = tiny_shape(generator, **(changes if i else {}))
        state = {f"{prefix}{k}": v for k, v in encoder(shape, i).state_dict().items() if k != "latent_average"}
        more = {"decoder.backbone.synthesis.b4.const": torch.zeros(4, 4, 4)}
        torch.save({"state_dict": state | more, "opts": {"n_styles": 14}, "step": 3}, folder / name)
    np.save(folder / AVERAGE, np.full((1, generator.spec.w_dim), 0.5, np.float32))
    return folder / VISIBLE


def portrait(generator: EG3DGenerator) -> tuple[Tensor, Tensor, Camera]:
    camera = generator.spec.orbit(0.2, 0.0)
    w = generator.mean_w(8)
    out = generator.render(generator.planes(w), w, camera)
    return out.image, torch.nn.functional.interpolate(out.alpha, out.image.shape[-1]), camera


def test_the_published_size_has_252_million_parameters():
    with torch.device("meta"):
        half = OfficialEncoder(OfficialShape(), torch.zeros(14, 512))
        body = nn.ModuleList([half.psp_encoder.input_layer, half.psp_encoder.body])
        of_eg3d = PlaneEncoder(OfficialShape(plane_channels=96))
    counts = (half, half.psp_encoder, half.triplanenet_encoder, body, of_eg3d)
    assert [round(millions(part), 1) for part in counts] == [252.3, 209.5, 42.9, 31.0, 41.4]
    names = half.state_dict().keys()
    assert {"psp_encoder.styles.13.convs.10.weight", "triplanenet_encoder.up1.conv.double_conv.5.weight"} <= names
    assert {"psp_encoder.body.23.res_layer.5.fc2.weight", "psp_encoder.latlayer2.bias"} <= names


def test_shuffled_pixels_are_of_triplanenets_other_sizes():
    with torch.device("meta"):
        network = PlaneEncoder(OfficialShape(plane_channels=96, shuffle=True))
    ups = [network.get_submodule(f"up{i}.conv.double_conv.1").get_parameter("weight").shape[:2] for i in range(1, 5)]
    assert [tuple(shape) for shape in ups] == [(512, 1024), (384, 384), (256, 224), (96, 128)]
    assert network.final_head_two.get_submodule("0").get_parameter("weight").shape[:2] == (96, 120)


@pytest.mark.parametrize("shuffle", [False, True])
def test_shapes_through_both_networks(shuffle: bool):
    shape = OfficialShape(num_ws=9, w_dim=16, plane_channels=12, width=8, shuffle=shuffle)
    assert StyleEncoder(shape).eval()(torch.rand(2, 3, 256, 256)).shape == (2, 9, 16)
    planes = torch.rand(2, 12, 32, 32)
    assert PlaneEncoder(shape).eval()(torch.rand(2, 9, 32, 32), planes).shape == planes.shape


def test_a_mirrored_camera_sees_the_mirror_image():
    camera = Camera.orbit(0.4, 0.2, roll=0.1)
    camera.intrinsics[:, 0, 2] = 0.55
    points = torch.rand(1, 20, 3) - 0.5
    uv, z = camera.project(points)
    other, depth = mirrored(camera).project(points * torch.tensor([-1.0, 1.0, 1.0]))
    torch.testing.assert_close(z, depth)
    torch.testing.assert_close(torch.stack([1 - uv[..., 0], uv[..., 1]], -1), other)


def test_both_halves_make_one_head_of_a_tri_grid(tiny_panohead: PanoHeadGenerator, tmp_path: Path):
    path = write(tmp_path / "files", tiny_panohead)
    encoders = open_encoders(path, tiny_panohead)
    assert files_of(path) == [path, path.parent / OCCLUDED, path.parent / AVERAGE]
    image, foreground, camera = portrait(tiny_panohead)
    head = encoders(tiny_panohead, image, foreground, camera)
    assert head.w.shape == tiny_panohead.mean_w(1).shape
    planes = tiny_panohead.planes(head.w)
    assert head.planes.shape == planes.shape and head.planes.ndim == 6
    assert head.seen.shape == (1, 3, 1, *planes.shape[3:]) and 0 < head.seen.mean() < 1
    torch.testing.assert_close(planes + head.residual, head.planes)
    assert head.visible.depth.shape == head.visible.scale.shape == (1, 1, 16, 16)
    # a state dict gives what the module gave
    again = encoder(tiny_shape(tiny_panohead))
    again.latent_average = torch.full_like(again.latent_average, 0.5)
    same = again(tiny_panohead, image, foreground, camera)
    torch.testing.assert_close(same.planes, head.visible.planes)
    assert torch.equal(seen_texels(tiny_panohead, same), head.seen)
    with pytest.raises(ValueError, match="not written"):
        save_encoders(tmp_path / "x.safetensors", encoders, tiny_panohead, {})


def test_the_front_layers_are_seen_from_the_front(tiny_panohead: PanoHeadGenerator):
    """Of the planes that face the camera, which plain tri-planes have once for face and back of the head."""
    head = encoder(tiny_shape(tiny_panohead))(tiny_panohead, *portrait(tiny_panohead))
    w = tiny_panohead.mean_w(8)
    ball = replace(head, w=w, planes=tiny_panohead.planes(w))
    back, front = seen_texels(tiny_panohead, ball)[0, 0, 0].mean((1, 2))
    assert front > 3 * back


def test_the_visible_half_alone_will_do(tiny_panohead: PanoHeadGenerator, tmp_path: Path):
    path = write(tmp_path / "files", tiny_panohead, prefix="module.")
    (path.parent / OCCLUDED).unlink()
    encoders = load_official(path, tiny_panohead)
    assert encoders.whole is None
    assert encoders(tiny_panohead, *portrait(tiny_panohead)).planes.isfinite().all()


def test_a_fetched_name_is_found(tiny_panohead: PanoHeadGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    with pytest.raises(InputError, match="pmv fetch dual-encoder"):
        find_encoders("dual-encoder", tiny_panohead)
    path = write(tmp_path / "cache", tiny_panohead)
    assert find_encoders("dual-encoder", tiny_panohead) == path


def test_files_that_cannot_be_used_say_why(
    tiny_panohead: PanoHeadGenerator, tiny_generator: EG3DGenerator, tmp_path: Path
):
    path = write(tmp_path / "files", tiny_panohead)
    average, state = path.parent / AVERAGE, torch.load(path)["state_dict"]
    with pytest.raises(CheckpointError, match="this generator has"):
        load_official(path, tiny_generator)
    with pytest.raises(CheckpointError, match="of another size"):
        load_official(write(tmp_path / "two", tiny_panohead, width=8), tiny_panohead)
    broken = {
        "holds no encoder of TriPlaneNet's kind": {"state_dict": {"x": torch.zeros(3)}},
        "lacks latlayer1.bias": {k: v for k, v in state.items() if k != "psp_encoder.latlayer1.bias"},
        "unknown tensor more": state | {"psp_encoder.more": torch.zeros(2)},
        "latlayer1.bias has shape": state | {"psp_encoder.latlayer1.bias": torch.zeros(2)},
        "values that are no numbers": state | {"psp_encoder.latlayer1.bias": torch.full((32,), torch.nan)},
        "several networks of styles": state | {f"other.{k}": v for k, v in state.items()},
        "lacks 'input_layer.0.weight'": {k: v for k, v in state.items() if k != "psp_encoder.input_layer.0.weight"},
    }
    for message, content in broken.items():
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=message) as caught:
            load_official(path, tiny_panohead)
        assert str(path) in str(caught.value)
    torch.save(state, path)
    average.unlink()
    with pytest.raises(InputError, match=r"put latent_avg\.npy"):
        load_official(path, tiny_panohead)


def test_hostile_files_are_refused(tiny_panohead: PanoHeadGenerator, tmp_path: Path):
    path = write(tmp_path / "files", tiny_panohead)
    Path(WITNESS).unlink(missing_ok=True)
    for content in (called("os system"), saved(copy.copy), b"PK\x03\x04" + b"\0" * 60, b"", b"\x80\x02."):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"visible_net\.pt"):
            load_official(path, tiny_panohead)
    assert not Path(WITNESS).exists()


def test_a_mean_latent_is_one_row_or_all(tmp_path: Path):
    shape, path = OfficialShape(num_ws=3, w_dim=4), tmp_path / AVERAGE
    for good in (np.arange(4.0), np.arange(4, dtype=np.float32)[None], np.arange(12.0).reshape(1, 3, 4)):
        np.save(path, good)
        rows = read_average(path, shape)
        assert rows.shape == (3, 4) and rows.dtype == torch.float32 and rows[0].tolist() == [0, 1, 2, 3]
    header = np.lib.format.magic(1, 0) + (118).to_bytes(2, "little")
    promise = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
    for bad in (np.arange(5.0), np.arange(4), np.full(4, np.nan), np.array(["a"] * 4), np.array([None] * 4)):
        np.save(path, bad, allow_pickle=True)
        with pytest.raises(InputError, match=r"latent_avg\.npy"):
            read_average(path, shape)
    for content in (b"", b"text", header + promise.ljust(117) + b"\n" + b"\0" * 16):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"latent_avg\.npy"):
            read_average(path, shape)
