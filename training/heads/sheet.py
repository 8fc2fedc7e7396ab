"""Contact sheets of synthetic heads: one row a head, one column a yaw."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pmv.geometry.camera import Camera
from pmv.training.heads.assets import HeadAssets
from pmv.training.heads.build import build_head
from pmv.training.heads.parameters import sample_parameters
from pmv.training.heads.renderer import HeadRenderer

_BACKGROUND = (0.62, 0.63, 0.65)


def orbit_matrices(yaw_deg: float, pitch_deg: float = 0.0) -> tuple[NDArray, NDArray]:
    """cam2world [4,4] and intrinsics [3,3] of an EG3D camera (radius 2.7) that looks at the middle of the head."""
    camera = Camera.orbit(torch.tensor(np.radians(yaw_deg)), torch.tensor(np.radians(pitch_deg)))
    return camera.cam2world[0].double().numpy(), camera.intrinsics[0].double().numpy()


def contact_sheet(
    assets: HeadAssets,
    seeds: Sequence[int],
    yaws_deg: Sequence[float] = (0, 45, 90, 135, 180, 225, 270, 315),
    resolution: int = 256,
    specular: bool = True,
) -> NDArray:
    """Draw heads from several sides: uint8 [len(seeds)·resolution, len(yaws)·resolution, 3].

    Args:
        assets: compiled MakeHuman data.
        seeds: of `sample_parameters`, one row each.
        yaws_deg: one column each; positive moves the camera towards +x.
        resolution: pixels a side of one picture.
        specular: with view-dependent highlights, as training does not have them.
    """
    renderer = HeadRenderer(resolution, specular=specular)
    rows = []
    for seed in seeds:
        renderer.load(build_head(assets, sample_parameters(seed)))
        rows.append(np.concatenate([renderer.render(*orbit_matrices(yaw)).over(_BACKGROUND) for yaw in yaws_deg], 1))
    return np.concatenate(rows)
