"""Stage seed: an encoded head, who takes what of it, and a run that goes on from there."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pmv.apps.invert import Request, invert
from pmv.errors import CheckpointError, InputError
from pmv.files.artifacts import read_json, tensors_hash
from pmv.fitting.tuning import start_from_planes
from pmv.generators import EG3DGenerator, load_generator
from pmv.generators.views import render_planes
from pmv.geometry.blend import carry_trust
from pmv.geometry.camera import Camera
from pmv.geometry.scene import SeenFrom, edge_step
from pmv.pictures.images import write_png
from pmv.pipeline.context import Context
from pmv.pipeline.packing import load_fields
from pmv.stages import coarse, inpaint, latent, tune
from pmv.stages.seed import SeedConfig, SeedInputs, SeedOutputs, check, encoders_path, identity, run, surface_trust
from pmv.stages.table import TABLE
from tests.encoder_files import write_encoders
from tests.stages.test_panohead_run import SETTINGS

HANDED = (
    "start_w",
    "start_camera",
    "surface_depth",
    "surface_trust",
    "coarse_planes",
    "residual_planes",
    "fill_planes",
)


def everything(encoders: str, **changed: bool | float | str) -> SeedConfig:
    """A config that hands over all there is, but for what is changed."""
    switches = dict.fromkeys(("start", "surface", "coarse", "residual", "fill"), True)
    return SeedConfig("encoder", encoders, **{"start_yaw": 0.0, **switches, **changed})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def encoders(tiny_generator: EG3DGenerator, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_encoders(tmp_path_factory.mktemp("encoders") / "both.safetensors", tiny_generator))


@pytest.fixture(scope="module")
def portrait(tiny_generator: EG3DGenerator) -> SeedInputs:
    w, camera = tiny_generator.mean_w(16), tiny_generator.spec.orbit(0.2, 0.0)
    out = tiny_generator.render(tiny_generator.planes(w), w, camera)
    return SeedInputs(out.image.clamp(-1, 1), torch.nn.functional.interpolate(out.alpha, 32).clamp(0, 1), camera)


@pytest.fixture
def context(tiny_generator: EG3DGenerator) -> Context:
    def distance(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
        return (a - b).square().mean((1, 2, 3))

    return Context(tiny_generator, torch.device("cpu"), torch.Generator().manual_seed(0), distance)


@pytest.fixture
def seed(portrait: SeedInputs, encoders: str, context: Context) -> SeedOutputs:
    return run(portrait, everything(encoders), context)


def given(outputs: SeedOutputs) -> set[str]:
    return {field.name for field in fields(outputs) if getattr(outputs, field.name) is not None}


def test_nothing_is_handed_on_without_encoders(portrait: SeedInputs, context: Context):
    assert given(run(portrait, SeedConfig(), context)) == set()


def test_everybody_gets_what_he_is_to_have(seed: SeedOutputs, portrait: SeedInputs, encoders: str, context: Context):
    head = {"encoded_w", "encoded_planes", "encoded_camera"}
    assert given(seed) == head | set(HANDED)
    assert seed.surface_trust is not None and seed.surface_trust.min() >= 0 and seed.surface_trust.max() <= 1
    beside = torch.nn.functional.interpolate(portrait.foreground, seed.surface_trust.shape[-1]) == 0
    assert not seed.surface_trust[beside].any()
    takers = {
        "start": {"start_w", "start_camera"},
        "surface": {"surface_depth", "surface_trust"},
        "coarse": {"coarse_planes"},
        "residual": {"residual_planes"},
        "fill": {"fill_planes"},
    }
    for name, withheld in takers.items():
        out = run(portrait, everything(encoders, **{name: False}), context)
        assert given(out) == head | set(HANDED) - withheld, name


def test_the_latent_starts_from_heads_that_are_turned(portrait: SeedInputs, encoders: str, context: Context):
    yaw = 11.5  # degrees, the portrait's; the encoder puts it right by little
    assert "start_w" in given(run(portrait, everything(encoders, start_yaw=yaw - 5), context))
    assert "start_w" not in given(run(portrait, everything(encoders, start_yaw=yaw + 5), context))


def test_auto_takes_what_ships_for_the_generator(tiny_generator: EG3DGenerator, encoders: str):
    shipped = load_generator("heads")
    path = encoders_path(SeedConfig(), shipped)
    assert path is not None and path.name == "heads-encoder.safetensors" and identity(SeedConfig(), shipped)
    check(SeedConfig(), shipped)
    assert encoders_path(SeedConfig(), tiny_generator) is None
    assert encoders_path(SeedConfig("none"), shipped) is None
    assert encoders_path(SeedConfig(encoders=encoders), tiny_generator) == Path(encoders)


def test_parts_are_one_encoders_own(portrait: SeedInputs, encoders: str, context: Context):
    both, visible, whole = (
        run(portrait, SeedConfig("encoder", encoders, parts), context)  # type: ignore[arg-type]
        for parts in ("both", "visible", "whole")
    )
    assert both.encoded_w is not None and visible.encoded_w is not None and whole.encoded_w is not None
    assert torch.equal(both.encoded_w, visible.encoded_w) and not torch.equal(both.encoded_w, whole.encoded_w)
    assert len({tensors_hash({"x": out.encoded_planes}) for out in (both, visible, whole)}) == 3  # type: ignore[dict-item]


def test_what_cannot_be_used_is_told_at_once(tiny_generator: EG3DGenerator, encoders: str, tmp_path: Path):
    check(SeedConfig(), tiny_generator)
    check(SeedConfig("encoder", encoders), tiny_generator)
    with pytest.raises(InputError, match="no encoders for this generator"):
        check(SeedConfig("encoder"), tiny_generator)
    with pytest.raises(InputError, match="neither a file of encoders"):
        check(SeedConfig("encoder", str(tmp_path / "none")), tiny_generator)
    one = write_encoders(tmp_path / "one.safetensors", tiny_generator, both=False)
    with pytest.raises(InputError, match=r"one\.safetensors: holds one encoder"):
        check(SeedConfig("encoder", str(one), "whole"), tiny_generator)
    (tmp_path / "text.safetensors").write_text("nothing")
    with pytest.raises((InputError, CheckpointError), match=r"text\.safetensors"):
        check(SeedConfig("encoder", str(tmp_path / "text.safetensors")), tiny_generator)


def test_other_weights_in_the_file_are_another_seed(tiny_generator: EG3DGenerator, encoders: str, tmp_path: Path):
    path = write_encoders(tmp_path / "one.safetensors", tiny_generator, both=False)
    one = identity(SeedConfig("encoder", str(path)), tiny_generator)
    write_encoders(path, tiny_generator)
    assert one and one != identity(SeedConfig("encoder", str(path)), tiny_generator)
    assert identity(SeedConfig(), tiny_generator) == ""


def test_a_surface_is_trusted_by_how_sure_it_is():
    scale = torch.full((1, 1, 16, 16), 0.01)
    scale[..., 8:] = 0.03
    trust = surface_trust(scale, torch.ones(1, 1, 32, 32), 0.01, 0.0)
    assert trust[0, 0, 8, 4] == pytest.approx(0.5) and trust[0, 0, 8, 12] == pytest.approx(0.1)
    half = torch.ones(1, 1, 32, 32)
    half[..., 16:] = 0
    faded = surface_trust(scale, half, 0.01, 0.2)[0, 0, 8]
    assert faded[0] == pytest.approx(0.5) and 0 < faded[7] < 0.2 and not faded[8:].any()


def test_latent_starts_from_it(seed: SeedOutputs, portrait: SeedInputs, context: Context):
    inputs = latent.LatentInputs(
        portrait.original,
        portrait.foreground,
        portrait.initial_camera,
        start_w=seed.start_w,
        start_camera=seed.start_camera,
    )
    out = latent.run(inputs, latent.LatentConfig(steps=0, mean_samples=8), context)
    assert seed.start_w is not None and seed.start_camera is not None
    assert torch.equal(out.pivot_w, seed.start_w)
    torch.testing.assert_close(out.camera.cam2world, seed.start_camera.cam2world)


def tuned(seed: SeedOutputs, portrait: SeedInputs, context: Context, **changes: Any) -> tuple[Any, Any]:
    """Coarse and tune on the encoded head, without a step."""
    assert seed.encoded_w is not None and seed.encoded_camera is not None
    shared = {"original": portrait.original, "foreground": portrait.foreground, "pivot_w": seed.encoded_w}
    shared |= {"noise": context.generator.noise_buffers(), "camera": seed.encoded_camera}
    found = coarse.run(
        coarse.CoarseInputs(**shared, difference_mask=torch.zeros_like(portrait.foreground), **changes),
        coarse.CoarseConfig(steps=0, views=2, rings=1, around=0, depth_resolution=32),
        context,
    )
    views = found.pseudo_cameras
    names = ("view_depths", "view_alphas", "input_depth", "input_alpha", "depth_trusts")
    inputs = tune.TuneInputs(
        **shared,
        pseudo_cameras=views,
        pseudo_views=found.view_renders,
        blend_masks=torch.ones_like(found.view_renders[:, :1]),
        confidences=torch.ones(len(views)),
        residual_planes=seed.residual_planes,
        **{name: getattr(found, name) for name in names},
    )
    return found, inputs


def test_coarse_and_tune_start_in_its_planes(seed: SeedOutputs, portrait: SeedInputs, context: Context):
    found, inputs = tuned(seed, portrait, context, coarse_planes=seed.coarse_planes)
    assert seed.encoded_planes is not None and seed.encoded_w is not None and seed.encoded_camera is not None
    head = render_planes(context.generator, seed.encoded_planes, seed.encoded_w, seed.encoded_camera)
    torch.testing.assert_close(found.input_render, head.image, atol=1e-4, rtol=0)
    assert context.generator.plane_residual is None, "the pretrained generator is left alone"
    for rate in (0.01, 0.0):
        out = tune.run(inputs, tune.TuneConfig(steps=0, residual_rate=rate), context)
        planes = context.generator.planes(seed.encoded_w) + out.unedited_state["plane_residual"]
        torch.testing.assert_close(planes, seed.encoded_planes, atol=1e-4, rtol=0)


def test_a_residual_makes_up_for_another_latent(seed: SeedOutputs, tiny_generator: EG3DGenerator):
    import copy

    assert seed.encoded_planes is not None
    generator, w = copy.deepcopy(tiny_generator), tiny_generator.mean_w(8)
    for _ in range(2):  # what was there before does not count
        (residual,) = start_from_planes(generator, seed.encoded_planes, w, {}).values()
        torch.testing.assert_close(generator.planes(w), seed.encoded_planes, atol=1e-4, rtol=0)
    assert not residual.requires_grad


def test_the_surface_moves_the_coarse_one_where_it_is_sure(seed: SeedOutputs, portrait: SeedInputs, context: Context):
    without, _ = tuned(seed, portrait, context)
    depth = without.input_depth.clone()
    depth[..., :16] += 0.03 * torch.linspace(1, -1, 32)[:, None]  # another relief on one half
    trust = torch.zeros_like(depth)
    trust[..., :16] = 1.0
    found, inputs = tuned(seed, portrait, context, surface_depth=depth, surface_trust=trust)
    solid = without.input_alpha > 0.5
    sure = solid & (trust > 0)
    before, after = ((d - depth)[sure].abs().mean() for d in (without.input_depth, found.input_depth))
    assert after < 0.4 * before
    assert (found.input_depth - without.input_depth)[solid & (trust == 0)].abs().mean() < 0.2 * before
    assert not torch.equal(found.view_depths, without.view_depths)
    assert found.depth_trusts.shape == (3, 1, 32, 32) and found.depth_trusts[1:].max() > 0.9
    assert without.depth_trusts is None
    # and tune feels it
    asked = tune.tune_targets(inputs, tune.TuneConfig(), context.generator.spec)
    drawn = render_planes(context.generator, seed.encoded_planes, seed.encoded_w, asked.cameras)  # type: ignore[arg-type]
    losses = tune.tune_losses(drawn, asked, None, tune.TuneConfig(hold_trusted=2.0), context.perceptual)
    assert losses["trusted"] > 0
    assert "trusted" not in tune.tune_losses(drawn, asked, None, tune.TuneConfig(hold_trusted=0), context.perceptual)


def test_trust_is_carried_to_what_other_views_see_of_it():
    cameras = Camera.orbit(torch.tensor([0.0, 0.5, 3.1]), torch.zeros(3))
    origins, directions = cameras.rays(64)
    a, b = directions.square().sum(-1), (origins * directions).sum(-1)
    root = b.square() - a * (origins.square().sum(-1) - 0.2**2)
    depth = torch.where(root > 0, (-b - root.clamp_min(0).sqrt()) / a, 9.0).reshape(3, 1, 64, 64)
    alpha = (root > 0).float().reshape(3, 1, 64, 64)
    assert edge_step(cameras[0], 64) > 0
    source = SeenFrom(cameras[0], depth[:1], alpha[:1] > 0.5)
    trust = 0.7 * alpha[:1]
    carried = carry_trust(trust, source, cameras[1:], depth[1:], alpha[1:], 0.01)
    assert carried[0, 0, 32, 32] == pytest.approx(0.7, abs=0.02) and 0.2 < (carried[0] > 0.6).float().sum() / 900
    assert not carried[1].any(), "the back of the ball"
    assert not carried[alpha[1:] == 0].any()


def test_the_encoded_head_fills_what_the_photo_does_not_show(seed: SeedOutputs, portrait: SeedInputs, context: Context):
    found, _ = tuned(seed, portrait, context)
    assert seed.encoded_camera is not None and seed.encoded_w is not None and seed.fill_planes is not None
    # the photo's camera was turned since: the head that fills turns with it
    turned = seed.encoded_camera.adjusted(torch.tensor([[0.0, 0.3, 0.0]]), torch.zeros(1, 3))
    views = found.pseudo_cameras.relative_to(seed.encoded_camera, turned)
    visible = torch.zeros(2, 1, 32, 32)
    visible[:, :, :, :10] = 1
    values = {
        "warped_views": torch.full((2, 3, 32, 32), 0.5),
        "visible_masks": visible,
        "warped_edit_masks": torch.zeros_like(visible),
        "view_renders": torch.full((2, 3, 32, 32), -0.5),
        "view_depths": found.view_depths + 1,
        "view_alphas": found.view_alphas,
        "camera": turned,
        "pseudo_cameras": views,
    }
    head = {"fill_planes": seed.fill_planes, "encoded_w": seed.encoded_w, "encoded_camera": seed.encoded_camera}
    config = inpaint.InpaintConfig(feather=0.0, harmonize=False)
    out = inpaint.run(inpaint.InpaintInputs(**values, **head), config, context)  # type: ignore[arg-type]
    fill = render_planes(context.generator, seed.fill_planes, seed.encoded_w, found.pseudo_cameras, None)
    torch.testing.assert_close(out.pseudo_views[..., 10:], fill.image[..., 10:], atol=1e-3, rtol=0)
    assert torch.equal(out.pseudo_views[..., :10], values["warped_views"][..., :10])
    assert out.filled_depths is not None and out.filled_alphas is not None
    assert torch.equal(out.filled_depths[..., :10], values["view_depths"][..., :10])
    deep = render_planes(context.generator, seed.fill_planes, seed.encoded_w, found.pseudo_cameras, 32)
    torch.testing.assert_close(out.filled_depths[..., 10:], deep.depth[..., 10:], atol=1e-3, rtol=0)
    plain = inpaint.run(inpaint.InpaintInputs(**values), config, context)  # type: ignore[arg-type]
    assert plain.filled_depths is None and (plain.pseudo_views[..., 10:] == -0.5).all()


def test_a_whole_run_goes_through_it(
    tmp_path: Path, tiny_generator: EG3DGenerator, portrait: SeedInputs, encoders: str
):
    write_png(tmp_path / "head.png", portrait.original)
    write_png(tmp_path / "mask.png", portrait.foreground)
    portrait.initial_camera.save(tmp_path / "camera.npy")
    settings = (*SETTINGS, "seed.kind=encoder", f"seed.encoders={encoders}", "seed.start_yaw=0")
    settings += tuple(f"seed.{name}=true" for name in ("coarse", "residual", "fill"))
    request = Request(settings=settings, mask=tmp_path / "mask.png", camera=tmp_path / "camera.npy")
    folder = invert(request, tmp_path / "head.png", tmp_path / "run", generator=tiny_generator)
    assert read_json(folder / "run.json")["complete"]
    state = load_fields(folder / TABLE[TABLE.find("tune")].folder / "outputs.safetensors", ["unedited_state"])
    assert state["unedited_state"]["plane_residual"].abs().max() > 0
    # what one stage no longer gets, no other stage runs again for
    invert(Request(settings=("seed.fill=false",)), resume=folder, generator=tiny_generator)
    ran = {name: value["ran"] for name, value in read_json(folder / "run.json")["stages"].items()}
    assert [name for name in ran if not ran[name]] == ["prepare", "latent", "coarse", "edit", "visibility", "warp"]
