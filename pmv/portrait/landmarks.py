"""Faces in a photo and their landmarks, by MediaPipe's BlazeFace and Face Mesh (`pmv.portrait.networks`).

The 468 landmarks are numbered as MediaPipe numbers them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from pmv.portrait import crop, onet
from pmv.portrait.networks import as_input, network
from pmv.portrait.photo import Photo, sample

_DETECTOR_SIDE, _MESH_SIDE = 128, 192
_LANDMARKS = 468
_SURE = 0.88  # a score that no face reaches on its head
_EYE_CORNERS = (33, 263)  # the outer ones: the face's right (on the left of a frontal picture), its left
_APART = 0.035  # distance of a look from the mirrored one, in face sizes, from which the mesh does not lie right
_ALIKE = 0.1  # mean distance of O-Net's five points, in face sizes, beyond which they are of something else
_ONET = 1 / 3  # its share in the five points; benchmarks/README.md has the figures of others
_MARGIN = 1.5  # width of what Face Mesh is shown, in widths of the face


@dataclass(frozen=True)
class Face:
    """One face of a photo.

    Attributes:
        box: [4] left, top, right, bottom in pixels of the photo.
        score: the detector's, in [0,1].
        keypoints: [6,2] in pixels of the photo: right eye, left eye, nose tip, mouth, right ear, left ear.
        others: what the detector also took this face for when it looked at the turned photo.
    """

    box: np.ndarray
    score: float
    keypoints: np.ndarray
    others: tuple["Face", ...] = ()

    def scaled(self, factor: float) -> "Face":
        """The same face in a photo that is `factor` times as large."""
        others = tuple(face.scaled(factor) for face in self.others)
        return Face(self.box * factor, self.score, self.keypoints * factor, others)

    @property
    def size(self) -> float:
        """Geometric mean of the box's sides in pixels."""
        width, height = self.box[2:] - self.box[:2]
        return float(np.sqrt(max(width, 0.0) * max(height, 0.0)))


@dataclass(frozen=True)
class Landmarks:
    """The mesh of one face.

    Attributes:
        points: [468,2] in pixels of the photo; pixel i covers [i, i+1).
        five: [5,2] in pixels of the photo: eyes, nose tip, mouth corners, as EG3D's portraits were cropped by
            (`find_five_points`).
        presence: probability that there is a face at all.
        spread: mean distance of the points between the network's looks at the face, in face sizes: what its answer is
            worth.
    """

    points: np.ndarray
    five: np.ndarray
    presence: float
    spread: float

    @property
    def size(self) -> float:
        """Geometric mean of the sides of the box around the points, in pixels."""
        return float(np.sqrt(np.prod(np.ptp(self.points, axis=0))))


# --- detection


@lru_cache(maxsize=1)
def _anchors() -> np.ndarray:
    """[896,2] centres of BlazeFace's anchors in the unit square: two a cell of 16², six a cell of 8²."""
    cells = []
    for side, count in ((16, 2), (8, 6)):
        y, x = np.mgrid[0:side, 0:side]
        cells.append(np.repeat((np.stack([x, y], -1).reshape(-1, 2) + 0.5) / side, count, 0))
    return np.concatenate(cells)


def detect_faces(image: np.ndarray, threshold: float = 0.7) -> list[Face]:
    """All faces of a picture, the largest first; a face may lie on its side or upside down.

    Args:
        image: uint8 [H,W,3] RGB. About 1000 pixels a side are plenty.
        threshold: smallest score.

    Returns:
        faces in pixels of `image`. Turned pictures are tried only where the upright one shows none for sure: the
        detector sometimes takes a face for one that stands on its head.
    """
    height, width = image.shape[:2]
    best: list[Face] = []
    all_faces: list[Face] = []
    for turns in (0, 1, 3, 2):
        found = _detect_upright(np.ascontiguousarray(np.rot90(image, turns)), threshold)
        faces = [_turned_back(face, turns, width, height) for face in found]
        all_faces += faces
        if max((f.score for f in faces), default=0.0) > max((f.score for f in best), default=0.0):
            best = faces
        if turns == 0 and any(face.score > _SURE for face in faces):
            break
    alike = [[f for f in all_faces if f is not face and _overlap(f.box, face.box) > 0.4] for face in best]
    return [replace(face, others=tuple(sorted(some, key=lambda f: -f.score))) for face, some in zip(best, alike)]


def _turned_back(face: Face, turns: int, width: int, height: int) -> Face:
    """A face of a picture after `turns` quarter turns counter-clockwise, in the picture's own pixels."""

    def back(points: np.ndarray) -> np.ndarray:
        x, y = points[:, 0], points[:, 1]
        if turns == 1:
            return np.stack([width - y, x], 1)
        if turns == 2:
            return np.stack([width - x, height - y], 1)
        if turns == 3:
            return np.stack([y, height - x], 1)
        return points

    corners = back(face.box.reshape(2, 2))
    return Face(np.concatenate([corners.min(0), corners.max(0)]), face.score, back(face.keypoints))


def _scales(width: int, height: int) -> list[float]:
    """Factors that a picture is scaled by so that faces of every size are seen by the detector's window."""
    # a face that fills the picture is only seen with something around it
    scales = [_DETECTOR_SIDE / (1.5 * max(width, height)), _DETECTOR_SIDE / max(width, height)]
    while scales[-1] < 0.5 and scales[-1] * min(width, height) < 8 * _DETECTOR_SIDE:
        scales.append(min(1.0, scales[-1] * 2))
    return scales


def _anchor_answers(window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [128,128,3] → for each anchor the chance of a face [896], and a box's centre and size and six keypoints
    [896,8,2], in pixels; places are told from the anchor's."""
    maps = network("detector")(as_input(window[None], low=-1.0))

    def listed(name: str, channels: int) -> np.ndarray:
        both = [maps[f"{name}_{stride}"].permute(0, 2, 3, 1).reshape(-1, channels) for stride in (8, 16)]
        return np.concatenate([values.numpy() for values in both])

    scores = 1 / (1 + np.exp(-np.clip(listed("classificator", 1)[:, 0], -80, 80)))
    return scores, listed("regressor", 16).reshape(-1, 8, 2)


def _detect_upright(image: np.ndarray, threshold: float) -> list[Face]:
    anchors, side = _anchors(), _DETECTOR_SIDE
    found: list[Face] = []
    for scale in _scales(image.shape[1], image.shape[0]):
        flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=flags)
        height, width = small.shape[:2]
        # windows overlap by half; what lies outside the picture is black, as in training
        rows, columns = (max(0, int(np.ceil((n - side) / (side / 2)))) for n in (height, width))
        canvas = np.zeros((side + rows * side // 2, side + columns * side // 2, 3), np.uint8)
        shift = np.array([(canvas.shape[1] - width) // 2, (canvas.shape[0] - height) // 2])
        canvas[shift[1] : shift[1] + height, shift[0] : shift[0] + width] = small
        for corner in np.ndindex(rows + 1, columns + 1):
            top, left = (side // 2 * k for k in corner)
            window = canvas[top : top + side, left : left + side]
            scores, answers = _anchor_answers(window)
            for k in np.flatnonzero(scores > threshold):
                values = answers[k] / side
                centre, half = values[0] + anchors[k], values[1] / 2
                points = np.concatenate([[centre - half, centre + half], values[2:] + anchors[k]])
                points = (points * side + (left, top) - shift) / scale
                found.append(Face(points[:2].reshape(4), float(scores[k]), points[2:]))
    return sorted(_merge(found), key=lambda face: -face.size)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection of two boxes over the smaller one: a face found inside another is the same face."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.prod(np.maximum(high - low, 0))
    return float(shared / max(min(np.prod(a[2:] - a[:2]), np.prod(b[2:] - b[:2])), 1e-9))


def _merge(faces: list[Face]) -> list[Face]:
    """One face for each group of overlapping ones: the mean by score (BlazeFace's blending)."""
    kept: list[Face] = []
    rest = sorted(faces, key=lambda face: -face.score)
    while rest:
        group = [face for face in rest if _overlap(face.box, rest[0].box) > 0.4]
        rest = [face for face in rest if not any(face is other for other in group)]
        near = [face for face in group if 0.7 < face.size / group[0].size < 1.4]
        weights = np.array([face.score for face in near]) / sum(face.score for face in near)
        box = np.einsum("n,nk->k", weights, np.stack([face.box for face in near]))
        points = np.einsum("n,nij->ij", weights, np.stack([face.keypoints for face in near]))
        kept.append(Face(box, group[0].score, points))
    return kept


# --- mesh


def find_landmarks(photo: Photo, face: Face, partner: np.ndarray, looks: int = 12) -> Landmarks:
    """The mesh of one face: the mean of several looks at it, each a little turned and scaled, every other one mirrored.

    The network answers a little differently to every framing of one face, and leans to one side; the mean does less.

    Args:
        photo: what the face was found in.
        face: in pixels of the photo.
        partner: [468], the landmark at the mirrored place of each (`pmv.portrait.face_model`).
        looks: how many to average; the framing is found in a few further ones before.
    """
    centre, side, angle = _framing(photo, face, partner)
    frames = []
    for k in range(looks):
        phase = 2 * np.pi * (k // 2) / max(looks // 2, 1)
        frames.append((centre, side * (1 + 0.1 * np.cos(phase)), angle + np.radians(4.0) * np.sin(phase)))
    stack, presence = _looks(photo, frames, [partner if k % 2 else None for k in range(looks)])
    points = stack.mean(0)
    found = Landmarks(points, find_five_points(photo, points), float(np.mean(presence)), 0.0)
    spread = float(np.linalg.norm(stack - found.points, axis=-1).mean() / max(found.size, 1e-6))
    return replace(found, spread=spread)


def find_five_points(photo: Photo, mesh: np.ndarray) -> np.ndarray:
    """Eyes, nose tip and mouth corners [5,2] of a mesh [468,2], in pixels of the photo, for `eg3d_crop`.

    Two parts Face Mesh and one part O-Net (`pmv.portrait.onet`), networks that err in different ways; Face Mesh alone
    where O-Net does not see the face, or sees another.
    """
    five = crop.five_points(mesh)
    other = onet.find_five_points(photo, mesh, float(np.radians(crop.tilt(five))))
    size = np.sqrt(np.prod(np.ptp(mesh, axis=0)))
    if other is None or np.linalg.norm(other - five, axis=1).mean() > _ALIKE * size:
        return crop.spanning(five, crop.MESH_SPAN)
    return crop.spanning(five + _ONET * (other - five), crop.BOTH_SPAN)


def _framing(photo: Photo, face: Face, partner: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Centre, side and angle of the square in which a look at a face and the mirrored one agree best.

    The detector's answer is enough for most faces. Of a profile, or of a small one, it may not know which way is up:
    then the other three are tried, and what the detector saw in the turned photo.
    """
    best, highest = None, -np.inf
    for quarters in (0, 1, 3, 2):
        for seen in (face, *face.others):
            low, high = seen.box.reshape(2, 2)
            upright = np.radians(crop.tilt(seen.keypoints[[0, 1, 2, 3, 3]]) + 90 * quarters)
            frame = (low + high) / 2, float((high - low).max()) * _MARGIN, float(upright)
            for _ in range(2):
                frame = _frame_of(_look(photo, frame)[0])
            (points, mirrored), sure = _looks(photo, [frame, frame], [None, partner])
            apart = np.linalg.norm(points - mirrored, axis=1).mean() / max(np.ptp(points, axis=0).max(), 1e-6)
            quality = float(sure.min()) - float(apart) / _APART
            if quality > highest:
                best, highest = frame, quality
            if quality > 0:
                return frame
    assert best is not None
    return best


def _frame_of(points: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Centre, side and angle of the square that Face Mesh is shown, around a mesh and upright by its eyes."""
    x, y = points[_EYE_CORNERS[1]] - points[_EYE_CORNERS[0]]
    angle = np.arctan2(y, x)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    upright = points @ turn.T
    low, high = upright.min(0), upright.max(0)
    return (low + high) / 2 @ turn, float((high - low).max()) * _MARGIN, float(angle)


def _looks(
    photo: Photo, frames: Sequence[tuple[np.ndarray, float, float]], partners: Sequence[np.ndarray | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Looks, each in a square of a centre, a side and an angle, mirrored where it has a partner: points [N,468,2] in
    pixels of the photo, and the chance of a face [N].
    """
    size = _MESH_SIDE
    matrices = np.empty((len(frames), 2, 3))
    pictures = np.empty((len(frames), size, size, 3), np.uint8)
    for k, ((centre, side, angle), partner) in enumerate(zip(frames, partners)):
        turn = size / side * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        matrices[k] = np.concatenate([turn, (np.array([size / 2, size / 2]) - turn @ centre)[:, None]], 1)
        picture = sample(photo.pixels, matrices[k], size)
        pictures[k] = picture if partner is None else picture[:, ::-1]
    answer = network("mesh")(as_input(pictures))
    local = answer["conv2d_21"].reshape(-1, _LANDMARKS, 3)[:, :, :2].double().numpy()
    local = np.stack(
        [p if partner is None else p[partner] * [-1, 1] + [size, 0] for p, partner in zip(local, partners)]
    )
    points = (local - matrices[:, None, :, 2]) @ np.linalg.inv(matrices[:, :, :2]).transpose(0, 2, 1)
    return points, answer["conv2d_31"].flatten().sigmoid().double().numpy()


def _look(
    photo: Photo, frame: tuple[np.ndarray, float, float], partner: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """One of `_looks`."""
    points, sure = _looks(photo, [frame], [partner])
    return points[0], float(sure[0])
