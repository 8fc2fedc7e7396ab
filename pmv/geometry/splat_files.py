"""3D Gaussians as files of other programs: the PLY of Kerbl et al. 2023 (plyfile) and Niantic's SPZ (gsply).

Both hold the logits of opacities, logarithms of scales, quaternions (w, x, y, z) and colours as the first coefficient
of spherical harmonics; more coefficients there are none, since colours are the same from all sides.
"""

import math
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from plyfile import PlyData, PlyElement
from torch import Tensor

from pmv.errors import AssetsError
from pmv.files.artifacts import atomic_path
from pmv.geometry.splats import Splats

_HARMONIC = 0.5 / math.sqrt(math.pi)
"""The spherical harmonic of degree 0: colours in [0,1] are 0.5 + 0.282 · f_dc."""
_SPZ_BITS = 16
"""Of 24, behind the point of a position: 0.015 mm, up to 128 m."""


def write_splat_ply(path: Path, splats: Splats, scale: float) -> None:
    """Write the binary PLY that 3DGS programs read: x, y, z, nx, ny, nz, f_dc_*, opacity, scale_*, rot_*.

    Its axes are those of 3DGS's own files: x right, y down, z forward, the world turned by half a turn about x, so that
    the face looks along −z and viewers show the head upright.

    Args:
        scale: metres in a world unit; lengths are metres.
    """
    flip = splats.means.new_tensor([1.0, -1.0, -1.0])
    w, x, y, z = splats.rotations.unbind(1)
    turned = torch.stack([-x, w, -z, y], 1)  # the half turn about x, (0, 1, 0, 0), before it
    columns = {
        ("x", "y", "z"): splats.means * flip * scale,
        ("nx", "ny", "nz"): splats.axes[:, :, 2] * flip,
        ("f_dc_0", "f_dc_1", "f_dc_2"): _harmonics(splats),
        ("opacity",): torch.logit(splats.opacities)[:, None],
        ("scale_0", "scale_1", "scale_2"): (splats.scales * scale).log(),
        ("rot_0", "rot_1", "rot_2", "rot_3"): turned,
    }
    names = [name for group in columns for name in group]
    table = np.empty(len(splats.means), [(name, "<f4") for name in names])
    for group, values in columns.items():
        for name, column in zip(group, values.detach().cpu().numpy().T, strict=True):
            table[name] = column
    with atomic_path(path) as temporary:
        PlyData([PlyElement.describe(table, "vertex")], byte_order="<").write(str(temporary))


def write_spz(path: Path, splats: Splats, scale: float) -> None:
    """Write an SPZ (version 3), some 20 bytes a splat before compression.

    Its axes are SPZ's, which are the world's: x right, y up, the face looks along +z.

    Args:
        scale: metres in a world unit; lengths are metres.

    Raises:
        AssetsError: gsply is not installed.
    """
    gsply = require_spz()

    def values(tensor: Tensor) -> np.ndarray:
        return tensor.detach().cpu().float().numpy()

    count = len(splats.means)
    data = gsply.GSData(
        means=values(splats.means * scale),
        scales=values((splats.scales * scale).log()),
        quats=values(splats.rotations),
        opacities=values(torch.logit(splats.opacities)),
        sh0=values(_harmonics(splats)),
        shN=np.zeros((count, 0, 3), np.float32),
    )
    with atomic_path(path) as temporary:
        gsply.write_spz(temporary, data, version=3, fractional_bits=_SPZ_BITS)


def require_spz() -> ModuleType:
    """gsply, which writes SPZ; AssetsError where it is not installed."""
    try:
        import gsply  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise AssetsError('SPZ needs gsply: pip install "pmv[spz]"; or end --out in .gs.ply') from error
    return gsply


def _harmonics(splats: Splats) -> Tensor:
    return splats.colours / 2 / _HARMONIC
