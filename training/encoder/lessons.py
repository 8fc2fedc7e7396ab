"""Lessons for the encoders: a picture as a photo may be, a camera as `prepare` finds it, and the truth of the head from
this side and others."""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.generators import EG3DGenerator
from pmv.generators.base import GeneratorSpec
from pmv.geometry.camera import Camera
from pmv.training.augment import Augment
from pmv.training.batches import Batch, HeadStore
from pmv.training.data import photos_of

_CAMERA_TURN, _CAMERA_SHIFT = math.radians(2.0), 0.008
"""Standard deviations of the error of a found camera, about each axis, and along each in world units."""


@dataclass(frozen=True)
class Lesson:
    """B pictures, and V views of their heads, the pictures' own first of each head.

    Attributes:
        image: [B,3,R,R] in [-1,1] over mid grey, foreground: [B,1,R,R] in [0,1], camera: B: what an encoder is given.
        truth: of B·V views; `truth.z` is empty.
        planes: [B,3,C,H,W] of the heads that the generator drew itself, which it knows; None for rendered ones.
    """

    image: Tensor
    foreground: Tensor
    camera: Camera
    truth: Batch
    planes: Tensor | None = None

    @property
    def views(self) -> int:
        """V."""
        return len(self.truth.cameras) // len(self.image)

    @property
    def taken_from(self) -> Camera:
        """The cameras that took the pictures: B."""
        return Camera(self.first(self.truth.cameras.cam2world), self.first(self.truth.cameras.intrinsics))

    def first(self, x: Tensor) -> Tensor:
        """Of rows [B·V,…] those of the pictures' own views [B,…]."""
        return x[:: self.views]


class Teacher:
    """Makes lessons of rendered heads and of the generator's own.

    Args:
        store: of a pack of kind "portraits".
        generator: draws heads of its own.
        draws: randomness on the device; a second one, on the CPU, picks heads.
        views: of each head, one of them the picture.
    """

    def __init__(
        self, store: HeadStore, generator: EG3DGenerator, draws: torch.Generator, picks: torch.Generator, views: int
    ) -> None:
        self.store, self.generator, self.draws, self.picks, self.views = store, generator, draws, picks, views
        self.augment = Augment(draws)

    def rendered(self, heads: int, views: int | None = None) -> Lesson:
        """A lesson of heads from the store, of `views` views each if they are others than the teacher's."""
        layout, views = self.store.pack.layout, views or self.views
        photos = photos_of(layout.views)
        order = torch.randint(len(self.store), (heads,), generator=self.picks)
        first = torch.randint(photos, (heads, 1), generator=self.picks)
        others = torch.rand(heads, layout.views, generator=self.picks)
        others.scatter_(1, first, 2.0)
        chosen = torch.cat([first, others.argsort(1)[:, : views - 1]], 1)
        batch = self.store.batch(self.store.slots[order], chosen)
        return self._as_photos(replace(batch, z=batch.z[:, :0]), None, views)

    def generated(self, heads: int) -> Lesson:
        """A lesson of the generator's own heads, whose planes are known too."""
        generator, device = self.generator, self.generator.device
        with torch.no_grad():
            z = torch.randn(heads, generator.spec.z_dim, generator=self.draws, device=device)
            w = generator.map(z, generator.spec.canonical_camera)
            planes = generator.planes(w)
            cameras = self._cameras(heads, device)
            rows = torch.arange(heads, device=device).repeat_interleave(self.views)
            drawn = generator.render(planes[rows], w[rows], cameras)
            half = drawn.image.shape[-1] // 2
            alpha = F.interpolate(drawn.alpha, drawn.image.shape[-2:], mode="bilinear").clamp(0, 1)
            depth = F.interpolate(drawn.depth, (half, half), mode="bilinear")
            known = F.interpolate(drawn.alpha, (half, half), mode="bilinear") > 0.9
            depth = torch.where(known, depth, torch.nan)
        batch = Batch(z[:, :0], cameras, drawn.image.clamp(-1, 1), alpha, depth)
        return self._as_photos(batch, planes, self.views)

    def _cameras(self, heads: int, device: torch.device) -> Camera:
        """For each head a photo's, then others all around."""
        spec, shape = self.generator.spec, (heads, self.views)

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(shape, generator=self.draws, device=device)

        yaw, pitch = uniform(-math.pi, math.pi), uniform(-0.4, 0.6)
        yaw[:, 0] = 0.35 * torch.randn(heads, generator=self.draws, device=device).clamp(-3, 3)
        pitch[:, 0] = 0.16 * torch.randn(heads, generator=self.draws, device=device).clamp(-2.5, 2.5)
        return spec.orbit(yaw.flatten(), pitch.flatten()).to(device)

    @torch.no_grad()
    def _as_photos(self, truth: Batch, planes: Tensor | None, views: int) -> Lesson:
        augment = self.augment
        own = slice(None, None, views)
        if planes is None:  # colours belong to the head: every view has them
            matrix, offset = (x.repeat_interleave(views, 0) for x in augment.colours(truth.image[own]))
            image = torch.einsum("nij,njhw->nihw", matrix, truth.image) + offset * truth.alpha
            truth = replace(truth, image=image.clamp(-1, 1))
        image, alpha, depth, camera = self.framed(
            truth.image[own], truth.alpha[own], truth.depth[own], truth.cameras[own]
        )
        truth = _with_first(truth, views, image, alpha, depth, camera)
        photo = image
        if views == 1:  # no other view that would have to show it
            photo = augment.marks(augment.shading(image) * alpha, alpha)
        photo = augment.noise(augment.blur(augment.occluder(self.matted(photo, alpha), image.roll(1, 0))))
        foreground = self.foreground(alpha)
        found = found_camera(camera, self.draws, self.generator.spec)
        return Lesson(photo.clamp(-1, 1) * foreground, foreground, found, truth, planes)

    def framed(
        self, image: Tensor, alpha: Tensor, depth: Tensor, camera: Camera
    ) -> tuple[Tensor, Tensor, Tensor, Camera]:
        """Pictures turned, zoomed and shifted a little, as crops are, and the cameras that see them so. z-depth along
        the same ray stays what it was."""
        augment = self.augment
        angle = augment.normal(image).clamp(-2.5, 2.5) * math.radians(3)
        scale = torch.exp(0.04 * augment.normal(image).clamp(-2.5, 2.5))
        shift = 0.03 * augment.normal(image, 2).clamp(-2.5, 2.5)
        c, s = scale * angle.cos(), scale * angle.sin()
        theta = torch.stack([torch.stack([c, -s, shift[:, 0]], 1), torch.stack([s, c, shift[:, 1]], 1)], 1)
        moved = _moved(torch.cat([image, alpha], 1), theta)
        known = _moved((~depth.isnan()).float(), theta)
        deep = _moved(depth.nan_to_num(0.0), theta)
        deep = torch.where(known > 0.99, deep / known.clamp_min(0.5), torch.nan)
        return moved[:, :3], moved[:, 3:], deep, reframed(camera, theta)

    def matted(self, image: Tensor, alpha: Tensor) -> Tensor:
        """Heads before what lies behind them in a photo; a matte that is wrong lets some of it through."""
        return image + (1 - alpha) * self.augment.backgrounds(image)

    def foreground(self, alpha: Tensor) -> Tensor:
        """Alpha as a matting network finds it: a little too wide or too narrow, smoother or harder than it is."""
        soft = self.augment.blur(alpha)
        level = self.augment.uniform(alpha, 1, 1, 1, low=0.3, high=0.7)
        width = self.augment.uniform(alpha, 1, 1, 1, low=0.1, high=0.6)
        wrong = ((soft - level) / width + 0.5).clamp(0, 1)
        return torch.where(self.augment.chance(alpha, 0.7) > 0, wrong, alpha)


def found_camera(camera: Camera, draws: torch.Generator, spec: GeneratorSpec) -> Camera:
    """N cameras as `prepare` finds them: turned about the generator's pivot and shifted, at random."""
    error = torch.randn(2, len(camera), 3, generator=draws, device=draws.device)
    return camera.adjusted(error[0] * _CAMERA_TURN, error[1] * _CAMERA_SHIFT, spec.pivot)


def reframed(camera: Camera, theta: Tensor) -> Camera:
    """The camera of a picture that shows at x what the old one shows at A·x + t.

    With A a turn and a zoom, that is a turn about the optical axis, another focal length and another principal point:
    z-depths stay as they are.

    Args:
        camera: N, square pixels. theta: [N,2,3], A and t in `torch.nn.functional.affine_grid`'s coordinates.
    """
    a, t = theta[:, :, :2], theta[:, :, 2]
    scale = torch.linalg.det(a).sqrt()
    turn = a / scale[:, None, None]
    cam2world, intrinsics = camera.cam2world.clone(), camera.intrinsics.clone()
    cam2world[:, :3, :2] = camera.cam2world[:, :3, :2] @ turn
    centre = 2 * camera.intrinsics[:, :2, 2] - 1
    intrinsics[:, 0, 0], intrinsics[:, 1, 1] = (camera.intrinsics[:, i, i] / scale for i in (0, 1))
    moved = (turn.mT @ (centre - t)[:, :, None])[:, :, 0] / scale[:, None]
    intrinsics[:, :2, 2] = (moved + 1) / 2
    return Camera(cam2world, intrinsics)


def _moved(x: Tensor, theta: Tensor) -> Tensor:
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def _with_first(truth: Batch, views: int, image: Tensor, alpha: Tensor, depth: Tensor, camera: Camera) -> Batch:
    """The truth with other first views of each head."""
    parts = []
    for old, new in zip((truth.image, truth.alpha, truth.depth), (image, alpha, depth), strict=True):
        whole = old.clone()
        whole[::views] = new
        parts.append(whole)
    cam2world, intrinsics = truth.cameras.cam2world.clone(), truth.cameras.intrinsics.clone()
    cam2world[::views], intrinsics[::views] = camera.cam2world, camera.intrinsics
    return Batch(truth.z, Camera(cam2world, intrinsics), *parts)
