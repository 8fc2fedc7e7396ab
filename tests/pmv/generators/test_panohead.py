"""What PanoHead has that EG3D has not, and which constructor arguments are refused."""

import copy

import pytest
import torch

from pmv.errors import CheckpointError, InputError
from pmv.generators import PanoHeadConfig, PanoHeadGenerator
from pmv.generators.families import assemble, family_of
from pmv.generators.panohead import shifted
from pmv.generators.settings import with_settings
from pmv.generators.volume import sample_planes
from pmv.geometry.camera import Camera

RENDERING = {
    "superresolution_module": "training.superresolution.SuperresolutionHybrid8XDC",
    "c_gen_conditioning_zero": False,
    "c_scale": 1,
    "ray_start": 2.25,
    "ray_end": 3.3,
    "box_warp": 1,
    "avg_camera_radius": 2.7,
    "avg_camera_pivot": [0, 0, 0.2],
    "depth_resolution": 48,
    "depth_resolution_importance": 48,
    "decoder_activation": "none",
    "use_torgb_raw": True,
    "use_background": True,
    "triplane_size": 256,
    "triplane_depth": 3,
    "sr_antialias": True,
}
ARGUMENTS = {
    "z_dim": 512,
    "c_dim": 25,
    "w_dim": 512,
    "img_resolution": 512,
    "conv_clamp": None,
    "sr_num_fp16_res": 4,
    "mapping_kwargs": {"num_layers": 2},
}


def configured(**rendering) -> PanoHeadConfig:
    return PanoHeadConfig.from_init_kwargs(ARGUMENTS | {"rendering_kwargs": RENDERING | rendering}, 64)


def test_the_official_arguments_are_the_defaults():
    config = configured()
    assert config == PanoHeadConfig()
    assert config.plane_shape == (3, 32, 3, 256, 256) and config.pivot == (0, 0, 0) and config.full_head


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"decoder_activation": "relu"}, "decoder activation"),
        ({"triplane_depth": 0}, "tri-grid"),
        ({"triplane_size": 100}, "tri-grid"),
        ({"clamp_mode": "relu"}, "softplus"),
        ({"superresolution_module": "training.superresolution.Other"}, "super-resolution head"),
    ],
)
def test_unsupported_arguments_are_refused(arguments, says):
    with pytest.raises(CheckpointError, match=says):
        configured(**arguments)


@pytest.mark.parametrize("more", [{"architecture": "resnet"}, {"mapping_kwargs": {"lr_multiplier": 1.0}}])
def test_another_backbone_is_refused(more):
    with pytest.raises(CheckpointError, match="not supported"):
        PanoHeadConfig.from_init_kwargs(ARGUMENTS | {"rendering_kwargs": RENDERING} | more, 64)


@pytest.mark.parametrize(
    ("activation", "white", "background"),
    [("sigmoid", False, -1.0), ("sigmoid", True, 1.0), ("none", False, 0.0), ("lrelu", True, 1.0)],
)
def test_what_lies_behind_without_a_background_network(activation, white, background, tiny_panohead):
    """Empty rays show 0 or 1 as the official marcher composites them, scaled where the sigmoid's features are."""
    config = configured(decoder_activation=activation, white_back=white, use_background=False, use_torgb_raw=False)
    assert config.background == background and not config.has_alpha
    tiny = PanoHeadConfig.small(
        **{k: getattr(tiny_panohead.config, k) for k in ("z_dim", "w_dim", "plane_resolution", "head", "resolution")},
        channel_base=256,
        channel_max=8,
        decoder_activation=activation,
        background_network=False,
        raw_torgb=False,
        neural_resolution=8,
    )
    generator = PanoHeadGenerator(PanoHeadConfig(**{**vars(tiny), "background": background}))
    with torch.no_grad():
        for name, value in (("weight", 0.0), ("bias", 0.0)):
            generator.decoder.net[2].get_parameter(name).fill_(value)
        generator.decoder.net[2].get_parameter("bias")[0] = -50.0
        w = generator.mean_w(4)
        features, _, alpha = generator.march(generator.planes(w), generator.spec.canonical_camera, 8, None)
    assert alpha.max() < 1e-5 and generator.spec.background == background
    torch.testing.assert_close(features, torch.full_like(features, background), atol=1e-4, rtol=0)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_tri_grid_is_read_along_three_axes(depth):
    """A grid that holds its layer's coordinate gives the third axis back, between the outermost layers' middles."""
    size, box = 8, 0.8
    points = (torch.rand(1, 50, 3) - 0.5) * box * (0.9 - 1 / size)
    layers = (torch.arange(depth) + 0.5) / depth * 2 - 1
    for k, third in enumerate((2, 1, 0)):  # XY, XZ, YZ
        grid = torch.zeros(1, 3, 2, depth, size, size)
        grid[0, k, 0], grid[0, k, 1] = layers[:, None, None].expand(depth, size, size), 1.0
        value, one = (3 * sample_planes(grid, points, box, "panohead")).unbind(-1)
        coordinate = points[..., third] * 2 / box
        inner = coordinate.abs() <= layers.max()
        torch.testing.assert_close(value[inner], coordinate[inner], atol=1e-5, rtol=0)
        torch.testing.assert_close(one[inner], torch.ones_like(one)[inner])
        # outside them it fades to half at the box's faces
        faded = 1 - ((coordinate.abs() - layers.max()) * depth / 2).clamp_min(0)
        torch.testing.assert_close(one, faded, atol=1e-5, rtol=0)


def test_the_margin_is_empty_but_below(tiny_panohead):
    generator = copy.deepcopy(tiny_panohead)
    with torch.no_grad():
        generator.decoder.net[2].get_parameter("bias")[0] += 1000.0  # all of the box is solid
    planes, reach = generator.planes(generator.mean_w(8)), generator.config.box / 2 - generator.config.margin
    out, edge = reach + 0.01, generator.config.box / 2 - 0.01
    points = torch.tensor([[[0, 0, 0], [0, -edge, 0], [0, edge, 0], [out, 0, 0], [-out, 0, 0], [0, 0, out]]])
    solid = generator.field(planes).density(points, False)[0][0, :, 0] > 0
    assert solid.tolist() == [True, True, True, False, False, False]
    assert (generator.density(points, planes)[0] > 0).all()  # what the decoder itself says is not cut


def test_the_background_is_one_picture_from_everywhere(tiny_panohead):
    w = tiny_panohead.mean_w(8)
    planes = tiny_panohead.planes(w)
    out = tiny_panohead.render(planes, w, tiny_panohead.spec.orbit(torch.tensor([0.0, 2.0]), 0.0))
    empty = (out.alpha < 1e-3).all(0).expand(3, -1, -1)
    assert empty.any() and out.raw[0][empty].std() > 1e-2
    torch.testing.assert_close(out.raw[0][empty], out.raw[1][empty], atol=1e-2, rtol=0)
    assert tiny_panohead.spec.background is None and tiny_panohead.spec.has_alpha
    assert not tiny_panohead.spec.stands_alone
    with pytest.raises(InputError, match="paints a background"):
        with_settings(tiny_panohead, {"background": 0.0})


def test_the_camera_shift_depends_on_the_latent_and_moves_the_centre_alone(tiny_panohead):
    camera, z = tiny_panohead.spec.canonical_camera, torch.randn(2, 16)
    shift = tiny_panohead.camera_shift(z, camera)
    assert shift.shape == (2, 3) and not torch.allclose(shift[0], shift[1])
    moved = shifted(camera.expand(2), shift)
    assert isinstance(moved, Camera)
    torch.testing.assert_close(moved.position, camera.position + shift)
    assert torch.equal(moved.cam2world[:, 3], camera.cam2world[:, 3].expand(2, 4))


def test_a_state_dict_must_be_whole(tiny_panohead):
    state = dict(tiny_panohead.state_dict())
    assert family_of(state) == "panohead"
    whole = assemble(tiny_panohead.config, state, "tiny.pt")
    assert torch.equal(whole.state_dict()["torgb.weight"], state["torgb.weight"])
    for change in ("missing", "extra", "shape"):
        changed = dict(state)
        if change == "missing":
            del changed["bcg_synthesis.b4.const"]
        elif change == "extra":
            changed["nose"] = torch.zeros(1)
        else:
            changed["torgb.bias"] = torch.zeros(4)
        with pytest.raises(CheckpointError, match=r"^tiny\.pt: [^\n]*$"):
            assemble(tiny_panohead.config, changed, "tiny.pt")
