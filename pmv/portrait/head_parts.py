"""Where hair, face, eyes, nose and mouth of a head lie in a generator's world.

The parts of a face are told by geometry: all heads of a generator lie alike, where the statistical face has its mean,
which reaches from the chin over crown and ears to the neck. Where hair ends no geometry says; there the head's own
colours do, between that of its cheeks and that of its crown.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.spatial import KDTree
from skimage.color import rgb2lab
from torch import Tensor

from pmv.portrait.crop import Framing
from pmv.portrait.five_points import in_framing
from pmv.portrait.statistical_face import shipped_face

HAIR, FACE = "hair", "face"
_EYES = (
    *(33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    *(263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
_BROWS = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46, 300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
_NOSE = (1, 2, 4, 5, 6, 19, 94, 97, 98, 326, 327, 195, 197, 48, 278, 64, 294, 115, 344)
_MOUTH = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185, 13, 14)
_BY_LANDMARKS = {"eyes": (*_EYES, *_BROWS), "nose": _NOSE, "mouth": _MOUTH}
"""Part → MediaPipe's landmarks on it."""
PARTS = (HAIR, FACE, *_BY_LANDMARKS)
_CHEEKS = (4, 6, 50, 205, 280, 425)
"""Landmarks that neither hair nor beard covers."""
_AROUND = 1.0
"""Centimetres by which a part of the face reaches beyond its landmarks, and over which it then fades out."""
_CHEEK = 2.0
"""Centimetres around a cheek's landmark that show its colour."""
_OFF = 2.5
"""Centimetres off the mean head from which what hangs there is hardly a neck."""
_FRINGE = 1.5
"""Centimetres off the mean forehead from which it can only be hair."""
_TELL = 7.0
"""ΔE (CIE 1976) between crown and cheeks from which colour tells hair from skin."""
_GRID = 64
"""Samples a side of a part's volume."""


@dataclass(frozen=True)
class MeanHead:
    """The mean of the statistical face in a generator's world.

    Attributes:
        vertices: [V,3]; skin: [V] in [0,1], 1 on the face's skin, 0 on scalp, ears and neck. landmarks: [468,3].
        centimetre: world units.
    """

    vertices: np.ndarray
    skin: np.ndarray
    landmarks: np.ndarray
    centimetre: float


def mean_head(framing: Framing) -> MeanHead:
    """The mean head in the world of a generator whose pictures are framed so."""
    face = shipped_face()
    vertices = in_framing(torch.from_numpy(face.anchor.apply(face.mean)).float(), framing).numpy()
    return MeanHead(vertices, face.skin, face.at_landmarks(vertices), face.anchor.scale / framing.width)


@dataclass(frozen=True)
class SurfaceSamples:
    """Places on a head's surface: points [M,3] in the world, colours [M,3] in [-1,1]."""

    points: np.ndarray
    colours: np.ndarray


def skin_places(head: SurfaceSamples, mean: MeanHead) -> np.ndarray:
    """bool [M]: which samples lie on nose and cheeks."""
    distance, _ = KDTree(mean.landmarks[list(_CHEEKS)]).query(head.points)
    return distance < _CHEEK * mean.centimetre


def hair_share(head: SurfaceSamples, mean: MeanHead) -> np.ndarray | None:
    """How far each sample of a head's surface is hair, [M] in [0,1].

    Beards are the face's. What lies above the brows and behind the forehead is hair; on forehead, temples and neck it
    is what has the crown's colour rather than the cheeks', and near the neck, whose own shadow is dark, only what has
    all but the crown's.

    Returns: None where the crown's colour is the cheeks', or either of them is not there: no hair is found.
    """
    _, nearest = KDTree(mean.vertices).query(head.points)
    off = np.linalg.norm(head.points - mean.vertices[nearest], axis=1)
    skin = mean.skin[nearest]
    brows = mean.landmarks[list(_BROWS), 1].mean()
    above = head.points[:, 1] > brows
    scalp = above & (skin < 0.1) & (head.points[:, 2] < mean.landmarks[10, 2] / 2)
    cheeks = skin_places(head, mean)
    if not scalp.any() or not cheeks.any():
        return None
    lab = rgb2lab(((head.colours + 1) / 2).clip(0, 1)[None])[0]
    of_skin, of_hair = (np.median(lab[which], axis=0) for which in (cheeks, scalp))
    between = of_hair - of_skin
    if np.linalg.norm(between) < _TELL:
        return None
    likeness = (lab - of_skin) @ between / (between @ between)
    # from what likeness on it is hair for certain; 0.3 less: for certain not
    certain = np.where(above | (off > _OFF * mean.centimetre), 0.6, 0.85)
    share = ((likeness - certain) / 0.3 + 1).clip(0, 1)
    # below the brows: all but the face, whose temples and sideburns lie beside the eyes and above the nose's wings
    corners = mean.landmarks[[33, 263]]
    beside = np.abs(head.points[:, 0]) > np.abs(corners[:, 0]).mean()
    temple = beside & (head.points[:, 1] > mean.landmarks[2, 1]) & (head.points[:, 2] < corners[:, 2].mean())
    share = share * (above | temple | (skin < 0.3))
    fringe = above & (off > _FRINGE * mean.centimetre)  # of any colour: its highlights are bright
    return np.where(scalp | fringe, 1.0, share)


def face_share(part: str, mean: MeanHead) -> np.ndarray:
    """[V] in [0,1]: how far each vertex of the mean head belongs to a part of `PARTS` that is told by geometry."""
    if part == FACE:
        return mean.skin
    distance, _ = KDTree(mean.landmarks[list(_BY_LANDMARKS[part])]).query(mean.vertices)
    return (2 - distance / (_AROUND * mean.centimetre)).clip(0, 1)


class PartVolume:
    """How far places in a generator's box belong to a part."""

    def __init__(self, values: Tensor, box: float) -> None:
        """Args: values: [G,G,G] in [0,1] along z, y, x, at the middles of G³ cells of the box. box: its side."""
        self.values, self.box = values, box

    def __call__(self, points: Tensor) -> Tensor:
        """[N,P] in [0,1] at world points [N,P,3]; beyond the box as at its border."""
        grid = (points * (2 / self.box))[:, None, None]
        volume = self.values.to(points).expand(len(points), 1, -1, -1, -1)
        return F.grid_sample(volume, grid, align_corners=False, padding_mode="border")[:, 0, 0, 0]


def part_volume(points: np.ndarray, share: np.ndarray, box: float, seam: float, wider: float = 0.0) -> PartVolume:
    """The volume of a part that is known on a surface: every place belongs to what the surface nearest to it does.

    Args:
        points: [M,3], world; share: [M] in [0,1]. seam: standard deviation of its soft border, world units. wider: by
            how much it reaches over what the surface says, world units.
    """
    along = ((np.arange(_GRID) + 0.5) / _GRID - 0.5) * box
    z, y, x = np.meshgrid(along, along, along, indexing="ij")
    _, nearest = KDTree(points).query(np.stack([x, y, z], -1).reshape(-1, 3), k=min(4, len(points)))
    values = share[nearest.reshape(_GRID**3, -1)].mean(1).reshape(_GRID, _GRID, _GRID)
    cell = box / _GRID
    wide = maximum_filter(values.astype(np.float32), 1 + 2 * round(wider / cell), mode="nearest")
    soft = gaussian_filter(wide, seam / cell, mode="nearest")
    return PartVolume(torch.from_numpy(soft), box)
