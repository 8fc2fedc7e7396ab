"""Things that synthetic heads wear and that the generator has never seen: glasses, hats, headphones.

Procedural meshes fitted to a head's own vertices, drawn by pmv's rasteriser beside the head's renderer: nearer surface
wins at twice the picture's resolution. They are lit by the head's own light, and throw a soft shadow on the head and on
themselves. They are not shaded by the head, and have no highlights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pmv.geometry.camera import Camera
from pmv.geometry.raster import interpolate, rasterize

KINDS = ("glasses", "beanie", "headphones", "sunglasses", "hat", "glasses")
"""What the heads of the group wear, one after the other."""
_SHADOW = 0.5
"""Part of the light that a shadow of a prop takes away."""
_SHADOW_SIDE = 512
_AFAR = 40.0
_CAST = 0.13
"""How far behind a prop its shadow reaches, world units: what lies further away is in the head's own shadow."""


@dataclass(frozen=True)
class Mesh:
    """vertices, normals [V,3] in world units; colours [V,3] linear in [0,1]; faces int64 [F,3]."""

    vertices: NDArray
    normals: NDArray
    colours: NDArray
    faces: NDArray


def join(meshes: list[Mesh]) -> Mesh:
    """Several meshes as one."""
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    faces = np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts)])
    columns = zip(*((mesh.vertices, mesh.normals, mesh.colours) for mesh in meshes))
    vertices, normals, colours = (np.concatenate(column) for column in columns)
    return Mesh(vertices, normals, colours, faces)


def sheet_mesh(points: NDArray, colours: NDArray, closed: bool = False) -> Mesh:
    """A grid of points [R,C,3] with colours [R,C,3] as a mesh; `closed` joins the last column to the first."""
    rows, columns = points.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    if closed:
        index = np.concatenate([index, index[:, :1]], 1)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    faces = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, c, b), (b, c, d))])
    flat = points.reshape(-1, 3).astype(np.float64)
    across = np.cross(flat[faces[:, 1]] - flat[faces[:, 0]], flat[faces[:, 2]] - flat[faces[:, 0]])
    normals = np.zeros_like(flat)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], across)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-9)
    return Mesh(flat, normals, np.broadcast_to(colours, points.shape).reshape(-1, 3), faces)


def tube(path: NDArray, radius: float, colour: tuple[float, float, float], closed: bool = False) -> Mesh:
    """A round tube along a path [P,3]."""
    along = (np.roll(path, -1, 0) - np.roll(path, 1, 0)) if closed else np.gradient(path, axis=0)
    along = along / np.linalg.norm(along, axis=1, keepdims=True).clip(1e-9)
    helper = np.where(np.abs(along[:, 1:2]) > 0.9, [[1.0, 0, 0]], [[0, 1.0, 0]])
    first = np.cross(along, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True).clip(1e-9)
    second = np.cross(along, first)
    turns = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    rings = path[:, None] + radius * (
        np.cos(turns)[None, :, None] * first[:, None] + np.sin(turns)[None, :, None] * second[:, None]
    )
    if closed:
        rings = np.concatenate([rings, rings[:1]])
    return sheet_mesh(rings, np.asarray(colour), closed=True)


@dataclass(frozen=True)
class Anchors:
    """Where things hang on a head, world units.

    Attributes:
        eyes: [2,3], right and left. front: the largest z of the face around the eyes. ear: y and z of the ears.
        half: half the head's width at the ears. hair: [P,3] vertices of scalp and hair.
    """

    eyes: NDArray
    front: float
    ear: tuple[float, float]
    half: float
    hair: NDArray

    @classmethod
    def of(cls, head: Any) -> "Anchors":
        """Of a `pmv.training.heads.Head`."""
        parts = {part.name: part.positions for part in head.parts}
        skin, eyes = parts["skin"], parts["eyes"]
        centres = np.stack([eyes[eyes[:, 0] < 0].mean(0), eyes[eyes[:, 0] > 0].mean(0)])
        face = skin[(np.abs(skin[:, 0]) < 0.11) & (np.abs(skin[:, 1] - centres[0, 1]) < 0.045) & (skin[:, 2] > 0)]
        outer = face[np.abs(face[:, 0]) > 0.05]
        level = skin[(skin[:, 1] > -0.10) & (skin[:, 1] < 0.08)]
        half = float(np.abs(level[:, 0]).max())
        ears = level[np.abs(level[:, 0]) > 0.93 * half]
        hair = np.concatenate([skin, parts["hair"]]) if "hair" in parts else skin
        return cls(centres, float(outer[:, 2].max()), (float(ears[:, 1].mean()), float(ears[:, 2].mean())), half, hair)


def _pick(rng: np.random.Generator, colours: list[list[float]]) -> tuple[float, float, float]:
    r, g, b = colours[int(rng.integers(len(colours)))]
    return r, g, b


def glasses(at: Anchors, rng: np.random.Generator, dark: bool) -> Mesh:
    """Round frames with temples to the ears; `dark` closes them with opaque lenses."""
    colour = _pick(rng, [[0.02, 0.02, 0.02], [0.25, 0.03, 0.03], [0.30, 0.20, 0.05]])
    apart = np.abs(at.eyes[:, 0]).mean()
    wide, high, z = 0.80 * apart, 0.62 * apart, at.front + 0.012
    turns = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    meshes = []
    for eye in at.eyes:
        # a rounded rectangle, bent back a little to the sides
        c, s = np.cos(turns), np.sin(turns)
        x, y = wide * np.sign(c) * np.abs(c) ** 0.7, high * np.sign(s) * np.abs(s) ** 0.7
        x = x + eye[0]
        rim = np.stack([x, y + eye[1] - 0.006, z - 0.9 * x**2], 1)
        meshes.append(tube(rim, 0.0052, colour, closed=True))
        if dark:
            middle = np.broadcast_to(rim.mean(0), rim.shape)
            grid = np.stack([middle, (middle + rim) / 2, rim])
            meshes.append(sheet_mesh(grid, np.array([0.012, 0.014, 0.018]), closed=True))
        side = np.sign(eye[0])
        hinge = np.array([side * (apart + wide), eye[1] + 0.012, z - 0.9 * (apart + wide) ** 2])
        bend = np.array([side * (at.half + 0.004) * 0.96, eye[1] + 0.012, at.ear[1] + 0.07])
        end = np.array([side * at.half * 0.97, at.ear[0] + 0.02, at.ear[1] - 0.01])
        t = np.linspace(0, 1, 12)[:, None]
        meshes.append(tube(np.concatenate([hinge + t * (bend - hinge), bend + t[1:] * (end - bend)]), 0.0045, colour))
    inner = apart - wide
    x = np.linspace(-inner, inner, 9)
    y = at.eyes[:, 1].mean() + 0.008 + 0.008 * (1 - (x / inner) ** 2)
    bridge = np.stack([x, y, np.full_like(x, z)], 1)
    return join([*meshes, tube(bridge, 0.0048, colour)])


def crown(points: NDArray, centre: NDArray, margin: float, lowest: float = 0.0) -> NDArray:
    """A smooth shell [R,C,3] around all points above `centre`, from its top down to `lowest` degrees of elevation."""
    elevations = np.radians(np.linspace(90, lowest, 40))
    azimuths = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    e, a = np.meshgrid(elevations, azimuths, indexing="ij")
    directions = np.stack([np.cos(e) * np.sin(a), np.sin(e), np.cos(e) * np.cos(a)], -1)
    offsets = points - centre
    offsets = offsets[offsets[:, 1] > -0.05]
    lengths = np.linalg.norm(offsets, axis=1)
    cosine = directions.reshape(-1, 3) @ (offsets / lengths[:, None]).T
    reach = np.where(cosine > np.cos(np.radians(14)), cosine * lengths, 0).max(1).reshape(e.shape)
    for _ in range(6):  # around and along, the pole's row is one point
        around = (np.roll(reach, 1, 1) + reach + np.roll(reach, -1, 1)) / 3
        padded = np.concatenate([around[1:2], around, around[-1:]])
        reach = np.maximum((padded[:-2] + padded[1:-1] + padded[2:]) / 3, reach * 0.97)
    reach[0] = reach[0].mean()
    return centre + directions * (reach + margin)[..., None]


def beanie(at: Anchors, rng: np.random.Generator) -> Mesh:
    """A knitted cap with ribs and a folded rim."""
    centre = np.array([0.0, at.eyes[:, 1].mean() + 0.085, -0.03])
    shell = crown(at.hair, centre, 0.008, lowest=-4)
    base = np.asarray(rng.choice([[0.35, 0.05, 0.06], [0.05, 0.12, 0.30], [0.30, 0.24, 0.10]]))
    ribs = 0.75 + 0.35 * (np.arange(shell.shape[1]) % 4 < 2)
    rows = np.where(np.arange(shell.shape[0]) % 9 < 3, 1.0, 0.55)
    colours = base * ribs[None, :, None] * rows[:, None, None] + 0.02
    fold = shell[-7:] + 0.010 * (shell[-7:] - centre) / np.linalg.norm(shell[-7:] - centre, axis=2, keepdims=True)
    trim = np.broadcast_to(0.55 - base * 0.3, (1, 1, 3)) * (0.7 + 0.4 * (np.arange(96) % 3 < 1))[None, :, None]
    return join([sheet_mesh(shell, colours, closed=True), sheet_mesh(fold, np.repeat(trim, 7, 0), closed=True)])


def hat(at: Anchors, rng: np.random.Generator) -> Mesh:
    """A hat with a brim and a band."""
    centre = np.array([0.0, at.eyes[:, 1].mean() + 0.095, -0.03])
    shell = crown(at.hair, centre, 0.010)
    base = np.asarray(rng.choice([[0.28, 0.20, 0.11], [0.10, 0.10, 0.11]]))
    colours = np.broadcast_to(base, shell.shape).copy()
    colours[-8:] = [0.30, 0.04, 0.04]
    ring = shell[-1]
    outward = (ring - centre) * [1, 0, 1]
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    widths = np.linspace(0, 0.085, 8)
    drop = np.array([0, -1.0, 0]) * (widths[:, None, None] ** 2) * 3
    brim = np.minimum(np.maximum(ring[None] + widths[:, None, None] * outward[None] + drop, -0.365), 0.365)
    return join([sheet_mesh(shell, colours, closed=True), sheet_mesh(brim, base * 0.9, closed=True)])


def headphones(at: Anchors, rng: np.random.Generator) -> Mesh:
    """A band over the head and cups over the ears."""
    colour = _pick(rng, [[0.03, 0.03, 0.035], [0.65, 0.65, 0.62], [0.45, 0.05, 0.05]])
    y, z = at.ear
    slab = at.hair[np.abs(at.hair[:, 2] - z) < 0.05]
    top = slab[:, 1].max() + 0.014
    wide = max(at.half, np.abs(slab[slab[:, 1] > y - 0.03][:, 0]).max()) + 0.016
    turns = np.linspace(0, np.pi, 40)
    arc = np.stack([wide * np.cos(turns), y + (top - y) * np.sin(turns) ** 0.8, np.full_like(turns, z)], 1)
    bands = [tube(arc + [0, 0, shift], 0.010, colour) for shift in (-0.014, 0.0, 0.014)]
    cups = []
    for side in (-1, 1):
        turn, out = np.linspace(0, 2 * np.pi, 40, endpoint=False), np.linspace(0, 1, 7)
        profile = np.array([1.0, 1.0, 0.98, 0.92, 0.8, 0.5, 0.0])
        rings = np.stack(
            [
                np.broadcast_to((side * (wide - 0.030 + 0.052 * out))[:, None], (7, 40)),
                y + 0.055 * profile[:, None] * np.cos(turn),
                z + 0.045 * profile[:, None] * np.sin(turn),
            ],
            -1,
        )
        shades = np.asarray(colour) * np.linspace(0.5, 1.3, 7)[:, None, None] * np.ones((7, 40, 1))
        cups.append(sheet_mesh(rings, shades, closed=True))
    return join([*bands, *cups])


def prop_for(head: Any, kind: str, seed: int) -> Mesh:
    """The prop of a kind of `KINDS`, fitted to a `pmv.training.heads.Head`."""
    at, rng = Anchors.of(head), np.random.default_rng([seed, 8])
    if kind in ("glasses", "sunglasses"):
        return glasses(at, rng, dark=kind == "sunglasses")
    return {"beanie": beanie, "hat": hat, "headphones": headphones}[kind](at, rng)


# --- drawing


def prop_depth(mesh: Mesh, cameras: Camera, size: int) -> Tensor:
    """z-depth [V,1,size,size], 0 where the mesh is not."""
    vertices, faces = torch.from_numpy(mesh.vertices).float(), torch.from_numpy(mesh.faces)
    views = [rasterize(vertices, faces, cameras[i], size, size, "torch").depth for i in range(len(cameras))]
    return torch.cat(views)[:, None]


class PropPainter:
    """Draws one mesh over pictures of the head that wears it.

    Args:
        light: the head's light, by the names of `pmv.training.heads.appearance.light`.
    """

    def __init__(self, mesh: Mesh, light: Mapping[str, NDArray | float]) -> None:
        self.mesh = mesh
        self.vertices, self.faces = torch.from_numpy(mesh.vertices).float(), torch.from_numpy(mesh.faces)
        self.light = {name: torch.as_tensor(np.asarray(value), dtype=torch.float32) for name, value in light.items()}
        self.attributes = torch.from_numpy(np.concatenate([mesh.normals, mesh.colours], 1)).float()
        away = self.light["key_direction"]
        yaw, pitch = torch.atan2(away[0], away[2]), torch.asin(away[1].clamp(-1, 1))
        self.sun = Camera.orbit(yaw, pitch, _AFAR, focal=_AFAR)  # one unit of the world is the picture's width
        self.shade = rasterize(self.vertices, self.faces, self.sun, _SHADOW_SIDE, _SHADOW_SIDE, "torch").depth[:, None]

    def shadow(self, points: Tensor) -> Tensor:
        """How much of the key light the mesh keeps from points [H,W,3]: [H,W] in [0,1]."""
        uv, z = self.sun.project(points.reshape(1, -1, 3))
        hidden = torch.zeros(points.shape[:2])
        step = 2.0 / _SHADOW_SIDE
        for dx in (-step, 0.0, step):
            for dy in (-step, 0.0, step):
                grid = (uv + uv.new_tensor([dx, dy]))[None] * 2 - 1
                near = F.grid_sample(self.shade, grid, mode="nearest", align_corners=False).reshape(points.shape[:2])
                behind = z.reshape(points.shape[:2]) - near
                hidden += ((near > 0) & (behind > 0.006) & (behind < _CAST)).float() / 9
        return hidden

    def over(self, rgb: Tensor, alpha: Tensor, depth: Tensor, camera: Camera) -> tuple[Tensor, Tensor, Tensor]:
        """The prop on a picture of its head.

        Args:
            rgb: [3,H,H] in [0,1], not premultiplied; alpha: [1,H,H]; depth: [1,H,H], 0 where empty.
            camera: one, of the true world.

        Returns:
            rgb, alpha, depth with the prop.
        """
        size = rgb.shape[-1]
        fragments = rasterize(self.vertices, self.faces, camera, size, size, "torch")
        own = fragments.depth
        nearer = (own > 0) & ((depth == 0) | (own < depth))
        shaded = self.shadow(camera.unproject(torch.where(depth > 0, depth, torch.ones_like(depth))[None])[0])
        dimmed = (rgb.clamp_min(1e-4) ** 2.2 * (1 - _SHADOW * shaded * (depth[0] > 0))) ** (1 / 2.2)
        painted = self._colours(fragments, camera)
        return (
            torch.where(nearer, painted, dimmed),
            torch.where(nearer, torch.ones_like(alpha), alpha),
            torch.where(nearer, own, depth),
        )

    def _colours(self, fragments: Any, camera: Camera) -> Tensor:
        values = interpolate(self.attributes, fragments, self.faces)[0]
        points = camera.unproject(torch.where(fragments.depth > 0, fragments.depth, 1.0)[:, None])[0]
        normals = F.normalize(values[..., :3], dim=-1)
        away = ((camera.position[0] - points) * normals).sum(-1, keepdim=True) < 0
        normals = torch.where(away, -normals, normals)  # both sides of a sheet are seen
        light = self.light
        key = (normals @ light["key_direction"]).clamp_min(0) * (1 - self.shadow(points))
        up = (normals[..., 1:2] * 0.5 + 0.5).clamp(0, 1)
        ambient = light["ground"] + (light["sky"] - light["ground"]) * up
        ambient = ambient + light["fill_x"] * normals[..., :1] + light["fill_z"] * normals[..., 2:]
        second = light["second_colour"] * (normals @ light["second_direction"]).clamp_min(0)[..., None]
        lit = light["key_colour"] * key[..., None] + second + ambient.clamp_min(0.03)
        colour = 0.8 * light["exposure"] * values[..., 3:] * lit
        # the tone curve of the head's own shader
        mapped = (colour * (1 + 0.12 * colour) / (1 + 0.55 * colour)).clamp(0, 1) ** (1 / 2.2)
        return mapped.permute(2, 0, 1)
