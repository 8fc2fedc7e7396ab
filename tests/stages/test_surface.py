"""Stage surface: the face of the photo's landmarks takes the place of the coarse one, and nothing else does."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pmv.geometry.camera import EG3D_FOCAL, Camera
from pmv.geometry.raster import rasterize
from pmv.pipeline.context import Context
from pmv.portrait import face_fit
from pmv.portrait.statistical_face import shipped_face
from pmv.stages import surface
from pmv.stages.surface import SurfaceConfig, SurfaceInputs, run

SIZE = 64
INPUT = Camera.orbit(0.0, 0.0)
VIEWS = Camera.orbit(torch.tensor([-0.3, 0.4]), torch.tensor([0.0, 0.1]))
FACE = shipped_face()
TRIANGLES = torch.from_numpy(FACE.triangles)


def drawn(shape: np.ndarray, cameras: Camera) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth and alpha [N,1,S,S] of a face in EG3D's world."""
    views = [cameras[i] for i in range(len(cameras))]
    points = torch.from_numpy(FACE.anchor.apply(shape)).float()
    depth = torch.cat([rasterize(points, TRIANGLES, view, SIZE, SIZE).depth for view in views])[:, None]
    return depth, (depth > 0).float()


@pytest.fixture
def context() -> Context:
    return Context(SimpleNamespace(spec=None), torch.device("cpu"), torch.Generator(), lambda a, b: a)


@pytest.fixture
def inputs(monkeypatch: pytest.MonkeyPatch) -> SurfaceInputs:
    """The coarse head is a mean one; the landmarks are of somebody else."""
    mean = FACE.shape(np.zeros(1), np.zeros(len(FACE.expression_names)))
    landmarks = FACE.at_landmarks(person()) + face_fit._PHOTO_SHARE * FACE.landmark_offset
    points = torch.from_numpy(FACE.anchor.apply(landmarks)).float()
    uv = INPUT.project(points[None])[0][0].double().numpy()
    monkeypatch.setattr(surface, "_landmarks", lambda original, least: uv)
    depth, alpha = drawn(mean, INPUT)
    view_depths, view_alphas = drawn(mean, VIEWS)
    return SurfaceInputs(torch.zeros(1, 3, 96, 96), INPUT, VIEWS, depth, alpha, view_depths, view_alphas)


def person() -> np.ndarray:
    return FACE.shape(1.5 * np.random.default_rng(3).normal(size=20), np.zeros(len(FACE.expression_names)))


def test_the_surface_nears_the_persons_own(inputs: SurfaceInputs, context: Context):
    out = run(inputs, SurfaceConfig(), context)
    for found, coarse, camera in (
        (out.input_depth, inputs.coarse_input_depth, INPUT),
        (out.view_depths, inputs.coarse_view_depths, VIEWS),
    ):
        true, _ = drawn(person(), camera)
        moved = (found != coarse) & (true > 0) & ((true - coarse).abs() < 0.05)
        assert moved.float().mean() > 0.03
        errors = [(depth - true)[moved] for depth in (found, coarse)]
        new, old = ((error - error.median()).abs().mean() for error in errors)
        assert new < 0.95 * old
    sure = out.surface_confidence > 0
    assert torch.equal(out.input_depth[inputs.input_alpha == 0], inputs.coarse_input_depth[inputs.input_alpha == 0])
    assert 0.05 < sure.float().mean() < 0.5


def test_it_can_be_switched_off_and_does_without_landmarks(
    inputs: SurfaceInputs, context: Context, monkeypatch: pytest.MonkeyPatch
):
    off = run(inputs, SurfaceConfig(face_weight=0.0), context)
    monkeypatch.setattr(surface, "_landmarks", lambda original, least: None)
    without = run(inputs, SurfaceConfig(), context)
    for out in (off, without):
        assert out.input_depth is inputs.coarse_input_depth and out.view_depths is inputs.coarse_view_depths
        assert not out.surface_confidence.any()


def test_another_focal_length_is_the_cameras_own(inputs: SurfaceInputs, context: Context):
    assert float(INPUT.intrinsics[0, 0, 0]) == pytest.approx(EG3D_FOCAL)
    wider = INPUT.intrinsics.clone()
    wider[:, 0, 0] = wider[:, 1, 1] = 4.0
    out = run(replace(inputs, camera=Camera(INPUT.cam2world, wider)), SurfaceConfig(), context)
    assert torch.isfinite(out.input_depth).all()


def test_a_photo_without_a_face_keeps_the_coarse_surface(context: Context, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("WARNING", "pmv"):
        assert surface._landmarks(torch.zeros(1, 3, 64, 64), 0.5) is None
    assert "no face was found" in caplog.text
