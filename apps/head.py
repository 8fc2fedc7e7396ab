"""A photo and its head as objects, for scripts, notebooks and the studio: load, prepare, invert, render, export.

Each step is one of the other operations, and leaves on disk what that leaves.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pmv.apps.attributes import edit_run
from pmv.apps.export import GAUSSIANS, MESHES, export_run
from pmv.apps.invert import Request, invert
from pmv.apps.layers import PLAIN, Look
from pmv.apps.prepare_folder import PrepareRequest, prepare
from pmv.errors import InputError
from pmv.generators.directions import Directions, edit, load_directions
from pmv.inversion import FILE_NAME, Inversion, inversion_header, load_inversion
from pmv.pictures.images import read_bytes
from pmv.stages.edit_list import Edit
from pmv.stages.prepared import is_prepared_folder, read_prepared

_DIRECTORIES = {"-obj": "obj", "-views": "views"}


@dataclass(frozen=True)
class Portrait:
    """A photo, or what `prepare` made of it.

    Attributes:
        path: a picture's file, or a folder of `pmv prepare`.
        presets, settings: of every step, see `pmv.apps.invert.Request`.
        generator: a loaded one; None = the one that the config names.
    """

    path: Path
    presets: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    generator: Any = None

    @property
    def picture(self) -> np.ndarray:
        """uint8 [H,W,3]: the photo upright, or the aligned picture [S,S,3]."""
        path = self.path / "image.png" if is_prepared_folder(self.path) else self.path
        return read_bytes(path)[0][0].permute(1, 2, 0).numpy()

    def prepare(self, out: str | Path) -> "Portrait":
        """Find the face, crop it for the generator, find camera and foreground: see
        `pmv.apps.prepare_folder.prepare`, which writes the folder `out`."""
        folder = prepare(PrepareRequest(self.presets, self.settings), self.path, Path(out), self.generator)
        return replace(self, path=folder)

    def invert(self, out: str | Path, edits: Sequence[Edit] = ()) -> "Head":
        """Turn it into a head: see `pmv.apps.invert.invert`, which writes the run `out`, or goes on with it."""
        request = Request(self.presets, self.settings, edits=edits, command="Portrait.invert")
        return Head(invert(request, self.path, Path(out), generator=self.generator))


def load(path: str | Path, preset: str | None = None, settings: Sequence[str] = (), generator: Any = None) -> Portrait:
    """A photo, or a folder that `pmv prepare` wrote, to begin with.

    Args:
        preset, settings: for the steps that follow, as ``--preset`` and ``--set``.
        generator: a loaded one instead of the one that the config names.

    Raises:
        InputError: there is no picture, or one that cannot be read.
    """
    path = Path(path)
    if is_prepared_folder(path):
        read_prepared(path)
    else:
        read_bytes(path)
    return Portrait(path, () if preset is None else (preset,), tuple(settings), generator)


@dataclass(frozen=True)
class Head:
    """A finished head on disk: a run, or a folder that `pmv edit` wrote. It is loaded when it is first drawn.

    Attributes:
        path: the folder.
        device: where it is drawn.
    """

    path: Path
    device: str | torch.device = "cpu"

    @cached_property
    def inversion(self) -> Inversion:
        """See `load_inversion`."""
        return load_inversion(self.path, self.device)

    @cached_property
    def planes(self) -> Tensor:
        """The head as its generator's renderer takes it."""
        with torch.no_grad():
            return self.inversion.generator.planes(self.inversion.w, self.inversion.noise)

    @torch.no_grad()
    def render(self, yaw: float = 0.0, pitch: float = 0.0, look: Look = PLAIN, rays: int | None = None) -> np.ndarray:
        """A picture of it, uint8 [H,W,3], or [H,W,4] before a transparent ground.

        Args:
            yaw, pitch: degrees; yaw > 0 moves the camera towards +x, pitch > 0 upwards.
            look: size and ground.
            rays: a side; None = as many as the generator was trained with. Fewer are sooner drawn.

        Raises:
            InputError: angles that are none, or a ground that its generator cannot be put before.
        """
        if not (math.isfinite(yaw) and math.isfinite(pitch) and abs(pitch) < 90):
            raise InputError(f"angles are finite degrees, the pitch between -90 and 90, not {yaw:g}, {pitch:g}")
        generator = self.inversion.generator
        look.check(generator.spec)
        camera = look.framed(generator.spec.orbit(math.radians(yaw), math.radians(pitch))).to(self.inversion.w.device)
        return look.pixels(generator.render(self.planes, self.inversion.w, camera, rays), generator.spec)

    def export(self, out: str | Path, **options: Any) -> Path:
        """Write it for other programs; the name says the format: .glb, .ply, .stl, .npz, for Gaussians .gs.ply or
        .spz, or a folder …-obj or …-views.

        Args:
            options: of `pmv.apps.export.export_run`.
        """
        path = Path(out)
        kind = path.suffix[1:].lower()
        if path.name.lower().endswith((".gs.ply", ".spz")):
            kind = GAUSSIANS
        elif kind not in (*MESHES, "npz") or kind == "obj":
            found = [kind for end, kind in _DIRECTORIES.items() if path.name.endswith(end)]
            if not found:
                raise InputError(
                    f"{path}: its name says no format; end it in .glb, .ply, .gs.ply, .spz, .stl, .npz, or a folder "
                    "in -obj or -views"
                )
            kind = found[0]
        return export_run(self.path, kind, path, device=self.device, **options)

    def edit(self, out: str | Path, **amounts: float) -> "Head":
        """Change attributes by standard deviations, such as ``age=1``: see `pmv.apps.attributes.edit_run`."""
        settings = [f"{name.replace('_', '-')}={amount}" for name, amount in amounts.items()]
        return Head(edit_run(self.path, settings, Path(out), self.device), self.device)

    def attributes(self) -> dict[str, tuple[str, float]]:
        """What can be changed of it: name → what more of it is, and how many deviations heads differ by; none where
        nothing is known of its generator."""
        directions = self._directions
        return {} if directions is None else {about.name: (about.plus, about.span) for about in directions.about}

    @torch.no_grad()
    def changed(self, amounts: Mapping[str, float]) -> "Head":
        """The same with attributes changed, to look at; nothing is written. Amounts add to those of an edit before.

        Raises:
            InputError: an attribute that is not there, or too much of it.
        """
        directions, before = self._directions, self.inversion
        if directions is None:
            raise InputError(f"{self.path}: nothing is known of its generator's attributes")
        w, residual = edit(before.generator, before.w, before.noise, directions, amounts)
        planes = before.generator.planes(w, before.noise)
        if residual is not None and before.generator.plane_residual is not None:
            planes = planes - before.generator.plane_residual + residual
        other = Head(self.path, self.device)
        other.__dict__.update(inversion=before._replace(w=w), planes=planes)
        return other

    @cached_property
    def _directions(self) -> Directions | None:
        header = inversion_header(self.path / FILE_NAME)
        try:
            return load_directions(header["generator"], header["generator_hash"], self.device)
        except InputError:
            return None


def open_head(path: str | Path, device: str | torch.device = "cpu") -> Head:
    """A finished head, loaded now.

    Raises:
        InputError: there is none.
    """
    head = Head(Path(path), device)
    head.inversion  # noqa: B018
    return head
