"""Synthetic subjects: held-out heads in four groups, drawn from all sides.

in-domain: as the generator knows them. painted: with pictures on the skin (`paint.py`). props: with glasses, hats,
headphones (`props.py`). pose: seen from 45 to 70° aside. Seeds are from `HELD_OUT_SEED` on: nothing was trained on
them. Highlights move with the view, as they do on real skin.
"""

import importlib
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.quality.paint import PAINTS, painting
from benchmarks.quality.props import KINDS, PropPainter, prop_depth, prop_for
from benchmarks.quality.truth import Subject, Truth, is_written, write_subject
from benchmarks.quality.views import VIEWS, cameras_of
from pmv.files.artifacts import file_hash, value_hash
from pmv.geometry.camera import Camera
from pmv.training.data import HELD_OUT_SEED

GROUPS = ("in-domain", "painted", "props", "pose")
HEADS = 6
"""In each group."""
CAMERA_ERROR = 2.5
"""Degrees by which the camera that a run gets is off, on average: what `pmv prepare` errs by on labelled portraits
(benchmarks/README.md, "Crop and camera of a portrait")."""
_FIRST_SEED = HELD_OUT_SEED + 1000
_FINE = 2  # drawn so many times as large as wanted, beside the renderer's own samples


@dataclass(frozen=True)
class Recipe:
    """Everything that a synthetic subject depends on: its group, its number in it, and the pictures' side."""

    group: str
    index: int
    size: int

    @property
    def name(self) -> str:
        return f"{self.group}-{self.index}"

    @property
    def seed(self) -> int:
        return _FIRST_SEED + 100 * GROUPS.index(self.group) + self.index

    @property
    def camera(self) -> tuple[float, float]:
        """Yaw and pitch of the input view in degrees."""
        rng = np.random.default_rng([self.seed, 9])
        if self.group == "pose":
            return float(rng.choice([-1, 1])) * (45 + 25 * self.index / (HEADS - 1)), float(rng.uniform(-5, 5))
        return float(rng.uniform(-6, 6)), float(rng.uniform(-4, 4))


def synthetic_subjects(
    makehuman: Path, folder: Path, size: int, groups: tuple[str, ...], heads: int, processes: int = 1
) -> list[Subject]:
    """The first `heads` subjects of each group, drawn into `folder` by so many processes where they are not there yet.

    Raises:
        AssetsError: no MakeHuman checkout, no moderngl, or no OpenGL.
    """
    recipes = [Recipe(group, index, size) for index in range(heads) for group in groups]
    jobs = [[makehuman] * len(recipes), recipes, [folder / recipe.name for recipe in recipes]]
    if processes == 1 or all((path / "subject.json").exists() for path in jobs[2]):
        return list(map(_subject, *jobs))
    with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        return list(pool.map(_subject, *jobs))


def _subject(makehuman: Path, recipe: Recipe, folder: Path) -> Subject:
    from pmv.training.heads import sample_parameters

    z = sample_parameters(recipe.seed).vector()
    key = value_hash([_code(), asdict(recipe), z.round(4).tolist()])
    if not is_written(folder, key):
        head = _Drawn(makehuman, recipe)
        cameras = cameras_of(VIEWS, *recipe.camera)
        views = [head.view(cameras[i]) for i in range(len(cameras))]
        rgb, alpha, depth = (torch.stack(column) for column in zip(*views))
        truth = Truth.of(rgb * 2 - 1, alpha, depth, cameras, recipe.size)
        write_subject(folder, truth, mistaken(cameras[0], recipe.seed), key)
    geometry = partial(_geometry, makehuman, recipe)
    return Subject(recipe.name, recipe.group, folder, VIEWS, geometry, tuple(float(v) for v in z))


def mistaken(camera: Camera, seed: int) -> Camera:
    """A camera turned about the origin by an error of `CAMERA_ERROR` degrees on average (a Gaussian about each
    axis)."""
    turn = torch.from_numpy(np.random.default_rng([seed, 10]).normal(size=3)).float()
    x, y, z = (turn * math.radians(CAMERA_ERROR) / math.sqrt(8 / math.pi)).tolist()
    rotation = torch.eye(4)
    rotation[:3, :3] = torch.linalg.matrix_exp(torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]]))
    return Camera(rotation @ camera.cam2world, camera.intrinsics)


@cache
def _code() -> str:
    """A hash of what heads, paint and props are drawn by: true views of other heads are not taken for these."""
    heads = Path(importlib.import_module("pmv.training.heads").__file__ or "").parent
    own = [Path(__file__).with_name(name) for name in ("synthetic.py", "paint.py", "props.py", "truth.py", "views.py")]
    return value_hash(
        [file_hash(path) for path in (*own, *sorted(heads.rglob("*.py")), *sorted(heads.rglob("shaders/*")))]
    )


@cache
def _assets(makehuman: Path) -> Any:
    from pmv.training.heads import load_assets

    return load_assets(makehuman)


class _Drawn:
    """A head with what it wears, ready to be drawn."""

    def __init__(self, makehuman: Path, recipe: Recipe, for_depth: bool = False) -> None:
        from pmv.training.heads import HeadRenderer, build_head, sample_parameters

        self.size = recipe.size * (1 if for_depth else _FINE)
        head = build_head(_assets(makehuman), sample_parameters(recipe.seed))
        if recipe.group == "painted":
            head = head.with_decal(painting(recipe.index % len(PAINTS), recipe.seed), centre=(0.5, 0.5), width=1.0)
        self.painter = None
        if recipe.group == "props":
            self.painter = PropPainter(prop_for(head, KINDS[recipe.index % len(KINDS)], recipe.seed), head.light)
        texture = 256 if for_depth else 2048
        self.renderer = HeadRenderer(self.size, 1 if for_depth else 2, specular=True, texture_size=texture)
        self.renderer.load(head)

    def view(self, camera: Camera) -> tuple[Tensor, Tensor, Tensor]:
        """rgb [3,H,H] in [0,1] not premultiplied, alpha [1,H,H], depth [1,H,H]."""
        view = self.renderer.render(camera.cam2world[0].numpy(), camera.intrinsics[0].numpy())
        rgb = torch.from_numpy(view.rgb).permute(2, 0, 1).float() / 255
        alpha, depth = torch.from_numpy(view.alpha)[None], torch.from_numpy(view.depth)[None]
        return (rgb, alpha, depth) if self.painter is None else self.painter.over(rgb, alpha, depth, camera)

    def depth(self, camera: Camera) -> Tensor:
        """z-depth [1,H,H], 0 where empty."""
        view = self.renderer.render(camera.cam2world[0].numpy(), camera.intrinsics[0].numpy())
        depth = torch.from_numpy(view.depth * (view.alpha > 0.5))[None]
        if self.painter is None:
            return depth
        own = prop_depth(self.painter.mesh, camera, self.size)[0]
        return torch.where((own > 0) & ((depth == 0) | (own < depth)), own, depth)


def _geometry(makehuman: Path, recipe: Recipe, cameras: Camera, size: int) -> Tensor:
    """See `Subject.geometry`."""
    cameras = cameras.to("cpu")
    head = _Drawn(makehuman, Recipe(recipe.group, recipe.index, size), for_depth=True)
    return torch.stack([head.depth(cameras[i]) for i in range(len(cameras))])
