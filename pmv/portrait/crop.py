"""Where in a photo the aligned portrait lies: the crops that EG3D's and PanoHead's training pictures were made with.

**EG3D** (its `dataset_preprocessing/ffhq`, after Deep3DFaceRecon): the eyes, the nose tip and the corners of the mouth
are fitted by the five standard points of a mean face under a scaled orthographic projection (POS, DeMenthon and Davis
1995); that face is scaled to 300 units on 1024 pixels around its own origin; the middle 700 become the picture.

**PanoHead** (its `3DDFA_V2_cropping`) and the **embedded generator** see a larger square around the middle of the head
rather than the face, with the camera looking straight at it. That is told here from the EG3D crop and camera: a
`Framing` says which point of EG3D's world the middle is, how much wider the square is, and how the generator's idea of
"straight ahead" is turned.

Published crops of photos are scaled and shifted, not turned, and so is a head here that is tilted by less than
`upright` degrees; one that is tilted more is turned upright by the rule of FFHQ's alignment.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from pmv.portrait.photo import Photo, sample


@dataclass(frozen=True)
class Framing:
    """How a generator's training pictures differ from EG3D's.

    Attributes:
        middle: [3], the point of EG3D's world in the middle of the picture, which the camera looks at; None = as EG3D.
        width: side of the picture, in sides of EG3D's.
        turn: degrees about the x axis from EG3D's world to the generator's.
    """

    middle: tuple[float, float, float] | None = None
    width: float = 1.0
    turn: float = 0.0


FRAMINGS = {
    "eg3d": Framing(),
    # the two portraits that come with PanoHead: 1.064 and 1.077; rotations agree within 1.5°
    "panohead": Framing((0.0, 0.05, 0.06), 1.07),
    # 14 heads of the embedded generator at yaw 0 to 40°: the middle within 1.5 % of the width, the turn within 2°
    "heads": Framing((0.0, 0.038, 0.0), 1.089, 6.3),
}
"""Framings by name."""

_RIGHT_EYE, _LEFT_EYE = (33, 160, 158, 133, 153, 144), (362, 385, 387, 263, 373, 380)
_NOSE, _MOUTH = (1, 4), (61, 291)
# Eyes, nose and mouth corners of the Basel Face Model's mean face as Deep3DFaceRecon aligns to them (x right, y up).
_STANDARD = np.array(
    [
        [-0.31148657, 0.29036078, 0.13377953],
        [0.30979887, 0.28972036, 0.13179526],
        [0.0032535, -0.04617932, 0.55244243],
        [-0.25216928, -0.38133916, 0.22405732],
        [0.2484662, -0.38128236, 0.22235769],
    ]
)
_STANDARD_SIZE, _MIDDLE = 300.0, 700.0
MESH_SPAN, BOTH_SPAN = 1.014, 1.011
"""Face Mesh's five points, and their mean with O-Net's, span a little less than those that EG3D's portraits were
cropped by: the median ratio over its own crops (benchmarks/portrait_camera.py)."""


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """[468,2] → [5,2]: right eye (on the left of the picture), left eye, nose tip, right and left mouth corner."""
    groups = (_RIGHT_EYE, _LEFT_EYE, _NOSE, _MOUTH[:1], _MOUTH[1:])
    return np.stack([landmarks[list(group)].mean(0) for group in groups])


def spanning(five: np.ndarray, factor: float) -> np.ndarray:
    """Points [P,2] drawn apart, or together, about their mean."""
    return five.mean(0) + factor * (five - five.mean(0))


def tilt(five: np.ndarray) -> float:
    """Degrees by which a face is turned clockwise in the picture: the x axis of FFHQ's crop rectangle."""
    across = five[1] - five[0]
    down = five[3:].mean(0) - five[:2].mean(0)
    axis = across + [down[1], -down[0]]
    return float(np.degrees(np.arctan2(axis[1], axis[0])))


def eg3d_crop(five: np.ndarray, size: int, upright: float) -> np.ndarray:
    """The similarity that crops a photo as EG3D's training pictures were.

    Args:
        five: [5,2] pixels of the photo, as `Landmarks.five`.
        size: S, side of the picture.
        upright: degrees of tilt beyond which the head is turned upright.

    Returns:
        [2,3] pixels of the photo → pixels of the picture; pixel i covers [i, i+1) in both.
    """
    angle = tilt(five)
    turn = np.eye(2) if abs(angle) < upright else _rotation(-angle)
    turned = five @ turn.T
    design = np.concatenate([_STANDARD, np.ones((5, 1))], 1)
    solution = np.linalg.lstsq(design, turned * [1, -1], rcond=None)[0]  # y up
    scale = np.linalg.norm(solution[:3], axis=0).mean()
    origin = solution[3] * [1, -1]
    zoom = _STANDARD_SIZE / scale * size / _MIDDLE
    return np.concatenate([zoom * turn, (size / 2 - zoom * origin)[:, None]], 1)


def framed_crop(eg3d: np.ndarray, middle: np.ndarray, width: float, size: int) -> np.ndarray:
    """Another framing's crop beside an EG3D crop of the same photo.

    Args:
        eg3d: [2,3] for a picture of `size` pixels.
        middle: [2], where the framing's middle appears in the EG3D crop, in picture widths.
        width: see `Framing`.
        size: S, side of both pictures.
    """
    linear = eg3d[:, :2] / width
    centre = np.linalg.inv(eg3d[:, :2]) @ (middle * size - eg3d[:, 2])
    return np.concatenate([linear, (size / 2 - linear @ centre)[:, None]], 1)


def _rotation(degrees: float) -> np.ndarray:
    """Turns points clockwise as seen in the picture (y down)."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s], [s, c]])


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """[2,3] on points [...,2]."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def invert(matrix: np.ndarray) -> np.ndarray:
    """The [2,3] matrix of the way back."""
    inverse = np.linalg.inv(matrix[:, :2])
    return np.concatenate([inverse, -(inverse @ matrix[:, 2])[:, None]], 1)


def corners(matrix: np.ndarray, size: int) -> np.ndarray:
    """[4,2] corners of the picture in pixels of the photo, clockwise from the upper left."""
    square = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float64)
    return apply(invert(matrix), square)


def cut(photo: Photo, matrix: np.ndarray, size: int, blur: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """The aligned picture; what lies beyond the photo's border is its mirror image, the more blurred the further out.

    Args:
        photo: the photo.
        matrix: [2,3], as `eg3d_crop` returns it.
        size: S.
        blur: standard deviation far outside, in picture widths.

    Returns:
        picture uint8 [S,S,3], and `valid` float32 [S,S]: 1 where the photo is, 0 in the padding.
    """
    inside = np.full((photo.height, photo.width), 255, np.uint8)
    valid = sample(inside, matrix, size).astype(np.float32) / 255
    picture = sample(photo.pixels, matrix, size)
    if valid.min() > 0.99:
        return picture, np.ones_like(valid)
    valid = (valid > 0.99).astype(np.float32)  # a pixel at the border is partly black
    index = np.stack(np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5), -1)
    there = apply(invert(matrix), index)
    limit = np.array([photo.width, photo.height], np.float64)
    mirrored = limit - np.abs(limit - np.mod(there, 2 * limit))  # reflection at both borders, again and again
    # at the photo's own resolution this would alias; a picture-sized copy of the photo is enough for padding
    small, scale = photo.reduced(2 * size)
    place = (mirrored * scale - 0.5).astype(np.float32)
    padding = cv2.remap(small, place[..., 0], place[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    filled = np.where(valid[..., None] > 0, picture, padding)
    outside = (1 - valid).astype(np.uint8)
    distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) / size
    result = filled.astype(np.float32)
    # two blurs, faded in one after the other, look like one that grows
    for part in (0.25, 1.0):
        soft = cv2.GaussianBlur(filled.astype(np.float32), (0, 0), max(part * blur * size, 0.5))
        weight = np.clip(distance / (part * 4 * blur), 0, 1)[..., None]
        result = result * (1 - weight) + soft * weight
    picture = np.where(valid[..., None] > 0, picture, result.round().clip(0, 255).astype(np.uint8))
    return picture, valid
