"""One encoder: an aligned picture and its camera to a latent, a residual of the tri-planes, and the visible surface.

The two steps are those of TriPlaneNet (arXiv:2303.13497) and of both halves of the dual encoder (arXiv:2409.20530): a
latent first, then what its render lacks is added to the planes. What is ours: the picture's features reach the planes
along a surface (`lifting.py`), the network predicts that surface, with its own doubt, from the picture alone, and the
rays of the camera are among its inputs, so that it need not be frontal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmv.encoders.lifting import lift, texel_points
from pmv.generators.base import Generator, GeneratorSpec
from pmv.geometry.camera import Camera

_DEPTH_UNIT = 0.2
"""World units of z-depth that count as 1 for the network: half of a head's depth."""
_POSE_UNITS = (0.05, 0.02)
"""Radians of a camera's turn, and world units of its shift, that count as 1: what `prepare` is off by."""
_LEAST_SCALE, _MOST_SCALE = 1e-3, 0.2
"""Bounds of the predicted scale of the depth's error, world units."""


@dataclass(frozen=True)
class EncoderShape:
    """Sizes of an encoder.

    Attributes:
        num_ws, w_dim: of the generator's latent. planes: [3,C,H,W] of the generator's planes.
        resolution: pixels a side of the picture.
        widths: channels at 1/2, 1/4, … of it. blocks: residual blocks at each.
        hidden: of the latent's read-out. pyramid: channels of the top-down path.
        detail: channels that are lifted to the planes. plane_width: channels of the network on the planes.
        lift_size, lift_samples: texels a side of the planes, and points along each texel's normal, for the lifting.
    """

    num_ws: int
    w_dim: int
    planes: tuple[int, int, int, int]
    resolution: int = 256
    widths: tuple[int, ...] = (24, 48, 80, 128, 192, 192)
    blocks: tuple[int, ...] = (1, 1, 2, 2, 2, 1)
    hidden: int = 384
    pyramid: int = 40
    detail: int = 32
    plane_width: int = 48
    lift_size: int = 64
    lift_samples: int = 32

    @classmethod
    def of(cls, generator: Generator, **sizes: Any) -> "EncoderShape":
        """For a generator of tri-planes. ValueError for one of tri-grids."""
        planes = tuple(generator.planes(generator.mean_w(1)).shape[1:])
        if len(planes) != 4:
            raise ValueError(f"encoders are built for tri-planes [3,C,H,W], not for planes of shape {planes}")
        spec = generator.spec
        return cls(spec.num_ws, spec.w_dim, planes, **{"resolution": min(256, spec.resolution), **sizes})

    @property
    def of_generator(self) -> tuple[int, int, tuple[int, ...]]:
        """What the generator decides: num_ws, w_dim, planes."""
        return self.num_ws, self.w_dim, self.planes

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "EncoderShape":
        """Of the numbers that `dataclasses.asdict` gave, after a way through JSON."""
        sizes: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**sizes)


@dataclass(frozen=True)
class Encoded:
    """What an encoder says of N pictures.

    Attributes:
        w: [N,num_ws,w_dim]. planes: [N,3,C,H,W], the latent's and the residual together. residual: [N,3,C,H,W].
        depth: [N,1,R/2,R/2] z-depth of what the picture shows, world units; meaningless beside the head.
        scale: [N,1,R/2,R/2] world units, by which the depth may be wrong: the mean absolute error (of a Laplace
            distribution) that the network expects.
        camera: N, the given one put right.
    """

    w: Tensor
    planes: Tensor
    residual: Tensor
    depth: Tensor
    scale: Tensor
    camera: Camera


@dataclass(frozen=True)
class Look:
    """What an encoder sees in N pictures before it draws a head.

    Attributes:
        depth, scale, camera: as in `Encoded`. pooled: [N,·] the coarsest features as a whole. features:
            [N,pyramid,R/2,R/2], all levels together.
    """

    depth: Tensor
    scale: Tensor
    camera: Camera
    pooled: Tensor
    features: Tensor


class _Block(nn.Module):
    """Two 3×3 convolutions before each of which is normalised and activated, and a shortcut (He et al. 2016)."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_groups(before), before)
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1)
        self.norm2 = nn.GroupNorm(_groups(after), after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        short = F.avg_pool2d(x, 2, ceil_mode=True) if self.stride == 2 else x
        return self.skip(short) + y


def _groups(channels: int) -> int:
    return next(g for g in (8, 4, 2, 1) if channels % g == 0)


def _zero(layer: nn.Conv2d | nn.Linear) -> Any:
    """A layer that gives nothing until it has learned something."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class _PlaneNetwork(nn.Module):
    """From what was lifted, and the latent's planes, to a residual: one U-Net for all three planes, each told which one
    it is, that exchange what they found at the coarse level."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        planes, channels, *_ = shape.planes
        width, lifted = shape.plane_width, 2 * (shape.detail + 1)
        self.which = nn.Parameter(torch.zeros(planes, width, 1, 1))
        self.enter = nn.Conv2d(channels + lifted, width, 3, 1, 1)
        self.fine = _Block(width, width)
        self.down = _Block(width, 2 * width, 2)
        self.exchange = nn.Conv2d(planes * 2 * width, planes * 2 * width, 1, groups=1)
        self.coarse = _Block(2 * width, 2 * width)
        self.up = nn.Conv2d(2 * width, width, 1)
        self.last = _Block(width, width)
        self.leave = _zero(nn.Conv2d(width, channels, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[N,3,C+L,H,W] → [N,3,C,H,W], in units of the planes' deviation."""
        count, planes = x.shape[:2]
        fine = self.enter(x.flatten(0, 1)) + self.which.repeat(count, 1, 1, 1)
        fine = self.fine(fine)
        coarse = self.down(fine)
        # planes share no pixels, so they tell each other what they hold as a whole
        means = coarse.unflatten(0, (count, planes)).mean((3, 4)).flatten(1)[:, :, None, None]
        coarse = coarse + self.exchange(means).reshape(count * planes, -1, 1, 1)
        coarse = self.up(self.coarse(coarse))
        fine = fine + F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)
        return self.leave(F.silu(self.last(fine))).unflatten(0, (count, planes))


class Encoder(nn.Module):
    """See the module's text. The generator is no part of it, and is given to every call.

    Args:
        shape: its sizes. mean_w: [1,num_ws,w_dim], what it adds to. w_scale: deviation of one number of w.
            plane_scale: deviation of the planes' texels.
    """

    INPUTS = 10  # colour, foreground, the rays' directions and moments

    def __init__(self, shape: EncoderShape, mean_w: Tensor, w_scale: float, plane_scale: float) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("mean_w", mean_w.detach().clone())
        self.register_buffer("scales", torch.tensor([w_scale, plane_scale]))
        self.mean_w: Tensor
        self.scales: Tensor
        levels, before = [], self.INPUTS
        for width, count in zip(shape.widths, shape.blocks, strict=True):
            first = nn.Conv2d(before, width, 3, 2, 1) if not levels else _Block(before, width, 2)
            levels.append(nn.Sequential(first, *(_Block(width, width) for _ in range(count))))
            before = width
        self.levels = nn.ModuleList(levels)
        self.read = nn.Sequential(
            nn.Linear(2 * before, shape.hidden),
            nn.SiLU(),
            _zero(nn.Linear(shape.hidden, shape.num_ws * shape.w_dim)),
        )
        self.pose = nn.Sequential(nn.Linear(2 * before, 128), nn.SiLU(), _zero(nn.Linear(128, 6)))
        pyramid = shape.pyramid
        self.laterals = nn.ModuleList(nn.Conv2d(width, pyramid, 1) for width in shape.widths)
        self.smooth = nn.ModuleList(_Block(pyramid, pyramid) for _ in shape.widths)
        self.surface = _zero(nn.Conv2d(pyramid, 2, 3, 1, 1))
        self.detail = nn.Sequential(
            nn.Conv2d(3 + 3 + 3 + 1 + 1, shape.detail, 3, 2, 1), _Block(shape.detail, shape.detail)
        )
        self.joined = _Block(shape.detail + pyramid, shape.detail)
        self.plane = _PlaneNetwork(shape)

    @classmethod
    def for_generator(cls, generator: Generator, **sizes: Any) -> "Encoder":
        """A new one; its first answers are the generator's mean head."""
        mean = generator.mean_w()
        scale = generator.w_std() / generator.spec.w_dim**0.5
        return cls(EncoderShape.of(generator, **sizes), mean, scale, float(generator.planes(mean).std()))

    def forward(self, generator: Generator, image: Tensor, foreground: Tensor, camera: Camera) -> Encoded:
        """Encode pictures.

        Args:
            generator: that it was made for. Gradients pass through it where it lets them.
            image: [N,3,R,R] in [-1,1], aligned as for the generator, over its background.
            foreground: [N,1,R,R] in [0,1].
            camera: N, as far as they are known.
        """
        spec, size = generator.spec, self.shape.resolution
        image, foreground = (_resized(x, size) for x in (image, foreground))
        look = self.look(image, foreground, camera, spec)
        w, seen_from = self.latent(look.pooled), look.camera.detach()
        with torch.autocast(image.device.type, enabled=False):  # densities of six orders of magnitude
            planes = generator.planes(w)
            with torch.no_grad():  # what is missing is an input; the latent learns from its own render, not from this
                drawn = generator.render(planes, w, seen_from)
        seen = F.interpolate(drawn.image, (size, size), mode="bilinear", align_corners=False)
        alpha = F.interpolate(drawn.alpha, (size, size), mode="bilinear", align_corners=False)
        detail = self.detail(torch.cat([image, seen, image - seen, foreground, alpha], 1))
        detail = self.joined(torch.cat([detail, look.features], 1))
        solid = F.interpolate(foreground, look.depth.shape[-2:], mode="area")
        residual = self.plane_residual(planes, detail, seen_from, look.depth.detach(), solid, spec)
        return Encoded(w, planes + residual, residual, look.depth, look.scale, look.camera)

    def look(self, image: Tensor, foreground: Tensor, camera: Camera, spec: GeneratorSpec) -> Look:
        """What is seen before a head is drawn: the camera and the visible surface; see `forward`."""
        size = self.shape.resolution
        image, foreground = (_resized(x, size) for x in (image, foreground))
        with torch.autocast(image.device.type, enabled=False):  # lengths
            rays = pluecker(camera, size)
        levels, x = [], torch.cat([image, foreground, rays], 1)
        for level in self.levels:
            x = level(x)
            levels.append(x)
        features = self.top_down(levels)
        with torch.autocast(image.device.type, enabled=False):
            pooled = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1).float()
            camera = self.put_right(pooled, camera, spec)
            # where things are lifted to teaches no pose
            depth, scale = self.visible_surface(features.float(), camera.detach(), spec)
        return Look(depth, scale, camera, pooled, features)

    def put_right(self, pooled: Tensor, camera: Camera, spec: GeneratorSpec) -> Camera:
        """The camera turned about the generator's pivot and shifted as the picture [N,·] says."""
        turn, shift = self.pose(pooled).split(3, 1)
        return camera.adjusted(turn * _POSE_UNITS[0], shift * _POSE_UNITS[1], spec.pivot)

    def latent(self, pooled: Tensor) -> Tensor:
        """[N,num_ws,w_dim] from what the picture's coarsest features hold as a whole [N,·]."""
        with torch.autocast(pooled.device.type, enabled=False):
            told = self.read(pooled).unflatten(1, (self.shape.num_ws, self.shape.w_dim))
        return self.mean_w + self.scales[0] * told

    def top_down(self, levels: Sequence[Tensor]) -> Tensor:
        """[N,pyramid,R/2,R/2]: all levels together (feature pyramid, arXiv:1612.03144)."""
        x = self.smooth[-1](self.laterals[-1](levels[-1]))
        for i in range(len(levels) - 2, -1, -1):
            x = F.interpolate(x, levels[i].shape[-2:], mode="bilinear", align_corners=False)
            x = self.smooth[i](x + self.laterals[i](levels[i]))
        return x

    def visible_surface(self, top_down: Tensor, camera: Camera, spec: GeneratorSpec) -> tuple[Tensor, Tensor]:
        """z-depth and the scale of its error [N,1,R/2,R/2], world units."""
        offset, doubt = self.surface(top_down).chunk(2, 1)
        pivot = camera.position.new_tensor(spec.pivot)
        middle = ((pivot - camera.position) * camera.forward).sum(1)[:, None, None, None]
        scale = (0.02 * torch.exp(doubt)).clamp(_LEAST_SCALE, _MOST_SCALE)
        return middle + _DEPTH_UNIT * offset, scale

    def plane_residual(
        self, planes: Tensor, detail: Tensor, camera: Camera, depth: Tensor, solid: Tensor, spec: GeneratorSpec
    ) -> Tensor:
        """What is added to the latent's planes [N,3,C,H,W].

        Args:
            detail: [N,C,R/2,R/2]. depth, solid: the surface along which it is lifted, see `lifting.nearness`.
        """
        shape = self.shape
        points = texel_points(spec.plane_convention, spec.box, shape.lift_size, shape.lift_samples).to(planes)
        reach = 1.5 * spec.box / shape.lift_size
        with torch.autocast(planes.device.type, enabled=False):  # half precision would miss points by pixels
            sides = [lift(detail.float(), camera, depth, solid, points, reach, mirrored) for mirrored in (False, True)]
        lifted = torch.cat(sides, 2).flatten(0, 1)
        lifted = F.interpolate(lifted, planes.shape[-2:], mode="bilinear", align_corners=False)
        lifted = lifted.unflatten(0, planes.shape[:2])
        return self.scales[1] * self.plane(torch.cat([planes / self.scales[1], lifted], 2)).float()


def _resized(x: Tensor, size: int) -> Tensor:
    if x.shape[-1] == size:
        return x
    return F.interpolate(x, (size, size), mode="area" if x.shape[-1] > size else "bilinear")


def pluecker(camera: Camera, size: int) -> Tensor:
    """Plücker coordinates [N,6,size,size] of the rays through the pixels: unit direction, and its moment about the
    origin (position × direction), world axes and units."""
    origins, directions = camera.rays(size)
    directions = F.normalize(directions, dim=-1)
    rays = torch.cat([directions, torch.linalg.cross(origins, directions)], -1)
    return rays.transpose(1, 2).reshape(len(camera), 6, size, size)
