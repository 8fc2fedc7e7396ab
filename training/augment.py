"""Rendered heads made as various as photos: backgrounds, crops, colour casts, blur, noise and occluders, with the
labels of every pixel moved along."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.training.batches import Batch

PLAIN = 0.35
"""Share of pictures that keep their framing, and of pictures that keep the plain grey background: what fits see."""
_TAPS = 13
"""Length of the blur's kernel in pixels."""


@dataclass(frozen=True)
class Sample:
    """N pictures and what is true of them; r = R/2.

    Attributes:
        image: [N,3,R,R] in [-1,1], as a photo might be.
        clean: [N,3,R,R] in [-1,1]: the same head, framing and colours over mid grey, without blur, noise and occluder.
        alpha: [N,1,R,R] in [0,1].
        position: [N,3,r,r] world coordinates of the surface.
        normal: [N,3,r,r] unit normals in the camera's axes (OpenCV), turned with the picture.
        known: [N,1,r,r], 1 where position and normal are known; elsewhere both are 0.
        z: [N,D].
    """

    image: Tensor
    clean: Tensor
    alpha: Tensor
    position: Tensor
    normal: Tensor
    known: Tensor
    z: Tensor


def surface(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Position and normal as in `Sample`, before any change of framing, and where they are known (central differences
    of the points on both sides)."""
    depth = batch.depth.nan_to_num(0.0)
    known = (~batch.depth.isnan()).float()
    size = depth.shape[-1]
    rays = batch.cameras.pixel_directions(size).reshape(-1, size, size, 3).permute(0, 3, 1, 2)
    points = rays * depth
    right, left = points.roll(-1, 3), points.roll(1, 3)
    down, up = points.roll(-1, 2), points.roll(1, 2)
    normal = F.normalize(torch.linalg.cross(down - up, right - left, dim=1), dim=1)
    around = known * known.roll(1, 3) * known.roll(-1, 3) * known.roll(1, 2) * known.roll(-1, 2)
    around[..., (0, -1)] = 0
    around[..., (0, -1), :] = 0
    position = torch.einsum("nij,njhw->nihw", batch.cameras.cam2world[:, :3, :3], points)
    position = position + batch.cameras.position[:, :, None, None]
    return position * around, normal * around, around


class Augment:
    """The random changes; `generator` on the batches' device makes them repeatable."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, like: Tensor, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform numbers [N,*shape] for N pictures."""
        values = torch.rand(len(like), *shape, generator=self.generator, device=like.device)
        return low + (high - low) * values

    def normal(self, like: Tensor, *shape: int) -> Tensor:
        """Standard normal numbers [N,*shape] for N pictures."""
        return torch.randn(len(like), *shape, generator=self.generator, device=like.device)

    def chance(self, like: Tensor, share: float) -> Tensor:
        """1 for about this share of N pictures, else 0: [N,1,1,1]."""
        return (self.uniform(like, 1, 1, 1) < share).float()

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Sample:
        position, normal, known = surface(batch)
        grid, angle = self.framing(batch.image)
        picture = F.grid_sample(torch.cat([batch.image, batch.alpha], 1), grid, align_corners=False)
        colour, alpha = picture[:, :3], picture[:, 3:]
        small = F.interpolate(grid.permute(0, 3, 1, 2), known.shape[-2:], mode="area").permute(0, 2, 3, 1)
        labels = F.grid_sample(torch.cat([position, normal, known], 1), small, align_corners=False)
        known = (labels[:, 6:] > 0.99).float()
        position, normal = labels[:, :3] * known, F.normalize(labels[:, 3:6], dim=1) * known
        c, s = angle.cos()[:, None, None], angle.sin()[:, None, None]
        # the picture shows A·x of the old one at x, so directions turn by the inverse of A's rotation
        x, y = c * normal[:, 0] + s * normal[:, 1], c * normal[:, 1] - s * normal[:, 0]
        normal = torch.stack([x, y, normal[:, 2]], 1)
        matrix, offset = self.colours(colour)
        background = self.backgrounds(batch.image)
        composed = colour + (1 - alpha) * background
        image = torch.einsum("nij,njhw->nihw", matrix, composed) + offset
        clean = torch.einsum("nij,njhw->nihw", matrix, colour) + offset * alpha
        image = self.occluder(image, background.roll(1, 0))
        image = self.noise(self.blur(image.clamp(-1, 1)))
        return Sample(image.clamp(-1, 1), clean.clamp(-1, 1), alpha, position, normal, known, batch.z)

    def framing(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Sampling grid [N,R,R,2] of a random zoom, turn and shift, and the angle of the turn [N]."""
        moved = 1 - self.chance(image, PLAIN)[:, 0, 0, 0]
        angle = moved * self.normal(image).clamp(-2.5, 2.5) * math.radians(10)
        scale = torch.exp(moved * self.uniform(image, low=-0.5, high=0.2))
        shift = moved[:, None] * self.uniform(image, 2, low=-0.15, high=0.15)
        c, s = scale * angle.cos(), scale * angle.sin()
        theta = torch.stack([torch.stack([c, -s, shift[:, 0]], 1), torch.stack([s, c, shift[:, 1]], 1)], 1)
        return F.affine_grid(theta, list(image.shape), align_corners=False), angle

    def colours(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Colour matrix [N,3,3] and offset [N,3,1,1]: brightness, contrast, saturation, cast."""
        contrast = torch.exp(0.2 * self.normal(image, 1, 1).clamp(-2, 2))
        cast = torch.exp(0.07 * self.normal(image, 3).clamp(-2, 2))
        saturation = self.uniform(image, 1, 1, low=0.3, high=1.4)
        saturation = torch.where(self.uniform(image, 1, 1) < 0.5, torch.ones_like(saturation), saturation)
        eye = torch.eye(3, device=image.device)
        grey = torch.tensor([0.299, 0.587, 0.114], device=image.device).expand(3, 3)
        matrix = torch.diag_embed(cast) @ (saturation * eye + (1 - saturation) * grey) * contrast
        offset = 0.12 * self.normal(image, 1).clamp(-2, 2) + cast - 1
        return matrix, offset[:, :, None, None]

    def backgrounds(self, image: Tensor) -> Tensor:
        """[N,3,R,R] in [-1,1]: plain grey, one colour, soft clouds, or other heads seen from much nearer."""
        size = image.shape[-2:]
        colour = self.uniform(image, 3, 1, 1, low=-1, high=1)
        clouds = colour
        for cells, strength in ((3, 0.7), (9, 0.4), (33, 0.25)):
            level = self.normal(image, 3, cells, cells) * strength * self.uniform(image, 1, 1, 1)
            clouds = clouds + F.interpolate(level, size, mode="bilinear", align_corners=False)
        zoom = self.uniform(image, low=0.15, high=0.6)
        place = self.uniform(image, 2, low=-0.4, high=0.4)
        theta = torch.zeros(len(image), 2, 3, device=image.device)
        theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = zoom, -zoom, place
        others = F.grid_sample(
            image.roll(1, 0), F.affine_grid(theta, list(image.shape), align_corners=False), align_corners=False
        )
        kind = self.uniform(image, 1, 1, 1)
        result = torch.where(kind < PLAIN + 0.15, colour.expand_as(image), clouds)
        result = torch.where(kind > 0.8, others, result)
        return torch.where(kind < PLAIN, torch.zeros_like(image), result).clamp(-1, 1)

    def occluder(self, image: Tensor, texture: Tensor) -> Tensor:
        """A turned rectangle of another texture over every fifth picture."""
        height, width = image.shape[-2:]
        y = torch.linspace(-1, 1, height, device=image.device)[:, None]
        x = torch.linspace(-1, 1, width, device=image.device)
        centre, half = self.uniform(image, 2, 1, 1, low=-1, high=1), self.uniform(image, 2, 1, 1, low=0.05, high=0.35)
        angle = self.uniform(image, 1, 1, low=0, high=math.pi)
        u = (x - centre[:, 0]) * angle.cos() + (y - centre[:, 1]) * angle.sin()
        v = (y - centre[:, 1]) * angle.cos() - (x - centre[:, 0]) * angle.sin()
        inside = ((u.abs() < half[:, 0]) & (v.abs() < half[:, 1])).float()[:, None] * self.chance(image, 0.2)
        return torch.lerp(image, texture, inside)

    def marks(self, image: Tensor, alpha: Tensor) -> Tensor:
        """Ink on the head in half of the pictures: a ring, a disc of stripes or a block of cells, as tattoos, letters
        and paint are. They have no relief, so nothing but the surface's own shading tells of it."""
        size = image.shape[-1]
        axis = torch.linspace(-1, 1, size, device=image.device)
        centre = 0.6 * self.uniform(image, 2, 1, 1, low=-1, high=1)
        turn, radius = self.uniform(image, 1, 1, high=math.pi), self.uniform(image, 1, 1, low=0.05, high=0.25)
        x, y = axis - centre[:, 0], axis[:, None] - centre[:, 1]
        u, v = (x * turn.cos() + y * turn.sin()) / radius, (y * turn.cos() - x * turn.sin()) / radius
        far = (u.square() + v.square()).sqrt()
        waves = self.uniform(image, 1, 1, low=3, high=14)
        ring = ((far - 0.85).abs() < 0.12) | ((far < 0.7) & ((u * waves).sin() > 0.6))
        cells = (self.uniform(image, 1, 6, 12) > 0.5).float()
        place = torch.stack([u, 2.5 * v], -1).clamp(-4, 4)
        block = F.grid_sample(cells, place, mode="nearest", align_corners=False)[:, 0] > 0.5
        shape = torch.where(self.uniform(image, 1, 1) < 0.5, ring, block).float()[:, None]
        ink = self.uniform(image, 3, 1, 1, low=-1, high=0.6)
        opacity = self.uniform(image, 1, 1, 1, low=0.3, high=1.0) * self.chance(image, 0.5)
        return torch.lerp(image, ink.expand_as(image), opacity * shape * alpha)

    def shading(self, image: Tensor) -> Tensor:
        """Light and shade that no surface casts, soft and up to a third, over half of the pictures."""
        field = image.new_zeros(())
        for cells, strength in ((2, 0.25), (4, 0.15)):
            level = strength * self.normal(image, 1, cells, cells)
            field = field + F.interpolate(level, image.shape[-2:], mode="bicubic", align_corners=False)
        factor = torch.exp(field.clamp(-0.5, 0.5) * self.chance(image, 0.5))
        return ((image + 1) * factor - 1).clamp(-1, 1)

    def blur(self, image: Tensor) -> Tensor:
        """Gaussian blur of up to 2.5 pixels at 256² for two fifths of the pictures."""
        most = 2.5 * image.shape[-1] / 256
        sigma = (self.uniform(image, high=most) * self.chance(image, 0.4)[:, 0, 0, 0]).clamp_min(1e-3)
        taps = torch.arange(_TAPS, device=image.device) - _TAPS // 2
        kernel = torch.exp(-0.5 * (taps / sigma[:, None]) ** 2)
        kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(image.shape[1], 0)
        flat = image.reshape(1, -1, *image.shape[-2:])
        flat = F.pad(flat, (_TAPS // 2,) * 4, mode="replicate")
        flat = F.conv2d(flat, kernel[:, None, None, :], groups=len(kernel))
        return F.conv2d(flat, kernel[:, None, :, None], groups=len(kernel)).reshape(image.shape)

    def noise(self, image: Tensor) -> Tensor:
        """Sensor noise of up to 0.12 (of a range of 2) in half of the pictures."""
        strength = self.uniform(image, 1, 1, 1, high=0.12) * self.chance(image, 0.5)
        return image + strength * self.normal(image, *image.shape[1:])
