"""PanoHead: EG3D for heads seen from all sides (An et al. 2023, arXiv:2303.13071).

What differs from EG3D is here, and nothing else: a tri-grid instead of tri-planes, features without a sigmoid, a layer
that makes the raw image of them, a background painted by a network of its own, a margin of the box that is left empty,
and a learned shift of the camera. Official weights load as they are.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.errors import CheckpointError
from pmv.generators.base import Field
from pmv.generators.eg3d import PLANES, Decoder, EG3DConfig, EG3DGenerator, padded_sigmoid
from pmv.generators.stylegan import MappingNetwork, SynthesisNetwork, ToRGB
from pmv.geometry.camera import Camera

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": padded_sigmoid,
    "lrelu": lambda x: F.leaky_relu(x, 0.2) * math.sqrt(2.0),
    "none": lambda x: x,
}
"""Names of the decoder's activations → functions of the features."""
_CLEAR = -1e3
"""Raw density of what is cut away."""


@dataclass(frozen=True)
class PanoHeadConfig(EG3DConfig):
    """Every number that shapes a PanoHead generator. Defaults are those of the published model.

    Attributes:
        grid_depth: layers of each of the three planes.
        decoder_activation: a key of `ACTIVATIONS`.
        raw_torgb: a layer modulated by w makes the raw image; else it is the first three features.
        background_network: a second, smaller synthesis network paints features behind the volume.
        margin: world units along ±x and ±z inside the box in which rendering leaves nothing.
    """

    coarse_samples: int = 48
    background: float = 0.0
    plane_convention: str = "panohead"
    neural_resolution: int = 64
    pivot: tuple[float, float, float] = (0.0, 0.0, 0.0)
    full_head: bool = True
    has_alpha: bool = True
    grid_depth: int = 3
    decoder_activation: str = "none"
    raw_torgb: bool = True
    background_network: bool = True
    margin: float = 0.1

    @property
    def plane_shape(self) -> tuple[int, ...]:
        """Shape of one latent's tri-grid: [3,C,D,H,W]."""
        return PLANES, self.plane_channels, self.grid_depth, self.plane_resolution, self.plane_resolution

    @classmethod
    def _translated(cls, kwargs: Mapping[str, Any], neural_resolution: int | None) -> dict[str, Any]:
        values = super()._translated(kwargs, neural_resolution)
        rendering = kwargs["rendering_kwargs"]
        activation = str(rendering["decoder_activation"])
        if activation not in ACTIVATIONS:
            raise CheckpointError(f"decoder activation {activation!r} is not one of {', '.join(ACTIVATIONS)}")
        white = bool(rendering.get("white_back", False))
        size, depth = int(rendering["triplane_size"]), int(rendering["triplane_depth"])
        if size < 4 or size & (size - 1) or depth < 1:
            raise CheckpointError(f"a tri-grid of {depth} layers of {size}² is not supported")
        background_network = bool(rendering.get("use_background", False))
        return values | dict(
            plane_resolution=size,
            grid_depth=depth,
            decoder_activation=activation,
            # the marched sum itself lacks white_back's 1, or what the sigmoid's [0,1] → [-1,1] makes of it
            background=float(white) if activation != "sigmoid" else 2.0 * white - 1.0,
            raw_torgb=bool(rendering.get("use_torgb_raw", False)),
            background_network=background_network,
            # without that network the surroundings of the training images have no place but the volume
            has_alpha=background_network,
            # all of PanoHead's scripts look at the origin; `avg_camera_pivot` is EG3D's for faces, left in its defaults
            pivot=(0.0, 0.0, 0.0),
        )


@dataclass(frozen=True)
class _Cropped:
    """A field of which only the inside of the margin is there: neither back of the neck nor clouds at the box's walls.

    Args:
        reach: the largest |x| and |z|. Up and down nothing is cut, so that the neck may leave the box.
    """

    whole: Field
    reach: float

    def density(self, points: Tensor, features: bool) -> tuple[Tensor, Tensor]:
        density, found = self.whole.density(points, features)
        inside = (points[..., 0].abs() <= self.reach) & (points[..., 2].abs() <= self.reach)
        return torch.where(inside[..., None], density, torch.full_like(density, _CLEAR)), found


class PanoHeadGenerator(EG3DGenerator):
    """The PanoHead family behind the contract of `pmv.generators.base.Generator`.

    `Render.alpha` is the plain accumulated weight; the official `image_mask` is alpha · 1.002 − 0.001.
    """

    FAMILY: ClassVar = "panohead"
    FUSES: ClassVar = False
    GROUPS: ClassVar = EG3DGenerator.GROUPS | {
        "mapping": ("backbone.mapping.", "t_mapping."),
        "superresolution": ("superresolution.", "torgb."),
        "background": ("bcg_synthesis.",),
    }

    def __init__(self, config: PanoHeadConfig) -> None:
        super().__init__(config)
        self.config: PanoHeadConfig = config
        if config.decoder_activation not in ACTIVATIONS:
            raise CheckpointError(
                f"decoder activation {config.decoder_activation!r} is not one of {', '.join(ACTIVATIONS)}"
            )
        channels = config.plane_channels
        self.decoder = Decoder(
            channels, config.decoder_hidden, config.decoder_lr_multiplier, ACTIVATIONS[config.decoder_activation]
        )
        self.torgb = ToRGB(channels, 3, config.w_dim, None) if config.raw_torgb else None
        self.bcg_synthesis = None
        if config.background_network:
            self.bcg_synthesis = SynthesisNetwork(
                config.w_dim,
                config.super_resolution.input_resolution,
                channels,
                config.channel_base // 2,
                config.channel_max,
                config.conv_clamp,
            )
        self.t_mapping = MappingNetwork(
            config.z_dim, config.c_dim, 3, 1, config.mapping_layers, config.normalize_z, 1.0, linear_end=True
        )
        # a plain colour is left only where nothing is painted behind and nothing makes other colours of it
        plain = not config.background_network and not config.raw_torgb
        self.spec = replace(self.spec, background=config.background if plain else None)

    def field(self, planes: Tensor) -> Field:
        return _Cropped(super().field(planes), self.config.box / 2 - self.config.margin)

    def _over_background(self, features: Tensor, alpha: Tensor) -> Tensor:
        if self.config.decoder_activation == "sigmoid":
            return super()._over_background(features, alpha)
        return features + (1.0 - alpha) * self.config.background

    def _raw(self, features: Tensor, alpha: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        if self.bcg_synthesis is not None:
            features = features + (1.0 - alpha) * self._background(w, features.shape[-1])
        return (features[:, :3] if self.torgb is None else self.torgb(features, w[:, -1])), features

    def _background(self, w: Tensor, resolution: int) -> Tensor:
        """What is painted behind the volume, features [V,C,r,r]: the same picture from everywhere."""
        assert self.bcg_synthesis is not None
        rows = self.bcg_synthesis.num_ws
        if w.shape[1] < rows:
            w = torch.cat([w, w[:, -1:].expand(-1, rows - w.shape[1], -1)], 1)
        painted = self.bcg_synthesis(w[:, :rows], {})
        if painted.shape[-1] == resolution:
            return painted
        return F.interpolate(
            painted,
            (resolution, resolution),
            mode="bilinear",
            align_corners=False,
            antialias=self.config.head_antialias,
        )

    def camera_shift(self, z: Tensor, camera: Camera, truncation: float = 1.0, cutoff: int | None = None) -> Tensor:
        """How far the camera of an image is from its label's, learned because crops of heads from behind cannot be
        aligned (arXiv:2303.13071 §4.3; the official `apply_delta_c`).

        Args:
            z: [N,z_dim].
            camera: batch of N or 1.

        Returns: [N,3] world units.
        """
        return self.t_mapping(z, self._condition(camera, z), truncation, cutoff)[:, 0]

    def photo_camera(self, camera: Camera, samples: int = 600, seed: int = 0) -> Camera:
        """See `Generator.photo_camera`: moved by the mean of the learned shifts under seeded latents.

        Differentiable in the camera, except that the shift itself counts as a constant.
        """
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(samples, self.config.z_dim, generator=generator).to(self.device)
        with torch.no_grad():
            shifts = [self.camera_shift(z, camera[i]).mean(0) for i in range(len(camera))]
        return shifted(camera, torch.stack(shifts).to(camera.cam2world.device))


def shifted(camera: Camera, shift: Tensor) -> Camera:
    """Cameras whose centres are moved by [N,3] world units."""
    return Camera(camera.cam2world + F.pad(shift[:, :, None], (3, 0, 0, 1)), camera.intrinsics)
