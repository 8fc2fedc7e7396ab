"""Pictures and films of a finished inversion from other sides."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pmv.apps.camera_paths import PATHS, named_path, read_path, resize_transforms
from pmv.apps.layers import DEPTH_UNIT, IMAGE, LAYERS, PLAIN, Look, shape_from
from pmv.errors import InputError, disk_errors
from pmv.files.artifacts import atomic_folder, check_output, check_replaceable
from pmv.generators.base import GeneratorSpec
from pmv.geometry.camera import Camera
from pmv.inversion import Inversion, load_inversion
from pmv.pictures.images import write_png
from pmv.pictures.layers import depth_bits, normal_bits, require_exr, write_exr, write_layer
from pmv.pictures.sheets import tile
from pmv.pictures.video import write_mp4

_FPS = 30
_CAMERAS = "transforms.json"
_DEPTH, _NORMALS = "depth", "normals"
_CHANNELS = {_DEPTH: ("Z",), _NORMALS: ("N.X", "N.Y", "N.Z")}


@torch.no_grad()
def write_sheet(
    run: Path,
    out: Path,
    yaws_deg: Sequence[float],
    pitch_deg: float,
    device: str | torch.device = "cpu",
    look: Look = PLAIN,
    generator: str | None = None,
) -> None:
    """Write a PNG of the inversion in the folder `run`: one picture a yaw, side by side.

    Args:
        yaws_deg, pitch_deg: degrees, on the generator's orbit; yaw > 0 moves the camera towards +x, pitch > 0 upwards.
        look: size and ground of each picture.
        generator: see `load_inversion`.

    Raises:
        PmvError: no finished inversion there, no place to write to, or an angle that is none.
    """
    check_output(out)
    _check_angles(pitch_deg, *yaws_deg)
    inversion = load_inversion(run, device, generator)
    planes = inversion.generator.planes(inversion.w, inversion.noise)
    spec, pictures = inversion.generator.spec, []
    look.check(spec)
    for yaw in yaws_deg:
        camera = look.framed(spec.orbit(math.radians(yaw), math.radians(pitch_deg))).to(device)
        pictures.append(look.pixels(inversion.generator.render(planes, inversion.w, camera), spec))
    with disk_errors(out):
        write_png(out, tile(pictures, columns=len(pictures)))


@torch.no_grad()
def write_turn(
    run: Path,
    out: Path,
    yaw_deg: float,
    pitch_deg: float,
    sweep_deg: float | None,
    frames: int,
    device: str | torch.device = "cpu",
    path: str | Path | None = None,
    look: Look = PLAIN,
    generator: str | None = None,
) -> None:
    """Write an MP4 that loops: a whole turn where `sweep_deg` is 180, else a swing to both sides of `yaw_deg` and back.

    Args:
        sweep_deg: degrees to either side; None = 180 for generators of full heads, else 35.
        path: another way around the head, one of `PATHS`; or a file of cameras, which the angles and `frames` then
            say nothing of.
        look, generator: see `write_sheet`.

    Raises:
        PmvError: no finished inversion there, no place to write to, or an angle that is none.
    """
    check_output(out)
    _check_angles(pitch_deg, yaw_deg, sweep_deg or 0.0)
    inversion = load_inversion(run, device, generator)
    series = _series(inversion, path, frames, yaw_deg, pitch_deg, sweep_deg, look)
    with disk_errors(out):
        write_mp4(out, (series.picture(i) for i in range(len(series.cameras))), _FPS)


@torch.no_grad()
def write_frames(
    run: Path,
    out: Path,
    layers: Sequence[str],
    *,
    yaw_deg: float = 0.0,
    pitch_deg: float = 0.0,
    sweep_deg: float | None = None,
    frames: int = 90,
    path: str | Path | None = None,
    look: Look = PLAIN,
    exr: bool = False,
    device: str | torch.device = "cpu",
    generator: str | None = None,
) -> None:
    """Write a folder with one folder for each layer, in it 00000.png and so on, and the cameras as
    ``transforms.json``.

    Args:
        layers: of `LAYERS`: image; depth, 16-bit steps of `DEPTH_UNIT`, 0 = nothing; normals, 16-bit (n + 1)/2 in world
            axes.
        exr: depth and normals as OpenEXR of 32-bit floats instead: channel Z in world units, and N.X, N.Y, N.Z; all 0
            where nothing is.
        others: see `write_turn`.

    Raises:
        PmvError: no finished inversion there, or no place to write to.
    """
    check_replaceable(out, {*LAYERS, _CAMERAS}, "frames")
    if exr:
        require_exr()
    _check_angles(pitch_deg, yaw_deg, sweep_deg or 0.0)
    inversion = load_inversion(run, device, generator)
    series = _series(inversion, path, frames, yaw_deg, pitch_deg, sweep_deg, look)
    side = inversion.generator.spec.resolution
    size = series.look.size or (side, side)
    names = [f"{i:05d}" for i in range(len(series.cameras))]
    with atomic_folder(out) as folder:
        for layer in layers:
            (folder / layer).mkdir()
        for i, name in enumerate(names):
            if set(layers) - {IMAGE}:
                shape = shape_from(inversion, series.planes, series.cameras[i], size)
                found = {_DEPTH: shape.depth, _NORMALS: shape.normals}
                found[IMAGE] = series.look.pixels(shape.render, inversion.generator.spec)
            else:
                found = {IMAGE: series.picture(i)}
            for layer in layers:
                _write_layer(folder / _file(layer, name, exr), layer, found[layer])
        series.cameras.save(folder / _CAMERAS, [_file(layers[0], name, exr) for name in names], side)
        if size != (side, side):
            resize_transforms(folder / _CAMERAS, *size)


def _file(layer: str, name: str, exr: bool) -> str:
    return f"{layer}/{name}.exr" if exr and layer in _CHANNELS else f"{layer}/{name}.png"


def _write_layer(path: Path, layer: str, pixels: np.ndarray) -> None:
    """Floats as they are into EXR, as 16-bit steps into PNG; pictures are PNG."""
    if path.suffix == ".exr":
        write_exr(path, pixels, _CHANNELS[layer])
    elif layer == _DEPTH:
        write_layer(path, depth_bits(pixels, DEPTH_UNIT))
    else:
        write_layer(path, normal_bits(pixels) if layer == _NORMALS else pixels)


class _Series(NamedTuple):
    """A head, the cameras that see it one after another, and how their pictures are written."""

    inversion: Inversion
    planes: Tensor
    cameras: Camera
    look: Look

    def picture(self, index: int) -> np.ndarray:
        """uint8 [H,W,3 or 4] of one camera."""
        generator = self.inversion.generator
        return self.look.pixels(generator.render(self.planes, self.inversion.w, self.cameras[index]), generator.spec)


def _series(
    inversion: Inversion,
    path: str | Path | None,
    frames: int,
    yaw_deg: float,
    pitch_deg: float,
    sweep_deg: float | None,
    look: Look,
) -> _Series:
    generator = inversion.generator
    cameras, look = cameras_of(path, generator.spec, frames, yaw_deg, pitch_deg, sweep_deg, look)
    look.check(generator.spec)
    planes = generator.planes(inversion.w, inversion.noise)
    return _Series(inversion, planes, cameras.to(inversion.w.device), look)


def cameras_of(
    path: str | Path | None,
    spec: GeneratorSpec,
    frames: int,
    yaw_deg: float,
    pitch_deg: float,
    sweep_deg: float | None,
    look: Look,
) -> tuple[Camera, Look]:
    """The cameras of a named path or of a file, and the look with the size that the file asks for."""
    if path is None or str(path) in PATHS:
        named = None if path is None else str(path)
        return look.framed(named_path(named, spec, frames, yaw_deg, pitch_deg, sweep_deg)), look
    cameras, size = read_path(Path(path))
    if size is None or look.size is not None:
        return look.framed(cameras), look
    return cameras, replace(look, size=size)


def _check_folder(out: Path) -> None:
    if not out.parent.is_dir():
        raise InputError(f"{out}: the folder {out.parent} does not exist; make it first")


def _check_angles(pitch_deg: float, *others_deg: float) -> None:
    if not all(map(math.isfinite, (pitch_deg, *others_deg))) or abs(pitch_deg) >= 90:
        raise InputError(f"angles are finite degrees, the pitch between -90 and 90, not {pitch_deg:g}, {others_deg}")
