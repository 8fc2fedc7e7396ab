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

from pmv.errors import CheckpointError, shown
from pmv.geometry.camera import EG3D_FOCAL, EG3D_RADIUS, Camera

PLANE_AXES = {
    # EG3D as published: XY, XZ, ZX. The third repeats the second transposed, so (y, z) is never looked up together; its
    # weights depend on it (NVlabs/eg3d issue 67).
    "eg3d": ((0, 1), (0, 2), (2, 0)),
    # The repaired set of the "fixed-triplane" checkpoints: XY, XZ, ZY.
    "fixed": ((0, 1), (0, 2), (2, 1)),
    # PanoHead: XY, XZ, YZ, the repaired set with the third plane transposed.
    "panohead": ((0, 1), (0, 2), (1, 2)),
}
"""Plane convention → for each plane, the world axes that its columns (u) and rows (v) stand for; the third axis is the
one that a tri-grid's layers are stacked along."""


def convention_of(axes: Tensor) -> str:
    """The key of `PLANE_AXES` that an official renderer's `plane_axes` stand for.

    Args:
        axes: [3,3,3], for each plane the unit vectors of its columns, rows and normal.

    Raises:
        CheckpointError: the axes are of no known convention.
    """
    for name, planes in PLANE_AXES.items():
        wanted = torch.eye(3)[torch.tensor([[u, v, 3 - u - v] for u, v in planes])]
        if axes.shape == wanted.shape and torch.equal(axes.detach().cpu().float(), wanted):
            return name
    raise CheckpointError(
        f"its planes lie along axes that are of no known convention ({', '.join(PLANE_AXES)}): "
        f"{shown(str(axes.detach().cpu().tolist()), 200)}"
    )


@dataclass(frozen=True)
class GeneratorSpec:
    """What a caller must know about a generator; all lengths in world units.

    Attributes:
        family: a key of `pmv.generators.families.FAMILIES`: "eg3d", "panohead".
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
        background: value in [-1,1] that rays which hit nothing composite to; None if the generator paints a picture of
            its own behind the volume.
        has_alpha: True if alpha is the subject's silhouette; False if the surroundings are part of the volume.
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
    background: float | None = -1.0
    has_alpha: bool = False
    conditioning_yaw: float = 0.0
    conditioning_pitch: float = 0.0

    @property
    def stands_alone(self) -> bool:
        """True if the subject is drawn on one plain colour, so that a photo's surroundings can only be in the way."""
        return self.has_alpha and self.background is not None

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


class Field(Protocol):
    """What is marched through: one latent's volume."""

    def density(self, points: Tensor, features: bool) -> tuple[Tensor, Tensor]:
        """points [B,P,3] → raw density [B,P,1] and features [B,P,C]; without `features` the second is empty, C = 0.
        The extinction per unit length is softplus(density − 1)."""
        ...


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

    def field(self, planes: Tensor) -> Field: ...

    def photo_camera(self, camera: Camera) -> Camera: ...

    def noise_buffers(self) -> dict[str, Tensor]: ...

    def tunable_parameters(self, group: str) -> dict[str, Parameter]: ...

    def load_tuned(self, state: Mapping[str, Tensor]) -> None: ...
