"""How well an encoder in training does on held-out heads: the photo itself, the other views, the surface, the
camera."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.encoders.network import Encoder
from pmv.fitting.metrics import psnr
from pmv.generators import EG3DGenerator
from pmv.pictures.images import to_uint8
from pmv.pictures.sheets import tile
from pmv.training.batches import Batch, HeadStore
from pmv.training.encoder.lessons import found_camera
from pmv.training.encoder.objective import pose_error

FIGURES = ("psnr_input", "psnr_front", "psnr_side", "psnr_back", "depth_error", "surface_error", "turn", "turn_before")
"""dB inside the head on the photo, and on other views by their yaw: up to 50°, up to 120°, beyond; mean absolute depth
error in the photo's view with its median taken out, of the render and of what is predicted at once; degrees by which
the camera is wrong, after and before it is put right."""


def depth_error(depth: Tensor, true: Tensor) -> float:
    """Mean absolute error of z-depth maps [1,1,r,r], its median taken out; NaN in `true` = unknown."""
    known = ~true.isnan()
    error = (depth - true)[known]
    return float((error - error.median()).abs().mean())


@torch.no_grad()
def evaluate(encoder: Encoder, generator: EG3DGenerator, store: HeadStore, heads: int) -> dict[str, float]:
    """Means of `FIGURES` over heads of a held-out pack; the photo is the first view, its camera as wrong as a found
    one."""
    rows: dict[str, list[float]] = {name: [] for name in FIGURES}
    draws = torch.Generator(store.device).manual_seed(0)
    for slot in store.slots[:heads]:
        truth = _head(store, slot)
        camera = found_camera(truth.cameras[0], draws, generator.spec)
        encoded = encoder(generator, truth.image[:1], truth.alpha[:1], camera)
        drawn = generator.render(encoded.planes, encoded.w, truth.cameras)
        values = psnr(drawn.image.clamp(-1, 1), truth.image, (truth.alpha > 0.5).float())
        yaws = truth.cameras.yaw_pitch()[0].rad2deg().abs()
        rows["psnr_input"].append(float(values[0]))
        for value, yaw in zip(values[1:].tolist(), yaws[1:].tolist(), strict=True):
            rows["psnr_front" if yaw < 50 else "psnr_side" if yaw < 120 else "psnr_back"].append(value)
        true = truth.depth[:1]
        for name, depth in (("depth_error", drawn.depth[:1]), ("surface_error", encoded.depth)):
            fine = F.interpolate(depth, true.shape[-2:], mode="bilinear", align_corners=False)
            rows[name].append(depth_error(fine, true))
        rows["turn"].append(float(pose_error(encoded.camera, truth.cameras[0])[0]))
        rows["turn_before"].append(float(pose_error(camera, truth.cameras[0])[0]))
    return {name: float(np.mean(values)) for name, values in rows.items() if values}


@torch.no_grad()
def sheet(encoder: Encoder, generator: EG3DGenerator, store: HeadStore, heads: int) -> np.ndarray:
    """Rows of held-out heads, true above encoded, a column a view."""
    pictures: list[np.ndarray] = []
    columns = store.pack.layout.views
    for slot in store.slots[:heads]:
        truth = _head(store, slot)
        encoded = encoder(generator, truth.image[:1], truth.alpha[:1], truth.cameras[0])
        drawn = generator.render(encoded.planes, encoded.w, truth.cameras)
        pictures += [*to_uint8(truth.image), *to_uint8(drawn.image.clamp(-1, 1))]
    return tile(pictures, columns=columns)


def _head(store: HeadStore, slot: Tensor) -> Batch:
    views: Sequence[int] = range(store.pack.layout.views)
    return store.batch(slot[None], torch.tensor([list(views)]))
