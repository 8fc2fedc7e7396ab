"""Ceilings: the photo's own texels carried to the other views along a surface, with nothing fitted at all.

Along the *true* surface this is what a perfect geometry could give; what is missing to 100 dB are light that moves with
the view, and texels that one view shows smaller than the other. Along a *run's* surface it is what that run's geometry
could give, however sharp it draws.
"""

import torch
from torch import Tensor

from pmv.geometry.camera import Camera
from pmv.geometry.scene import SeenFrom
from pmv.geometry.warping import inverse_warp


def carried(photo: Tensor, camera: Camera, views: Camera, depth: Tensor, solid: Tensor, background: float) -> Tensor:
    """The photo as views of a surface show it; where nothing hides the photo's texel is not asked.

    Args:
        photo: [1,3,S,S]; camera: its own.
        views: V cameras of the same world; depth: [V,1,D,D] z-depth from them; solid: bool [V,1,D,D].
        background: in [-1,1], where there is no surface.

    Returns:
        [V,3,S,S].
    """
    pictures = []
    for i in range(len(views)):  # one by one: double resolution of all at once would not fit
        colours, surface = inverse_warp(photo, camera, SeenFrom(views, depth, solid)[i])
        pictures.append(torch.where(surface, colours.clamp(-1, 1), torch.full_like(colours, background)))
    return torch.cat(pictures)
