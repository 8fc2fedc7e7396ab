"""ICT-FaceKit's morphable model of scanned faces (MIT licence, USC Institute for Creative Technologies) as it is read:
the neutral head and the modes of identity, on its own mesh.

Where the data is from: https://github.com/ICT-VGL/ICT-FaceKit, folder `FaceXModel`. What the vertex ranges and the
landmarks are is told by its README.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pmv.errors import AssetsError
from pmv.training.heads.formats import read_obj, read_obj_vertices
from pmv.training.heads.parameters import SCAN_MODES

_NEUTRAL = "generic_neutral_mesh.obj"
_COMPACT = "ict_identity_fp16.npz"
_ADVICE = "clone https://github.com/ICT-VGL/ICT-FaceKit"
_VERTICES = 26719
FACE, HEAD, MOUTH_SOCKET = slice(0, 9409), slice(9409, 11248), slice(11248, 13294)
UPPER_TEETH, LOWER_TEETH = slice(17039, 19247), slice(19247, 21451)
EYEBALLS = (slice(21451, 22221), slice(23021, 23791))
"""White of the left (+x) and the right eye."""
_FACE_QUADS, _HEAD_QUADS, _INNER_QUADS = slice(0, 9230), slice(9230, 11144), slice(11144, 14034)

# Points of the Multi-PIE markup (by its numbers) on the left half and the middle line, as vertices.
MULTI_PIE = {
    8: 966, 27: 978, 30: 4857, 33: 1147, 42: 3742, 43: 3751, 44: 3756, 45: 3721, 46: 3725, 47: 3732, 51: 0, 52: 4275,
    53: 6200, 54: 6213, 55: 6346, 56: 6461, 57: 5518, 62: 5533, 66: 5517,
}  # fmt: skip


@dataclass(frozen=True)
class ScanModel:
    """A linear model of faces: neutral + Σ coefficient · mode, coefficients standard normal over people.

    Attributes:
        neutral: float64 [V,3] in centimetres, +y up, +z out of the face.
        modes: float64 [SCAN_MODES,V,3], the displacement of one standard deviation.
        quads: int [F,4] of the face, the head with the neck, and the insides of mouth and eye sockets, in this order.
        outside: bool [F], False for the insides.
    """

    neutral: NDArray
    modes: NDArray
    quads: NDArray
    outside: NDArray

    def dense(self) -> tuple[NDArray, NDArray, NDArray]:
        """Points spread densely over the surface: corner vertices [P,4] and weights [P,4] of each, and whether it is
        outside [P]."""
        corners, weights, outside = [], [], []
        for chosen, steps in ((_FACE_QUADS, 4), (_HEAD_QUADS, 9), (_INNER_QUADS, 2)):
            u, v = (np.mgrid[0:steps, 0:steps].reshape(2, -1) + 0.5) / steps
            bilinear = np.stack([(1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v], 1)
            quads = self.quads[chosen]
            corners.append(np.repeat(quads, steps**2, 0))
            weights.append(np.tile(bilinear, (len(quads), 1)))
            outside.append(np.repeat(self.outside[chosen], steps**2))
        return np.concatenate(corners), np.concatenate(weights), np.concatenate(outside)


def read_scans(folder: str | Path) -> ScanModel:
    """Read the model from a checkout of ICT-FaceKit (or its `FaceXModel` folder), or from a folder that holds
    `generic_neutral_mesh.obj` and, in place of the hundred OBJs, `ict_identity_fp16.npz` (`neutral` [V,3], `identity`
    [100,V,3]).

    Raises:
        AssetsError: something is missing or is another mesh; the message names the path and the source.
    """
    root = Path(folder)
    found = next((f for f in (root, root / "FaceXModel") if (f / _NEUTRAL).is_file()), None)
    if found is None:
        raise AssetsError(f"{root}: no {_NEUTRAL} in it or in its FaceXModel folder; {_ADVICE}")
    mesh = read_obj(found / _NEUTRAL)
    if len(mesh.vertices) != _VERTICES:
        raise AssetsError(f"{found / _NEUTRAL}: {len(mesh.vertices)} vertices instead of {_VERTICES}: another mesh")
    if (found / _COMPACT).is_file():
        with np.load(found / _COMPACT, allow_pickle=False) as archive:
            modes = archive["identity"][:SCAN_MODES].astype(np.float64)
    else:
        paths = [found / f"identity{number:03d}.obj" for number in range(SCAN_MODES)]
        modes = np.stack([read_obj_vertices(path, _ADVICE) for path in paths]) - mesh.vertices
    if modes.shape != (SCAN_MODES, _VERTICES, 3):
        raise AssetsError(f"{found}: modes of shape {modes.shape} instead of {(SCAN_MODES, _VERTICES, 3)}")
    count = _INNER_QUADS.stop
    return ScanModel(mesh.vertices, modes, mesh.quads[:count], np.arange(count) < _INNER_QUADS.start)
