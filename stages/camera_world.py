"""Whether a camera can be that of a photo, by its numbers alone: does the generator's head lie in its picture?

Camera files come in many conventions, and most wrong cameras are right ones of another: `conventions` tries them, so
that a message can say which. `pmv.stages.camera_against_photo` goes on where the numbers say nothing.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pmv.errors import InputError
from pmv.generators.base import GeneratorSpec
from pmv.geometry.camera import Camera

_SIZE = 2.0
"""How many times as large or small as in the generator's pictures a head may be."""
_USUAL_SIZE = 1.4
"""The same, for a camera that is nothing out of the ordinary."""
_USUAL_SHIFT = 0.25
"""How far from the middle of its picture, in picture widths, an ordinary camera has the head."""
_USUAL_YAW, _USUAL_PITCH, _USUAL_ROLL = 100.0, 45.0, 45.0
"""Degrees, how an ordinary camera sees a head; portraits show a face."""


@dataclass(frozen=True)
class Convention:
    """A way in which other programs write cameras.

    Attributes:
        name: what it is called.
        ours: cam2world [1,4,4] as they write it → as we do.
    """

    name: str
    ours: Callable[[Tensor], Tensor]


def _diagonal(*values: float) -> Tensor:
    return torch.diag(torch.tensor([*values, 1.0]))


_QUARTER = torch.tensor([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
_Z_UP = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])

_DIRECTIONS = (
    Convention("", lambda pose: pose),
    Convention("world-to-camera (invert it)", torch.linalg.inv),
    Convention("a transposed rotation (write it row by row)", lambda pose: _with_rotation(pose, pose[:, :3, :3].mT)),
)
_AXES = (
    Convention("", lambda pose: pose),
    Convention("OpenGL axes (negate the second and third column)", lambda pose: pose @ _diagonal(1, -1, -1).to(pose)),
    Convention("an upside-down picture's camera (turn it)", lambda pose: pose @ _diagonal(-1, -1, 1).to(pose)),
    Convention("a picture's that lies on its side (turn it)", lambda pose: pose @ _QUARTER.to(pose)),
    Convention("a picture's that lies on its side (turn it)", lambda pose: pose @ _QUARTER.T.to(pose)),
)
_WORLDS = (
    Convention("", lambda pose: pose),
    Convention("a world with z up (turn it until y is up)", lambda pose: _Z_UP.to(pose) @ pose),
    Convention("a world with y down (negate its y and z)", lambda pose: _diagonal(1, -1, -1).to(pose) @ pose),
    Convention("a face that looks along −z (negate the world's x and z)", lambda m: _diagonal(-1, 1, -1).to(m) @ m),
)


def _with_rotation(pose: Tensor, rotation: Tensor) -> Tensor:
    changed = pose.clone()
    changed[:, :3, :3] = rotation
    return changed


def conventions(camera: Camera, spec: GeneratorSpec) -> Iterator[tuple[str, Camera]]:
    """The conventions under which a camera would be an ordinary one, the simplest first: what it looks like, and the
    camera in ours.

    Args:
        camera: batch of 1, taken as ours.
    """
    combined = [(a, b, c) for a in _DIRECTIONS for b in _AXES for c in _WORLDS if a.name or b.name or c.name]
    combined.sort(key=lambda parts: sum(bool(part.name) for part in parts))
    for direction, axes, world in combined:
        pose = world.ours(axes.ours(direction.ours(camera.cam2world)))
        candidate = Camera(pose, camera.intrinsics)
        if is_ordinary(candidate, spec):
            yield " and ".join(part.name for part in (direction, axes, world) if part.name), candidate


@dataclass(frozen=True)
class Sight:
    """How a camera sees a generator's head.

    Attributes:
        in_front: the head's middle lies before the camera.
        u, v: where it appears, in picture widths from the top left corner.
        size: how large the head appears, in times of what it does in the generator's own pictures.
        distance: from the head's middle, world units.
        yaw, pitch, roll: degrees; roll 0 = upright.
    """

    in_front: bool
    u: float
    v: float
    size: float
    distance: float
    yaw: float
    pitch: float
    roll: float


def sight(camera: Camera, spec: GeneratorSpec) -> Sight:
    """What `Sight` says, of a batch of 1; the head's middle is the point that the generator's cameras look at."""
    camera = Camera(camera.cam2world.double().cpu(), camera.intrinsics.double().cpu())
    middle = torch.tensor(spec.pivot, dtype=torch.float64)
    uv, z = camera.project(middle.reshape(1, 1, 3))
    distance = float((camera.position - middle).norm())
    focal = float(camera.intrinsics[0, 0, 0])
    size = focal / max(distance, 1e-9) / (spec.focal / spec.radius)
    yaw, pitch = (float(angle.rad2deg()) for angle in camera.yaw_pitch(spec.pivot))
    right, down = camera.cam2world[0, 1, 0], camera.cam2world[0, 1, 1]  # how much each goes up in the world
    roll = math.degrees(math.atan2(-float(right), -float(down)))
    return Sight(float(z) > 0, float(uv[0, 0, 0]), float(uv[0, 0, 1]), size, distance, yaw, pitch, roll)


def has_usual_direction(seen: Sight) -> bool:
    """Whether a head is seen as portraits show it: upright, from the front or a side."""
    return abs(seen.yaw) < _USUAL_YAW and abs(seen.pitch) < _USUAL_PITCH and abs(seen.roll) < _USUAL_ROLL


def is_ordinary(camera: Camera, spec: GeneratorSpec) -> bool:
    """Whether a camera sees a head as portraits do, also in the middle and large enough."""
    seen = sight(camera, spec)
    return (
        seen.in_front
        and 1 / _USUAL_SIZE < seen.size < _USUAL_SIZE
        and math.hypot(seen.u - 0.5, seen.v - 0.5) < _USUAL_SHIFT
        and has_usual_direction(seen)
    )


def check_world(camera: Camera, spec: GeneratorSpec) -> None:
    """Whether the generator's head lies in a camera's picture.

    Raises:
        InputError: it cannot; the message says what the camera looks like.
    """
    seen = sight(camera, spec)
    if not seen.in_front:
        wrong = "it looks away from the head"
    elif not (0 <= seen.u <= 1 and 0 <= seen.v <= 1):
        wrong = f"it looks past the head, whose middle would be at {seen.u:.2f}, {seen.v:.2f} of its picture"
    elif not 1 / _SIZE <= seen.size <= _SIZE:
        wrong = f"the head would be {seen.size:.2g} times as large as in the generator's pictures"
    elif spec.near is not None and spec.far is not None and not spec.near < seen.distance < spec.far:
        wrong = f"it stands {seen.distance:.3g} from the head, but {spec.near:g} to {spec.far:g} away is what is drawn"
    else:
        return
    raise InputError(f"the --camera cannot be the photo's: {wrong}{_hint(camera, spec, seen)}")


def _hint(camera: Camera, spec: GeneratorSpec, seen: Sight) -> str:
    """What a camera that cannot be one looks like, and what an ordinary one is."""
    for name, _ in conventions(camera, spec):
        return f"; it looks like {name}"
    usual = f"the generator's stand {spec.radius:g} away with a focal length of {spec.focal:g} picture widths"
    rescaled = camera.cam2world.clone()
    rescaled[:, :3, 3] *= spec.radius / max(seen.distance, 1e-9)
    scale = f"another world's scale: it stands {seen.distance:.3g} away, {usual}"
    if is_ordinary(Camera(rescaled, camera.intrinsics), spec):
        return f"; it looks like {scale}"
    for name, _ in conventions(Camera(rescaled, camera.intrinsics), spec):
        return f"; it looks like {name} and {scale}"
    return f"; {usual}, y up, the face looking along +z"
