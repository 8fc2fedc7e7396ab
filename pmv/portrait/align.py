"""A raw photo to an aligned portrait: choose the face, crop it as the generator's training pictures were, find the
camera.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from pmv.errors import PhotoError
from pmv.geometry.camera import Camera
from pmv.portrait import crop
from pmv.portrait.face_model import FaceModel, project
from pmv.portrait.landmarks import Face, Landmarks, detect_faces, find_landmarks
from pmv.portrait.photo import Photo, sample
from pmv.portrait.pose import Pose, find_camera

DETECTION_SIDE = 1280
"""Pixels of the longer side of the copy in which faces are looked for."""
SMALLEST_FACE = 48.0
"""Pixels a side below which a face has nothing to give."""
MOST_OUTSIDE = 0.1
"""Part of the landmarks that may lie beyond the photo's border."""
LEAST_SHARPNESS = 0.0006
"""See `sharpness`."""
USUAL_ERROR = 2.2
"""Degrees: the mean rotation error on portraits that the face model had not seen (benchmarks/portrait_camera.py)."""


@dataclass(frozen=True)
class Aligned:
    """A portrait cropped from a photo.

    Attributes:
        picture: uint8 [S,S,3].
        valid: float32 [S,S], 1 where the photo is, 0 in padding.
        matrix: [2,3], pixels of the photo → pixels of `picture`; pixel i covers [i, i+1) in both.
        camera: batch of 1, in the generator's world.
        error: expected rotation error of the camera, degrees.
        landmarks: [468,2] in pixels of the photo.
    """

    picture: np.ndarray
    valid: np.ndarray
    matrix: np.ndarray
    camera: Camera
    error: float
    landmarks: np.ndarray

    @property
    def confidence(self) -> float:
        """In (0,1]: 0.85 for an ordinary portrait, ½ where the camera may be 5° off."""
        return confidence_of(self.error)


def confidence_of(error: float) -> float:
    """See `Aligned.confidence`."""
    return 1 / (1 + (error / 5.0) ** 2)


@lru_cache(maxsize=1)
def shipped_model() -> FaceModel:
    """The face model that comes with pmv, read once."""
    return FaceModel.load()


def find_faces(photo: Photo) -> list[Face]:
    """All faces of a photo in its own pixels, the largest first."""
    small, scale = photo.reduced(DETECTION_SIDE)
    return [face.scaled(1 / scale) for face in detect_faces(small)]


def choose_face(faces: Sequence[Face], number: int | None = None) -> Face:
    """The largest face, or the one of a number (from 1, by size).

    Raises:
        PhotoError: there is no face, or none of that number.
    """
    if not faces:
        raise PhotoError("no face was found; give a photo that shows one, large enough and not from behind")
    if number is None:
        return faces[0]
    if not 1 <= number <= len(faces):
        raise PhotoError(f"there is no face {number}; it shows {len(faces)}, numbered by size: --face 1 is the largest")
    return faces[number - 1]


def align(
    photo: Photo,
    face: Face,
    framing: crop.Framing,
    size: int,
    upright: float = 8.0,
    model: FaceModel | None = None,
) -> Aligned:
    """Crop one face of a photo for a generator, and find its camera.

    Args:
        photo: the photo.
        face: of `find_faces`.
        framing: the generator's, of `crop.FRAMINGS`.
        size: S, side of the picture in pixels.
        upright: degrees of tilt from which a head is turned upright.
        model: the face; None = the shipped one.

    Raises:
        PhotoError: the face is too small, cut off by the border, blurred, or none.
    """
    model = model or shipped_model()
    if face.size < SMALLEST_FACE:
        raise PhotoError(
            f"the face is only {face.size:.0f} pixels wide; give a photo where it has at least {SMALLEST_FACE:.0f}"
        )
    found = find_landmarks(photo, face, model.partner)
    _check(photo, found)
    return align_landmarks(photo, found, framing, size, upright, model)


def align_landmarks(
    photo: Photo, found: Landmarks, framing: crop.Framing, size: int, upright: float, model: FaceModel
) -> Aligned:
    """`align` from landmarks that are known."""
    matrix = crop.eg3d_crop(found.five, size, upright)
    pose = find_camera(crop.apply(matrix, found.points) / size, model)
    camera = pose.camera
    if framing.middle is not None:
        rotation = camera.cam2world[0, :3, :3].double().numpy()
        middle = project(np.array([framing.middle]), rotation, camera.position[0].double().numpy())[0]
        matrix = crop.framed_crop(matrix, middle, framing.width, size)
        camera = _facing(camera, framing)
    picture, valid = crop.cut(photo, matrix, size)
    return Aligned(picture, valid, matrix, camera, expected_error(pose, found), found.points)


def _facing(camera: Camera, framing: crop.Framing) -> Camera:
    """The camera in a framing's world: as far away, looking straight at the origin."""
    turn = torch.from_numpy(Rotation.from_euler("x", framing.turn, degrees=True).as_matrix()).float()
    cam2world = camera.cam2world.clone()
    cam2world[0, :3, :3] = turn @ camera.cam2world[0, :3, :3]
    cam2world[0, :3, 3] = -cam2world[0, :3, 2] * camera.position.norm()
    return Camera(cam2world, camera.intrinsics)


def expected_error(pose: Pose, found: Landmarks) -> float:
    """Degrees by which a camera may be turned wrongly: what is usual, more for an unusual face (`surprise`), for
    landmarks that the network is not sure of (`spread`, `presence`), and for a head turned so far that it cannot
    follow.
    """
    parts = (
        USUAL_ERROR,
        3.0 * max(0.0, pose.surprise - 1.0),
        500.0 * max(0.0, found.spread - 0.008),
        0.4 * max(0.0, abs(pose.yaw) - 40.0),
        10.0 * (1.0 - found.presence),
    )
    return float(np.sqrt(sum(part**2 for part in parts)))


def _check(photo: Photo, found: Landmarks) -> None:
    if found.presence < 0.5:
        raise PhotoError("no face was found where one seemed to be; give a photo that shows it better")
    limit = np.array([photo.width, photo.height])
    beyond = {
        "left": found.points[:, 0] < 0,
        "right": found.points[:, 0] > limit[0],
        "upper": found.points[:, 1] < 0,
        "lower": found.points[:, 1] > limit[1],
    }
    side = max(beyond, key=lambda name: beyond[name].mean())
    if beyond[side].mean() > MOST_OUTSIDE:
        raise PhotoError(f"the face is cut off at the {side} border; give a photo with the whole face")
    if sharpness(photo, found) < LEAST_SHARPNESS:
        raise PhotoError("the face is blurred; give a sharper photo")


def sharpness(photo: Photo, found: Landmarks) -> float:
    """How sharp a face is: the power of its finest detail on 128 pixels, as a part of its contrast.

    A face that was blurred by 5 % of its width or more has less than `LEAST_SHARPNESS`.
    """
    side = 128
    low, high = found.points.min(0), found.points.max(0)
    zoom = side / float((high - low).max())
    matrix = np.concatenate([zoom * np.eye(2), (side / 2 - zoom * (low + high) / 2)[:, None]], 1)
    grey = cv2.cvtColor(sample(photo.pixels, matrix, side), cv2.COLOR_RGB2GRAY).astype(np.float32)
    middle = grey[side // 6 : -side // 6, side // 6 : -side // 6]
    detail = cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 1.0), cv2.CV_32F)
    return float(detail[side // 6 : -side // 6, side // 6 : -side // 6].var() / max(middle.var(), 1.0))


def draw_faces(photo: Photo, faces: Sequence[Face], chosen: Face) -> np.ndarray:
    """A copy of the photo, at most 1280 pixels a side, with its faces numbered; the chosen one is green.

    Returns:
        uint8 [h,w,3].
    """
    small, scale = photo.reduced(DETECTION_SIDE)
    picture = small.copy()
    thick = max(2, round(max(picture.shape) / 400))
    for number, face in enumerate(faces, 1):
        colour = (40, 220, 60) if face is chosen else (240, 180, 30)
        left, top, right, bottom = (round(float(v) * scale) for v in face.box)
        cv2.rectangle(picture, (left, top), (right, bottom), colour, thick)
        letters = max(0.5, (bottom - top) / 150)
        place = (left + 2 * thick, top + round(24 * letters))
        cv2.putText(picture, str(number), place, cv2.FONT_HERSHEY_SIMPLEX, letters, colour, thick, cv2.LINE_AA)
    return picture
