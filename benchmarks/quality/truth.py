"""What is known of a subject: true views with alpha and z-depth, and its geometry from any camera."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.quality.views import View
from pmv.files.artifacts import read_json, write_json
from pmv.geometry.camera import Camera
from pmv.geometry.scene import edge_step, resize_depth
from pmv.pictures.images import resize, to_uint8, write_png
from pmv.pipeline.packing import load_fields, pack, save_packed


@dataclass(frozen=True)
class Truth:
    """True views of a head; the first is the input view.

    Attributes:
        colour: [V,3,S,S] in [-1,1], the head's own colour times alpha, so that any plain background can lie behind it:
            see `over`.
        alpha: [V,1,S,S] in [0,1]. depth: [V,1,S,S] z-depth in world units, 0 where there is no surface.
        cameras: V, in the true world.
    """

    colour: Tensor
    alpha: Tensor
    depth: Tensor
    cameras: Camera

    def over(self, background: float) -> Tensor:
        """The views [V,3,S,S] on a plain background in [-1,1]."""
        return self.colour + (1 - self.alpha) * background

    @property
    def solid(self) -> Tensor:
        """bool [V,1,S,S], where there is a surface."""
        return self.depth > 0

    @classmethod
    def of(cls, rgb: Tensor, alpha: Tensor, depth: Tensor, cameras: Camera, size: int) -> "Truth":
        """Truth at `size` pixels from views of any larger size: rgb [V,3,H,H] in [-1,1], not premultiplied; alpha
        [V,1,H,H]; depth [V,1,H,H], 0 where empty."""
        fine, _ = resize_depth(depth, depth > 0, (size, size), edge_step(cameras, depth.shape[-1]))
        small = resize(alpha, size).clamp(0, 1)
        # what half a pixel covers has no surface of its own
        return cls(resize(rgb * alpha, size), small, torch.where(small > 0.5, fine, torch.zeros_like(fine)), cameras)


@dataclass(frozen=True)
class Subject:
    """A head to invert, as files in a folder of its own.

    Attributes:
        name: unique; also the folder's name. group: what it is averaged with.
        folder: what `write_subject` wrote.
        views: as many as the truth has.
        z: the true latent of the embedded generator, where the head has one.
        geometry: ``geometry(cameras, size)`` gives z-depth [V,1,size,size], 0 where empty, of the true surface from
            cameras of the true world. It may open a renderer; call it in the process that needs it.
    """

    name: str
    group: str
    folder: Path
    views: tuple[View, ...]
    geometry: Callable[[Camera, int], Tensor]
    z: tuple[float, ...] | None = None

    @property
    def photo(self) -> Path:
        """The input view on mid grey, a PNG."""
        return self.folder / "photo.png"

    @property
    def mask(self) -> Path:
        """Its foreground."""
        return self.folder / "mask.png"

    @property
    def found_camera(self) -> Path:
        """The camera that a user would have for it: what `prepare` finds, or one with an error of that size."""
        return self.folder / "found.json"

    @property
    def true_camera(self) -> Path:
        """The camera that it was drawn from."""
        return self.folder / "true.json"

    def truth(self) -> Truth:
        """Load the true views."""
        return Truth(**load_fields(self.folder / "truth.safetensors", ["colour", "alpha", "depth", "cameras"]))


def is_written(folder: Path, key: str) -> bool:
    """True if `write_subject` has finished in this folder with the same key."""
    return (folder / "subject.json").exists() and read_json(folder / "subject.json") == {"key": key}


def write_subject(folder: Path, truth: Truth, found: Camera, key: str) -> None:
    """Write what a `Subject` reads.

    Args:
        found: the input view's camera as a user has it.
        key: tells what it was made of, see `is_written`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_png(folder / "photo.png", truth.over(0.0)[:1])
    write_png(folder / "mask.png", truth.alpha[:1])
    for name, camera in (("found", found), ("true", truth.cameras[0])):
        camera.save(folder / f"{name}.json", image_names=["photo.png"])
    save_packed(folder / "truth.safetensors", pack(truth))
    write_json(folder / "subject.json", {"key": key})


def previews(truth: Truth, size: int = 128) -> list:
    """All views, small, as uint8 [size,size,3]."""
    return list(to_uint8(F.interpolate(truth.over(0.0), (size, size), mode="area")))
