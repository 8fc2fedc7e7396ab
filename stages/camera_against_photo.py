"""A camera that was given, held against the photo: what the mean head shows from there, and what landmarks tell.

The *outline* of the mean head and the photo's foreground are laid over one another, moved and scaled: a head that is
somewhere else or of another size in the picture is a camera of another place, scale or focal length. Outlines say
little of where a head looks. That is told by landmarks where there are any, else by the edges of the face
(`pmv.stages.camera_search.view_score`) in a few views beside the given one, and under other conventions of cameras.
The thresholds were measured, see benchmarks/README.md.
"""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.errors import InputError
from pmv.generators.base import GeneratorSpec, Render
from pmv.geometry.camera import Camera
from pmv.pictures.images import resize
from pmv.pipeline.context import Context
from pmv.portrait.align import USUAL_ERROR, Aligned, confidence_of
from pmv.stages.camera_search import CameraSearchConfig, comparison
from pmv.stages.camera_world import Sight, check_world, conventions, has_usual_direction, sight

log = logging.getLogger("pmv")

_SIDE = 32
"""Pixels a side of the outlines that are laid over one another."""
_SCALES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.12, 1.25, 1.4, 1.6, 1.8, 2.0)
_SHIFTS = tuple(i * 0.05 for i in range(-6, 7))
_UNSEEN = 0.15
"""Overlap of the outlines below which the camera shows no head where the photo has one."""
_POOR, _GAIN = 0.6, 0.15
"""Overlap below which the camera is doubted, and by how much it may grow when the outline is moved and scaled."""
_FITTING = 0.75
"""Overlap that speaks for another convention."""
_APART = 20.0
"""Degrees from the camera that landmarks tell, or from the view that fits better, that are no error of theirs."""
_TURNS = (-40.0, -20.0, 20.0, 40.0)
"""Degrees of yaw to the views that the given one is compared with."""
_TURN_MARGIN, _MIRROR_MARGIN, _CONVENTION_MARGIN = 0.15, 0.08, 0.05
"""By how much `view_score` must be better in another view, in the mirrored one, and under another convention."""
_MOST_CONVENTIONS = 3

Score = Callable[[Camera], Tensor]
"""See `pmv.stages.camera_search.comparison`."""


@dataclass(frozen=True)
class MeanHead:
    """The generator's mean head: its latent, its planes, and what the given camera shows of it."""

    w: Tensor
    planes: Tensor
    view: Render


@dataclass(frozen=True)
class Overlap:
    """Two outlines over one another.

    Attributes:
        iou: intersection over union as they are.
        best: when the first is moved and scaled.
        scale: by what; right, down: picture widths.
    """

    iou: float
    best: float
    scale: float
    right: float
    down: float


@torch.no_grad()
def overlap(outline: Tensor, wanted: Tensor) -> Overlap:
    """How a mask [1,1,h,w] lies over another [1,1,H,W], both in [0,1]: intersection over union of soft masks."""
    mask, target = (resize(one, _SIDE).clamp(0, 1) for one in (outline, wanted))
    moves = torch.cartesian_prod(*(torch.tensor(values, device=mask.device) for values in (_SCALES, _SHIFTS, _SHIFTS)))
    scale, right, down = moves.unbind(1)
    zero = torch.zeros_like(scale)
    rows = [torch.stack([1 / scale, zero, -2 * right / scale], 1), torch.stack([zero, 1 / scale, -2 * down / scale], 1)]
    places = F.affine_grid(torch.stack(rows, 1), [len(moves), 1, _SIDE, _SIDE], align_corners=False)
    # a body goes on beyond the border
    moved = F.grid_sample(mask.expand(len(moves), -1, -1, -1), places, padding_mode="border", align_corners=False)

    def ious(masks: Tensor) -> Tensor:
        either = torch.maximum(masks, target).sum((1, 2, 3)).clamp_min(1e-6)
        return torch.minimum(masks, target).sum((1, 2, 3)) / either

    iou, all_ious = float(ious(mask)), ious(moved)
    best = int(all_ious.argmax())
    if float(all_ious[best]) <= iou:
        return Overlap(iou, iou, 1.0, 0.0, 0.0)
    return Overlap(iou, float(all_ious[best]), float(scale[best]), float(right[best]), float(down[best]))


def hold_against_photo(
    camera: Camera,
    head: MeanHead,
    original: Tensor,
    foreground: Tensor,
    told: Aligned | None,
    config: CameraSearchConfig,
    context: Context,
) -> float:
    """The confidence that a given camera deserves; a warning says why it is low.

    Args:
        camera: batch of 1, as a label has it.
        head: what the generator shows from there.
        original: [1,3,S,S]; foreground: [1,1,S,S].
        told: what landmarks tell of the photo; None = there are none.
        config: of the comparison by edges. Where nothing is expected of the direction (`prior_weight` = 0: cars), edges
            are not asked.

    Raises:
        InputError: it shows no head where the photo has one, or the photo says that it is written in another
            convention.
    """
    spec = context.generator.spec
    check_world(camera, spec)
    seen = sight(camera, spec)
    outlines = overlap(head.view.alpha, foreground) if spec.has_alpha else None
    if outlines is not None:
        context.record(outline_iou=outlines.iou, outline_iou_moved=outlines.best)
        if outlines.iou < _UNSEEN:
            raise InputError(
                f"the --camera cannot be the photo's: from {describe(seen)} the outline of the generator's mean head "
                f"and the photo's foreground overlap by {outlines.iou:.2f}; give the photo's own camera, or none"
            )
    score = comparison(original, foreground, head.w, head.planes, config, context.generator)
    by_edges = told is None and config.prior_weight > 0
    if not has_usual_direction(seen) and (told is not None or by_edges):
        _check_conventions(camera, told, score, spec)
    if outlines is not None and (outlines.iou < _POOR or outlines.best - outlines.iou > _GAIN):
        framed = replace(
            seen,
            size=seen.size * outlines.scale,
            u=0.5 + (seen.u - 0.5) * outlines.scale + outlines.right,
            v=0.5 + (seen.v - 0.5) * outlines.scale + outlines.down,
        )
        why = f"the foreground's outline is rather that of a head seen from {describe(framed)}"
        why += f" (overlap {outlines.best:.2f} instead of {outlines.iou:.2f})"
        return _doubted(seen, why + _outlined_convention(camera, head, foreground, outlines, context), _APART)
    other, why = None, ""
    if told is not None:
        other, why = _told_otherwise(camera, told)
    elif by_edges and has_usual_direction(seen):  # from behind there is no face whose edges could tell
        other, why = _better_view(camera, score, spec)
    if other is not None:
        return _doubted(seen, f"{why} {describe(sight(other, spec))}", _angle(camera, other))
    return 1.0


def describe(seen: Sight) -> str:
    """A camera in a few words, for messages."""
    parts = [f"yaw {seen.yaw:+.0f}°", f"pitch {seen.pitch:+.0f}°"]
    if abs(seen.roll) >= 5:
        parts.append(f"roll {seen.roll:+.0f}°")
    if abs(math.log(seen.size)) > 0.03:
        parts.append(f"{seen.size:.2f} times the usual size")
    if math.hypot(seen.u - 0.5, seen.v - 0.5) > 0.03:
        parts.append(f"middle at {seen.u:.2f}, {seen.v:.2f}")
    return ", ".join(parts)


def _doubted(seen: Sight, reason: str, degrees: float) -> float:
    """Warns, and gives the confidence in a camera that is some degrees off."""
    confidence = confidence_of(degrees)
    log.warning(
        "prepare: the given camera (%s) and the photo disagree: %s. It is taken, with confidence %.2f",
        describe(seen),
        reason,
        confidence,
    )
    return confidence


def _check_conventions(camera: Camera, told: Aligned | None, score: Score, spec: GeneratorSpec) -> None:
    """InputError where an extraordinary camera is an ordinary one in another convention, and the photo agrees."""
    given = float(score(camera)) if told is None else 0.0
    for name, candidate in islice(conventions(camera, spec), _MOST_CONVENTIONS):
        if told is None:
            agrees = float(score(candidate)) < given - _CONVENTION_MARGIN
        else:
            agrees = _angle(candidate, told.camera) < _APART < _angle(camera, told.camera)
        if agrees:
            raise InputError(
                f"the --camera cannot be the photo's: it looks from {describe(sight(camera, spec))}; read as {name} it "
                f"looks from {describe(sight(candidate, spec))}, and the photo agrees"
            )


def _outlined_convention(
    camera: Camera, head: MeanHead, foreground: Tensor, outlines: Overlap, context: Context
) -> str:
    """The convention in which a camera shows the photo's outline, as the end of a message; "" where there is none."""
    generator = context.generator
    for name, candidate in islice(conventions(camera, generator.spec), _MOST_CONVENTIONS):
        view = generator.render(head.planes, head.w, generator.photo_camera(candidate), _SIDE)
        iou = overlap(view.alpha, foreground).iou
        if iou > max(_FITTING, outlines.iou + _GAIN):
            return f"; it looks like {name}, which would show it (overlap {iou:.2f})"
    return ""


def _told_otherwise(camera: Camera, told: Aligned) -> tuple[Camera | None, str]:
    """The camera of the face's landmarks, if it is another than the given one, and what goes before it in a message."""
    if _angle(camera, told.camera) <= _APART + max(0.0, told.error - USUAL_ERROR):
        return None, ""
    mirrored = "mirrored left to right? " if _angle(_mirrored(camera), told.camera) < _APART / 2 else ""
    return told.camera, f"{mirrored}the face's landmarks say"


def _better_view(camera: Camera, score: Score, spec: GeneratorSpec) -> tuple[Camera | None, str]:
    """The view in which the mean head is clearly more like the photo than in the given one, as `_told_otherwise`."""
    given = float(score(camera))
    best, found = given, (None, "")
    for other, margin, why in _beside(camera, spec.pivot):
        value = float(score(other))
        if value < min(best, given - margin):
            best, found = value, (other, f"{why}the mean head is more like the photo from")
    return found


def _beside(camera: Camera, pivot: tuple[float, float, float]) -> Iterator[tuple[Camera, float, str]]:
    """Views beside a camera, by how much they must be better, and what they would mean."""
    for turn in _TURNS:
        yield camera.turned(math.radians(turn), 0.0, pivot), _TURN_MARGIN, ""
    yield _mirrored(camera), _MIRROR_MARGIN, "mirrored left to right? "


def _mirrored(camera: Camera) -> Camera:
    """The camera of the mirrored photo."""
    flip = torch.diag(camera.cam2world.new_tensor([-1.0, 1.0, 1.0, 1.0]))
    return Camera(flip @ camera.cam2world @ flip, camera.intrinsics)


def _angle(one: Camera, other: Camera) -> float:
    """Degrees of the turn between two cameras, batches of 1."""
    first, second = (camera.cam2world[0, :3, :3].double().cpu() for camera in (one, other))
    return math.degrees(math.acos(min(1.0, max(-1.0, (float((first * second).sum()) - 1) / 2))))
