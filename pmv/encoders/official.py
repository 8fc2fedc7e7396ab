"""The published dual encoder's own size: PanoHead's tri-grids from a 256² picture, 252 million parameters a half.

Each half (arXiv:2409.20530 §3) is pSp's encoder of a latent (Richardson et al. 2021, arXiv:2008.00951: a face
recognition network, IR-SE50, whose features at three sizes are read by one small network for each row of w), and the
encoder of the planes of TriPlaneNet v2 (arXiv:2303.13497): from what that latent's render lacks, on the picture and on
its mirror image, to what is added to its planes. State-dict names are those of TriPlaneNet's published code, on which
the paper builds.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmv.encoders.network import Encoded
from pmv.generators.base import Generator
from pmv.generators.stylegan import FullyConnected
from pmv.geometry.camera import Camera

PICTURE = 256
"""Pixels a side of what the latent is read from; its networks have no other."""
_UNITS = ((1, 3), (2, 4), (4, 14), (8, 3))
"""Of IR-SE50 (arXiv:1801.07698): channels, in units of the first's, and residual units of each level."""
_SQUEEZE = 16
_COARSE, _MIDDLE = 3, 7
"""Rows of w from which on they are read from the middle, and from the fine features."""
_DOUBT = 0.02
"""World units: these encoders tell no error of their depth; it is believed as a coarse generator's is."""


@dataclass(frozen=True)
class OfficialShape:
    """Sizes of one half.

    Attributes:
        num_ws, w_dim: of the generator's latent. plane_channels: of all its planes, with the layers of a tri-grid.
        width: channels of the first level. shuffle: pixels are shuffled out of channels where others are doubled.
    """

    num_ws: int = 14
    w_dim: int = 512
    plane_channels: int = 288
    width: int = 64
    shuffle: bool = False


class _Squeeze(nn.Module):
    """Squeeze-and-excitation (arXiv:1709.01507)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // _SQUEEZE)
        self.fc1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.fc2 = nn.Conv2d(inner, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class _Unit(nn.Module):
    """A residual unit of IR-SE50."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        if before == after:
            self.shortcut_layer = nn.MaxPool2d(1, stride)
        else:
            self.shortcut_layer = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Conv2d(before, after, 3, 1, 1, bias=False),
            nn.PReLU(after),
            nn.Conv2d(after, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            _Squeeze(after),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut_layer(x) + self.res_layer(x)


class _Backbone(nn.Module):
    """IR-SE50 without its head."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(inputs, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width)
        )
        units, before = [], width
        for times, count in _UNITS:
            for i in range(count):
                units.append(_Unit(before, times * width, 2 if i == 0 else 1))
                before = times * width
        self.body = nn.Sequential(*units)

    def features(self, x: Tensor) -> list[Tensor]:
        """Of all units, [N,·,·,·] each."""
        x, found = self.input_layer(x), []
        for unit in self.body:
            x = unit(x)
            found.append(x)
        return found


class _StyleHead(nn.Module):
    """Features of `side`² to one row of w."""

    def __init__(self, before: int, after: int, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        while side > 1:
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.LeakyReLU()]
            before, side = after, side // 2
        self.convs = nn.Sequential(*layers)
        self.linear = FullyConnected(after, after)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.convs(x).flatten(1))


class StyleEncoder(_Backbone):
    """pSp's `GradualStyleEncoder`: a picture [N,3,256,256] in [-1,1] → [N,num_ws,w_dim], added to the mean latent."""

    def __init__(self, shape: OfficialShape) -> None:
        super().__init__(3, shape.width)
        wide = 8 * shape.width
        sides = [16 if i < _COARSE else 32 if i < _MIDDLE else 64 for i in range(shape.num_ws)]
        self.styles = nn.ModuleList(_StyleHead(wide, shape.w_dim, side) for side in sides)
        self.latlayer1 = nn.Conv2d(4 * shape.width, wide, 1)
        self.latlayer2 = nn.Conv2d(2 * shape.width, wide, 1)

    def forward(self, picture: Tensor) -> Tensor:
        found = self.features(picture)
        coarse = found[23]
        middle = _onto(coarse, self.latlayer1(found[20]))
        fine = _onto(middle, self.latlayer2(found[6]))
        levels = [coarse if i < _COARSE else middle if i < _MIDDLE else fine for i in range(len(self.styles))]
        return torch.stack([head(level) for head, level in zip(self.styles, levels, strict=True)], 1)


def _onto(coarse: Tensor, fine: Tensor) -> Tensor:
    return F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=True) + fine


class _Up(nn.Module):
    """Coarser features, enlarged, and finer ones to those of their side."""

    def __init__(self, before: int, after: int, enlarge: nn.Module) -> None:
        super().__init__()
        self.up = enlarge
        self.conv = nn.Module()
        self.conv.double_conv = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Conv2d(before, after, 3, padding=1),
            nn.PReLU(after),
            nn.Conv2d(after, after, 3, padding=1),
            nn.PReLU(after),
            nn.PReLU(after),
        )

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        joined = torch.cat([fine, self.up(coarse)], 1)
        return self.conv.get_submodule("double_conv")(joined)


class PlaneEncoder(_Backbone):
    """TriPlaneNet v2's `TriPlane_Encoder`: three pictures [N,9,H,H], a render, what it lacks, and what its mirror image
    lacks; and planes [N,C,H,H] of the same side → what is added to them."""

    def __init__(self, shape: OfficialShape) -> None:
        super().__init__(9, shape.width)
        one, planes = shape.width, shape.plane_channels
        widths = (8 * one, 6 * one, 4 * one, 3 * one // 2) if shape.shuffle else (8 * one, 4 * one, 2 * one, one)
        skips = (8 * one, 4 * one, 2 * one, one)
        before = 8 * one
        for i, (after, skip) in enumerate(zip(widths, skips, strict=True)):
            factor = 2 if i else 1
            enlarged = before // factor**2 if shape.shuffle else before
            enlarge = nn.PixelShuffle(factor) if shape.shuffle else nn.Upsample(scale_factor=factor)
            self.add_module(f"up{i + 1}", _Up(skip + enlarged, after, enlarge))
            before = after
        self.up5 = nn.PixelShuffle(2) if shape.shuffle else nn.Upsample(scale_factor=2)
        last = before // 4 if shape.shuffle else before
        self.final_head_two = nn.Sequential(
            nn.Conv2d(planes + last, planes, 3, padding=1),
            nn.PReLU(planes),
            nn.Conv2d(planes, planes, 3, padding=1),
            nn.PReLU(planes),
            nn.Conv2d(planes, planes, 1),
        )

    def forward(self, pictures: Tensor, planes: Tensor) -> Tensor:
        found = self.features(pictures)
        x = found[23]
        for i, skip in enumerate((found[21], found[20], found[6], found[2])):
            x = self.get_submodule(f"up{i + 1}")(x, skip)
        return self.final_head_two(torch.cat([planes, self.up5(x)], 1))


class OfficialEncoder(nn.Module):
    """One half of the published dual encoder.

    Args:
        shape: its sizes. latent_average: [num_ws,w_dim], what is added to.
    """

    def __init__(self, shape: OfficialShape, latent_average: Tensor) -> None:
        super().__init__()
        self.shape = shape
        self.psp_encoder = StyleEncoder(shape)
        self.triplanenet_encoder = PlaneEncoder(shape)
        self.register_buffer("latent_average", latent_average)
        self.latent_average: Tensor

    @torch.no_grad()
    def forward(self, generator: Generator, image: Tensor, foreground: Tensor, camera: Camera) -> Encoded:
        """As `Encoder.forward`; the camera is taken as it is given, depth is that of the encoded head, and the
        foreground is not asked for."""
        w = self.psp_encoder(_sized(image, PICTURE)) + self.latent_average
        planes = generator.planes(w)
        side = planes.shape[-1]
        other = mirrored(camera)
        views = [_sized(generator.render(planes, w, seen_from).image, side) for seen_from in (camera, other)]
        picture = _sized(image, side)
        given = torch.cat([views[0], picture - views[0], picture.flip(3) - views[1]], 1)
        residual = self.triplanenet_encoder(given, planes.flatten(1, -3)).reshape(planes.shape)
        planes = planes + residual
        drawn = generator.render(planes, w, camera)
        half = (max(image.shape[-1] // 2, 1),) * 2
        depth = F.interpolate(drawn.depth, half, mode="bilinear", align_corners=False)
        return Encoded(w, planes, residual, depth, torch.full_like(depth, _DOUBT), camera)


def _sized(image: Tensor, side: int) -> Tensor:
    if image.shape[-1] == side:
        return image
    if image.shape[-1] > side:
        return F.adaptive_avg_pool2d(image, side)
    return F.interpolate(image, (side, side), mode="bilinear", align_corners=False)


def mirrored(camera: Camera) -> Camera:
    """Cameras that see of a head mirrored in x = 0 the mirror image of what these see of it."""
    flip = torch.diag(camera.cam2world.new_tensor([-1.0, 1.0, 1.0, 1.0]))
    intrinsics = camera.intrinsics.clone()
    intrinsics[:, 0, 2] = 1 - intrinsics[:, 0, 2]
    return replace(camera, cam2world=flip @ camera.cam2world @ flip, intrinsics=intrinsics)
