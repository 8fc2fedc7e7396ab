"""EG3D: a StyleGAN2 backbone that draws tri-planes, a ray marcher, a super-resolution head (Chan et al. 2022,
arXiv:2112.07945).

One class serves the official checkpoints and the embedded generator: every difference is a number in `EG3DConfig`. It
is also the base of the families that grew out of EG3D, such as `pmv/generators/panohead.py`.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmv.errors import CheckpointError, quoted, shown
from pmv.generators.base import PLANE_AXES, Field, GeneratorSpec, Render
from pmv.generators.cpu_density import densities, texel_rows
from pmv.generators.speed import REFERENCE, Speed
from pmv.generators.stylegan import Backbone, FullyConnected, MappingNetwork, SynthesisNetwork
from pmv.generators.superresolution import HEADS, SuperResolution, SuperResolutionHead
from pmv.generators.volume import Jitter, box_limits, march, sample_planes
from pmv.geometry.camera import EG3D_FOCAL, EG3D_RADIUS, Camera

PLANES = 3

_FIXED_ARGUMENTS = {"architecture": "skip", "activation": "lrelu", "kernel_size": 3, "use_noise": True}
"""Constructor arguments of the official backbone that this implementation has built in."""


@dataclass(frozen=True)
class EG3DConfig:
    """Every number that shapes an EG3D generator. Defaults are those of the published FFHQ 512-128 model.

    Attributes:
        mapping_layers: layers of the mapping network.
        normalize_z: scale z to unit second moment before the mapping (False: its length carries meaning).
        zero_conditioning: the mapping sees a zero camera (EG3D's c_gen_conditioning_zero).
        condition_scale: factor on the camera label before the mapping (EG3D's c_scale).
        plane_resolution, plane_channels: texels a side and features of each of the three planes.
        channel_base, channel_max: channels at resolution r are min(channel_base / r, channel_max).
        conv_clamp: clamp of the backbone's activations; None = none.
        decoder_hidden, decoder_lr_multiplier: the two-layer decoder from plane features to density and features.
        box, near, far: see `GeneratorSpec`; near and far None = where the ray crosses the box.
        coarse_samples, fine_samples: samples a ray, stratified and by importance.
        background: value of the features, as they are marched, behind everything.
        head: name in `superresolution.HEADS`, or the numbers themselves.
        head_conv_clamp, head_antialias, head_noise: see `SuperResolution`.
    """

    z_dim: int = 512
    c_dim: int = 25
    w_dim: int = 512
    mapping_layers: int = 2
    normalize_z: bool = True
    zero_conditioning: bool = False
    condition_scale: float = 1.0
    plane_resolution: int = 256
    plane_channels: int = 32
    channel_base: int = 32768
    channel_max: int = 512
    conv_clamp: float | None = None
    decoder_hidden: int = 64
    decoder_lr_multiplier: float = 1.0
    box: float = 1.0
    near: float | None = 2.25
    far: float | None = 3.3
    coarse_samples: int = 48
    fine_samples: int = 48
    background: float = -1.0
    plane_convention: str = "eg3d"
    neural_resolution: int = 128
    resolution: int = 512
    head: str | SuperResolutionHead = "SuperresolutionHybrid8XDC"
    head_conv_clamp: float | None = 256.0
    head_antialias: bool = True
    head_noise: bool = False
    radius: float = EG3D_RADIUS
    pivot: tuple[float, float, float] = (0.0, 0.0, 0.2)
    focal: float = EG3D_FOCAL
    full_head: bool = False
    has_alpha: bool = False

    @classmethod
    def small(cls, **changes: Any) -> Self:
        """The embedded generator's shape: 360° heads on mid grey, planes of 128² tight around the head, 64² rays, 256²
        output."""
        embedded = cls(
            w_dim=256,
            normalize_z=False,
            zero_conditioning=True,
            plane_resolution=128,
            channel_base=8192,
            channel_max=256,
            box=0.75,
            near=None,
            far=None,
            coarse_samples=24,
            fine_samples=24,
            background=0.0,
            plane_convention="fixed",
            neural_resolution=64,
            resolution=256,
            head=SuperResolutionHead(64, (64, 32), (True, True), stores_filter=False),
            head_conv_clamp=None,
            pivot=(0.0, 0.0, 0.0),
            full_head=True,
            has_alpha=True,
        )
        return replace(embedded, **changes)

    @property
    def super_resolution(self) -> SuperResolutionHead:
        """The head's numbers."""
        return HEADS[self.head] if isinstance(self.head, str) else self.head

    @property
    def plane_shape(self) -> tuple[int, ...]:
        """Shape of one latent's planes: [3,C,H,W]."""
        return PLANES, self.plane_channels, self.plane_resolution, self.plane_resolution

    def to_json(self) -> dict[str, Any]:
        """A dictionary that JSON holds; the inverse of `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Raises CheckpointError on unknown entries."""
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise CheckpointError(
                f"unknown generator setting {quoted(min(unknown))}; the file was written by another version of pmv"
            )
        values = dict(values)
        if isinstance(values.get("head"), Mapping):
            head = dict(values["head"])
            values["head"] = SuperResolutionHead(
                **{**head, "channels": tuple(head["channels"]), "up": tuple(head["up"])}
            )
        if "pivot" in values:
            values["pivot"] = tuple(values["pivot"])
        return cls(**values)

    @classmethod
    def from_init_kwargs(cls, kwargs: Mapping[str, Any], neural_resolution: int | None) -> Self:
        """Translates the constructor arguments that official checkpoints carry (`G.init_kwargs`).

        Raises:
            CheckpointError: an argument asks for something this family does not do.
            KeyError, TypeError, ValueError: an argument is missing, or not of its kind.
        """
        return cls(**cls._translated(kwargs, neural_resolution))

    @classmethod
    def _translated(cls, kwargs: Mapping[str, Any], neural_resolution: int | None) -> dict[str, Any]:
        """The values of the configuration that official constructor arguments stand for."""
        rendering, mapping = kwargs["rendering_kwargs"], kwargs.get("mapping_kwargs", {})
        for name, value in _FIXED_ARGUMENTS.items():
            if kwargs.get(name, value) != value:
                raise CheckpointError(f"{name}={kwargs[name]!r} is not supported, only {value!r}")
        if kwargs.get("img_channels", 3) != 3:
            raise CheckpointError(f"pictures of {kwargs['img_channels']} channels are not supported, only of 3")
        other = sorted(name for name in mapping if name not in ("num_layers", "w_avg_beta"))
        if other:
            raise CheckpointError(f"the mapping network's argument {other[0]!r} is not supported")
        head = str(rendering["superresolution_module"]).rsplit(".", 1)[-1]
        if head not in HEADS:
            raise CheckpointError(f"super-resolution head {head!r} is not one of {', '.join(HEADS)}")
        if rendering.get("clamp_mode", "softplus") != "softplus" or rendering.get("disparity_space_sampling"):
            raise CheckpointError("only softplus density and linear depth sampling are supported")
        near, far = rendering["ray_start"], rendering["ray_end"]
        automatic = near == "auto" and far == "auto"
        px, py, pz = (float(x) for x in rendering.get("avg_camera_pivot", (0.0, 0.0, 0.0)))
        half_head = kwargs.get("sr_num_fp16_res", 0) > 0
        return dict(
            z_dim=kwargs["z_dim"],
            c_dim=kwargs["c_dim"],
            w_dim=kwargs["w_dim"],
            mapping_layers=mapping.get("num_layers", 8),
            zero_conditioning=bool(rendering["c_gen_conditioning_zero"]),
            condition_scale=float(rendering.get("c_scale", 0.0)),
            channel_base=kwargs.get("channel_base", 32768),
            channel_max=kwargs.get("channel_max", 512),
            # SynthesisBlock's own default is 256; official training scripts pass None with fp32 and 256 with fp16
            conv_clamp=kwargs.get("conv_clamp", 256.0),
            decoder_lr_multiplier=float(rendering.get("decoder_lr_mul", 1.0)),
            box=float(rendering["box_warp"]),
            near=None if automatic else float(near),
            far=None if automatic else float(far),
            coarse_samples=int(rendering["depth_resolution"]),
            fine_samples=int(rendering["depth_resolution_importance"]),
            background=1.0 if rendering.get("white_back", False) else -1.0,
            neural_resolution=neural_resolution or 64,
            resolution=kwargs["img_resolution"],
            head=head,
            head_conv_clamp=256.0 if half_head else None,
            head_antialias=bool(rendering.get("sr_antialias", False)) and head != "SuperresolutionHybridDeepfp32",
            head_noise=rendering.get("superresolution_noise_mode", "none") == "const",
            radius=float(rendering.get("avg_camera_radius", EG3D_RADIUS)),
            pivot=(px, py, pz),
        )


def padded_sigmoid(x: Tensor) -> Tensor:
    """Into [−0.001, 1.001]: mip-NeRF's padding (arXiv:2103.13415 §3), so that black and white can be reached."""
    return torch.sigmoid(x) * 1.002 - 0.001


class Decoder(nn.Module):
    """Plane features [B,P,C] → raw density [B,P,1] and features [B,P,C].

    Args:
        activation: of the features.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        lr_multiplier: float,
        activation: Callable[[Tensor], Tensor] = padded_sigmoid,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.net = nn.Sequential(
            FullyConnected(channels, hidden, lr_multiplier=lr_multiplier),
            nn.Softplus(),
            FullyConnected(hidden, 1 + channels, lr_multiplier=lr_multiplier),
        )

    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Both layers' weights and biases as they are multiplied: [D,C], [D], [1+C,D], [1+C]."""
        first, _, last = self.net
        assert isinstance(first, FullyConnected) and isinstance(last, FullyConnected)
        return (*first.scaled(), *last.scaled())

    def forward(self, plane_features: Tensor, features: bool = True) -> tuple[Tensor, Tensor]:
        """Without `features` only the density is computed, and the second result is empty: [B,P,0]."""
        first, activation, last = self.net
        hidden = activation(first(plane_features))
        if not features:
            assert isinstance(last, FullyConnected)
            weight, bias = last.weight[:1] * last.weight_gain, last.bias[:1] * last.bias_gain
            density = F.linear(hidden, weight, bias)
            return density, density[..., :0]
        x = last(hidden)
        return x[..., :1], self.activation(x[..., 1:])


@dataclass(frozen=True)
class _TriPlaneField:
    """One latent's volume: its planes and the generator that reads them."""

    generator: "EG3DGenerator"
    planes: Tensor

    @cached_property
    def _rows(self) -> Tensor | None:
        """What densities alone are read from, where there is a faster way to them."""
        planes = self.planes
        plain = planes.ndim == 5 and len(planes) == 1 and planes.device.type == "cpu" and planes.dtype == torch.float32
        return texel_rows(planes.detach()) if plain else None

    def density(self, points: Tensor, features: bool) -> tuple[Tensor, Tensor]:
        config = self.generator.config
        if self.generator.speed.brief and not features and not torch.is_grad_enabled() and self._rows is not None:
            weights, axes = self.generator.decoder.weights(), PLANE_AXES[config.plane_convention]
            height, width = self.planes.shape[-2:]
            found = densities(self._rows, (height, width), points[0], weights, axes, config.box)[None]
            return found, found[..., :0]
        sampled = sample_planes(self.planes, points, config.box, config.plane_convention)
        return self.generator.decoder(sampled, features)


class EG3DGenerator(nn.Module):
    """The EG3D family behind the contract of `pmv.generators.base.Generator`.

    Args:
        config: its numbers; the weights are random until a state dict is loaded.

    Attributes:
        speed: the short cuts that it takes; `pmv.generators.speed.with_speed` sets them.
    """

    speed: Speed
    FAMILY: ClassVar = "eg3d"
    FUSES: ClassVar = True
    """Whether the kernels know its volume."""
    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "mapping": ("backbone.mapping.",),
        "backbone": ("backbone.synthesis.",),
        "decoder": ("decoder.",),
        "superresolution": ("superresolution.",),
        "residual": ("plane_residual",),
    }

    def __init__(self, config: EG3DConfig) -> None:
        super().__init__()
        head = config.super_resolution
        if head.output_resolution != config.resolution:
            raise CheckpointError(
                f"the super-resolution head gives {head.output_resolution}² pixels, "
                f"the checkpoint says {config.resolution}²"
            )
        if config.plane_convention not in PLANE_AXES:
            raise CheckpointError(f"plane convention {config.plane_convention!r} is not one of {', '.join(PLANE_AXES)}")
        self.config, self.speed = config, REFERENCE
        synthesis = SynthesisNetwork(
            config.w_dim,
            config.plane_resolution,
            math.prod(config.plane_shape[:-2]),
            config.channel_base,
            config.channel_max,
            config.conv_clamp,
        )
        mapping = MappingNetwork(
            config.z_dim, config.c_dim, config.w_dim, synthesis.num_ws, config.mapping_layers, config.normalize_z
        )
        self.backbone = Backbone(mapping, synthesis)
        self.superresolution = SuperResolution(
            head,
            config.plane_channels,
            config.w_dim,
            config.head_antialias,
            config.head_noise,
            config.head_conv_clamp,
        )
        self.plane_residual: nn.Parameter | None = None
        self.decoder = Decoder(config.plane_channels, config.decoder_hidden, config.decoder_lr_multiplier)
        self.spec = GeneratorSpec(
            family=self.FAMILY,
            resolution=config.resolution,
            neural_resolution=config.neural_resolution,
            z_dim=config.z_dim,
            c_dim=config.c_dim,
            w_dim=config.w_dim,
            num_ws=synthesis.num_ws,
            box=config.box,
            near=config.near,
            far=config.far,
            radius=config.radius,
            pivot=config.pivot,
            focal=config.focal,
            full_head=config.full_head,
            plane_convention=config.plane_convention,
            background=config.background,
            has_alpha=config.has_alpha,
        )

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def map(self, z: Tensor, camera: Camera, truncation: float = 1.0, cutoff: int | None = None) -> Tensor:
        """See `Generator.map`; conditioned on the camera's label."""
        return self.backbone.mapping(z, self._condition(camera, z), truncation, cutoff)

    def _condition(self, camera: Camera, z: Tensor) -> Tensor:
        """What mapping networks are told of the camera, [N,c_dim] beside z [N,z_dim]."""
        label = camera.to(z.device, z.dtype).labels().expand(len(z), -1) * self.config.condition_scale
        return torch.zeros_like(label) if self.config.zero_conditioning else label

    @torch.no_grad()
    def sample_w(self, samples: int, seed: int) -> Tensor:
        """[samples,w_dim]: w of seeded standard-normal z under the canonical camera."""
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(samples, self.config.z_dim, generator=generator).to(self.device)
        return self.map(z, self.spec.canonical_camera)[:, 0]

    def mean_w(self, samples: int = 600, seed: int = 0) -> Tensor:
        """See `Generator.mean_w`: of `sample_w`."""
        return self.sample_w(samples, seed).mean(0).expand(1, self.spec.num_ws, -1).clone()

    def w_std(self, samples: int = 600, seed: int = 0) -> float:
        """See `Generator.w_std`: of `sample_w`."""
        w = self.sample_w(samples, seed)
        return (w - w.mean(0)).square().sum(1).mean().sqrt().item()

    def noise_buffers(self) -> dict[str, Tensor]:
        """See `Generator.noise_buffers`: of the backbone's layers."""
        prefix = "backbone.synthesis."
        return {prefix + name: value for name, value in self.backbone.synthesis.noise_buffers().items()}

    def planes(self, w: Tensor, noise: dict[str, Tensor] | None = None) -> Tensor:
        """See `Generator.planes`: [N,*plane_shape] = [N,3,C,H,W]."""
        prefix = "backbone.synthesis."
        overrides = {name.removeprefix(prefix): value for name, value in (noise or {}).items()}
        with self.mixed(self.speed.mixed_planes):
            planes = self.backbone.synthesis(w, overrides).unflatten(1, self.config.plane_shape[:-2])
        return planes if self.plane_residual is None else planes + self.plane_residual

    def mixed(self, wanted: bool) -> AbstractContextManager[Any]:
        """Where convolutions are computed in half precision, if that is wanted."""
        return torch.autocast(self.device.type, torch.bfloat16) if wanted else nullcontext()

    def density(self, points: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]:
        """See `Generator.density`; the official `sample_mixed`."""
        return _TriPlaneField(self, planes).density(points, features=True)

    def field(self, planes: Tensor) -> Field:
        """See `Generator.field`: nothing is cut away."""
        return _TriPlaneField(self, planes)

    def photo_camera(self, camera: Camera) -> Camera:
        """See `Generator.photo_camera`: the camera itself."""
        return camera

    def march(
        self, planes: Tensor, cameras: Camera, resolution: int, jitter: Jitter, keep: int | None = None
    ) -> tuple[Tensor, ...]:
        """Ray-marches r² rays a camera: features [V,C,r,r] (their first three: the raw image in [-1,1]), z-depth
        [V,1,r,r], alpha [V,1,r,r]. `keep`: see `pmv.generators.volume.march`.

        One latent seen by V cameras is one field with V·r² rays, so its planes are not copied.
        """
        config, views = self.config, len(cameras)
        origins, directions = cameras.rays(resolution)
        length = directions.norm(dim=-1, keepdim=True)  # ray length of a unit of z-depth
        directions = directions / length
        if len(planes) == 1:
            origins, directions = origins.reshape(1, -1, 3), directions.reshape(1, -1, 3)
        elif len(planes) != views:
            raise ValueError(f"{len(planes)} latents for {views} cameras; give one latent or as many as cameras")
        hit = None
        if config.near is None or config.far is None:
            with torch.no_grad():
                near, far, hit = box_limits(origins, directions, config.box)
        else:
            near = torch.full_like(origins[..., 0], config.near)
            far = torch.full_like(origins[..., 0], config.far)
        rays = (origins, directions, near, far, config.coarse_samples, config.fine_samples, jitter, hit)
        if keep is None and len(planes) == 1 and self.waits_for_nothing:
            from pmv.generators.fused_march import march_fused

            axes = PLANE_AXES[config.plane_convention]
            result = march_fused(planes, self.decoder.weights(), axes, config.box, *rays, ordered=self.speed.ordered)
        else:
            result = march(self.field(planes), *rays, keep=keep, skip=self.speed.brief)
        maps = (
            self._over_background(result.features, result.alpha),
            result.depth.reshape(length.shape) / length,
            result.alpha,
        )
        return tuple(m.reshape(views, resolution, resolution, -1).permute(0, 3, 1, 2).contiguous() for m in maps)

    @property
    def waits_for_nothing(self) -> bool:
        """Whether planes and views of one latent can be made without asking the GPU for anything, so that a step can be
        recorded as a CUDA graph."""
        return (
            self.FUSES and self.speed.fused and self.device.type == "cuda" and self.decoder.activation is padded_sigmoid
        )

    def _over_background(self, features: Tensor, alpha: Tensor) -> Tensor:
        """Marched features [B,R,C] in [0,1] over the plain background, in [-1,1]."""
        return features * 2.0 - 1.0 + (1.0 - alpha) * (self.config.background + 1.0)

    def _raw(self, features: Tensor, alpha: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """What super-resolution starts from: the raw image [V,3,r,r] and the features [V,C,r,r]; w [V,num_ws,w_dim]."""
        return features[:, :3], features

    def render(
        self,
        planes: Tensor,
        w: Tensor,
        cameras: Camera,
        resolution: int | None = None,
        jitter: torch.Generator | None = None,
        pictures: int | None = None,
    ) -> Render:
        """See `Generator.render`."""
        cameras = cameras.to(planes.device)
        features, depth, alpha = self.march(planes, cameras, resolution or self.spec.neural_resolution, jitter)
        if self.speed == REFERENCE:
            pictures = None  # fewer in a batch are rounded otherwise
        every = w.expand(len(cameras), -1, -1)[:pictures]
        with self.mixed(self.speed.mixed):
            raw, features = self._raw(features[:pictures], alpha[:pictures], every)
            image, raw = self.superresolution(raw, features, w if self.speed.folded and len(w) == 1 else every)
        return Render(image, raw, depth, alpha)

    def tunable_parameters(self, group: str) -> dict[str, nn.Parameter]:
        """See `Generator.tunable_parameters`; the groups are `GROUPS`."""
        if group == "all":
            names = [name for name in self.GROUPS if name not in ("mapping", "residual")]
            return {k: p for name in names for k, p in self._group(name).items()}
        if group not in self.GROUPS:
            raise ValueError(f"no parameter group {group!r}; choose from all, {', '.join(self.GROUPS)}")
        if group == "residual" and self.plane_residual is None:
            self._make_residual()
        return self._group(group)

    def _group(self, name: str) -> dict[str, nn.Parameter]:
        return {k: p for k, p in self.named_parameters() if k.startswith(self.GROUPS[name])}

    def _make_residual(self) -> None:
        zeros = torch.zeros(1, *self.config.plane_shape, device=self.device)
        self.plane_residual = nn.Parameter(zeros, requires_grad=False)

    def load_tuned(self, state: Mapping[str, Tensor]) -> None:
        """See `Generator.load_tuned`."""
        if "plane_residual" in state and self.plane_residual is None:
            self._make_residual()
        try:
            unknown = self.load_state_dict(dict(state), strict=False).unexpected_keys
        except RuntimeError as error:
            why = shown(" ".join(str(error).split()), 200)
            raise CheckpointError(f"the tuned weights belong to a generator of another shape ({why})") from error
        if unknown:
            raise CheckpointError(f"the tuned weights belong to another generator: it has no {shown(unknown[0])}")
