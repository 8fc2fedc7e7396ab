"""What every 3D GAN of the project offers: its specification, its render, its contract.

The contract is told by what it returns, not by what it inherits from: `Generator` is a protocol. `planes` and `render`
are apart because one latent is rendered from several cameras in one step: the backbone runs once, the renderer many
times.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

from pmv.camera import EG3D_FOCAL, EG3D_RADIUS, Camera

PLANE_AXES = {
    # EG3D as published: XY, XZ, ZX. The third repeats the second transposed, so (y, z) is never looked up together; its
    # weights depend on it (NVlabs/eg3d issue 67).
    "eg3d": ((0, 1), (0, 2), (2, 0)),
    # The repaired set of the "fixed-triplane" checkpoints: XY, XZ, ZY.
    "fixed": ((0, 1), (0, 2), (2, 1)),
}
"""Plane convention → for each plane, the world axes that its columns (u) and rows (v) stand for."""


@dataclass(frozen=True)
class GeneratorSpec:
    """What a caller must know about a generator; all lengths in world units.

    Attributes:
        family: "eg3d".
        resolution: side of the output image in pixels.
        neural_resolution: side of the ray-marched (raw) image that the checkpoint was trained at.
        z_dim, c_dim, w_dim, num_ws: sizes of the latent spaces; c_dim 0 means that the mapping takes no camera.
        box: side of the cube, centred at the origin, that the planes span.
        near, far: ray lengths between which a ray is sampled; None where they follow from the box.
        radius, pivot, focal: the cameras it was trained with: distance from, point looked at, focal length in image
            widths.
        full_head: True if it was trained from all sides (360°).
        conditioning_yaw, conditioning_pitch: radians, from where the canonical camera looks.
        plane_convention: a key of `PLANE_AXES`.
        background: value in [-1,1] that rays which hit nothing composite to.
        has_alpha: True if the subject stands alone on `background`; False if a scene's background is part of the
            volume.
    """

    family: str
    resolution: int
    neural_resolution: int
    z_dim: int
    c_dim: int
    w_dim: int
    num_ws: int
    box: float
    near: float | None
    far: float | None
    radius: float = EG3D_RADIUS
    pivot: tuple[float, float, float] = (0.0, 0.0, 0.0)
    focal: float = EG3D_FOCAL
    full_head: bool = False
    plane_convention: str = "eg3d"
    background: float = -1.0
    has_alpha: bool = False
    conditioning_yaw: float = 0.0
    conditioning_pitch: float = 0.0

    def orbit(self, yaw: float | Tensor, pitch: float | Tensor) -> Camera:
        """Cameras on the generator's own sphere; yaw and pitch in radians, scalars or [N]."""
        return Camera.orbit(yaw, pitch, self.radius, self.pivot, self.focal)

    @property
    def canonical_camera(self) -> Camera:
        """Conditions the mapping where nothing better is known; the frontal camera unless told otherwise."""
        return self.orbit(self.conditioning_yaw, self.conditioning_pitch)


@dataclass(frozen=True)
class Render:
    """Views of one or several latents.

    Attributes:
        image: [N,3,R,R] in [-1,1] (not clamped), R = the output resolution.
        raw: [N,3,r,r] the ray-marched image before super-resolution, in [-1,1].
        depth: [N,1,r,r] expected z-depth in the camera frame, world units; where nothing is hit its value is
            meaningless.
        alpha: [N,1,r,r] accumulated weight of the rays in [0,1].
    """

    image: Tensor
    raw: Tensor
    depth: Tensor
    alpha: Tensor


class Generator(Protocol):
    """The contract; see `pmv/generators/eg3d.py` for shapes and `tests/pmv/generators/test_contract.py` for its
    meaning."""

    spec: GeneratorSpec

    def map(self, z: Tensor, camera: Camera, truncation: float = 1.0, cutoff: int | None = None) -> Tensor: ...

    def mean_w(self, samples: int = 600, seed: int = 0) -> Tensor: ...

    def planes(self, w: Tensor, noise: dict[str, Tensor] | None = None) -> Tensor: ...

    def render(
        self,
        planes: Tensor,
        w: Tensor,
        cameras: Camera,
        resolution: int | None = None,
        jitter: torch.Generator | None = None,
    ) -> Render: ...

    def density(self, points: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]: ...

    def tunable_parameters(self, group: str) -> dict[str, Parameter]: ...

    def load_tuned(self, state: Mapping[str, Tensor]) -> None: ...
