"""What every 3D GAN of the project offers: its specification, its render, its contract.

The contract is told by what it returns, not by what it inherits from: `Generator` is a protocol. `planes` and `render`
are apart because one latent is rendered from several cameras in one step: the backbone runs once, the renderer many
times.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

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
        """Raw density and features at points.

        Args:
            points: [N,P,3] world, for N latents.
            features: False: the second result is empty, C = 0, and costs nothing.

        Returns:
            raw density [N,P,1], whose extinction per unit length is softplus(density − 1), and features [N,P,C].
        """
        ...


class Generator(Protocol):
    """The contract: all that stages, operations and the optimisation ask of a 3D GAN.

    N latents and V cameras go together where N = V, or where N = 1: one latent seen by V cameras. Every method is
    deterministic: it draws no random numbers but from a seed or generator that it is given. Where nothing else is said,
    results carry gradients to the tensors given and to parameters whose gradients are on; `load_generator` switches
    them all off. A generator can be copied (`copy.deepcopy`), and tuning a copy leaves the original as it is.

    **What a new family may leave out.** A mapping that takes no camera (`spec.c_dim` = 0, `map` ignores it). Noise
    (`noise_buffers` gives {}). The residual (`plane_residual` stays None and the group is refused: runs then need
    ``tune.residual_rate=0``; attribute edits carry nothing along). A `photo_camera` of its own (it returns the camera
    given). A frozen dataclass `config` of numbers that it renders by: `pmv.generators.settings.with_settings` changes
    those that `spec` has too, in both.

    `tests/pmv/generators/test_contract.py` runs unchanged on every family.

    Attributes:
        spec: its specification.
        plane_residual: [1,…] of the shape of one latent's planes, which `planes` adds; None until it is asked for or
            loaded.
    """

    spec: GeneratorSpec
    plane_residual: Parameter | None

    def map(self, z: Tensor, camera: Camera, truncation: float = 1.0, cutoff: int | None = None) -> Tensor:
        """Latents of random numbers: the mapping network.

        Args:
            z: [N,z_dim], standard normal.
            camera: N or 1; the camera that the head is meant to be seen from, where `spec.c_dim` is not 0.
            truncation: ψ of the truncation trick (StyleGAN, arXiv:1812.04948 §B): 0 is the mean, 1 changes nothing.
            cutoff: rows from this one on are not truncated; None = all are.

        Returns:
            w [N,num_ws,w_dim], all rows of one latent alike.
        """
        ...

    def mean_w(self, samples: int = 600, seed: int = 0) -> Tensor:
        """[1,num_ws,w_dim], without gradients: the mean of `samples` latents under the canonical camera in every row;
        where inversion starts (StyleGAN2's projector, arXiv:1912.04958 §5.3)."""
        ...

    def w_std(self, samples: int = 600, seed: int = 0) -> float:
        """Root mean squared distance of those latents from their mean, in w's own unit, over all w_dim together; the
        scale of the projector's noise."""
        ...

    def noise_buffers(self) -> dict[str, Tensor]:
        """State-dict name → constant noise [R,R], unit variance, of the layers that have one: what `noise` of `planes`
        overrides."""
        ...

    def planes(self, w: Tensor, noise: dict[str, Tensor] | None = None) -> Tensor:
        """The backbone: what latents hold of their volumes. Run once a latent, however many cameras see it.

        Args:
            w: [N,num_ws,w_dim].
            noise: overrides by the names of `noise_buffers`, each broadcast to [N,1,R,R]; missing ones keep theirs.

        Returns:
            [N,…], the family's own shape: tri-planes [N,3,C,H,W], tri-grids [N,3,C,D,H,W]. Callers hand them on, and
            look at their standard deviation at most.
        """
        ...

    def render(
        self,
        planes: Tensor,
        w: Tensor,
        cameras: Camera,
        resolution: int | None = None,
        jitter: torch.Generator | None = None,
        pictures: int | None = None,
    ) -> Render:
        """Views of latents from cameras: ray marching, then super-resolution.

        Args:
            planes: of `planes`, N latents. w: [N,num_ws,w_dim], the same; super-resolution is styled by it.
            cameras: V, moved to the planes' device.
            resolution: rays a side; None = `spec.neural_resolution`. The picture's size does not depend on it.
            jitter: where along the rays samples are taken at random (training); None = at the middle of their bins.
            pictures: of the first so many cameras at least there are `image` and `raw`, where of others nobody looks at
                more than depth and alpha; None = of all.

        Raises:
            ValueError: neither one latent nor as many as cameras.
        """
        ...

    def density(self, points: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]:
        """What the decoder says at world points [N,P,3], rendered or not: `Field.density` with features."""
        ...

    def field(self, planes: Tensor) -> Field:
        """The volume as it is rendered: `density`, less what the family cuts away."""
        ...

    def photo_camera(self, camera: Camera) -> Camera:
        """Where to render from to meet a photo that was aligned like the training images and labelled with `camera`,
        each of N; differentiable."""
        ...

    def tunable_parameters(self, group: str) -> dict[str, Parameter]:
        """State-dict name → parameter of a group, its gradients as they are (off).

        Args:
            group: "mapping", "backbone", "decoder", "superresolution", or what else a family has; "all": these but the
                mapping; "residual": what one image adds to the planes themselves (TriPlaneNet, arXiv:2303.13497), made
                as zeros at first asking. It gives texels a place of their own, which a small backbone cannot.

        Raises:
            ValueError: no such group; the message lists them.
        """
        ...

    def load_tuned(self, state: Mapping[str, Tensor]) -> None:
        """Takes tuned weights by state-dict name, as `tunable_parameters` named them, over its own; a residual among
        them is made.

        Raises:
            CheckpointError: a name or shape is not this generator's.
        """
        ...

    def state_dict(self) -> Mapping[str, Tensor]:
        """All weights and buffers by name; their hash tells one generator from another."""
        ...

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Switches the gradients of all parameters; returns itself."""
        ...
