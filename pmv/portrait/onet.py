"""Eyes, nose and mouth corners from O-Net, the last network of MTCNN (arXiv:1604.02878).

EG3D's preparation of photos (its `preprocess_in_the_wild`) crops by MTCNN's five points, so what that takes for the
corners of a mouth is what "aligned" means, most of all where a beard hides them. Only O-Net is needed: the face is
known already.
"""

import cv2
import numpy as np

from pmv.portrait.networks import as_input, network
from pmv.portrait.photo import Photo, sample

_SIDE = 48  # pixels of what the network sees
_PATCH = 4 * _SIDE  # pixels of the picture that looks are taken from; a face takes up about half
_SURE = 0.7  # MTCNN's own threshold
_ROUNDS = 3  # of putting the box where the network wants it
_SCALES, _SHIFT, _TURN = (0.9, 1.0, 1.1), 0.07, np.radians(6.0)  # of the looks; the shift in box sides
_SWAPPED = [1, 0, 2, 4, 3]  # the five points of a mirrored face


def _answer(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """uint8 [N,48,48,3] RGB → the chance of a face [N], its box [N,2,2] (upper left and lower right corner) and five
    points [N,5,2], in pixels."""
    # MTCNN's (v − 127.5) / 128
    answer = network("onet")(as_input(pictures, low=-1.0) * (127.5 / 128))
    score, corners, points = (answer[f"dense6_{k}"].flatten(1).double() for k in (1, 2, 3))
    corners = corners.numpy().reshape(-1, 2, 2) + [[0.0, 0.0], [1.0, 1.0]]
    points = points.numpy().reshape(-1, 2, 5).transpose(0, 2, 1)
    return score.softmax(1)[:, 1].numpy(), corners * _SIDE, points * _SIDE


def find_five_points(photo: Photo, mesh: np.ndarray, angle: float) -> np.ndarray | None:
    """Five points of a face, the mean over many looks at it: a little scaled, shifted, turned, and mirrored.

    Args:
        photo: what the face is in.
        mesh: [M,2] points all over the face, in pixels of the photo.
        angle: radians by which the face is turned clockwise.

    Returns:
        [5,2] in pixels of the photo: right eye (on the left of the picture), left eye, nose tip, right and left mouth
        corner; or None: the network does not see a face there.
    """
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    upright = mesh @ turn.T
    low, high = upright.min(0), upright.max(0)
    zoom = _PATCH / 2 / float((high - low).max())
    matrix = np.concatenate([zoom * turn, (_PATCH / 2 - zoom * (low + high) / 2)[:, None]], 1)
    patch = sample(photo.pixels, matrix, _PATCH, cv2.BORDER_REPLICATE)
    centre, side = np.full(2, _PATCH / 2), _PATCH / 2
    for _ in range(_ROUNDS):
        _, boxes, _ = _looks(patch, [(centre, side, 0.0, False), (centre, side, 0.0, True)])
        low, high = boxes.mean(0)
        # as MTCNN squares its boxes; never off the patch, which is made for the face that is known
        side = float(np.clip((high - low).max(), _PATCH / 4, _PATCH))
        centre = np.clip((low + high) / 2, _PATCH / 4, 3 * _PATCH / 4)
    frames = [
        (centre + np.array(shift) * _SHIFT * side, side * scale, turned * _TURN, mirrored)
        for scale in _SCALES
        for shift in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
        for turned in (-1, 0, 1)
        for mirrored in (False, True)
    ]
    scores, _, points = _looks(patch, frames)
    sure = scores > _SURE
    if sure.mean() < 0.25:
        return None
    return (points[sure].mean(0) - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T


def _looks(
    patch: np.ndarray, frames: list[tuple[np.ndarray, float, float, bool]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores [N], boxes [N,2,2] and points [N,5,2] in pixels of the patch, of looks (centre, side, angle, mirrored).

    A box is told upright: its centre is turned with the look, its sides are not.
    """
    matrices = []
    pictures = np.empty((len(frames), _SIDE, _SIDE, 3), np.uint8)
    for k, (centre, side, angle, mirrored) in enumerate(frames):
        cos, sin = _SIDE / side * np.array([np.cos(angle), np.sin(angle)])
        turn = np.array([[cos, sin], [-sin, cos]])
        matrix = np.concatenate([turn, (_SIDE / 2 - turn @ centre)[:, None]], 1)
        if mirrored:
            matrix = np.array([[-1.0], [1.0]]) * matrix + [[0, 0, _SIDE], [0, 0, 0]]
        # twice as large, then halved: an area's mean; OpenCV's pixels have their centres at whole numbers
        warp = 2 * matrix
        warp[:, 2] += warp[:, :2] @ [0.5, 0.5] - 0.5
        large = cv2.warpAffine(
            patch, warp, (2 * _SIDE, 2 * _SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        pictures[k] = cv2.resize(large, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        matrices.append(matrix)
    scores, boxes, points = _answer(pictures)
    for k, ((_, side, _, mirrored), matrix) in enumerate(zip(frames, matrices)):
        back = np.linalg.inv(matrix[:, :2]).T
        points[k] = (points[k][_SWAPPED] if mirrored else points[k]) @ back - matrix[:, 2] @ back
        half = (boxes[k][1] - boxes[k][0]) / 2 * side / _SIDE
        centre = (boxes[k].mean(0) - matrix[:, 2]) @ back
        boxes[k] = centre - half, centre + half
    return scores, boxes, points
