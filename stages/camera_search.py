"""The camera of an aligned photo in which no landmarks can be found: by comparison with the generator's mean head."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.generators.base import Generator
from pmv.geometry.camera import Camera
from pmv.pictures.images import resize
from pmv.pipeline.context import Context
from pmv.pipeline.ranges import Range, Tilt, Turn, Weight

_WEAK_EDGE = 0.05
"""Brightness step over two pixels, image units [-1,1], below which an edge fades into noise."""


@dataclass(frozen=True)
class CameraSearchConfig:
    """Knobs of the search.

    Attributes:
        search_yaw, search_pitch: degrees to each side of the front that the camera search covers.
        search_yaw_steps, search_pitch_steps: grid points of that search.
        search_keep: how many of the grid's best are refined.
        refine_steps: Adam steps of each refinement; 0 keeps the grid's best.
        refine_rate: Adam's learning rate, in degrees.
        search_resolution: side in pixels of the pictures that are compared.
        silhouette_weight, edge_weight: weights of the terms of the comparison: silhouette overlap, edges of the face.
        shift: how far the photo's face may lie from the mean head's, as a fraction of the image width.
        prior_weight: weight of the expectation that aligned portraits look at the camera.
        prior_yaw, prior_pitch: degrees, standard deviations of that expectation.
    """

    search_yaw: Turn = 60.0
    search_pitch: Tilt = 15.0
    search_yaw_steps: Annotated[int, Range(1, 360)] = 13
    search_pitch_steps: Annotated[int, Range(1, 180)] = 3
    search_keep: Annotated[int, Range(1, 100)] = 2
    refine_steps: Annotated[int, Range(0, 1000)] = 15
    refine_rate: Annotated[float, Range(0, 90)] = 1.0
    search_resolution: Annotated[int, Range(8, 1024)] = 48
    silhouette_weight: Weight = 0.5
    edge_weight: Weight = 1.0
    shift: Annotated[float, Range(0, 0.25)] = 0.0625
    prior_weight: Weight = 0.2
    prior_yaw: Annotated[float, Range(0, 1000, above=True)] = 30.0
    prior_pitch: Annotated[float, Range(0, 1000, above=True)] = 12.0


def find_camera(image: Tensor, foreground: Tensor, config: CameraSearchConfig, context: Context) -> Camera:
    """The direction from which the mean head looks most like the photo; radius, pivot and focal length are the
    generator's.

    Args:
        image: [1,3,S,S]; foreground: [1,1,S,S].

    Returns:
        Camera, batch of 1, on the generator's orbit, with a roll, as a label has it: before the generator's own shift.
    """
    generator, spec = context.generator, context.generator.spec
    with torch.no_grad():
        w = generator.mean_w()
        planes = generator.planes(w)

    compare = comparison(image, foreground, w, planes, config, generator)

    def score(angles: Tensor) -> Tensor:
        yaw, pitch, roll = angles.unbind(-1)
        value = compare(Camera.orbit(yaw, pitch, spec.radius, spec.pivot, spec.focal, roll))
        unlikely = (yaw.rad2deg() / config.prior_yaw).square() + (pitch.rad2deg() / config.prior_pitch).square()
        return value + config.prior_weight * unlikely / 2

    def grid(extent: float, steps: int) -> Tensor:
        return torch.linspace(-extent, extent, steps).deg2rad() if steps > 1 else torch.zeros(1)

    yaws, pitches = (
        grid(config.search_yaw, config.search_yaw_steps),
        grid(config.search_pitch, config.search_pitch_steps),
    )
    pairs = torch.cartesian_prod(yaws, pitches)
    starts = F.pad(pairs, (0, 1)).to(image.device)
    with context.progress(len(starts) + config.search_keep * config.refine_steps, "camera") as bar:
        scores = []
        with torch.no_grad():
            for some in starts.split(8):
                scores.append(score(some))
                bar.update(len(some))
        scores = torch.cat(scores)
        best, best_score = starts[scores.argmin()], scores.min().item()
        for start in starts[scores.argsort()[: config.search_keep]]:
            angles = start[None].clone().requires_grad_(True)
            optimizer = torch.optim.Adam([angles], lr=float(np.deg2rad(config.refine_rate)))
            for step in range(config.refine_steps + 1):
                value = score(angles)
                if value.item() < best_score:
                    best, best_score = angles.detach()[0].clone(), value.item()
                if step == config.refine_steps:
                    break
                optimizer.zero_grad()
                value.sum().backward()
                optimizer.step()
                bar.update(1)
    context.record(camera_score=best_score)
    yaw, pitch, roll = best.unbind()
    return Camera.orbit(yaw, pitch, spec.radius, spec.pivot, spec.focal, roll)


def comparison(
    image: Tensor, foreground: Tensor, w: Tensor, planes: Tensor, config: CameraSearchConfig, generator: Generator
) -> Callable[[Camera], Tensor]:
    """A function from cameras, N as labels have them, to how unlike the photo the latent's views from there are: [N],
    see `view_score`.

    Args:
        image: [1,3,S,S]; foreground: [1,1,S,S].
        w: [1,num_ws,w_dim], the mean head's latent; planes: of it.
    """
    spec = generator.spec
    side = min(config.search_resolution, spec.neural_resolution, image.shape[-1])
    target, mask = resize(image, side), resize(foreground, side)

    def score(labels: Camera) -> Tensor:
        out = generator.render(planes, w, generator.photo_camera(labels), side)
        return view_score(out.raw, out.alpha if spec.has_alpha else None, target, mask, config)

    return score


def view_score(view: Tensor, alpha: Tensor | None, target: Tensor, mask: Tensor, config: CameraSearchConfig) -> Tensor:
    """How unlike a photo a view of the mean head is; 0 = equal. Differentiable.

    Two terms: 1 − IoU of the silhouettes (where the generator has an alpha), and 1 − correlation of the edges of eyes,
    nose and mouth. Edges count by direction more than by strength, because skin and light of the mean head are not the
    photo's; of all shifts up to `config.shift` the best counts, because features lie elsewhere in every face.

    Args:
        view [N,3,r,r], alpha [N,1,r,r] or None; target [1,3,r,r], mask [1,1,r,r].

    Returns:
        [N].
    """
    total = view.new_zeros(len(view))
    if alpha is not None:
        shared = torch.minimum(alpha, mask).sum((1, 2, 3))
        either = torch.maximum(alpha, mask).sum((1, 2, 3))
        total = config.silhouette_weight * (1 - shared / either.clamp_min(1e-6))
    side = view.shape[-1]
    x = torch.linspace(-0.5, 0.5, side, device=view.device)
    # the face carries the direction; hair and shoulders differ between people
    face = mask * torch.exp(-(x.square()[None, :] + (x - 0.05).square()[:, None]) / (2 * 0.15**2))
    edges, wanted = _edges(view), _edges(target)
    reach = round(config.shift * side)
    padded = F.pad(edges, (reach,) * 4, mode="replicate")
    shifted = (padded[..., i : i + side, j : j + side] for i in range(2 * reach + 1) for j in range(2 * reach + 1))
    likeness = torch.stack([_correlation(edge, wanted, face) for edge in shifted]).amax(0)
    return total + config.edge_weight * (1 - likeness)


def _edges(image: Tensor) -> Tensor:
    """Gradients [N,2,r,r] of the slightly blurred brightness, of length < 1: strong ones are all alike."""
    blurred = F.avg_pool2d(image.mean(1, keepdim=True), 3, 1, 1, count_include_pad=False)
    padded = F.pad(blurred, (1, 1, 1, 1), mode="replicate")
    dx = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    dy = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    return torch.cat([dx, dy], 1) / (dx.square() + dy.square() + _WEAK_EDGE**2).sqrt()


def _correlation(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Cosine of two fields [N,C,r,r] under a weight [1,1,r,r]: [N]."""
    norms = (a.square() * weight).sum((1, 2, 3)) * (b.square() * weight).sum((1, 2, 3))
    return (a * b * weight).sum((1, 2, 3)) / norms.clamp_min(1e-12).sqrt()
