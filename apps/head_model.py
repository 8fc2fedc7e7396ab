"""A finished head as a textured mesh: the surface of its volume, and on it the photo's own texels."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.apps.photo_texels import photo_texels
from pmv.errors import InputError
from pmv.fitting.metrics import psnr
from pmv.generators.base import GeneratorSpec, Render
from pmv.geometry.atlas import Atlas, Texels, as_texture, sample_texture, texels, unwrap
from pmv.geometry.camera import EG3D_FOCAL, EG3D_RADIUS, Camera
from pmv.geometry.mesh import extract_mesh, simplified, smoothed, surface_level, vertex_normals
from pmv.geometry.painting import Painted, fill_weights, paint
from pmv.geometry.raster import interpolate, rasterize
from pmv.geometry.scene import SeenFrom
from pmv.inversion import Inversion, load_inversion
from pmv.pictures.images import resize
from pmv.pictures.masks import SOLID, erode, feather
from pmv.pipeline.config import load_config
from pmv.pipeline.folder import RunFolder
from pmv.portrait.crop import FRAMINGS
from pmv.portrait.statistical_face import shipped_face
from pmv.stages.domain import guess_domain
from pmv.stages.prepare import own_framing
from pmv.stages.table import TABLE
from pmv.stages.visibility import VisibilityConfig, trusted_photo

_OPAQUE = 0.95
"""Alpha from which next to nothing shines through: there a depth map is a surface."""
_DEPTH_RAYS = 128
_FILL_DEPTH, _PHOTO_DEPTH = 256, 512
"""Pixels a side of the mesh's depth from the cameras of renders and photo, for the test of what they see."""
_FILL_DEGREES = 78.0
_FILL_ERODE = 0.012
_FEATHER = 0.02
"""Width over which the photo's texels fade out, as in the stage inpaint, and that of the fill's own outline."""


@dataclass(frozen=True)
class ModelSettings:
    """How fine a head's mesh and texture are.

    Args:
        grid: density samples along each side of the box.
        faces: triangles at most; None = all that marching cubes gives.
        smooth: steps of Taubin's smoothing.
        texture: pixels a side.
    """

    grid: int = 160
    faces: int | None = 40_000
    smooth: int = 3
    texture: int = 2048


@dataclass(frozen=True)
class Front:
    """The volume from the photo's camera.

    Attributes:
        camera: one.
        image: [1,3,R,R] in [-1,1].
        ground: what stands behind it, in [-1,1]; None where that is no plain colour.
        edit_mask: [1,1,R,R] in [0,1], what was painted on the photo; None = nothing.
    """

    camera: Camera
    image: Tensor
    ground: float | None
    edit_mask: Tensor | None


@dataclass(frozen=True)
class Surface:
    """A head's surface and what colours it.

    Attributes:
        vertices: [V,3]; faces: [F,3]; normals: [V,3], unit; in the world, on the CPU.
        photo: None where the head is no longer the photo's: its attributes were changed.
        fills: renders of the tuned generator; weights: [V,N], how much each says of a vertex.
        tolerance: of two depths of one surface, world units.
        metres: metres in a world unit, see `metres_per_unit`.
        front: what the surface is compared with.
    """

    vertices: Tensor
    faces: Tensor
    normals: Tensor
    photo: Painted | None
    fills: list[Painted]
    weights: Tensor
    tolerance: float
    metres: float | None
    front: Front

    def colours(self, places: Texels) -> Tensor:
        """[M,3] in [-1,1] of places on the surface."""
        return paint(places, self.photo, self.fills, self.weights, self.tolerance)


@dataclass(frozen=True)
class HeadModel:
    """A textured mesh: the atlas (world units), its texture uint8 [T,T,3], and metres in a world unit or None."""

    atlas: Atlas
    texture: np.ndarray
    metres: float | None


def metres_per_unit(spec: GeneratorSpec) -> float | None:
    """Metres in a unit of a generator's world, for which heads have the size of a mean adult's.

    A picture says nothing of the size of what it shows. The mean of the statistical face (`pmv.portrait`), known in
    centimetres, lies in EG3D's world at a known scale; a generator whose pictures are framed wider shows it smaller.

    Returns: None for generators of something else than human heads.
    """
    if guess_domain(spec) not in ("heads", "ffhq"):
        return None
    width = (spec.radius / spec.focal) / (EG3D_RADIUS / EG3D_FOCAL)  # of the picture at the origin, in EG3D's
    return 0.01 / shipped_face().anchor.scale * FRAMINGS[own_framing(spec)].width / width


@torch.no_grad()
def head_surface(run: Path, settings: ModelSettings, device: str | torch.device, generator: str | None) -> Surface:
    """The surface of the finished head in the folder `run`.

    Args:
        run: folder of a run, or one that `pmv edit` wrote: that one's colours are the generator's alone.
        generator: name or path of the pretrained generator, where it is no longer where the run found it.

    Raises:
        PmvError: no finished inversion there, or its volume has no surface.
    """
    inversion = load_inversion(run, device, generator)
    model, w = inversion.generator, inversion.w
    planes = model.planes(w, inversion.noise)
    spec, field = model.spec, model.field(planes)
    around = _around(spec, inversion.camera).to(w.device)
    fine = model.render(planes, w, inversion.camera, _DEPTH_RAYS)
    renders = [model.render(planes, w, around[i]) for i in range(len(around))]
    opaque = [(around[i].unproject(r.depth)[0], r.alpha[0, 0] > _OPAQUE) for i, r in enumerate(renders)]
    points = torch.cat([places[solid] for places, solid in opaque])
    if not len(points):
        raise InputError(f"{run}: its volume is transparent everywhere, there is no surface to export")

    def density(places: Tensor) -> Tensor:
        return field.density(places, False)[0]

    level = surface_level(density, points)
    vertices, faces = extract_mesh(density, spec.box, settings.grid, level, w.device)
    vertices = smoothed(vertices, faces, settings.smooth)
    if settings.faces is not None:
        vertices, faces = simplified(vertices, faces, settings.faces)
    if not len(faces):
        raise InputError(f"{run}: no surface was found at a grid of {settings.grid}; give a finer one, such as 160")
    fills = [_fill(vertices, faces, around[i].to("cpu"), render, spec) for i, render in enumerate(renders)]
    photo = _photo(run, vertices, faces, inversion, fine, settings)
    normals = _outward(vertices, vertex_normals(vertices, faces))
    front = _front(renders[0].image.clamp(-1, 1).cpu(), inversion, photo)
    tolerance = VisibilityConfig().tolerance * spec.box
    weights = fill_weights(vertices, normals, fills, tolerance)
    painted = None if photo is None else photo.painted
    return Surface(vertices, faces, normals, painted, fills, weights, tolerance, metres_per_unit(spec), front)


@torch.no_grad()
def textured(surface: Surface, size: int) -> HeadModel:
    """The surface unwrapped, with a texture of `size`²."""
    atlas = unwrap(surface.vertices, surface.faces, surface.normals, size)
    shown = texels(atlas, size)
    texture = as_texture(surface.colours(shown), shown.index, size)
    return HeadModel(atlas, texture, surface.metres)


def view(model: HeadModel, camera: Camera, size: int) -> tuple[Tensor, Tensor]:
    """A picture of the textured mesh: [1,3,size,size] in [-1,1], 0 beside it, and where it is, bool [1,1,size,size]."""
    fragments = rasterize(model.atlas.vertices, model.atlas.faces, camera, size, size)
    uv = interpolate(model.atlas.uv, fragments, model.atlas.faces)
    hit = fragments.face_index[:, None] >= 0
    return sample_texture(model.texture, uv).permute(0, 3, 1, 2) * hit, hit


def agreement(model: HeadModel, front: Front) -> dict[str, float]:
    """PSNR in dB of the textured mesh against the volume from the photo's view: of the whole picture, "front", and
    inside what was painted on the photo, "edit", where something was."""
    # a texture is finer than the volume's picture: four samples a pixel keep it from aliasing
    picture, hit = (F.avg_pool2d(x.float(), 2) for x in view(model, front.camera, 2 * front.image.shape[-1]))
    ground = front.image if front.ground is None else torch.full_like(picture, front.ground)
    picture = picture + (1 - hit) * ground
    found = {"front": psnr(picture, front.image).item()}
    if front.edit_mask is not None:
        found["edit"] = psnr(picture, front.image, front.edit_mask).item()
    return found


def _around(spec: GeneratorSpec, camera: Camera) -> Camera:
    """The input view's camera, and others from all sides that the generator knows."""
    if spec.full_head:
        rings = [(0.0, 30), (35.0, 60), (-25.0, 60), (75.0, 360)]
        angles = [(yaw, pitch) for pitch, step in rings for yaw in range(0, 360, step)]
    else:
        angles = [(yaw, pitch) for pitch in (-15.0, 0.0, 15.0) for yaw in (-40.0, -20.0, 0.0, 20.0, 40.0)]
    yaw, pitch = (torch.tensor(values) * math.pi / 180 for values in zip(*angles))
    return Camera.cat([camera.to("cpu"), spec.orbit(yaw, pitch)])


def _seen(vertices: Tensor, faces: Tensor, camera: Camera, trusted: Tensor, size: int) -> SeenFrom:
    """What a camera sees of the mesh, at size²."""
    fragments = rasterize(vertices, faces, camera, size, size)
    return SeenFrom(camera, fragments.depth[:, None], fragments.face_index[:, None] >= 0, trusted)


def _fill(vertices: Tensor, faces: Tensor, camera: Camera, render: Render, spec: GeneratorSpec) -> Painted:
    picture = render.image.clamp(-1, 1).cpu()
    trusted = torch.ones_like(picture[:, :1])
    if spec.has_alpha:
        # the ground shines through the soft outline
        inside = resize(render.alpha.cpu(), picture.shape[-1]) > _OPAQUE
        trusted = feather(erode(inside.float(), _FILL_ERODE), _FEATHER)
    return Painted(picture, _seen(vertices, faces, camera, trusted, _FILL_DEPTH), _FILL_DEGREES)


class _Photo(NamedTuple):
    """The photo on the surface, and its edit mask [1,1,S,S]."""

    painted: Painted
    edit_mask: Tensor


def _photo(
    run: Path, vertices: Tensor, faces: Tensor, inversion: Inversion, render: Render, settings: ModelSettings
) -> _Photo | None:
    """The run's photo on the mesh, or None where the head in `run` was edited after it."""
    folder = RunFolder(run, TABLE)
    if not folder.is_run:
        return None
    config = load_config(TABLE, path=folder / "config.yaml")
    visibility = config.stages["visibility"]
    camera = inversion.camera.to("cpu")
    photo = photo_texels(folder, config, inversion.generator.spec, settings.texture)
    volume = SeenFrom(camera, render.depth.cpu(), render.alpha.cpu() > SOLID)
    trusted = trusted_photo(volume, photo.foreground, photo.edit_mask, photo.valid, visibility)[-1]
    # an edit keeps its full weight up to the border of what is trusted, as in the stage inpaint
    weight = torch.maximum(feather(trusted, _FEATHER), trusted * photo.edit_mask)
    painted = Painted(photo.picture, _seen(vertices, faces, camera, weight, _PHOTO_DEPTH), visibility.max_angle)
    return _Photo(painted, photo.edit_mask)


def _front(image: Tensor, inversion: Inversion, photo: _Photo | None) -> Front:
    mask = None
    if photo is not None and photo.edit_mask.any():
        mask = resize(photo.edit_mask, image.shape[-1])
    return Front(inversion.camera.to("cpu"), image, inversion.generator.spec.background, mask)


def _outward(vertices: Tensor, normals: Tensor) -> Tensor:
    """Unit normals; where faces that were folded onto one another leave none, away from the middle."""
    away = F.normalize(vertices - vertices.mean(0), dim=-1)
    return torch.where(normals.norm(dim=-1, keepdim=True) > 0.5, normals, away)
