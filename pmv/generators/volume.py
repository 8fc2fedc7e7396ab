"""Tri-planes and the importance-sampled ray marcher of EG3D (Chan et al. 2022, arXiv:2112.07945 §4, supplement §2).

Everything here is stateless: tensors in, tensors out. Along a ray `t` is the *ray length* (unit directions), as the
official weights expect; `pmv/generators/eg3d.py` turns lengths into z-depth at the generator's door.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.generators.base import PLANE_AXES, Field


def sample_planes(planes: Tensor, points: Tensor, box: float, convention: str) -> Tensor:
    """Mean over the planes of their linearly interpolated features; zero outside the box.

    Args:
        planes: [B,K,C,H,W], or a tri-grid [B,K,C,D,H,W]: D layers of each plane along its normal (PanoHead,
            arXiv:2303.13071 §4.2), spread over the box like texels. A tri-grid of one layer fades towards the box's
            faces, so it is not the same as planes.
        points: [B,P,3] world.
        box: side of the cube that the planes span.
        convention: a key of `PLANE_AXES`.

    Returns: [B,P,C].
    """
    batch, count, channels, *sides = planes.shape
    # one axis at a time: a tensor of indices would be a host-to-device copy, which stalls a GPU
    x = (points * (2.0 / box)).unbind(-1)
    # columns, rows and, of a tri-grid, layers
    axes = [(u, v, 3 - u - v)[: len(sides)] for u, v in PLANE_AXES[convention]]
    places = torch.stack([torch.stack([x[axis] for axis in plane], -1) for plane in axes], 1)  # [B,K,P,2 or 3]
    if torch.compiler.is_compiling() and len(sides) == 2:
        return _gathered(planes, places)
    sampled = F.grid_sample(
        planes.reshape(batch * count, channels, *sides),
        places.reshape(batch * count, *[1] * (len(sides) - 1), -1, len(sides)),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    return sampled.reshape(batch, count, channels, -1).mean(1).transpose(1, 2)


def _gathered(planes: Tensor, places: Tensor) -> Tensor:
    """Planes [B,K,C,H,W] at places [B,K,P,2] in [-1,1], as grid_sample takes them → [B,P,C], their mean over K.

    For compiled code: the channels of a texel lie side by side, so that whole texels are read, and in the backward
    pass added to (grid_sample's own gradient scatters every channel on its own).
    """
    batch, count, channels, height, width = planes.shape
    texels = planes.permute(0, 1, 3, 4, 2).reshape(-1, channels)
    first = torch.arange(batch * count, device=planes.device).reshape(batch, count, 1) * (height * width)
    column, row = (places[..., 0] + 1) * (width / 2) - 0.5, (places[..., 1] + 1) * (height / 2) - 0.5
    left, top = column.floor(), row.floor()
    weights, indices = [], []
    for x, y in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        weights.append((1 - (column - x).abs()) * (1 - (row - y).abs()) * inside)
        indices.append((y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).long() + first)
    flat = [[part[:, k] for k in range(count) for part in parts] for parts in (weights, indices)]
    return _WeightedRows.apply(texels, *flat[0], *flat[1]) / count


class _WeightedRows(torch.autograd.Function):
    """Rows [T,C], N weights [B,P] and N indices [B,P] → [B,P,C], the weighted sum of N rows a point.

    N separate gathers, which a compiler makes one pass of, but one scatter in the backward pass: each would begin with
    zeros of the size of all rows.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, *parts: Tensor) -> Tensor:
        weights, indices = parts[: len(parts) // 2], parts[len(parts) // 2 :]
        ctx.count = len(rows)
        ctx.save_for_backward(*parts)
        total = rows[indices[0]] * weights[0][..., None]
        for index, weight in zip(indices[1:], weights[1:], strict=True):
            total = total + rows[index] * weight[..., None]
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        parts, gradient = ctx.saved_tensors, gradients[0]
        weight, index = (torch.stack(x, -1) for x in (parts[: len(parts) // 2], parts[len(parts) // 2 :]))
        nothing = gradient.new_zeros(ctx.count, gradient.shape[-1])
        rows = nothing.index_put((index,), gradient[:, :, None] * weight[..., None], accumulate=True)
        return (rows, *[None] * len(parts))


def box_limits(origins: Tensor, directions: Tensor, box: float) -> tuple[Tensor, Tensor, Tensor]:
    """Ray lengths where rays [...,3] enter and leave the cube of side `box` at the origin, and whether they hit it.

    The slab test (Kay & Kajiya 1986). A ray that misses gets the limits of an arbitrary short stretch, and False.
    """
    tiny = torch.full_like(directions, 1e-9)
    inverse = 1.0 / torch.where(directions.abs() < 1e-9, tiny, directions)
    first, second = (-box / 2 - origins) * inverse, (box / 2 - origins) * inverse
    near = torch.minimum(first, second).amax(-1)
    far = torch.maximum(first, second).amin(-1)
    hit = far > near.clamp_min(0.0)
    middle = (near + far) / 2
    near = torch.where(hit, near.clamp_min(0.0), middle)
    far = torch.where(hit, far, middle + 1e-3)
    return near, far, hit


@dataclass(frozen=True)
class March:
    """Result of marching R rays: features [B,R,C], weighted sums of the field's own, with nothing behind; depth [B,R,1]
    (ray length), alpha [B,R,1]."""

    features: Tensor
    depth: Tensor
    alpha: Tensor


def composite_weights(t: Tensor, density: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the S−1 intervals between S sorted samples [B,R,S], and their mid-points (Max 1995; EG3D's midpoint
    rule).

    Density is the mean of both ends, biased by −1 before the softplus, as EG3D does it to start with clear space.
    """
    thickness = F.softplus((density[..., :-1] + density[..., 1:]) / 2 - 1.0) * (t[..., 1:] - t[..., :-1])
    # the product of what all intervals before let through, as a sum of exponents: its gradient is far cheaper
    through = torch.exp(-F.pad(thickness, (1, 0))[..., :-1].cumsum(-1))
    # not expm1: official depths of rays that hit next to nothing hang on what rounding leaves of this
    alpha = 1.0 - torch.exp(-thickness)
    return alpha * through, (t[..., :-1] + t[..., 1:]) / 2


Jitter = torch.Generator | tuple[Tensor, Tensor] | None
"""Random sampling along rays: a generator, or uniform numbers in [0,1) drawn before, [B,R,coarse] and [B·R,fine] (for
compiled code, which takes no generator); None is deterministic."""


def _uniform(shape: torch.Size | tuple[int, ...], source: torch.Generator | Tensor) -> Tensor:
    if isinstance(source, Tensor):
        return source
    return torch.rand(shape, generator=source, device=source.device)


def stratified(near: Tensor, far: Tensor, samples: int, jitter: torch.Generator | Tensor | None) -> Tensor:
    """[B,R] limits → ray lengths [B,R,samples], one in each bin: at its middle, or anywhere in it with `jitter`.

    Bins are (far − near)/(samples − 1) wide and start at equidistant points that include both ends (EG3D's scheme).
    """
    steps = torch.linspace(0.0, 1.0, samples, device=near.device)
    t = near[..., None] + steps * (far - near)[..., None]
    if jitter is None:
        offset = torch.full_like(t, 0.5)
    else:
        offset = _uniform(t.shape, jitter).to(t)
    return t + offset * ((far - near) / (samples - 1))[..., None]


@torch.no_grad()
def importance(t: Tensor, weights: Tensor, samples: int, jitter: torch.Generator | Tensor | None) -> Tensor:
    """Ray lengths [B,R,samples] drawn from the coarse weights by inverting their cumulative distribution.

    Args:
        t: [B,R,S] sorted coarse samples.
        weights: [B,R,S−1] of the intervals between them; they are widened by a running maximum and mean of two and
            floored by 0.01 so that thin surfaces are not missed (mip-NeRF's blurpool, arXiv:2103.13415 §3).
        jitter: None takes the quantiles linspace(0,1,samples).
    """
    shape = t.shape[:-1]
    flat = weights.reshape(-1, 1, weights.shape[-1])
    widened = F.avg_pool1d(F.max_pool1d(flat, 2, 1, padding=1), 2, 1)[:, 0] + 0.01
    middles = ((t[..., :-1] + t[..., 1:]) / 2).reshape(-1, t.shape[-1] - 1)
    density = widened[:, 1:-1] + 1e-5
    bins = density.shape[-1]
    cumulative = F.pad((density / density.sum(-1, keepdim=True)).cumsum(-1), (1, 0))
    if jitter is None:
        u = torch.linspace(0.0, 1.0, samples, device=t.device).expand(len(cumulative), samples).contiguous()
    else:
        u = _uniform((len(cumulative), samples), jitter).to(t)
    right = torch.searchsorted(cumulative, u, right=True)
    low, high = (right - 1).clamp_min(0), right.clamp_max(bins)
    c0, c1 = cumulative.gather(1, low), cumulative.gather(1, high)
    t0, t1 = middles.gather(1, low), middles.gather(1, high)
    width = c1 - c0
    fraction = (u - c0) / torch.where(width < 1e-5, torch.ones_like(width), width)
    return (t0 + fraction * (t1 - t0)).reshape(*shape, samples)


def _composite(weights: Tensor, features_of: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Features [B,R,C] and alpha [B,R,1] from the weights [B,R,S−1] of the intervals between sorted samples.

    An interval's features are the mean of its ends', so a sample counts half of each interval beside it; `features_of`
    sums the features of all samples with those sample weights [B,R,S].
    """
    return features_of(F.pad(weights, (1, 0)) / 2 + F.pad(weights, (0, 1)) / 2), weights.sum(-1, keepdim=True)


def expected_depth(weights: Tensor, middles: Tensor, alpha: Tensor, t: Tensor) -> Tensor:
    """[B,R,1] mean ray length under the weights. A ray that hits nothing has no depth: it gets the far end, no
    gradient."""
    anything = alpha > 1e-8
    depth = (weights * middles).sum(-1, keepdim=True) / torch.where(anything, alpha, torch.ones_like(alpha))
    return torch.where(anything, depth, t.amax()).clamp(t.amin(), t.amax())


def march(
    field: Field,
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    coarse: int,
    fine: int,
    jitter: Jitter,
    hit: Tensor | None = None,
    sparse: bool = True,
    keep: int | None = None,
    skip: bool = False,
) -> March:
    """Marches rays through a field with `coarse` stratified and `fine` importance samples a ray.

    Args:
        origins, directions: [B,R,3], directions of unit length.
        near, far: [B,R] ray lengths.
        hit: [B,R] bool; rays that miss the volume get weight zero. None: all hit.
        sparse: evaluate features, and gradients, only at samples that can matter; see `_march_sparse`.
        keep: at most at so many samples a ray instead; see `_march_kept`.
        skip: where `sparse`, evaluate no fine samples of rays whose coarse ones are all perfectly clear.
    """
    first, second = jitter if isinstance(jitter, tuple) else (jitter, jitter)
    t = stratified(near, far, coarse, first)
    if keep is not None:
        return _march_kept(field, origins, directions, t, fine, second, hit, keep)
    if sparse:
        return _march_sparse(field, origins, directions, t, fine, second, hit, skip)
    batch, rays, _ = origins.shape

    def evaluate(t: Tensor) -> tuple[Tensor, Tensor]:
        points = origins[:, :, None] + t[..., None] * directions[:, :, None]
        density, features = field.density(points.reshape(batch, -1, 3), True)
        return density.reshape(batch, rays, -1), features.reshape(batch, rays, t.shape[-1], -1)

    density, features = evaluate(t)
    parts = [features]
    order = None
    if fine:
        t_fine = importance(t, composite_weights(t, density)[0], fine, second)
        density_fine, features_fine = evaluate(t_fine)
        parts.append(features_fine)
        t, order = torch.sort(torch.cat([t, t_fine], -1), dim=-1)
        density = torch.cat([density, density_fine], -1).gather(-1, order)
    weights, middles = composite_weights(t, density)
    if hit is not None:
        weights = weights * hit[..., None]

    def features_of(half: Tensor) -> Tensor:
        # back to the unsorted order, which spares sorting the wide feature vectors
        if order is not None:
            half = torch.zeros_like(half).scatter(-1, order, half)
        halves = half.split([p.shape[2] for p in parts], -1)
        return torch.stack([torch.einsum("brs,brsc->brc", h, p) for h, p in zip(halves, parts, strict=True)]).sum(0)

    summed, alpha = _composite(weights, features_of)
    return March(summed, expected_depth(weights, middles, alpha, t), alpha)


BLOCKED = 1e-5
CLEAR = 1e-6
_OUTSIDE = 1e3  # world coordinate that is in no box


@torch.no_grad()
def _densities(
    field: Field,
    origins: Tensor,
    directions: Tensor,
    t: Tensor,
    fine: int,
    jitter: torch.Generator | Tensor | None,
    skip: bool = False,
) -> tuple[Tensor, Tensor]:
    """Coarse samples [B,R,coarse] → all samples [B,R,S], sorted, and their densities, without gradients.

    With `skip`, the fine samples of a ray whose coarse ones are all clear have the highest density of these.
    """
    batch = len(origins)

    def clear_pass(t: Tensor, rays: slice | Tensor = slice(None)) -> Tensor:
        points = origins[:, rays, None] + t[..., None] * directions[:, rays, None]
        return field.density(points.reshape(batch, -1, 3), False)[0].reshape(t.shape)

    density = clear_pass(t)
    if fine:
        t_fine = importance(t, composite_weights(t, density)[0], fine, jitter)
        if skip and batch == 1:
            # a sample may be in something though between it and its neighbours all is clear
            most = density.amax(-1, keepdim=True)
            found = (F.softplus(most - 1.0)[..., 0] * (t[..., -1] - t[..., 0]) > CLEAR)[0].nonzero()[:, 0]
            density_fine = most.repeat(1, 1, fine)
            density_fine[:, found] = clear_pass(t_fine[:, found], found)
        else:
            density_fine = clear_pass(t_fine)
        t, order = torch.sort(torch.cat([t, t_fine], -1), dim=-1)
        density = torch.cat([density, density_fine], -1).gather(-1, order)
    return t, density


def _march_kept(
    field: Field,
    origins: Tensor,
    directions: Tensor,
    t: Tensor,
    fine: int,
    jitter: torch.Generator | Tensor | None,
    hit: Tensor | None,
    keep: int,
) -> March:
    """As `_march_sparse`, but with the `keep` samples of each ray that weigh most: shapes that do not depend on the
    scene, for a compiler and a GPU, which need not wait for a count. For training: where a ray has more samples that
    matter, its features lack the least of them.
    """
    batch = len(origins)
    t, density = _densities(field, origins, directions, t, fine, jitter)
    with torch.no_grad():
        weights, _ = composite_weights(t, density)
        if hit is not None:
            weights = weights * hit[..., None]
        influence = F.pad(weights, (1, 0)) + F.pad(weights, (0, 1))
        kept = influence.sort(-1, descending=True).indices[..., :keep]  # sorting beats topk on rows as short as these
    points = origins[:, :, None] + t.gather(-1, kept)[..., None] * directions[:, :, None]
    kept_density, kept_features = field.density(points.reshape(batch, -1, 3), True)
    density = density.scatter(-1, kept, kept_density.reshape(kept.shape))
    weights, middles = composite_weights(t, density)
    if hit is not None:
        weights = weights * hit[..., None]

    def features_of(half: Tensor) -> Tensor:
        return (half.gather(-1, kept)[..., None] * kept_features.reshape(*kept.shape, -1)).sum(2)

    summed, alpha = _composite(weights, features_of)
    return March(summed, expected_depth(weights, middles, alpha, t), alpha)


def _march_sparse(
    field: Field,
    origins: Tensor,
    directions: Tensor,
    t: Tensor,
    fine: int,
    jitter: torch.Generator | Tensor | None,
    hit: Tensor | None,
    skip: bool,
) -> March:
    """The same result as the dense march in less time and memory: most samples lie in clear space or behind the
    surface.

    A first pass without gradients finds the density of every sample. Only samples beside an interval that some light
    reaches (transmittance > 1e-5) and that is not perfectly clear (extinction·length > 1e-6) are then evaluated with
    features and gradients; the others keep their density as a constant, so depth and alpha are exact and features lack
    less than 1e-4 of their largest value.
    """
    batch, rays, _ = origins.shape
    t, density = _densities(field, origins, directions, t, fine, jitter, skip)
    with torch.no_grad():
        thickness = F.softplus((density[..., :-1] + density[..., 1:]) / 2 - 1.0) * (t[..., 1:] - t[..., :-1])
        before = torch.exp(-F.pad(thickness, (1, 0))[..., :-1].cumsum(-1))
        matters = (before > BLOCKED) & (thickness > CLEAR)
        if hit is not None:
            matters &= hit[..., None]
        matters = F.pad(matters, (1, 0)) | F.pad(matters, (0, 1))
        row = _rows(matters) if batch > 1 else None
        ray, sample = matters.flatten(0, 1).nonzero(as_tuple=True)  # rays of all items in one list
    t_kept = t.flatten(0, 1)[ray, sample, None]
    points = origins.flatten(0, 1)[ray] + t_kept * directions.flatten(0, 1)[ray]
    if row is None:
        kept_density, kept_features = (x[0] for x in field.density(points[None], True))
    else:
        kept_density, kept_features = _density_of_items(field, points, ray // rays, row, batch)
    density = density.flatten(0, 1).index_put((ray, sample), kept_density[:, 0]).reshape(density.shape)
    weights, middles = composite_weights(t, density)
    if hit is not None:
        weights = weights * hit[..., None]

    def features_of(half: Tensor) -> Tensor:
        weighted = kept_features * half.flatten(0, 1)[ray, sample, None]
        summed = weighted.new_zeros(batch * rays, weighted.shape[1]).index_add(0, ray, weighted)
        return summed.reshape(batch, rays, -1)

    summed, alpha = _composite(weights, features_of)
    return March(summed, expected_depth(weights, middles, alpha, t), alpha)


def _rows(chosen: Tensor) -> Tensor:
    """[K]: the place of each true entry of chosen [B,…], in the order of `nonzero`, among those of its own item."""
    counts = chosen.flatten(1).sum(1)
    starts = counts.cumsum(0) - counts
    return torch.arange(int(counts.sum()), device=chosen.device) - starts.repeat_interleave(counts)


def _density_of_items(field: Field, points: Tensor, item: Tensor, row: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Density [K,1] and features [K,C] at points [K,3], of which point k lies in the volume of batch item `item[k]`.

    A field takes as many points of every item, so the shorter lists are filled up with points outside the box.
    """
    longest = int(row.max()) + 1 if len(row) else 0
    padded = points.new_full((batch, longest, 3), _OUTSIDE).index_put((item, row), points)
    density, features = field.density(padded, True)
    return density[item, row], features[item, row]
