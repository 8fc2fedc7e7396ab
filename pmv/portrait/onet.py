"""Eyes, nose and mouth corners from O-Net, the last network of MTCNN (arXiv:1604.02878).

EG3D's preparation of photos (its `preprocess_in_the_wild`) crops by MTCNN's five points, so what that takes for the
corners of a mouth is what "aligned" means, most of all where a beard hides them. Only O-Net is needed: the face is
known already.

Only the file of its weights is read, from the package `facenet-pytorch` (MIT), which is never imported, or from the
folder that the environment variable `PMV_MTCNN` names. Without it pmv goes by Face Mesh alone.
"""

import importlib.util
import os
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pmv.errors import AssetsError
from pmv.portrait.photo import Photo, sample

MEND = "pip install --no-deps facenet-pytorch==2.6.0"
"""How to get the network."""
_FILE = "onet.pt"
_SIDE = 48  # pixels of what the network sees
_PATCH = 4 * _SIDE  # pixels of the picture that looks are taken from; a face takes up about half
_SURE = 0.7  # MTCNN's own threshold
_ROUNDS = 3  # of putting the box where the network wants it
_SCALES, _SHIFT, _TURN = (0.9, 1.0, 1.1), 0.07, np.radians(6.0)  # of the looks; the shift in box sides
_SWAPPED = [1, 0, 2, 4, 3]  # the five points of a mirrored face
_LAYERS = {
    **{
        f"conv{k}": shape for k, shape in enumerate(((32, 3, 3, 3), (64, 32, 3, 3), (64, 64, 3, 3), (128, 64, 2, 2)), 1)
    },
    **{"dense5": (256, 1152), "dense6_1": (2, 256), "dense6_2": (4, 256), "dense6_3": (10, 256)},
}
SHAPES = {
    **{f"{name}.weight": shape for name, shape in _LAYERS.items()},
    **{f"{name}.bias": shape[:1] for name, shape in _LAYERS.items()},
    **{f"prelu{name[-1]}.weight": shape[:1] for name, shape in _LAYERS.items() if "_" not in name},
}
"""The weights by name, and their shapes."""


def weights_path() -> Path | None:
    """The file of the weights, or None where there is none.

    Raises:
        AssetsError: `PMV_MTCNN` names a folder without it.
    """
    folder = os.environ.get("PMV_MTCNN")
    if folder:
        path = Path(folder) / _FILE
        if not path.is_file():
            raise AssetsError(f"{folder} (PMV_MTCNN) lacks {_FILE}; unset it, or {MEND}")
        return path
    spec = importlib.util.find_spec("facenet_pytorch")
    for root in (spec.submodule_search_locations or []) if spec else []:
        path = Path(root) / "data" / _FILE
        if path.is_file():
            return path
    return None


@lru_cache(maxsize=2)
def _load(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        weights = {name: state[name].float() for name in SHAPES}
        fits = all(tuple(weights[name].shape) == shape for name, shape in SHAPES.items())
    except Exception as error:  # whatever a damaged file makes of the reader
        raise AssetsError(f"{path}: not the weights of MTCNN's O-Net ({type(error).__name__}); {MEND}") from error
    if not fits:
        raise AssetsError(f"{path}: not the weights of MTCNN's O-Net (other shapes); {MEND}")
    return weights


@torch.no_grad()
def _answer(pictures: np.ndarray, weights: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """uint8 [N,48,48,3] RGB → the chance of a face [N], its box [N,2,2] (upper left and lower right corner) and five
    points [N,5,2], in pixels."""

    def layer(values: Tensor, name: str) -> Tensor:
        if values.ndim == 4:
            return F.conv2d(values, weights[f"{name}.weight"], weights[f"{name}.bias"])
        return F.linear(values, weights[f"{name}.weight"], weights[f"{name}.bias"])

    values = (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() - 127.5) / 128
    for k, window in enumerate((3, 3, 2, 0), 1):
        values = F.prelu(layer(values, f"conv{k}"), weights[f"prelu{k}.weight"])
        if window:
            values = F.max_pool2d(values, window, 2, ceil_mode=True)
    # the network was trained on transposed pictures: columns first
    values = values.permute(0, 3, 2, 1).flatten(1)
    values = F.prelu(layer(values, "dense5"), weights["prelu5.weight"])
    score = layer(values, "dense6_1").softmax(1)[:, 1]
    corners = layer(values, "dense6_2").reshape(-1, 2, 2) + torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    points = layer(values, "dense6_3").reshape(-1, 2, 5).transpose(1, 2)
    return score.numpy().astype(np.float64), corners.double().numpy() * _SIDE, points.double().numpy() * _SIDE


def find_five_points(photo: Photo, mesh: np.ndarray, angle: float) -> np.ndarray | None:
    """Five points of a face, the mean over many looks at it: a little scaled, shifted, turned, and mirrored.

    Args:
        photo: what the face is in.
        mesh: [M,2] points all over the face, in pixels of the photo.
        angle: radians by which the face is turned clockwise.

    Returns:
        [5,2] in pixels of the photo: right eye (on the left of the picture), left eye, nose tip, right and left mouth
        corner; or None: there are no weights, or the network does not see a face there.
    """
    path = weights_path()
    if path is None:
        return None
    weights = _load(path)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    upright = mesh @ turn.T
    low, high = upright.min(0), upright.max(0)
    zoom = _PATCH / 2 / float((high - low).max())
    matrix = np.concatenate([zoom * turn, (_PATCH / 2 - zoom * (low + high) / 2)[:, None]], 1)
    patch = sample(photo.pixels, matrix, _PATCH, cv2.BORDER_REPLICATE)
    centre, side = np.full(2, _PATCH / 2), _PATCH / 2
    for _ in range(_ROUNDS):
        _, boxes, _ = _looks(patch, [(centre, side, 0.0, False), (centre, side, 0.0, True)], weights)
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
    scores, _, points = _looks(patch, frames, weights)
    sure = scores > _SURE
    if sure.mean() < 0.25:
        return None
    return (points[sure].mean(0) - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T


def _looks(
    patch: np.ndarray, frames: list[tuple[np.ndarray, float, float, bool]], weights: dict[str, Tensor]
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
    scores, boxes, points = _answer(pictures, weights)
    for k, ((_, side, _, mirrored), matrix) in enumerate(zip(frames, matrices)):
        back = np.linalg.inv(matrix[:, :2]).T
        points[k] = (points[k][_SWAPPED] if mirrored else points[k]) @ back - matrix[:, 2] @ back
        half = (boxes[k][1] - boxes[k][0]) / 2 * side / _SIDE
        centre = (boxes[k].mean(0) - matrix[:, 2]) @ back
        boxes[k] = centre - half, centre + half
    return scores, boxes, points
