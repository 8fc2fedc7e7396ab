"""Agreement of a generator with reference outputs: arrays that the official code wrote for given latents and cameras.

The layout of a reference (`io.npz`): latents `z`, `ws` and camera labels `c` of two samples, world `points`, and any of
the arrays that `reproduce` names. The official code reports depth as ray length and PanoHead's mask as
alpha·1.002 − 0.001; so do the arrays compared here.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pmv.errors import InputError, PmvError, shown
from pmv.files.reading import open_regular
from pmv.generators.eg3d import EG3DGenerator
from pmv.generators.panohead import PanoHeadGenerator, shifted
from pmv.generators.torch_files import open_zip
from pmv.geometry.camera import Camera

TOLERANCE = 1e-4
GRADIENT_FACTOR = 10.0
"""Gradients may differ by this much more than outputs."""
_MAX_BYTES = 128 << 20
"""Those of the official models of 512² have 3 MB."""
_MOST = {"z": 16, "points": 1 << 16, "image_raw": 256, "image": 1024}
"""Samples, points of each, and pixels a side: what is reproduced takes a hundred times the memory of what is read."""
_GIVEN = {"z": 2, "c": 2, "ws": 3, "points": 3}
"""What a reference must hold → how many dimensions it has; the first counts the samples."""
_IMAGES = ("image_raw", "image")


def read_reference(path: Path) -> dict[str, Tensor]:
    """The arrays of an `io.npz`.

    Raises:
        InputError: not such a file, or arrays of other types or shapes; those of objects, which would be pickles, are
            not read.
    """
    try:
        with open_regular(path, _MAX_BYTES) as file:
            archive = open_zip(file)
            # what is compressed can be a thousand times as long as the file
            members = archive.infolist() if archive is not None else []
            if not 0 < len(members) < 1000 or sum(member.file_size for member in members) > _MAX_BYTES:
                raise InputError(f"{path}: larger than any reference ({_MAX_BYTES >> 20} MiB)")
            file.seek(0)
            with np.load(file, allow_pickle=False) as content:
                arrays = {name: np.asarray(content[name]) for name in content.files}
    except PmvError:
        raise
    except Exception as error:  # zipfile, numpy and zlib each have errors of their own for a damaged file
        raise InputError(f"{path}: not readable as .npz reference ({type(error).__name__})") from error
    missing = [name for name in _GIVEN if name not in arrays]
    if missing:
        raise InputError(f"{path}: lacks the array {missing[0]}; a reference holds at least {', '.join(_GIVEN)}")
    samples = len(arrays["z"]) if arrays["z"].ndim else 0
    for name, array in arrays.items():
        no_image = name in _IMAGES and not (array.ndim == 4 and 1 <= array.shape[-1] == array.shape[-2] <= _MOST[name])
        other_size = name in _GIVEN and (array.ndim != _GIVEN[name] or len(array) != samples)
        other_size |= samples > _MOST["z"] or (name == "points" and array.shape[1] > _MOST["points"])
        if array.dtype.kind != "f" or array.size == 0 or no_image or other_size:
            raise InputError(f"{path}: its array {shown(name)}, {array.dtype} {array.shape}, is that of no reference")
    return {name: torch.from_numpy(array.astype(np.float32)) for name, array in arrays.items()}


def reproduce(generator: EG3DGenerator, reference: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The generator's own arrays for a reference's latents and cameras, by the reference's names and in its sizes.

    Rendering is deterministic, at the reference's ray resolution (64 where it does not show). The gradient is that of
    the first image's mean square to w.
    """
    ws, cameras = reference["ws"], Camera.from_labels(reference["c"].float())
    side = reference["image_raw"].shape[-1] if "image_raw" in reference else 64
    stride = generator.spec.resolution // reference["image"].shape[-1] if "image" in reference else 1
    found = {}
    with torch.no_grad():
        found["ws"] = generator.map(reference["z"], cameras)
        found["ws_trunc07_cutoff7"] = generator.map(reference["z"], cameras, truncation=0.7, cutoff=7)
        planes = generator.planes(ws)
        merged = planes.flatten(1, -3)
        found["planes_first4"], found["planes_mean"] = merged[:, :4, ::4, ::4], merged.mean((2, 3))
        found["sigma"], found["rgb"] = generator.density(reference["points"], planes)
        out = generator.render(planes, ws, cameras, resolution=side)
        found["image_raw"], found["image"] = out.raw, out.image[..., ::stride, ::stride]
        found["image_mean_square"] = out.image.square().mean((1, 2, 3))
        ray_length = cameras.pixel_directions(side).norm(dim=-1).reshape(len(cameras), 1, side, side)
        found["image_depth"], found["alpha"] = out.depth * ray_length, out.alpha
        found["image_mask"] = out.alpha * 1.002 - 0.001
        if isinstance(generator, PanoHeadGenerator):
            found["delta_c"] = generator.camera_shift(reference["z"], cameras)
            found["c_after_delta"] = shifted(cameras, found["delta_c"]).labels()
        if "image_w0_cam1" in reference:
            first = generator.render(planes[:1], ws[:1], cameras[1], resolution=side)
            found["image_w0_cam1"] = first.image[..., ::stride, ::stride]
    if "grad_ws_w0_cam0" in reference or "loss_w0_cam0" in reference:
        w = ws[:1].clone().requires_grad_(True)
        loss = generator.render(generator.planes(w), w, cameras[0], resolution=side).image.square().mean()
        loss.backward()
        assert w.grad is not None
        found["loss_w0_cam0"], found["grad_ws_w0_cam0"] = loss.detach(), w.grad
    return found


def relative_errors(generator: EG3DGenerator, reference: Mapping[str, Tensor]) -> dict[str, float]:
    """Relative L2 error of every array of a reference, ‖ours − theirs‖ / ‖theirs‖; inf where shapes differ.

    A pixel of the depth counts by its alpha: where a ray hits next to nothing, depth is a quotient of two roundings,
    which differ between processors.

    Raises:
        InputError: the reference belongs to a generator of other latents or cameras, or has an array nobody knows.
    """
    try:
        found = reproduce(generator, reference)
    except (RuntimeError, ValueError, IndexError) as error:
        raise InputError(
            f"the reference belongs to a generator of another shape ({shown(' '.join(str(error).split()), 120)})"
        ) from error
    errors = {}
    for name in sorted(reference.keys() - {"z", "c", "points"}):
        if name not in found:
            raise InputError(
                f"the reference has an array {shown(name)}, which is not known for the family {generator.spec.family}"
            )
        theirs, ours = reference[name], found[name]
        same = theirs.shape == ours.shape
        if same and name == "image_depth":
            theirs, ours = theirs * found["alpha"], ours * found["alpha"]
        error = (ours - theirs).norm() / theirs.norm().clamp_min(1e-30) if same else torch.tensor(torch.inf)
        errors[name] = error.item()
    return errors


def tolerance_of(name: str, tolerance: float = TOLERANCE) -> float:
    """How large the error of an array may be."""
    return tolerance * (GRADIENT_FACTOR if name.startswith("grad") else 1.0)
