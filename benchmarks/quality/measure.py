"""All figures of one inversion against its truth."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from benchmarks.quality.align import best_shift, shifted
from benchmarks.quality.metrics import ALIGNED, METRICS, Pair
from benchmarks.quality.parts import Parts, share
from benchmarks.quality.surface import depth_errors, iou, normal_error, normals_of
from benchmarks.quality.truth import Truth
from benchmarks.quality.views import View
from pmv.geometry.camera import Camera
from pmv.geometry.scene import edge_step, resize_depth

LEAST = 0.004
"""Part of the picture that a mask must cover at least for figures of it to be told."""


@dataclass(frozen=True)
class Drawn:
    """What an inversion draws from the true views' cameras, tied to its world.

    Attributes:
        image: [V,3,S,S] in [-1,1]. alpha, depth: [V,1,D,D], None where there is nothing but pictures (the ceilings).
    """

    image: Tensor
    alpha: Tensor | None = None
    depth: Tensor | None = None


Figures = dict[str, dict[str, Any]]
"""View's name → figures by name; those of a part under its name: {"visible": {"psnr": …}, "iou": …}."""


def measure(drawn: Drawn, truth: Truth, parts: Parts, views: tuple[View, ...], background: float) -> Figures:
    """Figures of all views; see `METRICS` and `benchmarks.quality.surface`.

    Args:
        background: in [-1,1], what lies behind `drawn`.
    """
    true_images = truth.over(background)
    figures: Figures = {}
    for i, view in enumerate(views):
        one = slice(i, i + 1)
        masks = {name: mask[one] for name, mask in parts.named().items() if share(mask[one]) >= LEAST}
        image, true = drawn.image[one].clamp(-1, 1), true_images[one]
        camera = truth.cameras[i]
        whole = Pair(image, true, truth.alpha[one], camera)
        row: dict[str, Any] = {m.name: m.measure(whole) for m in METRICS if m.whole}
        row |= {name: _pictures(Pair(image, true, mask, camera)) for name, mask in masks.items()}
        if drawn.alpha is not None and drawn.depth is not None:
            row["iou"] = iou(_resized(drawn.alpha[one], image.shape[-1]), truth.alpha[one])
            surface = _surface(drawn.depth[one], drawn.alpha[one], truth, i, masks)
            for name, values in surface.items():
                row[name] |= values
        figures[view.name] = _rounded(row)
    return figures


def _pictures(pair: Pair) -> dict[str, float | None]:
    row = {m.name: m.measure(pair) for m in METRICS if not m.whole}
    dx, dy = best_shift(pair.image, pair.truth, pair.mask)
    moved = replace(pair, image=shifted(pair.image, dx, dy).clamp(-1, 1))
    row |= {f"aligned_{m.name}": m.measure(moved) for m in METRICS if m.name in ALIGNED}
    return row | {"shift": (dx * dx + dy * dy) ** 0.5 / pair.image.shape[-1]}


def _surface(
    depth: Tensor, alpha: Tensor, truth: Truth, i: int, masks: Mapping[str, Tensor]
) -> dict[str, dict[str, float]]:
    size = truth.depth.shape[-1]
    camera: Camera = truth.cameras[i]
    fine, solid = resize_depth(depth, alpha > 0.5, (size, size), edge_step(camera, depth.shape[-1]))
    normals = normals_of(fine, solid, camera)
    true_normals = normals_of(truth.depth[i : i + 1], truth.solid[i : i + 1], camera)
    both = solid & truth.solid[i : i + 1]
    rows = {}
    for name, mask in masks.items():
        where = both & (mask > 0.5)
        row = depth_errors(fine, truth.depth[i : i + 1], where)
        angle = normal_error(normals, true_normals, where)
        rows[name] = row | ({} if angle is None else {"normals": angle})
    return rows


def _resized(mask: Tensor, size: int) -> Tensor:
    return F.interpolate(mask, (size, size), mode="bilinear", align_corners=False)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items() if item is not None}
    return round(value, 5) if isinstance(value, float) else value
