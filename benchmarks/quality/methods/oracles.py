"""pmv with something handed to it that no photo tells: the ceilings of what a better part of it could bring.

*oracle-depth*: the true surface in the place of the coarse generator's, through the door after `coarse`
(`benchmarks/quality/door.py`). Only what the photo shows is replaced, and blended into the coarse surface at its
border: with true outlines behind renders of another outline, sides and back come out frayed. A better surface from
elsewhere is measured the same way: a method whose `surface` gives its own depths.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.quality.door import outputs_of, replace_outputs, stage_that_gives
from benchmarks.quality.methods.base import Result, Task, Unfit, start, tuned_result
from benchmarks.quality.truth import Subject
from benchmarks.quality.views import Tie
from pmv.generators import load_generator
from pmv.geometry.camera import Camera
from pmv.geometry.scene import SeenFrom, edge_step, surface_points
from pmv.geometry.visibility import Cuts, visibility_confidence
from pmv.pictures.masks import SOLID, feather, without_specks
from pmv.pipeline.folder import RunFolder
from pmv.stages.table import TABLE

_CUTS = Cuts(tolerance=0.01, max_degrees=80.0, view_max_degrees=80.0)
_BORDER = 0.03
"""Width over which a handed-over surface fades into the coarse one, as a fraction of the picture's width."""


def known_part(depth: Tensor, cameras: Camera, foreground: Tensor) -> Tensor:
    """How far each view's surface is one that the first view sees: [V,1,D,D] in [0,1], falling to 0 over `_BORDER`
    inside the border of what is known.

    Args:
        depth: [V,1,D,D] z-depth, 0 where nothing is known; the first is the input view's. foreground: [1,1,D,D] of the
            photo: at its outline the input view's surface ends, and does not fade.
    """
    solid = depth > 0
    points, normals, surface = surface_points(depth, solid, cameras, depth.shape[-1])
    source = SeenFrom(cameras[0], depth[:1], solid[:1])
    seen = visibility_confidence(points, normals, views=cameras, source=source, cuts=_CUTS)
    known = without_specks(seen * surface, 0.0003) * solid
    front = feather((solid[:1] | (foreground < SOLID)).float(), _BORDER) * solid[:1]
    return torch.cat([front, feather(known[1:], _BORDER)])


def blended(coarse: Tensor, alpha: Tensor, depth: Tensor, known: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor]:
    """A surface laid into another: depths and alphas [V,1,D,D].

    Args:
        coarse, alpha: of the coarse generator. depth: the surface that is handed over, 0 where nothing is known. known:
            [V,1,D,D], from `known_part`. foreground: [1,1,D,D] of the photo, which bounds the input view's alpha; what
            is not known stays as it was.
    """
    own = (depth > 0).float()
    # where the coarse generator has nothing there is nothing to blend with
    weight = torch.where((alpha < SOLID) & (known > 0), torch.ones_like(known), known) * own
    depths = torch.where(weight > 0, torch.lerp(coarse, depth, weight), coarse)
    alphas = torch.lerp(alpha, torch.ones_like(alpha), weight)
    front = torch.where(own[:1] > 0, alphas[:1], torch.minimum(alphas[:1], foreground))
    return depths, torch.cat([front, alphas[1:]])


@dataclass(frozen=True)
class SurfaceMethod:
    """pmv with another surface handed over after `coarse`. Override `surface` for one of your own."""

    name: str = "oracle-depth"
    about: str = "pmv, the true visible surface handed over after coarse"

    def surface(self, subject: Subject, camera: Camera, cameras: Camera, size: int) -> Tensor:
        """z-depth [V,1,size,size] of the surface as views in the run's world see it, 0 where nothing is known of it.

        Args:
            camera: of the input view, as the run has refined it. cameras: V of the run's world, the input's first.
        """
        tie = Tie(Camera.load(subject.true_camera, "photo.png"), camera)
        return subject.geometry(tie.to_true(cameras), size)

    def run(self, subject: Subject, task: Task) -> Result:
        folder = RunFolder(start(subject, task, "coarse"), TABLE)
        stage = stage_that_gives(folder, "view_depths").name
        before = outputs_of(folder, stage)
        camera = outputs_of(folder, "latent").camera
        cameras = Camera.cat([camera, before.pseudo_cameras])
        alpha = torch.cat([before.input_alpha, before.view_alphas])
        coarse = torch.cat([before.input_depth, before.view_depths])
        size = coarse.shape[-1]
        foreground = F.interpolate(outputs_of(folder, "prepare").foreground, (size, size), mode="area")
        depth = _shrunk(self.surface(subject, camera, cameras, 4 * size), cameras, 4)
        depths, alphas = blended(coarse, alpha, depth, known_part(depth, cameras, foreground), foreground)
        values = {
            "input_depth": depths[:1],
            "view_depths": depths[1:],
            "input_alpha": alphas[:1],
            "view_alphas": alphas[1:],
        }
        replace_outputs(folder, stage, values)
        start(subject, task, "retune")
        return tuned_result(task)


def _shrunk(depth: Tensor, cameras: Camera, factor: int) -> Tensor:
    """Depth [V,1,factor·D,…] at D: the mean of those of a cell's samples that lie on its nearest surface; empty where
    less than half of them are solid."""
    cells = F.pixel_unshuffle(depth, factor)
    solid = cells > 0
    nearest = torch.where(solid, cells, torch.inf).amin(1, keepdim=True)
    step = edge_step(cameras, depth.shape[-1]) * factor
    same = solid & (cells <= nearest * (1 + step))
    mean = (cells * same).sum(1, keepdim=True) / same.sum(1, keepdim=True).clamp_min(1)
    return torch.where(solid.float().mean(1, keepdim=True) >= 0.5, mean, torch.zeros_like(mean))


@dataclass(frozen=True)
class OracleCamera:
    """The camera that the photo was drawn from, and no refinement."""

    name: str = "oracle-camera"
    about: str = "pmv, the true camera, not refined"

    def run(self, subject: Subject, task: Task) -> Result:
        start(subject, task, "retune", ["latent.camera_rate=0.0"], camera=subject.true_camera)
        return tuned_result(task)


@dataclass(frozen=True)
class OracleLatent:
    """The latent that the head was built from, in the place of the one that `latent` found; with the true camera, since
    the refined one belongs to another head."""

    name: str = "oracle-latent"
    about: str = "pmv, the true latent and camera (synthetic heads)"

    def run(self, subject: Subject, task: Task) -> Result:
        if subject.z is None:
            raise Unfit("nobody knows the latent of a real head")
        generator = load_generator(task.generator, device=task.device)
        if len(subject.z) != generator.spec.z_dim:
            raise Unfit(f"the generator's z has {generator.spec.z_dim} numbers, the heads' {len(subject.z)}")
        settings = ["latent.camera_rate=0.0"]
        folder = RunFolder(start(subject, task, "latent", settings, camera=subject.true_camera), TABLE)
        z = torch.tensor([subject.z], device=task.device)
        with torch.no_grad():
            w = generator.map(z, generator.spec.canonical_camera.to(task.device)).cpu()
        replace_outputs(folder, "latent", {"pivot_w": w})
        start(subject, task, "retune", settings, camera=subject.true_camera)
        return tuned_result(task)


ORACLE_DEPTH = SurfaceMethod()
ORACLES = (ORACLE_DEPTH, OracleCamera(), OracleLatent())
