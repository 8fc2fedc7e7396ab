"""Stage evaluate on the tiny generator: numbers that must come out, and every picture, film and mesh."""

import math
from dataclasses import replace

import pytest
import torch

from pmv.fitting.losses import masked_l2
from pmv.pipeline.context import Context
from pmv.stages.evaluate import EvaluateConfig, EvaluateInputs, run, turntable

FAST = EvaluateConfig(frames=9, mesh_resolution=24, mesh_level=5.0)


class Kept(dict):
    """Everything a stage shows."""

    def context(self, generator):
        return Context(
            generator,
            torch.device("cpu"),
            torch.Generator(),
            lambda a, b: masked_l2(a, b),
            preview=self.__setitem__,
            video=lambda name, frames, fps: self.__setitem__(name, (frames, fps)),
            mesh=lambda name, *mesh: self.__setitem__(name, mesh),
        )


@pytest.fixture(scope="module")
def inputs(tiny_generator):
    """An inversion that found the truth: the photo is the generator's own view."""
    spec = tiny_generator.spec
    camera, views = spec.orbit(0.1, 0.0), spec.orbit(torch.tensor([-0.4, 0.6]), 0.1)
    w = tiny_generator.mean_w(16)
    with torch.no_grad():
        planes = tiny_generator.planes(w)
        front, side = tiny_generator.render(planes, w, camera), tiny_generator.render(planes, w, views)
    foreground = (torch.nn.functional.interpolate(front.alpha, 32, mode="bilinear") > 0.5).float()
    image, side_images = front.image.clamp(-1, 1), side.image.clamp(-1, 1)
    weights = (torch.nn.functional.interpolate(side.alpha, 32, mode="bilinear") > 0.5).float()
    return EvaluateInputs(
        image,
        foreground,
        torch.zeros_like(foreground),
        camera,
        w,
        {},
        {},
        views,
        side_images,
        weights,
        side_images,
        weights,
        torch.zeros_like(weights),
        image,
    )


def test_a_perfect_inversion_scores_perfectly(tiny_generator, inputs):
    kept = Kept()
    metrics = run(inputs, FAST, kept.context(tiny_generator)).metrics
    for name in ("pivot", "coarse", "tuned"):
        assert metrics[f"{name}_psnr"] > 60
        assert metrics[f"{name}_ssim"] == pytest.approx(1, abs=1e-3)
        assert metrics[f"{name}_perceptual"] == pytest.approx(0, abs=1e-6)
    assert metrics["views_psnr"] > 60
    assert metrics["consistency_psnr"] > 15
    assert 0.2 < metrics["consistency_covisible"] <= 1
    assert "edit_psnr" not in metrics  # there is no edit to measure
    assert all(math.isfinite(value) for value in metrics.values())


def test_everything_to_look_at_is_made(tiny_generator, inputs):
    kept = Kept()
    run(inputs, FAST, kept.context(tiny_generator))
    frames, fps = kept["turntable"]
    assert frames.shape == (9, 32, 32, 3) and frames.dtype.name == "uint8" and fps == FAST.fps
    assert kept["contact_sheet"].shape[1] == 3 and kept["contact_sheet"].abs().max() <= 1
    vertices, faces, colours = kept["head"]
    assert faces.max() < len(vertices) == len(colours)
    # half way up the ball that the tiny generator was taught
    assert vertices.norm(dim=-1).median().item() == pytest.approx(0.2, abs=0.05)


def test_a_wrong_tuned_state_scores_worse_and_the_generator_is_left_alone(tiny_generator, inputs):
    before = {name: value.clone() for name, value in tiny_generator.state_dict().items()}
    name, weight = next(iter(tiny_generator.tunable_parameters("decoder").items()))
    wrong = replace(inputs, tuned_state={name: weight.detach() * 0.5})
    metrics = run(wrong, replace(FAST, frames=0, mesh_resolution=0), Kept().context(tiny_generator)).metrics
    assert metrics["tuned_psnr"] < metrics["pivot_psnr"] - 10
    for key, value in tiny_generator.state_dict().items():
        assert torch.equal(value, before[key])


def test_an_edit_is_measured_apart(tiny_generator, inputs):
    edit = torch.zeros_like(inputs.foreground)
    edit[..., 12:18, 12:18] = 1
    image = torch.where(edit > 0, torch.ones_like(inputs.image), inputs.image)
    config = replace(FAST, frames=0, mesh_resolution=0)
    metrics = run(replace(inputs, image=image, edit_mask=edit), config, Kept().context(tiny_generator)).metrics
    assert metrics["edit_psnr"] < 20 < metrics["pivot_psnr"]
    assert metrics["tuned_psnr"] < metrics["pivot_psnr"]  # the pivot is not blamed for an edit it never saw


def test_pseudo_views_are_compared_with_the_edit_on_them(tiny_generator, inputs):
    edit = torch.zeros_like(inputs.warped_edit_masks)
    edit[..., 12:18, 12:18] = 1
    views = torch.where(edit > 0, torch.ones_like(inputs.pseudo_views), inputs.pseudo_views)
    edited = replace(inputs, edited_views=views, warped_edit_masks=edit)
    kept, config = Kept(), replace(FAST, frames=0, mesh_resolution=0)
    metrics = run(edited, config, kept.context(tiny_generator)).metrics
    assert metrics["views_psnr"] < 25
    plain = Kept()
    run(inputs, config, plain.context(tiny_generator))
    assert (kept["contact_sheet"] != plain["contact_sheet"]).any()


def test_video_and_mesh_can_be_left_out(tiny_generator, inputs):
    kept = Kept()
    run(inputs, replace(FAST, frames=0, mesh_resolution=0), kept.context(tiny_generator))
    assert "contact_sheet" in kept and not {"turntable", "head"} & kept.keys()


def test_turntable_goes_round_heads_and_swings_before_faces(tiny_generator):
    config = EvaluateConfig(frames=8)
    yaw, pitch = turntable(tiny_generator.spec, config).yaw_pitch()
    assert torch.allclose(torch.rad2deg(yaw) % 360, torch.arange(8) * 45.0, atol=1e-2)
    assert torch.rad2deg(pitch).abs().max() == pytest.approx(8, abs=0.1)
    yaw, _ = turntable(replace(tiny_generator.spec, full_head=False), config).yaw_pitch()
    assert torch.rad2deg(yaw).abs().max() == pytest.approx(40, abs=0.1)
