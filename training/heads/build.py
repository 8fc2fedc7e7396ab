"""From parameters to a head in EG3D's space: positions, normals and what the shaders need at every vertex."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pmv.training.heads.appearance import HAIR_LOOKS, light, material
from pmv.training.heads.assets import LASHES, FittedPart, HeadAssets
from pmv.training.heads.hairstyles import CROWN, SKULL_CENTRE, Hairstyle, scalp_distance
from pmv.training.heads.meshes import normalise, vertex_normals
from pmv.training.heads.parameters import SCAN_MODE_NAMES, HeadParameters
from pmv.training.heads.shape import target_weights
from pmv.training.heads.wear import cap, glasses, hat_heights, pressed

_REST_EYE_MIDDLE = np.array([0.0, 7.284, 1.245])
_UNSEEN_DISTANCE = 0.4  # what a bald scalp counts as its distance to the hair, decimetres
_BEARD_BOX = (np.array([-1.15, 5.85, 0.1]), np.array([1.15, 7.15, 2.2]))  # rest positions that can carry a beard
_FULL_BEARD = 0.20  # decimetres
_OUTWARD = 0.056  # radians that the scans' eyes look outward of their eyeballs' middle, by their irises
_SHAVEN = 0.3  # hair/length of style `none` up to which no hair stands off the scalp


@dataclass(frozen=True)
class Part:
    """One mesh of a head.

    Attributes:
        name: skin, beard, eyes, lashes, teeth, glasses, cap or hair; it chooses the material.
        positions, normals: float32 [V,3] in world units.
        rest: float32 [V,3] position on the base mesh, in decimetres: masks and noise are functions of it.
        extra: float32 [V,4] and tangent: float32 [V,3]: what the part's material wants (see shaders/).
        triangles: int32 [T,3].
        fur: height of the outermost shell along the normals, world units; 0 for a bare surface.
        shells: layers that the fur is drawn in.
    """

    name: str
    positions: NDArray
    normals: NDArray
    rest: NDArray
    extra: NDArray
    tangent: NDArray
    triangles: NDArray
    fur: float = 0.0
    shells: int = 1


@dataclass(frozen=True)
class Decal:
    """A picture on the skin: float32 [h,w,4] RGBA in [0,1], its middle (u,v) and width in the frontal EG3D picture,
    in [0,1]."""

    image: NDArray
    centre: tuple[float, float]
    width: float


@dataclass(frozen=True)
class Head:
    """A head ready to be drawn.

    Attributes:
        parameters: what it was built from.
        parts: its meshes, skin first.
        coarse_skin, bake_skin: int32 [·,3] triangles of the skin part for depth maps and for baking its texture.
        material, light: uniforms of the shaders.
        pole: unit axis [3] that polar strands run away from.
        scale: world units per decimetre.
        eye_texture: uint8 [h,w,3].
        decal: a picture on the skin, or None.
    """

    parameters: HeadParameters
    parts: tuple[Part, ...]
    coarse_skin: NDArray
    bake_skin: NDArray
    material: dict[str, NDArray | float]
    light: dict[str, NDArray | float]
    pole: NDArray
    scale: float
    eye_texture: NDArray
    decal: Decal | None = None

    def with_decal(self, image: NDArray, centre: tuple[float, float], width: float) -> "Head":
        """This head with a picture painted on its skin, thrown from the frontal camera. It becomes part of the
        surface: it bends
        with the cheek and is true from every view.

        Args:
            image: float [h,w,4] RGBA in [0,1], not premultiplied; row 0 is the top.
            centre: where its middle falls in the frontal picture (radius 2.7, focal 4.2647), (u,v) in [0,1] from the
                top left.
            width: its width in widths of that picture; the height follows from its shape.
        """
        if image.ndim != 3 or image.shape[2] != 4:
            raise ValueError(f"a decal is an RGBA picture [h,w,4], got an array of shape {image.shape}")
        return replace(self, decal=Decal(np.clip(image, 0, 1).astype(np.float32), centre, width))

    def with_light(self, **uniforms: NDArray) -> "Head":
        """This head in another light; keywords as in `appearance.light`."""
        return replace(self, light={**self.light, **{name: np.asarray(value) for name, value in uniforms.items()}})


@dataclass(frozen=True)
class Alignment:
    """Into EG3D's space: world = (body − origin) · scale; called with points [...,3], gives them there."""

    origin: NDArray
    scale: float

    @classmethod
    def of(cls, body: NDArray, assets: HeadAssets, size: float) -> "Alignment":
        return cls.of_points(body[assets.eye_cubes].mean(1), body[assets.mouth_seam].mean(0), size)

    @classmethod
    def of_points(cls, eyes: NDArray, mouth: NDArray, size: float) -> "Alignment":
        """By the eyeballs' centres [2,3] and the middle of the lips' seam [3]."""
        middle = eyes.mean(0)
        eye_distance = np.linalg.norm(eyes[0] - eyes[1])
        mouth_distance = middle[1] - mouth[1]
        # FFHQ aligns by the distances between the eyes and from the eyes to the mouth; the numbers put the eyes of the
        # frontal EG3D camera near pixels (97,118) and (159,118) of 256
        scale = size * 0.224 * 0.614 / ((eye_distance + 0.9 * mouth_distance) / 2)
        return cls(np.array([0.0, middle[1] - 0.024 / scale, middle[2] - 0.155 / scale]), float(scale))

    def __call__(self, points: NDArray) -> NDArray:
        return (points - self.origin) * self.scale

    def part(
        self,
        name: str,
        positions: NDArray,
        normals: NDArray,
        rest: NDArray,
        extra: NDArray,
        triangles: NDArray,
        tangent: NDArray | None = None,
        fur: float = 0.0,
        shells: int = 1,
    ) -> Part:
        tangent = np.zeros_like(positions) if tangent is None else tangent
        world = self(positions).astype(np.float32)
        others = (np.ascontiguousarray(a, np.float32) for a in (normals, rest, extra, tangent))
        return Part(name, world, *others, triangles=triangles, fur=fur * self.scale, shells=shells)


def _collar_cover(rest: NDArray, collar: float) -> NDArray:
    """How much each skin vertex [S] is under the cloth, 0 to 1; the collar is higher at the back and at the
    shoulders."""
    height = collar + 0.25 * np.clip(0.4 - rest[:, 2], -1, 1) + 0.18 * np.clip(np.abs(rest[:, 0]) - 0.35, 0, 0.6)
    return np.clip((height - rest[:, 1]) / 0.05, 0, 1)


def _skin_parts(assets: HeadAssets, parameters: HeadParameters, body: NDArray, alignment: Alignment) -> list[Part]:
    skin = assets.skin
    positions = skin.subdivide(body)
    cover = _collar_cover(skin.rest, parameters["cloth/collar"])
    positions = positions + vertex_normals(positions, skin.quads) * (0.045 * cover)[:, None]
    normals = vertex_normals(positions, skin.quads)
    style = assets.hairstyles.get(parameters.hairstyle)
    if style is None:
        hair_distance = np.full(len(positions), _UNSEEN_DISTANCE)
    else:
        mirrored = parameters["hair/mirrored"] < 0
        hair_distance = style.skin_distance[assets.skin_flipped] if mirrored else style.skin_distance
    extra = np.stack([hair_distance, skin.mouth_cavity, cover, np.zeros(len(positions))], 1)
    atlas = np.concatenate([skin.atlas, np.zeros((len(skin.atlas), 1))], 1)
    source = skin.source
    drawn = (positions[source], normals[source], skin.rest[source], extra[source])
    parts = [alignment.part("skin", *drawn, skin.triangles, atlas)]
    if parameters["face_hair/beard"] > 0.05:
        rest = skin.rest[source]
        inside = ((rest > _BEARD_BOX[0]) & (rest < _BEARD_BOX[1])).all(1) & (skin.mouth_cavity[source] < 0.5)
        inside &= rest[:, 1] > 5.92 + 0.46 * np.maximum(0, 1.42 - rest[:, 2])  # just under the jaw (see beard_region)
        # eight shells of the fine mesh would cost more than all the rest; the hairs hide the difference
        triangles = skin.coarse_triangles[inside[skin.coarse_triangles].all(1)]
        fur = _FULL_BEARD * parameters["face_hair/beard-length"]
        parts.append(alignment.part("beard", *drawn, triangles, atlas, fur, shells=8))
    if parameters.hairstyle == "none" and parameters["hair/length"] > _SHAVEN:
        parts.append(_cropped_hair(assets, parameters, positions, normals, alignment))
    return parts


def _cropped_hair(
    assets: HeadAssets, parameters: HeadParameters, positions: NDArray, normals: NDArray, alignment: Alignment
) -> Part:
    """Hair of millimetres, or an afro's, as shells on the scalp itself."""
    skin = assets.skin
    rest = skin.rest[skin.source]
    inside = scalp_distance(rest)
    triangles = skin.coarse_triangles[(inside[skin.coarse_triangles] > -0.05).any(1)]
    grown = (parameters["hair/length"] - _SHAVEN) / (1 - _SHAVEN)
    fur = 0.02 + 0.08 * grown + 0.24 * parameters["locks/curl"] * grown * parameters["hair/volume"]
    # thinner towards its border, as a barber leaves it: shells cannot be lower there, but strands can be fewer
    extra = np.stack([np.zeros_like(inside), np.zeros_like(inside), np.maximum(inside, 0), np.ones_like(inside)], 1)
    drawn = (positions[skin.source], normals[skin.source], rest, extra)
    shells = int(np.clip(np.ceil(fur / 0.016), 4, 16))
    return alignment.part("hair", *drawn, triangles, normalise(rest - SKULL_CENTRE - CROWN), fur, shells)


def _squeezed(positions: NDArray) -> NDArray:
    """Hair [V,3] in world units, with what would stick out of EG3D's box at the top, back and sides drawn in
    smoothly."""
    squeezed = positions.copy()
    for axis, sign, start, end in (
        (0, 1, 0.31, 0.362),
        (0, -1, 0.31, 0.362),
        (1, 1, 0.335, 0.368),
        (2, -1, 0.31, 0.362),
    ):
        beyond = np.maximum(sign * squeezed[:, axis] - start, 0)
        squeezed[:, axis] -= sign * (beyond - (end - start) * (1 - np.exp(-beyond / (end - start))))
    return squeezed


def _hair_part(
    style: Hairstyle, assets: HeadAssets, parameters: HeadParameters, body: NDArray, alignment: Alignment
) -> Part:
    flip = np.array([-1.0 if parameters["hair/mirrored"] < 0 else 1.0, 1.0, 1.0])
    # a mirrored style is fitted to the mirrored body and mirrored back, so that it still sits on a lopsided head
    worn_by = body[assets.flipped] * flip if flip[0] < 0 else body
    positions = style.binding.fit(worn_by)
    face_normals = vertex_normals(positions, style.quads)
    smooth = np.stack([np.bincount(style.place, column) for column in face_normals.T], 1)
    normals = normalise(smooth[style.place])
    skull = SKULL_CENTRE + worn_by[assets.eye_cubes].mean((0, 1)) - _REST_EYE_MIDDLE
    inward = (normals * (positions - skull)).sum(1) < 0
    normals[inward] *= -1
    positions = positions + normals * (0.08 * parameters["hair/volume"])
    look = HAIR_LOOKS[parameters.hairstyle]
    # the sign tells polar strands from straight ones, the size the gap to the skin (both constant or smooth on an
    # island)
    polar_and_gap = np.where(style.strand[:, 3] > 0.5, 1.0, -1.0) * (1.0 + style.skin_gap)
    place, outward = positions[style.source], normals[style.source]
    if hat_heights(parameters)[0] < 50:
        place = pressed(parameters, place, outward, style.rest, style.skin_gap)
    part = alignment.part(
        "hair",
        place * flip,
        outward * flip,
        style.rest,
        np.column_stack([style.strand[:, :3], polar_and_gap]),
        style.triangles,
        style.tangent * flip,
        look.fur * (0.6 + 0.8 * parameters["hair/volume"]),
        look.shells,
    )
    return replace(part, positions=_squeezed(part.positions))


def _turn(angle: float) -> NDArray:
    """Rotation [3,3] about the y axis, towards +x for positive angles."""
    return np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])


def _eye_part(assets: HeadAssets, parameters: HeadParameters, body: NDArray, alignment: Alignment) -> Part:
    eyes = assets.eyes
    positions = eyes.binding.fit(body)
    right, down = parameters["gaze/right"], parameters["gaze/down"]
    nod = np.array([[1, 0, 0], [0, np.cos(down), -np.sin(down)], [0, np.sin(down), np.cos(down)]])
    centres = body[assets.eye_cubes].mean(1)
    middle = centres[:, 0].mean()
    outward = _OUTWARD * (parameters["scan/share"] if assets.scans else 0.0)
    for centre in centres:
        side = (positions[:, 0] > middle) == (centre[0] > middle)
        turn = _turn(right + (outward if centre[0] > middle else -outward))
        positions[side] = (positions[side] - centre) @ (turn @ nod).T + centre
    return _fitted("eyes", eyes, positions, alignment)


def _fitted(name: str, part: FittedPart, positions: NDArray, alignment: Alignment) -> Part:
    normals = vertex_normals(positions, part.quads)
    source = part.source
    return alignment.part(name, positions[source], normals[source], part.rest, part.extra, part.triangles)


def _worn_parts(assets: HeadAssets, parameters: HeadParameters, body: NDArray, alignment: Alignment) -> list[Part]:
    parts = []
    if parameters["wear/glasses"] > 0.5:
        eyes, (bridge, *ears) = body[assets.eye_cubes].mean(1), body[assets.landmarks[3:]]
        worn = glasses(parameters, eyes, np.stack(ears), bridge)
        parts.append(alignment.part("glasses", worn.positions, worn.normals, worn.rest, worn.extra, worn.triangles))
    if hat_heights(parameters)[0] < 50:
        skin = assets.skin
        positions = skin.subdivide(body)
        worn = cap(parameters, positions, vertex_normals(positions, skin.quads), skin.rest, skin.quads)
        parts.append(alignment.part("cap", worn.positions, worn.normals, worn.rest, worn.extra, worn.triangles))
    return parts


def body_of(assets: HeadAssets, parameters: HeadParameters) -> NDArray:
    """The morphed body [B,3]: MakeHuman's targets and, where the assets hold scans, `scan/share` of a scanned face."""
    scanned = parameters["scan/share"] if assets.scans else 0.0
    body = assets.targets.morph(assets.base, target_weights(parameters, scanned))
    if scanned > 0:
        coefficients = np.array([parameters[name] for name in SCAN_MODE_NAMES])
        body += scanned * assets.scans.displacement(coefficients)
    return body


def build_head(assets: HeadAssets, parameters: HeadParameters) -> Head:
    """The head of a parameter vector: plain arrays, the same for the same input, drawn by `HeadRenderer`."""
    body = body_of(assets, parameters)
    alignment = Alignment.of(body, assets, parameters["macro/size"])
    parts = _skin_parts(assets, parameters, body, alignment)
    parts.append(_eye_part(assets, parameters, body, alignment))
    lashes = assets.lashes[LASHES[0] if parameters["makeup/lashes"] < 0.5 else LASHES[1]]
    for name, part in (("lashes", lashes), ("teeth", assets.teeth), ("teeth", assets.tongue)):
        parts.append(_fitted(name, part, part.binding.fit(body), alignment))
    parts += _worn_parts(assets, parameters, body, alignment)
    style = assets.hairstyles.get(parameters.hairstyle)
    if style is not None:
        parts.append(_hair_part(style, assets, parameters, body, alignment))
    return Head(
        parameters=parameters,
        parts=tuple(parts),
        coarse_skin=assets.skin.coarse_triangles,
        bake_skin=assets.skin.bake_triangles,
        material=material(parameters),
        light=light(parameters),
        pole=CROWN if style is None else style.pole,
        scale=alignment.scale,
        eye_texture=assets.eye_texture,
    )
