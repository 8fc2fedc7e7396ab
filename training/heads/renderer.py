"""Draws heads with OpenGL 3.3 without a window (EGL): Mesa's software renderer or any GPU."""

import importlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pmv.errors import AssetsError
from pmv.training.heads.build import Decal, Head, Part

_SHADERS = Path(__file__).parent / "shaders"
_PART_NUMBERS = {"skin": 0, "eyes": 1, "lashes": 2, "teeth": 3, "beard": 4, "hair": 5, "cap": 6, "glasses": 7}
_FURRY = ("beard", "hair")
_ATTRIBUTES = (("position", 3), ("normal", 3), ("rest", 3), ("extra", 4), ("tangent", 3))
_NEAR, _FAR = 0.5, 8.0
_LOW = -0.12  # the box cuts the body below this height, world units
_REACH = 0.9  # half width of the depth maps, world units: holds the shoulders too
_SHADOW_SIZE = 1024
_TILE_SIZE, _TILE_COLUMNS = 128, 7
_CLIP_DISTANCE0 = 0x3000  # GL_CLIP_DISTANCE0, which moderngl has no name for
_FIXED_UNITS = {
    "noise_texture": 0,
    "eye_texture": 1,
    "shadow_map": 2,
    "baked_albedo": 3,
    "baked_gloss": 4,
    "baked_bumps": 5,
    "strand_texture": 6,
}
_SCRATCH_UNITS = (7, 8, 9)


@dataclass(frozen=True)
class HeadView:
    """One picture of a head.

    Attributes:
        rgb: uint8 [H,W,3], not premultiplied; black where nothing is.
        alpha: float32 [H,W] coverage in [0,1].
        depth: float32 [H,W] z-depth of the nearest surface in world units; 0 where nothing is.
    """

    rgb: NDArray
    alpha: NDArray
    depth: NDArray

    def over(self, background: tuple[float, float, float]) -> NDArray:
        """uint8 [H,W,3]: the head over a flat background, colour in [0,1]."""
        alpha = self.alpha[..., None]
        return np.round(self.rgb * alpha + np.asarray(background) * 255 * (1 - alpha)).astype(np.uint8)


@dataclass
class _LoadedPart:
    part: Part
    vertices: Any
    occlusion: Any
    surface: Any
    depth: Any
    coarse_depth: Any
    cap: Any
    low_cap: Any
    owned: list[Any]


def _directions() -> NDArray:
    """Unit vectors [D,3] spread over the sphere (Fibonacci), without those from straight below."""
    steps = np.arange(32) + 0.5
    polar, around = np.arccos(1 - 2 * steps / 32), np.pi * (1 + 5**0.5) * steps
    vectors = np.stack([np.cos(around) * np.sin(polar), np.cos(polar), np.sin(around) * np.sin(polar)], 1)
    return vectors[vectors[:, 1] > -0.75]


def _orthographic(direction: NDArray) -> NDArray:
    """Clip-from-world [4,4] of a parallel view from a direction."""
    forward = -np.asarray(direction, float)
    up = np.array([0.0, 1.0, 0.0]) if abs(forward[1]) < 0.95 else np.array([1.0, 0.0, 0.0])
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    view = np.eye(4)
    view[:3, :3] = right, np.cross(forward, right), forward
    return np.diag([1 / _REACH, 1 / _REACH, 0.5 / _REACH, 1.0]) @ view


def _perspective(intrinsics: NDArray) -> NDArray:
    """Clip-from-camera [4,4] of a normalised pinhole with OpenCV axes. y stays down, so that row 0 of what is read
    back is
    the top of the picture; for that, front faces are clockwise."""
    matrix = np.zeros((4, 4))
    matrix[:2, :3] = 2 * np.asarray(intrinsics, float)[:2]
    matrix[:2, 2] -= 1
    matrix[2, 2:] = (_FAR + _NEAR) / (_FAR - _NEAR), -2 * _FAR * _NEAR / (_FAR - _NEAR)
    matrix[3, 2] = 1
    return matrix


@cache
def _noise_cells() -> bytes:
    """64³ × 4 smoothed random bytes about 127 with a standard deviation of a fifth; the same on every machine."""
    noise = np.random.default_rng(0).random((64, 64, 64, 4))
    for axis in range(3):
        noise = (noise + 0.5 * np.roll(noise, 1, axis)) / 1.5
    noise = (noise - noise.mean()) / noise.std() * 0.2 + 0.5
    return (np.clip(noise, 0, 1) * 255).astype(np.uint8).tobytes()


def _stretched(noise: NDArray, size: tuple[int, int]) -> NDArray:
    """Periodic linear interpolation of noise [h,w] to a size (height, width)."""
    for axis, length in enumerate(size):
        count = noise.shape[axis]
        place = np.arange(length) * count / length
        low = place.astype(int)
        part = (place - low).reshape((-1, 1) if axis == 0 else (1, -1))
        noise = noise.take(low, axis) * (1 - part) + noise.take((low + 1) % count, axis) * part
    return noise


@cache
def _strands() -> tuple[int, int, bytes]:
    """Width, height and bytes of the repeating strand texture: u across, v along the hair; channels: tone, thin
    hairs, locks, what sets a strand apart."""
    height, width = 256, 2048
    rng = np.random.default_rng(1)

    def noise(rows: int, columns: int) -> NDArray:
        drawn = _stretched(rng.random((rows, columns)), (height, width))
        return (drawn - drawn.mean()) / drawn.std() * 0.2 + 0.5

    tone = 0.5 + 0.18 * (noise(8, 120) - 0.5) + 0.34 * (noise(12, 240) - 0.5) + 0.48 * (noise(12, 430) - 0.5)
    tone += 0.30 * (noise(10, 760) - 0.5)
    channels = np.stack([tone, noise(16, 460), noise(8, 90), noise(3, 410)], 2)
    return width, height, (np.clip(channels, 0, 1) * 255).astype(np.uint8).tobytes()


def _source(*names: str, **constants: int | float) -> str:
    defines = {f"PART_{name.upper()}": number for name, number in _PART_NUMBERS.items()} | constants
    header = ["#version 330", *(f"#define {name} {value}" for name, value in defines.items())]
    return "\n".join(header + [(_SHADERS / name).read_text(encoding="utf-8") for name in names])


def _create_context(backend: str, device_index: int | None) -> Any:
    try:
        import moderngl
    except ImportError:
        raise AssetsError('rendering heads needs moderngl: pip install "pmv[train]"') from None
    if importlib.util.find_spec("triton"):
        # Mesa's software renderer and Triton bring an LLVM each; the process dies unless Triton's is loaded first
        importlib.import_module("triton")
    options: dict[str, Any] = {"backend": backend}
    if device_index is not None:
        options["device_index"] = device_index
    try:
        return moderngl.create_context(standalone=True, require=330, **options)
    except Exception as error:  # glcontext raises bare Exception
        raise AssetsError(
            f"no OpenGL 3.3 through {backend} ({error}); on Debian: apt-get install libegl1 libgl1-mesa-dri"
        ) from None


class HeadRenderer:
    """Draws one loaded head from any number of cameras.

    Args:
        resolution: pixels a side.
        supersample: samples a pixel along each axis.
        specular: False leaves out whatever depends on the view (for training); True adds highlights.
        backend: moderngl's context backend.
        clip_box: half side of the cube outside of which nothing is drawn (what EG3D's tri-planes hold); None draws all.
        texture_size: texels a side of the baked skin.
        device_index: which EGL device; None leaves the choice to the driver.

    Raises:
        AssetsError: moderngl or an OpenGL driver is missing.
    """

    def __init__(
        self,
        resolution: int = 256,
        supersample: int = 2,
        specular: bool = False,
        backend: str = "egl",
        clip_box: float | None = 0.375,
        texture_size: int = 640,
        device_index: int | None = None,
    ) -> None:
        self.resolution, self.supersample = resolution, supersample
        self._specular, self._clip_box = specular, 10.0 if clip_box is None else clip_box
        self._context = context = _create_context(backend, device_index)
        import moderngl

        self._gl = moderngl
        context.front_face = "cw"
        self._directions = _directions()
        self._programs = self._compile()
        self._noise = context.texture3d((64, 64, 64), 4, _noise_cells())
        width, height, strands = _strands()
        self._strand_texture = context.texture((width, height), 4, strands)
        self._shadow_map = context.depth_texture((_SHADOW_SIZE, _SHADOW_SIZE))
        self._shadow_target = context.framebuffer(depth_attachment=self._shadow_map)
        rows = -(-len(self._directions) // _TILE_COLUMNS)
        self._tiles = context.depth_texture((_TILE_COLUMNS * _TILE_SIZE, rows * _TILE_SIZE))
        self._tiles.compare_func = ""
        self._tiles.filter = (moderngl.NEAREST, moderngl.NEAREST)
        self._tile_target = context.framebuffer(depth_attachment=self._tiles)
        size = (resolution * supersample,) * 2
        self._sample_colour, self._sample_depth = context.texture(size, 4), context.texture(size, 1, dtype="f4")
        self._sample_target = context.framebuffer(
            [self._sample_colour, self._sample_depth], context.depth_renderbuffer(size)
        )
        self._pixel_colour = context.texture((resolution, resolution), 4)
        self._pixel_depth = context.texture((resolution, resolution), 1, dtype="f4")
        self._pixel_target = context.framebuffer([self._pixel_colour, self._pixel_depth])
        self._baked = [context.texture((texture_size, texture_size), 4) for _ in range(3)]
        self._grown = [context.texture((texture_size, texture_size), 4) for _ in range(3)]
        self._bake_target, self._grow_target = context.framebuffer(self._baked), context.framebuffer(self._grown)
        for texture in self._grown:
            texture.filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)
        self._eye_texture: Any = None
        self._parts: list[_LoadedPart] = []
        self._head: Head | None = None
        self._grow = context.vertex_array(self._programs["dilate"], [])
        self._resolve = context.vertex_array(self._programs["resolve"], [])

    def _compile(self) -> dict[str, Any]:
        make = self._context.program
        surface = _source("surface.vert")
        screen = _source("screen.vert")
        tiles = dict(DIRECTIONS=len(self._directions), TILE_SIZE=_TILE_SIZE, TILE_COLUMNS=_TILE_COLUMNS)
        return {
            "surface": make(surface, _source("common.glsl", "surface.frag", SHADOW_REACH=_REACH)),
            "depth": make(surface, _source("common.glsl", "depth.frag")),
            "cap": make(surface, _source("cap.frag")),
            "bake": make(_source("bake.vert"), _source("common.glsl", "bake.frag")),
            "occlusion": make(_source("occlusion.vert", **tiles), varyings=["openness"]),
            "dilate": make(screen, _source("dilate.frag")),
            "resolve": make(screen, _source("resolve.frag")),
        }

    def _set(self, program: str, **uniforms: Any) -> None:
        """Set uniforms by name; the compiler drops unused ones, so a missing name is no error."""
        compiled = self._programs[program]
        for name, value in uniforms.items():
            if name not in compiled:
                continue
            array = np.asarray(value)
            if array.ndim == 2:
                compiled[name].write(array.T.astype(np.float32).tobytes())
            elif array.ndim == 1:
                compiled[name].value = tuple(float(x) for x in array)
            else:
                compiled[name].value = array.item()

    def _format(self, program: str, vertices: Any, occlusion: Any) -> list[tuple[Any, ...]]:
        compiled = self._programs[program]
        layout = " ".join(f"{size}f" if name in compiled else f"{4 * size}x" for name, size in _ATTRIBUTES)
        content = [(vertices, layout, *(name for name, _ in _ATTRIBUTES if name in compiled))]
        return content + ([(occlusion, "1f", "occlusion")] if "occlusion" in compiled else [])

    def _upload(self, part: Part, head: Head) -> _LoadedPart:
        context = self._context
        columns = (part.positions, part.normals, part.rest, part.extra, part.tangent)
        vertices = context.buffer(np.concatenate(columns, 1).astype(np.float32).tobytes())
        occlusion = context.buffer(np.ones(len(part.positions), np.float32).tobytes())
        owned = [vertices, occlusion]

        def array(program: str, triangles: NDArray) -> Any:
            indices = context.buffer(np.ascontiguousarray(triangles, np.int32).tobytes())
            made = context.vertex_array(self._programs[program], self._format(program, vertices, occlusion), indices)
            owned.extend((indices, made))
            return made

        depth = array("depth", part.triangles)
        coarse = array("depth", head.coarse_skin) if part.name == "skin" else depth
        cap = low_cap = None
        if part.name == "skin":
            cap = array("cap", part.triangles)
            low_cap = array("cap", part.triangles[part.positions[part.triangles, 1].min(1) < _LOW])
        return _LoadedPart(
            part, vertices, occlusion, array("surface", part.triangles), depth, coarse, cap, low_cap, owned
        )

    def load(self, head: Head) -> None:
        """Send a head to the GPU, bake its skin and compute its occlusion and shadow."""
        with self._context:
            for loaded in self._parts:
                for item in loaded.owned:
                    item.release()
            self._head = head
            self._load_eye_texture(head.eye_texture)
            self._parts = [self._upload(part, head) for part in head.parts]
            uniforms = {**head.material, **head.light, **_FIXED_UNITS, "specular": float(self._specular)}
            for program in ("surface", "depth", "cap", "bake"):
                self._set(program, pole=head.pole, clip_box=self._clip_box, **uniforms)
            self._noise.use(_FIXED_UNITS["noise_texture"])
            self._strand_texture.use(_FIXED_UNITS["strand_texture"])
            self._eye_texture.use(_FIXED_UNITS["eye_texture"])
            self._shadow_map.use(_FIXED_UNITS["shadow_map"])
            self._bake(head)
            self._shade_occlusion()
            self._cast_shadow(head)

    def _load_eye_texture(self, image: NDArray) -> None:
        if self._eye_texture is None:
            height, width = image.shape[:2]
            self._eye_texture = self._context.texture((width, height), 3, np.ascontiguousarray(image).tobytes())
            self._eye_texture.build_mipmaps()

    def _bake(self, head: Head) -> None:
        skin = self._parts[0]
        indices = self._context.buffer(np.ascontiguousarray(head.bake_skin).tobytes())
        array = self._context.vertex_array(
            self._programs["bake"], self._format("bake", skin.vertices, skin.occlusion), indices
        )
        decal = self._use_decal(head.decal)
        self._context.disable(self._gl.DEPTH_TEST | self._gl.CULL_FACE | self._gl.BLEND)
        self._bake_target.use()
        self._bake_target.clear(*(float(c) ** 0.5 for c in np.asarray(head.material["cloth"])), 0.0)
        array.render()
        for unit, name, texture in zip(_SCRATCH_UNITS, ("albedo", "gloss", "bumps"), self._baked):
            texture.use(unit)
            self._set("dilate", **{name: unit})
        self._grow_target.use()
        self._grow.render(self._gl.TRIANGLES, vertices=3)
        for name, texture in zip(("baked_albedo", "baked_gloss", "baked_bumps"), self._grown):
            texture.build_mipmaps()
            texture.use(_FIXED_UNITS[name])
        for item in (array, indices, decal):
            item.release()

    def _use_decal(self, decal: Decal | None) -> Any:
        image = np.zeros((1, 1, 4), np.float32) if decal is None else decal.image
        height, width = image.shape[:2]
        texture = self._context.texture((width, height), 4, (image * 255).round().astype(np.uint8).tobytes())
        texture.repeat_x = texture.repeat_y = False
        texture.use(_SCRATCH_UNITS[0])
        place = np.zeros(4) if decal is None else np.array([*decal.centre, decal.width, decal.width * height / width])
        self._set("bake", decal=_SCRATCH_UNITS[0], decal_place=place)
        return texture

    def _shells(self, part: Part, full: bool) -> int:
        if full:
            return part.shells
        return 4 if part.name == "beard" else 1

    def _draw_depth(self, matrix: NDArray, coarse: bool) -> None:
        self._set("depth", clip_from_world=matrix)
        for loaded in self._parts:
            part = loaded.part
            if part.name == "lashes" or (coarse and part.name == "beard"):
                continue
            shells = self._shells(part, full=False)
            self._set("depth", part=_PART_NUMBERS[part.name], shells=shells, fur=part.fur if shells > 1 else 0.0)
            (loaded.coarse_depth if coarse else loaded.depth).render(instances=shells)

    def _shade_occlusion(self) -> None:
        gl, context = self._gl, self._context
        context.enable_only(gl.DEPTH_TEST)
        matrices = [_orthographic(direction) for direction in self._directions]
        self._tile_target.viewport = (0, 0, *self._tiles.size)
        self._tile_target.use()
        self._tile_target.clear(depth=1.0)
        for index, matrix in enumerate(matrices):
            row, column = divmod(index, _TILE_COLUMNS)
            context.viewport = (column * _TILE_SIZE, row * _TILE_SIZE, _TILE_SIZE, _TILE_SIZE)
            self._draw_depth(matrix, coarse=True)
        self._tiles.use(_SCRATCH_UNITS[0])
        self._programs["occlusion"]["tile_from_world"].write(
            np.stack([matrix.T for matrix in matrices]).astype(np.float32).tobytes()
        )
        for loaded in self._parts:
            self._set("occlusion", depth_maps=_SCRATCH_UNITS[0], two_sided=float(loaded.part.name == "hair"))
            points = context.vertex_array(self._programs["occlusion"], self._format("occlusion", loaded.vertices, None))
            points.transform(loaded.occlusion, gl.POINTS, vertices=len(loaded.part.positions))
            points.release()

    def _cast_shadow(self, head: Head) -> None:
        matrix = _orthographic(np.asarray(head.light["key_direction"]))
        self._set("surface", light_from_world=matrix)
        self._context.enable_only(self._gl.DEPTH_TEST)
        self._shadow_target.use()
        self._shadow_target.clear(depth=1.0)
        self._draw_depth(matrix, coarse=False)

    def render(self, cam2world: NDArray, intrinsics: NDArray) -> HeadView:
        """Draw the loaded head.

        Args:
            cam2world: [4,4] OpenCV camera-to-world.
            intrinsics: [3,3] normalised by the image width.
        """
        if self._head is None:
            raise ValueError("load a head before rendering")
        with self._context:
            self._draw_samples(np.asarray(cam2world, float), np.asarray(intrinsics, float))
            return self._read_pixels()

    def _draw_samples(self, cam2world: NDArray, intrinsics: NDArray) -> None:
        gl, context, target = self._gl, self._context, self._sample_target
        camera_from_world = np.linalg.inv(cam2world)
        camera = {
            "clip_from_world": _perspective(intrinsics) @ camera_from_world,
            "camera_from_world": camera_from_world,
            "camera_position": cam2world[:3, 3],
        }
        for program in ("surface", "cap"):
            self._set(program, **camera)
        target.depth_mask = True
        target.use()
        target.clear(0.0, 0.0, 0.0, 0.0, depth=1.0)
        context.enable_only(gl.DEPTH_TEST)
        for plane in range(6):
            context.enable_direct(_CLIP_DISTANCE0 + plane)
        for loaded in reversed(self._parts):  # hair first: it hides much of the rest
            self._draw_surface(loaded, fringe=0)
        self._close_cut(from_below=cam2world[1, 3] < _LOW)
        if any(loaded.part.name in _FURRY for loaded in self._parts):
            target.depth_mask = False
            target.use()
            context.enable(gl.BLEND)
            context.blend_func = gl.ONE, gl.ONE_MINUS_SRC_ALPHA
            for loaded in self._parts:
                if loaded.part.name in _FURRY:
                    self._draw_surface(loaded, fringe=1)
        for plane in range(6):
            context.disable_direct(_CLIP_DISTANCE0 + plane)

    def _draw_surface(self, loaded: _LoadedPart, fringe: int) -> None:
        part, context = loaded.part, self._context
        shells = self._shells(part, full=True)
        self._set(
            "surface",
            part=_PART_NUMBERS[part.name],
            shells=shells,
            fur=part.fur if shells > 1 else 0.0,
            fringe=fringe,
            outermost_first=1 - fringe,
        )
        if part.name != "skin":
            context.disable(self._gl.CULL_FACE)
            loaded.surface.render(instances=shells)
            return
        context.enable(self._gl.CULL_FACE)
        context.cull_face = "back"
        loaded.surface.render()

    def _close_cut(self, from_below: bool) -> None:
        """Draw the inside of the skin; unless one looks up into the neck, only that of the shoulders can show."""
        self._context.enable(self._gl.CULL_FACE)
        self._context.cull_face = "front"
        skin = self._parts[0]
        (skin.cap if from_below else skin.low_cap).render()

    def _read_pixels(self) -> HeadView:
        self._context.enable_only(0)
        self._sample_colour.use(_SCRATCH_UNITS[0])
        self._sample_depth.use(_SCRATCH_UNITS[1])
        self._set(
            "resolve",
            colour_samples=_SCRATCH_UNITS[0],
            depth_samples=_SCRATCH_UNITS[1],
            supersample=self.supersample,
        )
        self._pixel_target.use()
        self._resolve.render(self._gl.TRIANGLES, vertices=3)
        side = (self.resolution, self.resolution)
        colour = np.frombuffer(self._pixel_colour.read(), np.uint8).reshape(*side, 4)
        depth = np.frombuffer(self._pixel_depth.read(), np.float32).reshape(side)
        return HeadView(colour[..., :3].copy(), colour[..., 3].astype(np.float32) / 255, depth.copy())
