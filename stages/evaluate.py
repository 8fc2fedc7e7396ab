"""Stage 10: numbers and pictures that say how good the inversion is."""

import copy
import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from pmv.fitting.metrics import cross_view_consistency, psnr, ssim
from pmv.generators.base import Generator, Render
from pmv.geometry.camera import Camera
from pmv.geometry.mesh import extract_mesh, vertex_colours
from pmv.geometry.scene import SeenFrom
from pmv.pictures.images import resize, to_uint8
from pmv.pictures.masks import SOLID
from pmv.pictures.sheets import tile
from pmv.pipeline.context import Context
from pmv.pipeline.ranges import Part, Range, Tilt, Turn

_SHEET_YAWS = (-30.0, 0.0, 30.0)
_MESH_VIEWS = 8


@dataclass(frozen=True)
class EvaluateInputs:
    """image [1,3,S,S] with the edit; foreground, edit_mask [1,1,S,S]; camera: 1; pivot_w [1,num_ws,w_dim]; noise,
    tuned_state: tensors by name; pseudo_cameras: P; pseudo_views, warped_views [P,3,S,S]; blend_masks, visible_masks,
    warped_edit_masks [P,1,S,S]; input_render [1,3,S,S], the coarse generator's input view; edited_views [P,3,S,S], None
    = there is no edit; valid [1,1,S,S], 0 in the photo's mirrored border, None = there is none."""

    image: Tensor
    foreground: Tensor
    edit_mask: Tensor
    camera: Camera
    pivot_w: Tensor
    noise: dict[str, Tensor]
    tuned_state: dict[str, Tensor]
    pseudo_cameras: Camera
    pseudo_views: Tensor
    blend_masks: Tensor
    warped_views: Tensor
    visible_masks: Tensor
    warped_edit_masks: Tensor
    input_render: Tensor
    edited_views: Tensor | None = None
    valid: Tensor | None = None


@dataclass(frozen=True)
class EvaluateConfig:
    """Knobs of the evaluate stage.

    Attributes:
        frames: frames of the turntable video; 0 makes none.
        fps: frames per second of the video.
        turntable_yaw: degrees to each side that the turntable swings; a generator trained from all sides
            turns through 360° instead.
        turntable_pitch: degrees up and down that the turntable sways once in a turn.
        consistency_angle: degrees to each side of the input view at which cross-view consistency is measured.
        tolerance: tolerance of the depth test in cross-view consistency, as a fraction of the generator's box.
        mesh_resolution: density samples along each side of the mesh's grid; 0 makes no mesh.
        mesh_level: raw density of the mesh's surface (EG3D's own value).
    """

    frames: Annotated[int, Range(0, 10_000)] = 72
    fps: Annotated[int, Range(1, 240)] = 24
    turntable_yaw: Turn = 40.0
    turntable_pitch: Tilt = 8.0
    consistency_angle: Annotated[float, Range(0, 90)] = 20.0
    tolerance: Part = 0.02
    mesh_resolution: Annotated[int, Range(2, 1024, or_zero=True)] = 128
    mesh_level: Annotated[float, Range(-1_000_000, 1_000_000)] = 10.0


@dataclass(frozen=True)
class EvaluateOutputs:
    """metrics: numbers by name.

    `pivot_…`, `coarse_…`, `tuned_…`: fidelity of the input view's foreground, as PSNR in dB, SSIM, and the perceptual
    distance under its name (pivot and coarse without the edit, which they never saw). `edit_psnr`: the edit alone.
    `views_psnr`: the tuned generator against the pseudo-views, where these hold the photo's texels.
    `consistency_psnr`: the photo painted onto the tuned geometry against the tuned render, beside the input view;
    `consistency_covisible`: the fraction of surface compared. What cannot be measured is absent.
    """

    metrics: dict[str, float]


@torch.no_grad()
def run(inputs: EvaluateInputs, config: EvaluateConfig, context: Context) -> EvaluateOutputs:
    """See the dataclasses for shapes and units."""
    spec = context.generator.spec
    tuned = copy.deepcopy(context.generator)
    tuned.load_tuned(inputs.tuned_state)
    planes = tuned.planes(inputs.pivot_w, inputs.noise)
    count = len(inputs.pseudo_cameras)

    size = inputs.image.shape[-1]

    def picture(image: Tensor) -> Tensor:
        """A render as it is compared: of the photo's size, which need not be the generator's."""
        return resize(image, size).clamp(-1, 1)

    def render(camera: Camera) -> Render:
        result = tuned.render(planes, inputs.pivot_w, camera)
        bar.update(1)
        return result

    with context.progress(config.frames + count + len(_SHEET_YAWS) + 4, "evaluate") as bar:
        front = render(inputs.camera)
        pivot_planes = context.generator.planes(inputs.pivot_w, inputs.noise)
        pivot = context.generator.render(pivot_planes, inputs.pivot_w, inputs.camera).image
        bar.update(1)
        views = torch.cat([picture(render(inputs.pseudo_cameras[i]).image) for i in range(count)])
        beside = _beside(inputs.camera, spec, config.consistency_angle)
        novel = [render(beside[i]) for i in range(2)]
        depths, alphas = torch.cat([v.depth for v in novel]), torch.cat([v.alpha for v in novel])
        consistency, covisible = cross_view_consistency(
            inputs.image,
            SeenFrom(inputs.camera, front.depth, front.alpha > SOLID),
            torch.cat([picture(v.image) for v in novel]),
            SeenFrom(beside, depths, alphas > SOLID),
            config.tolerance * spec.box,
        )
        around = [spec.orbit(math.radians(yaw), 0.0).to(context.device) for yaw in _SHEET_YAWS]
        turns = [picture(render(camera).image) for camera in around]
        input_views = {"pivot": picture(pivot), "coarse": inputs.input_render, "tuned": picture(front.image)}
        metrics = _fidelity(input_views, inputs, context)
        known = torch.maximum(inputs.blend_masks, inputs.warped_edit_masks)
        metrics["views_psnr"] = psnr(views, _pseudo_views(inputs), known).nanmean().item()
        metrics["consistency_psnr"] = consistency.nanmean().item()
        metrics["consistency_covisible"] = covisible.mean().item()
        _sheet(inputs, input_views, turns, context)
        cameras = turntable(spec, config).to(context.device)
        frames = [render(cameras[i]).image for i in range(len(cameras))]
        if frames:
            context.video("turntable", np.concatenate([to_uint8(f) for f in frames]), config.fps)
        _mesh(tuned, planes, frames, cameras, config, context)
    return EvaluateOutputs({name: value for name, value in metrics.items() if math.isfinite(value)})


def turntable(spec, config: EvaluateConfig) -> Camera:
    """The video's cameras, a loop without a jump: one turn of 360° for a full head, else one swing to both sides."""
    phase = torch.arange(config.frames) / max(config.frames, 1) * 2 * math.pi
    yaw = phase if spec.full_head else math.radians(config.turntable_yaw) * phase.sin()
    return spec.orbit(yaw, math.radians(config.turntable_pitch) * (2 * phase if spec.full_head else phase).sin())


def _beside(camera: Camera, spec, degrees: float) -> Camera:
    """Two cameras to the left and right of the input view, on its sphere around the pivot."""
    yaw, pitch = camera.yaw_pitch(spec.pivot)
    pivot = torch.tensor(spec.pivot).to(camera.position)
    radius = (camera.position - pivot).norm(dim=1)
    turn = math.radians(degrees) * torch.tensor([-1.0, 1.0]).to(yaw)
    return Camera.orbit(yaw + turn, pitch.expand(2), radius, pivot, camera.intrinsics[:, 0, 0])


def _fidelity(views: dict[str, Tensor], inputs: EvaluateInputs, context: Context) -> dict[str, float]:
    """PSNR, SSIM and perceptual distance of input views in the foreground."""
    perceptual = getattr(context.perceptual, "name", "perceptual")
    metrics = {}
    for name, view in views.items():
        mask = inputs.foreground if name == "tuned" else inputs.foreground * (1 - inputs.edit_mask)
        mask = mask if inputs.valid is None else mask * inputs.valid
        metrics[f"{name}_psnr"] = psnr(view, inputs.image, mask).item()
        metrics[f"{name}_ssim"] = ssim(view, inputs.image, mask).item()
        # the same content outside the mask on both sides, so that only the foreground is compared
        metrics[f"{name}_{perceptual}"] = context.perceptual(view * mask, inputs.image * mask).item()
    metrics["edit_psnr"] = psnr(views["tuned"], inputs.image, inputs.edit_mask).item()
    return metrics


def _pseudo_views(inputs: EvaluateInputs) -> Tensor:
    """What the tuned generator was asked for in the pseudo-views: [P,3,S,S]."""
    return inputs.pseudo_views if inputs.edited_views is None else inputs.edited_views


def _sheet(inputs: EvaluateInputs, views: dict[str, Tensor], turns: list[Tensor], context: Context) -> None:
    """The contact sheet: what went in, what every stage made of it, what came out."""
    # the pseudo-view nearest to 30° from the input: near enough to show texels, far enough to show holes
    angle = inputs.pseudo_cameras.angle_to(inputs.camera)
    shown = int((angle - math.radians(30)).abs().argmin())
    part = slice(shown, shown + 1)
    view, edit = _pseudo_views(inputs)[part], inputs.warped_edit_masks[part]
    pictures = {
        "input": inputs.image,
        "pivot": views["pivot"],
        "coarse": views["coarse"],
        "tuned": views["tuned"],
        f"warped, {math.degrees(angle[shown]):.0f} deg": torch.lerp(inputs.warped_views[part], view, edit),
        "visible": torch.maximum(inputs.visible_masks[part], edit),
        "inpainted": view,
    } | {f"tuned, yaw {yaw:+.0f}": turn for yaw, turn in zip(_SHEET_YAWS, turns)}
    sheet = tile([to_uint8(picture)[0] for picture in pictures.values()], list(pictures), columns=5)
    context.preview("contact_sheet", torch.from_numpy(sheet.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1)


def _mesh(
    generator: Generator,
    planes: Tensor,
    frames: list[Tensor],
    cameras: Camera,
    config: EvaluateConfig,
    context: Context,
) -> None:
    """The coloured mesh, where it is asked for and the density has a surface."""
    if not config.mesh_resolution:
        return
    box, volume = generator.spec.box, generator.field(planes)
    resolution = config.mesh_resolution
    vertices, faces = extract_mesh(
        lambda points: volume.density(points, False)[0], box, resolution, config.mesh_level, context.device
    )
    if not len(faces):
        return
    colours = None
    if frames:
        chosen = [i * len(frames) // _MESH_VIEWS for i in range(_MESH_VIEWS)]
        images, seen_from = torch.cat([frames[i] for i in chosen]), Camera.cat([cameras[i] for i in chosen])
        colours = vertex_colours(vertices, faces, images, seen_from, 2 * box / resolution)
    context.mesh("head", vertices, faces, colours)
