"""00 prepare: an aligned photo becomes the picture that the generator is asked for: foreground and camera.

The photo must already be square and aligned the way the generator's training images are. A missing mask is found with
GrabCut (Rother et al. 2004), a missing camera by comparing the photo with the mean head from a grid of directions and
refining the best.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from pmv.camera import Camera
from pmv.errors import InputError
from pmv.images import resize
from stages.context import Context

_WEAK_EDGE = 0.05
"""Brightness step over two pixels, image units [-1,1], below which an edge fades into noise."""


@dataclass(frozen=True)
class PrepareInputs:
    """photo [1,3,H,W]; photo_mask [1,1,H,W] or None; photo_camera: batch of 1 or None."""

    photo: Tensor
    photo_mask: Tensor | None
    photo_camera: Camera | None


@dataclass(frozen=True)
class PrepareConfig:
    """Knobs of the prepare stage.

    Attributes:
        resolution: side of the picture in pixels; None = the generator's.
        composite: "auto" puts the foreground on the generator's own background where it has one; "never" keeps the
            photo's.
        mask_iterations: GrabCut iterations, where no mask is given.
        mask_softness: width of the found mask's soft edge, as a fraction of the image width.
        search_yaw, search_pitch: degrees to each side of the front that the camera search covers.
        search_yaw_steps, search_pitch_steps: grid points of that search.
        search_keep: how many of the grid's best are refined.
        refine_steps: Adam steps of each refinement; 0 keeps the grid's best.
        refine_rate: Adam's learning rate, in degrees.
        search_resolution: side in pixels of the pictures that are compared.
        silhouette_weight, edge_weight: of the terms of the comparison, see `view_score`.
        shift: how far the photo's face may lie from the mean head's, as a fraction of the image width.
        prior_weight: of the expectation that aligned portraits look at the camera.
        prior_yaw, prior_pitch: degrees, standard deviations of that expectation.
    """

    resolution: int | None = None
    composite: Literal["auto", "never"] = "auto"
    mask_iterations: int = 5
    mask_softness: float = 0.006
    search_yaw: float = 60.0
    search_pitch: float = 15.0
    search_yaw_steps: int = 13
    search_pitch_steps: int = 3
    search_keep: int = 2
    refine_steps: int = 15
    refine_rate: float = 1.0
    search_resolution: int = 48
    silhouette_weight: float = 0.5
    edge_weight: float = 1.0
    shift: float = 0.0625
    prior_weight: float = 0.2
    prior_yaw: float = 30.0
    prior_pitch: float = 12.0


@dataclass(frozen=True)
class PrepareOutputs:
    """original [1,3,S,S], without edits; foreground [1,1,S,S]; initial_camera: batch of 1."""

    original: Tensor
    foreground: Tensor
    initial_camera: Camera


def run(inputs: PrepareInputs, config: PrepareConfig, context: Context) -> PrepareOutputs:
    """See the dataclasses for shapes.

    Raises:
        InputError: the photo is not square; the mask does not have its shape; no foreground was found.
    """
    spec = context.generator.spec
    height, width = inputs.photo.shape[-2:]
    if height != width:
        raise InputError(
            f"the photo is {width}×{height} pixels; crop it to a square, aligned like the generator's training images"
        )
    size = config.resolution or spec.resolution
    photo = resize(inputs.photo, size)
    if inputs.photo_mask is None:
        foreground = find_foreground(photo, config.mask_iterations, config.mask_softness)
    else:
        _check_shape(inputs.photo_mask, "mask", (height, width))
        foreground = resize(inputs.photo_mask, size).clamp(0, 1)
    if foreground.mean() < 0.02:
        raise InputError("no foreground was found in the photo; give a --mask with the head white on black")
    original = photo
    if spec.has_alpha and config.composite == "auto":
        original = foreground * photo + (1 - foreground) * spec.background
    camera = inputs.photo_camera
    if camera is None:
        camera = find_camera(original, foreground, config, context)
    outputs = PrepareOutputs(original, foreground, camera)
    yaw, pitch = camera.yaw_pitch(spec.pivot)
    context.record(yaw_degrees=float(yaw.rad2deg()), pitch_degrees=float(pitch.rad2deg()))
    context.preview("original", original)
    context.preview("foreground", foreground)
    context.preview(
        "foreground_on_photo", torch.lerp(photo.new_tensor([-1.0, 1.0, -1.0])[:, None, None], photo, foreground)
    )
    with torch.no_grad():
        w = context.generator.mean_w()
        mean_head = context.generator.render(context.generator.planes(w), w, camera).image
    context.preview("camera_mean_head", (resize(mean_head, size).clamp(-1, 1) + original) / 2)
    return outputs


def _check_shape(image: Tensor, what: str, *allowed: tuple[int, int]) -> None:
    shape = tuple(image.shape[-2:])
    if shape not in allowed:
        sizes = " or ".join(f"{w}×{h}" for h, w in dict.fromkeys(allowed))
        raise InputError(f"the {what} is {shape[1]}×{shape[0]} pixels; make it {sizes}, the same frame as the photo")


# --- foreground


def find_foreground(photo: Tensor, iterations: int, softness: float) -> Tensor:
    """The head and shoulders of an aligned portrait by GrabCut, started from where an aligned head lies.

    Args:
        photo: [1,3,S,S].
        iterations: of GrabCut.
        softness: width of the soft edge, as a fraction of the image width.

    Returns:
        [1,1,S,S] in [0,1]: one piece, without holes. Deterministic.
    """
    side = min(photo.shape[-1], 512)
    small = resize(photo, side)
    pixels = ((small[0].permute(1, 2, 0).cpu().numpy() + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
    y, x = np.mgrid[0:side, 0:side] / side
    labels = np.full((side, side), cv2.GC_PR_BGD, np.uint8)
    labels[_ellipse(x, y, 0.5, 0.45, 0.40, 0.50)] = cv2.GC_PR_FGD
    labels[(y > 0.8) & (np.abs(x - 0.5) < 0.3)] = cv2.GC_PR_FGD  # neck and shoulders
    # the sure part must reach into the hair, whose colour the face does not tell
    labels[_ellipse(x, y, 0.5, 0.46, 0.22, 0.36)] = cv2.GC_FGD
    labels[(y < 0.5) & ~_ellipse(x, y, 0.5, 0.5, 0.48, 0.60)] = cv2.GC_BGD
    labels[((x < 0.03) | (x > 0.97)) & (y < 0.6)] = cv2.GC_BGD
    cv2.setRNGSeed(0)
    cv2.grabCut(
        np.ascontiguousarray(pixels[:, :, ::-1]),
        labels,
        (0, 0, side, side),  # not read: the labels say it
        np.zeros((1, 65)),
        np.zeros((1, 65)),
        iterations,
        cv2.GC_INIT_WITH_MASK,
    )
    mask = clean_mask((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.float32)
    soft = ndimage.gaussian_filter(mask, softness * side, mode="nearest")
    return resize(torch.from_numpy(soft)[None, None].to(photo.device), photo.shape[-1])


def _ellipse(x: np.ndarray, y: np.ndarray, cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1


def clean_mask(mask: np.ndarray) -> np.ndarray:
    """The largest piece of a boolean mask [H,W] after removing hair-thin bridges, its holes filled. Empty stays
    empty.
    """
    radius = max(1, mask.shape[0] // 170)
    disc = np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1]) <= radius
    opened = ndimage.binary_opening(mask, disc)
    pieces = np.zeros(mask.shape, np.int32)
    if ndimage.label(opened, output=pieces) == 0:
        return opened
    largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    return np.asarray(ndimage.binary_fill_holes(pieces == largest))


# --- camera


def find_camera(image: Tensor, foreground: Tensor, config: PrepareConfig, context: Context) -> Camera:
    """The direction from which the mean head looks most like the photo; radius, pivot and focal length are the
    generator's.

    Args:
        image: [1,3,S,S]; foreground: [1,1,S,S].

    Returns:
        Camera, batch of 1, on the generator's orbit, with a roll.
    """
    generator, spec = context.generator, context.generator.spec
    with torch.no_grad():
        w = generator.mean_w()
        planes = generator.planes(w)

    side = min(config.search_resolution, spec.neural_resolution, image.shape[-1])
    target, mask = resize(image, side), resize(foreground, side)

    def score(angles: Tensor) -> Tensor:
        yaw, pitch, roll = angles.unbind(-1)
        camera = Camera.orbit(yaw, pitch, spec.radius, spec.pivot, spec.focal, roll)
        out = generator.render(planes, w, camera, side)
        value = view_score(out.raw, out.alpha if spec.has_alpha else None, target, mask, config)
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


def view_score(view: Tensor, alpha: Tensor | None, target: Tensor, mask: Tensor, config: PrepareConfig) -> Tensor:
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
