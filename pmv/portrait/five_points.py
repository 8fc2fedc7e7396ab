"""Where the five points of a face lie that `pmv/pictures/chips.py` cuts it out by: the corners of the eyes and the base
of the nose.

Landmarks of a photo give them (`mesh_points`). Where a face lies in a render follows from the camera (`anchor_points`,
`camera_points`), so renders need no detector.
"""

import math

import torch
from torch import Tensor

from pmv.geometry.camera import Camera
from pmv.portrait.crop import FRAMINGS, Framing
from pmv.portrait.face_model import FaceModel

FIVE = (263, 362, 33, 133, 2)
"""Face Mesh's landmarks for the five points: the subject's left eye's outer and inner corner, its right eye's outer and
inner corner, the base of the nose."""


def mesh_points(landmarks: Tensor, width: int, height: int) -> Tensor:
    """Face Mesh's landmarks [N,468,2] in pixels of a picture → the five points [N,5,2] that `face_chips` takes."""
    return landmarks[:, list(FIVE)] / landmarks.new_tensor([width, height])


def anchor_points(framing: Framing | str) -> Tensor:
    """[5,3] where the five points of a mean face lie in the world of a generator, by its framing (`FRAMINGS`).

    Accurate to some 5 % of the distance between the eyes, which a recognition network hardly minds.
    """
    if isinstance(framing, str):
        framing = FRAMINGS[framing]
    return in_framing(torch.from_numpy(FaceModel.load().points[list(FIVE)]).float(), framing)


def in_framing(points: Tensor, framing: Framing) -> Tensor:
    """Points [...,3] of EG3D's world in the world of a generator whose training pictures are framed so."""
    if framing.middle is None:
        return points
    turn = torch.tensor(math.radians(framing.turn), dtype=torch.float32)
    zero, one = torch.zeros(()), torch.ones(())
    rotation = torch.stack([one, zero, zero, zero, turn.cos(), -turn.sin(), zero, turn.sin(), turn.cos()]).reshape(3, 3)
    return (points - torch.tensor(framing.middle)) @ rotation.T / framing.width


def camera_points(camera: Camera, anchors: Tensor) -> Tensor:
    """Where anchors [5,3] appear in the pictures of N cameras: [N,5,2], as `face_chips` takes them."""
    points, _ = camera.project(anchors.to(camera.cam2world).expand(len(camera), -1, -1))
    return points
