"""The whole recipe on a generator that paints its own background and knows heads from all sides."""

from pathlib import Path

import pytest
import torch

from pmv.apps.invert import Request, invert
from pmv.files.artifacts import read_json
from pmv.generators import PanoHeadGenerator
from pmv.pictures.images import read_image, write_png
from pmv.pipeline.packing import load_fields
from pmv.stages.table import TABLE

SETTINGS = (
    "latent.steps=3",
    "latent.mean_samples=8",
    "coarse.steps=2",
    "coarse.views=2",
    "coarse.around=2",
    "coarse.depth_resolution=16",
    "tune.steps=3",
    "retune.steps=3",
    "retune.held_views=2",
    "evaluate.frames=3",
    "evaluate.mesh_resolution=16",
    "run.device=cpu",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_panohead: PanoHeadGenerator) -> Path:
    """A run on a portrait of the generator's own mean head, camera and mask given."""
    folder = tmp_path_factory.mktemp("panohead")
    w = tiny_panohead.mean_w(16)
    camera = tiny_panohead.spec.orbit(0.2, 0.0)
    out = tiny_panohead.render(tiny_panohead.planes(w), w, tiny_panohead.photo_camera(camera))
    write_png(folder / "head.png", out.image.clamp(-1, 1))
    write_png(folder / "mask.png", torch.nn.functional.interpolate(out.alpha, 32).clamp(0, 1))
    camera.save(folder / "camera.npy")
    request = Request(settings=SETTINGS, mask=folder / "mask.png", camera=folder / "camera.npy")
    return invert(request, folder / "head.png", folder / "run", generator=tiny_panohead)


def outputs(run: Path, stage: str, *names: str) -> list:
    values = load_fields(run / TABLE[TABLE.find(stage)].folder / "outputs.safetensors", list(names))
    return [values[name] for name in names]


def test_the_run_is_complete(finished: Path):
    assert read_json(finished / "run.json")["complete"]
    (metrics,) = outputs(finished, "evaluate", "metrics")
    assert metrics["tuned_psnr"] > metrics["pivot_psnr"] - 1
    assert list(finished.glob("*/turntable.mp4")) and list(finished.glob("*/head.ply"))


def test_the_photo_keeps_its_surroundings(finished: Path):
    """They belong into the painted background, so nothing may be put in their place."""
    (original,) = outputs(finished, "prepare", "original")
    photo, _ = read_image(finished.parent / "head.png")
    torch.testing.assert_close(original, photo, atol=0.02, rtol=0)


def test_the_camera_is_where_the_generator_has_learned_it_to_be(finished: Path, tiny_panohead: PanoHeadGenerator):
    given = tiny_panohead.spec.orbit(0.2, 0.0)
    (camera,) = outputs(finished, "prepare", "initial_camera")
    shift = (camera.position - given.position).norm()
    assert shift > 1e-3
    torch.testing.assert_close(camera.position, tiny_panohead.photo_camera(given).position)


def test_pseudo_views_go_all_around_before_one_background(finished: Path, tiny_panohead: PanoHeadGenerator):
    cameras, renders, alphas = outputs(finished, "coarse", "pseudo_cameras", "view_renders", "view_alphas")
    yaw = cameras.yaw_pitch(tiny_panohead.spec.pivot)[0]
    assert (yaw.cos() < 0).sum() >= 2
    empty = torch.nn.functional.interpolate(alphas, renders.shape[-2:]).amax(0, keepdim=True) < 0.02
    assert empty.float().mean() > 0.1
    spread = (renders - renders.mean(0)).abs().mean(1, keepdim=True)[empty.expand(len(renders), -1, -1, -1)]
    assert spread.mean() < 0.02


def test_tuning_reaches_the_background(finished: Path):
    (tuned,) = outputs(finished, "retune", "tuned_state")
    assert any(name.startswith("bcg_synthesis.") for name in tuned) and "plane_residual" in tuned
