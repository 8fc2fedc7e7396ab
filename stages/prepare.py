"""00 prepare: a photo becomes the picture that the generator is asked for: aligned, with its foreground and camera.

A photo that is already square and aligned like the generator's training images is taken as it is. Any other is searched
for a face, cropped (`pmv.portrait`), and its camera is found from the face's landmarks. A missing foreground mask is
found by a matte; where no landmarks can be had, a missing camera by comparison with the mean head
(`pmv.stages.camera_search`).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from pmv.errors import InputError, PhotoError
from pmv.generators.base import Generator
from pmv.geometry.camera import Camera
from pmv.pictures.images import resize
from pmv.pipeline.context import Context
from pmv.pipeline.ranges import Range, Turn
from pmv.portrait.align import Aligned, align, choose_face, confidence_of, draw_faces, find_faces
from pmv.portrait.belonging import FacePlace, moved, own_part
from pmv.portrait.crop import FRAMINGS, corners
from pmv.portrait.landmarks import Face
from pmv.portrait.matte import LEAST_FOREGROUND, check_name, find_matte
from pmv.portrait.photo import Photo, from_tensor, sample
from pmv.portrait.trust import judge
from pmv.stages.camera_against_photo import MeanHead, hold_against_photo
from pmv.stages.camera_search import CameraSearchConfig, find_camera
from pmv.stages.prepared import Prepared

log = logging.getLogger("pmv")

_ALIGNED = 0.04
"""Mean distance of the corners of a square photo from those of its crop, in photo widths, up to which it counts as
aligned: as near as landmarks can tell."""
_FILLED = 0.4
"""Part of a square photo's side that the face of an aligned one fills at least."""
_OFF_MIDDLE = 0.25
"""Picture widths from the middle of an aligned picture beyond which no face is its own."""
_SEARCH_ERROR = 10.0
"""Degrees by which a camera may be wrong that was found by comparison with the mean head."""


@dataclass(frozen=True)
class PrepareInputs:
    """photo [1,3,H,W], uint8 or float32 in [-1,1]; photo_mask [1,1,H,W], float32 in [0,1], or uint8 where it
    is the photo's own alpha channel, which is left out rather than refused where it can be no foreground; or None;
    photo_camera: batch of 1 or None; photo_prepared: what was found in the photo before, or None."""

    photo: Tensor
    photo_mask: Tensor | None
    photo_camera: Camera | None
    photo_prepared: Prepared | None = None


@dataclass(frozen=True)
class PrepareConfig(CameraSearchConfig):
    """Knobs of the prepare stage, and those of the camera search.

    Attributes:
        resolution: side of the picture in pixels; None = the generator's.
        composite: "auto" puts the foreground on the generator's background where that is one plain colour; "never"
            keeps the photo's, as does every generator that draws surroundings.
        align: "auto" takes a square photo as it is if a camera is given, or if its face lies where an aligned one's
            does, and crops every other; "always" crops; "never" takes what must then be a square.
        crop: whose training pictures to crop like: eg3d, panohead, heads (the embedded generator); auto = the
            generator's.
        face: which face, numbered by size from 1; None = the largest.
        upright: degrees of tilt from which a head is turned upright.
        matte: what finds the foreground where no mask is given: selfie (a network), grabcut (by colour), auto
            (selfie, and grabcut where that sees nobody).
    """

    resolution: Annotated[int, Range(16, 4096)] | None = None
    composite: Literal["auto", "never"] = "auto"
    align: Literal["auto", "always", "never"] = "auto"
    crop: Literal["auto", "eg3d", "panohead", "heads"] = "auto"
    face: Annotated[int, Range(1, 10_000)] | None = None
    upright: Turn = 8.0
    matte: str = "auto"


@dataclass(frozen=True)
class PrepareOutputs:
    """original [1,3,S,S], without edits; foreground [1,1,S,S]; valid [1,1,S,S], 1 where the photo is, 0 where its
    border was mirrored, or None = 1 everywhere; crop [2,3], pixels of the photo → pixels of `original` (pixel i covers
    [i, i+1) in both); initial_camera: batch of 1, from which the generator draws such a picture; label_camera: batch of
    1, the same as a data set's label or `--camera` has it, where a generator has learned to stand a little elsewhere
    (PanoHead); camera_confidence in (0,1], 1 for a camera that was given
    and that the photo does not contradict.
    """

    original: Tensor
    foreground: Tensor
    valid: Tensor | None
    crop: Tensor
    initial_camera: Camera
    label_camera: Camera
    camera_confidence: float


def check(config: PrepareConfig, generator: Generator) -> None:
    """InputError where no matte is called so."""
    check_name(config.matte)


def run(inputs: PrepareInputs, config: PrepareConfig, context: Context) -> PrepareOutputs:
    """See the dataclasses for shapes.

    Raises:
        PhotoError: no face, or one that cannot be used; a photo that is taken as it is is not square.
        InputError: the mask does not have the photo's shape, or can be none of this head; no foreground was found; a
            camera that was given cannot be the photo's.
    """
    spec = context.generator.spec
    size = config.resolution or spec.resolution
    height, width = inputs.photo.shape[-2:]
    check(config, context.generator)  # what does not exist is told before the work
    if inputs.photo_mask is not None:
        _check_shape(inputs.photo_mask, "mask", (height, width))
    device = inputs.photo.device
    before = inputs.photo_prepared
    aligned, faces, face = _align(inputs, config, context, size) if before is None else (None, [], None)
    if before is not None:
        photo, foreground, valid, matrix = _as_before(before, size, framing_name(config, spec))
    elif aligned is None or (config.align != "always" and _is_plain(aligned, height, width)):
        photo, foreground = _resized(inputs.photo, size, signed=True), None
        valid = None
        matrix = np.array([[size / width, 0, 0], [0, size / height, 0]])
    else:
        photo, foreground = _to_tensor(aligned.picture, device) * 2 - 1, None
        valid = None if aligned.valid.all() else _to_tensor(aligned.valid, device)
        matrix = aligned.matrix
    picture = _bytes(photo)[0].permute(1, 2, 0).cpu().numpy()
    people = _People.of(faces, face, matrix, size) if face is not None else _People.seen(picture)
    if inputs.photo_mask is not None:
        believed = _believed(inputs.photo_mask, picture, valid, matrix, people, config)
        foreground = foreground if believed is None else believed
    if foreground is None:
        foreground = _to_tensor(people.foreground(picture, config.matte), device)
    if foreground.mean() < LEAST_FOREGROUND:
        raise PhotoError("no foreground was found in the photo; give a --mask with the head white on black")
    original = photo
    if spec.stands_alone and spec.background is not None and config.composite == "auto":
        original = foreground * photo + (1 - foreground) * spec.background
    given = inputs.photo_camera is not None
    if inputs.photo_camera is not None:
        label, confidence = inputs.photo_camera, 1.0
    elif before is not None:
        label, confidence = before.camera, before.confidence
    elif aligned is not None:
        label, confidence = aligned.camera.to(device), aligned.confidence
    else:
        label, confidence = find_camera(original, foreground, config, context), confidence_of(_SEARCH_ERROR)
    camera = context.generator.photo_camera(label)
    with torch.no_grad():
        w = context.generator.mean_w()
        planes = context.generator.planes(w)
        head = MeanHead(w, planes, context.generator.render(planes, w, camera))
        if given:
            told = _landmarked(inputs, config, context, size)
            confidence = hold_against_photo(label, head, original, foreground, told, config, context)
    if confidence < 0.5 and not given:
        log.warning(
            "prepare: the camera is uncertain (confidence %.2f); latent refines it further than usual, and a --camera "
            "would be better",
            confidence,
        )
    crop = torch.from_numpy(matrix).float()
    outputs = PrepareOutputs(original, foreground, valid, crop, camera, label, confidence)
    yaw, pitch = camera.yaw_pitch(spec.pivot)
    context.record(yaw_degrees=float(yaw.rad2deg()), pitch_degrees=float(pitch.rad2deg()), confidence=confidence)
    context.preview("original", original)
    context.preview("foreground", foreground)
    context.preview(
        "foreground_on_photo", torch.lerp(photo.new_tensor([-1.0, 1.0, -1.0])[:, None, None], photo, foreground)
    )
    if valid is not None:
        context.preview("valid", valid)
    context.preview("camera_mean_head", (resize(head.view.image, size).clamp(-1, 1) + original) / 2)
    return outputs


def _as_before(before: Prepared, size: int, framing: str) -> tuple[Tensor, Tensor, Tensor | None, np.ndarray]:
    """Picture, foreground, `valid` and crop of a photo that was prepared before."""
    side = before.picture.shape[-1]
    if before.framing not in (None, framing):
        raise PhotoError(
            f"it was prepared with the crop {before.framing}, and this run's generator wants {framing}; run pmv "
            "prepare again with the same --generator"
        )
    if side != size:
        raise PhotoError(
            f"it was prepared for {side} pixels a side, and this run wants {size}; run pmv prepare again with the same "
            "--generator and settings"
        )
    return before.picture, before.foreground, before.valid, before.crop.double().cpu().numpy()


def _check_shape(image: Tensor, what: str, *allowed: tuple[int, int]) -> None:
    shape = tuple(image.shape[-2:])
    if shape not in allowed:
        sizes = " or ".join(f"{w}×{h}" for h, w in dict.fromkeys(allowed))
        raise InputError(f"the {what} is {shape[1]}×{shape[0]} pixels; make it {sizes}, the same frame as the photo")


# --- foreground


def foreground_of(picture: np.ndarray, matte: str = "auto") -> np.ndarray:
    """The foreground of an aligned picture uint8 [S,S,3] that nobody gave a mask for, float32 [S,S] in [0,1].

    Args:
        matte: see `PrepareConfig`.
    """
    return _People.seen(picture).foreground(picture, matte)


@dataclass(frozen=True)
class _People:
    """Who is in an aligned picture: the face it was aligned for, None where none was found, and others."""

    own: FacePlace | None
    others: tuple[FacePlace, ...] = ()

    @classmethod
    def of(cls, faces: Sequence[Face], face: Face, matrix: np.ndarray, size: int) -> "_People":
        """From the faces of the photo."""
        others = tuple(moved(other, matrix, size) for other in faces if other is not face)
        return cls(moved(face, matrix, size), others)

    @classmethod
    def seen(cls, picture: np.ndarray) -> "_People":
        """From the picture itself, whose own face is the one nearest to its middle."""
        size = len(picture)
        places = [moved(face, np.eye(2, 3), size) for face in find_faces(Photo(picture))]
        places.sort(key=lambda place: np.hypot(place.x - 0.5, place.y - 0.5))
        if not places or np.hypot(places[0].x - 0.5, places[0].y - 0.5) > _OFF_MIDDLE:
            return cls(None)
        return cls(places[0], tuple(places[1:]))

    def foreground(self, picture: np.ndarray, matte: str) -> np.ndarray:
        """float32 [S,S]: what a matte finder sees, but for what belongs to others."""
        found = find_matte(picture, matte)
        return found if self.own is None else own_part(picture, found, self.own, self.others)


def _believed(
    mask: Tensor,
    picture: np.ndarray,
    valid: Tensor | None,
    matrix: np.ndarray,
    people: _People,
    config: PrepareConfig,
) -> Tensor | None:
    """A mask or alpha [1,1,H,W] of the photo in the frame of the aligned picture, [1,1,S,S]; None where it is left out.

    Raises:
        PhotoError: a mask, which somebody chose, can be no foreground of this head.
    """
    size = len(picture)
    pixels = _bytes(mask, signed=False)[0, 0].cpu().numpy()
    height, width = pixels.shape
    scaled = np.array([[size / width, 0, 0], [0, size / height, 0]])
    if np.array_equal(matrix, scaled):
        aligned = _resized(mask, size, signed=False)
    else:
        aligned = _to_tensor(sample(pixels, matrix, size), mask.device)
    is_alpha = mask.dtype == torch.uint8
    verdict = judge(
        aligned[0, 0].cpu().numpy(),
        pixels,
        lambda other: sample(other, matrix, size) / np.float32(255),
        None if valid is None else valid[0, 0].cpu().numpy(),
        people.own,
        None if people.own is None else people.foreground(picture, config.matte),
    )
    what = "alpha channel" if is_alpha else "--mask"
    if verdict.fault and (is_alpha or verdict.is_empty):
        log.warning("prepare: the photo's %s %s; a foreground is found instead", what, verdict.fault)
        return None
    if verdict.fault:
        raise PhotoError(f"the --mask {verdict.fault}; paint the head white and the rest black, or leave it out")
    if verdict.doubt:
        log.warning("prepare: the photo's %s %s; look at foreground_on_photo.png", what, verdict.doubt)
    return torch.from_numpy(verdict.foreground)[None, None].to(mask.device)


# --- alignment


def framing_name(config: PrepareConfig, spec: Any) -> str:
    """The key of `FRAMINGS` that a generator's pictures are cropped by."""
    return own_framing(spec) if config.crop == "auto" else config.crop


def own_framing(spec: Any) -> str:
    """The key of `FRAMINGS` that a generator's training pictures were cropped by."""
    return "panohead" if spec.family == "panohead" else "heads" if spec.full_head else "eg3d"


def _align(
    inputs: PrepareInputs, config: PrepareConfig, context: Context, size: int
) -> tuple[Aligned | None, list[Face], Face | None]:
    """The crop of the photo's face, or None where the photo is to be taken as it is without one; all faces that were
    found, and the one that was taken."""
    height, width = inputs.photo.shape[-2:]
    square, given = height == width, inputs.photo_camera is not None
    if config.align == "always" and given:
        raise InputError(
            "a --camera belongs to a photo that is aligned already; leave it out, or set prepare.align=never"
        )
    if config.align == "never" or (square and given):
        if not square:
            raise PhotoError(
                f"it is {width}×{height} pixels; crop it to a square, aligned like the generator's training images, or "
                "set prepare.align=auto"
            )
        return None, [], None
    if given:
        raise PhotoError(
            f"it is {width}×{height} pixels, but a --camera belongs to a square, aligned one; leave it out"
        )
    must = config.align == "always" or not square
    photo = from_tensor(_bytes(inputs.photo))
    faces = find_faces(photo)
    if not faces:
        if must:
            raise PhotoError(
                f"no face was found in its {width}×{height} pixels; give a photo that shows one, large enough and not "
                "from behind"
            )
        log.warning("prepare: no face was found; the photo is taken as aligned")
        return None, faces, None
    face = choose_face(faces, config.face)
    if len(faces) > 1:
        drawn = draw_faces(photo, faces, face)
        context.preview("faces", torch.from_numpy(drawn).permute(2, 0, 1)[None].float() / 127.5 - 1)
        log.info(
            "prepare: %d faces; number %d is taken. --set prepare.face=N takes another (faces.png)",
            len(faces),
            1 + next(i for i, other in enumerate(faces) if other is face),
        )
    try:
        aligned = align(photo, face, FRAMINGS[framing_name(config, context.generator.spec)], size, config.upright)
    except PhotoError as error:
        if must or face.size < _FILLED * width:
            raise
        log.warning("prepare: the photo is taken as aligned (%s)", error)
        return None, faces, None
    log.info("prepare: camera from landmarks, expected to be %.1f° off", aligned.error)
    return aligned, faces, face


def _landmarked(inputs: PrepareInputs, config: PrepareConfig, context: Context, size: int) -> Aligned | None:
    """What landmarks tell of a photo that is taken as it is, or None where they tell nothing."""
    if config.align == "never":
        return None
    photo = from_tensor(_bytes(inputs.photo))
    try:
        face = choose_face(find_faces(photo), config.face)
        return align(photo, face, FRAMINGS[framing_name(config, context.generator.spec)], size, config.upright)
    except PhotoError:  # whoever gives a camera need not show a face
        return None


def _is_plain(aligned: Aligned, height: int, width: int) -> bool:
    """True if a square photo is its own crop, as near as landmarks can tell."""
    if height != width:
        return False
    square = np.array([[0, 0], [width, 0], [width, width], [0, width]])
    distance = np.linalg.norm(corners(aligned.matrix, aligned.picture.shape[0]) - square, axis=1).mean()
    return bool(distance <= _ALIGNED * width)


def _resized(image: Tensor, size: int, signed: bool) -> Tensor:
    """A square photo [1,3,S,S] in [-1,1], or (not `signed`) a mask [1,1,S,S] in [0,1], only scaled."""
    if image.dtype == torch.uint8:
        if image.shape[-1] > 8 * size:  # floats of a large photo would take four times its bytes
            pixels = image[0].permute(1, 2, 0).cpu().numpy()
            pixels = cv2.resize(pixels, (4 * size, 4 * size), interpolation=cv2.INTER_AREA).reshape(
                4 * size, 4 * size, -1
            )
            image = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(image.device)
        image = image.float() / 127.5 - 1 if signed else image.float() / 255
    return resize(image, size) if signed else resize(image, size).clamp(0, 1)


def _bytes(image: Tensor, signed: bool = True) -> Tensor:
    """An image [N,C,H,W] in [-1,1] (or a mask in [0,1]) as uint8; bytes stay what they are."""
    if image.dtype == torch.uint8:
        return image
    return ((image + 1) * 127.5 if signed else image * 255).round().clamp(0, 255).to(torch.uint8)


def _to_tensor(pixels: np.ndarray, device: torch.device) -> Tensor:
    """uint8 or float [S,S] or [S,S,3] → float32 [1,C,S,S] in [0,1]."""
    values = torch.from_numpy(np.ascontiguousarray(pixels)).to(device)
    values = values.float() / 255 if values.dtype == torch.uint8 else values.float()
    return values.reshape(*values.shape[:2], -1).permute(2, 0, 1)[None]
