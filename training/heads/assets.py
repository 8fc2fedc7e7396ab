"""MakeHuman's data compiled into what a head needs; read from a checkout or from one compiled `.npz`."""

from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, cast, get_type_hints

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from pmv.errors import AssetsError
from pmv.training.heads.formats import Binding, ObjMesh, read_binding, read_obj, read_target
from pmv.training.heads.hairstyles import Hairstyle, prepare_hairstyle
from pmv.training.heads.meshes import adjacency, catmull_clark, split_at_seams, triangulate, weld
from pmv.training.heads.parameters import HAIRSTYLES
from pmv.training.heads.shape import target_names

_BODY_COUNT = 13380  # body vertices come first; helpers, which eyes, lashes and hair hang on, follow
_LEFT_EYE_CUBE, _RIGHT_EYE_CUBE = 13606, 13614  # eight vertices each; their mean is the eyeball's centre
_MOUTH_SEAM = np.array([0.0, 6.61, 1.62])
LASHES = ("eyelashes01", "eyelashes02", "eyelashes03", "eyelashes04")


@dataclass(frozen=True)
class Targets:
    """Sparse morph targets, quantised to 16 bits (steps of a 32767th of the target's largest displacement).

    Attributes:
        names: [T] str. starts: int [T+1] row offsets. vertices: uint16 [K]. deltas: int16 [K,3]. scales: float32 [T].
    """

    names: NDArray
    starts: NDArray
    vertices: NDArray
    deltas: NDArray
    scales: NDArray

    def morph(self, base: NDArray, weights: dict[str, float]) -> NDArray:
        """The body [B,3] with the named targets added by their weights."""
        index = {str(name): row for row, name in enumerate(self.names)}
        body = base.astype(np.float64).copy()
        for name, weight in weights.items():
            row = index[name]
            chosen = slice(self.starts[row], self.starts[row + 1])
            body[self.vertices[chosen]] += self.deltas[chosen] * (float(self.scales[row]) * weight)
        return body


@dataclass(frozen=True)
class Skin:
    """Head, neck and shoulders, subdivided once.

    Attributes:
        vertices: int [C] body vertices of the coarse mesh.
        weights, columns, row_starts: the Catmull–Clark matrix [S,C] in CSR form.
        quads: int [F,4] over the S fine vertices.
        rest: float32 [S,3] on the base mesh.
        mouth_cavity: float32 [S] 1 inside the mouth.
        source: int [W] the fine vertex behind each drawn one (split at texture seams).
        atlas: float32 [W,2] place in the baked texture.
        triangles, bake_triangles, coarse_triangles: int32 [·,3] over drawn vertices: all, those with a place of their
            own in
            the atlas, and the unsubdivided mesh for shadow and occlusion maps.
    """

    vertices: NDArray
    weights: NDArray
    columns: NDArray
    row_starts: NDArray
    quads: NDArray
    rest: NDArray
    mouth_cavity: NDArray
    source: NDArray
    atlas: NDArray
    triangles: NDArray
    bake_triangles: NDArray
    coarse_triangles: NDArray

    def subdivide(self, body: NDArray) -> NDArray:
        """Fine vertices [S,3] of a morphed body."""
        matrix = sp.csr_matrix(
            (self.weights, self.columns, self.row_starts), shape=(len(self.row_starts) - 1, len(self.vertices))
        )
        return matrix @ body[self.vertices]


@dataclass(frozen=True)
class FittedPart:
    """A mesh that hangs on the body: eyes, lashes, teeth, tongue.

    Attributes:
        binding: how its vertices hang on the body.
        quads: int [F,4]. source: int [W] vertex behind each drawn one. triangles: int32 [T,3] over drawn vertices.
        rest: float32 [W,3] what the shader wants: texture coordinate (eyes), else zeros.
        extra: float32 [W,4] more of it: lashes (way to the tip, |x|, upper lid, 0); teeth (1 = gum or tongue).
    """

    binding: Binding
    quads: NDArray
    source: NDArray
    triangles: NDArray
    rest: NDArray
    extra: NDArray


@dataclass(frozen=True)
class HeadAssets:
    """Everything that building a head needs; vertices are numbered among the `base` vertices that anything refers to.

    Attributes:
        base: float32 [B,3] base mesh in decimetres.
        flipped: int [B] the vertex at the mirrored place of each vertex.
        skin_flipped: int [S] the same for fine skin vertices.
        eye_cubes: int [2,8] vertices around the left and right eyeball.
        mouth_seam: int [6] vertices between the lips.
        targets, skin, eyes, teeth, tongue: see their classes.
        lashes, hairstyles: by MakeHuman name.
        eye_texture: uint8 [256,256,3].
    """

    base: NDArray
    flipped: NDArray
    skin_flipped: NDArray
    eye_cubes: NDArray
    mouth_seam: NDArray
    targets: Targets
    skin: Skin
    eyes: FittedPart
    teeth: FittedPart
    tongue: FittedPart
    lashes: dict[str, FittedPart]
    hairstyles: dict[str, Hairstyle]
    eye_texture: NDArray

    @classmethod
    def load(cls, path: str | Path) -> "HeadAssets":
        """Read a MakeHuman checkout (or its data folder; takes seconds) or a file written by `save` (fast).

        Raises:
            AssetsError: something is missing; the message names the path and says where the data comes from.
        """
        path = Path(path)
        if path.is_file():
            return _read_compiled(path)
        for folder in (path, path / "data", path / "makehuman" / "data"):
            if (folder / "3dobjs" / "base.obj").is_file():
                return _compile(folder)
        raise AssetsError(
            f"{path}: no 3dobjs/base.obj in it or in its data folder; give the data folder of a MakeHuman checkout "
            "with the makehuman-assets copied in (https://github.com/makehumancommunity), or a compiled .npz"
        )

    def save(self, path: str | Path) -> None:
        """Write one compressed `.npz` that `load` reads without MakeHuman's data."""
        target = Path(path)
        temporary = target.with_name(target.name + ".tmp")
        with temporary.open("wb") as file:
            np.savez_compressed(file, **cast(Any, _flatten(self)))
        temporary.replace(target)


def _flatten(value: Any, prefix: str = "") -> dict[str, NDArray]:
    if isinstance(value, np.ndarray):
        return {prefix: value}
    members = value.items() if isinstance(value, dict) else ((f.name, getattr(value, f.name)) for f in fields(value))
    flat: dict[str, NDArray] = {}
    for name, member in members:
        flat |= _flatten(member, f"{prefix}/{name}" if prefix else name)
    return flat


def _unflatten(kind: Any, tree: Any) -> Any:
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{f.name: _unflatten(hints[f.name], tree[f.name]) for f in fields(kind)})  # type: ignore[operator]
    if isinstance(tree, dict):
        return {name: _unflatten(kind.__args__[1], branch) for name, branch in tree.items()}
    return tree


def _read_compiled(path: Path) -> HeadAssets:
    tree: dict[str, Any] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in archive.files:
                branch, *rest = key.split("/")
                node = tree
                for name in rest:
                    node = node.setdefault(branch, {})
                    branch = name
                node[branch] = archive[key]
        return _unflatten(HeadAssets, tree)
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise AssetsError(f"{path}: not compiled head assets ({error}); write it anew with HeadAssets.save") from None


def _quantised_targets(folder: Path, kept: NDArray) -> Targets:
    names, starts, vertices, deltas, scales = target_names(), [0], [], [], []
    renumber = np.full(int(kept.max()) + 1, -1)
    renumber[kept] = np.arange(len(kept))
    for name in names:
        index, delta = read_target(folder / "targets" / f"{name}.target")
        inside = index <= kept.max()
        index, delta = renumber[index[inside]], delta[inside]
        delta, index = delta[index >= 0], index[index >= 0]
        scale = max(float(np.abs(delta).max(initial=0)), 1e-6) / 32767
        whole = np.round(delta / scale).astype(np.int16)
        moved = whole.any(1)
        vertices.append(index[moved].astype(np.uint16))
        deltas.append(whole[moved])
        scales.append(scale)
        starts.append(starts[-1] + int(moved.sum()))
    return Targets(
        np.array(names),
        np.array(starts),
        np.concatenate(vertices),
        np.concatenate(deltas),
        np.array(scales, np.float32),
    )


def _atlas_place(uv: NDArray, rest: NDArray) -> NDArray:
    """Place in the baked texture [W,2]: the face's island fills three quarters of it, ears and mouth the margin. What
    is
    under the cloth shares one point (.985,.985), which stays clear of the islands and takes the cloth's colour."""
    u, v = uv.T
    place = np.zeros_like(uv)
    face = u > 0.63
    top = ~face & (v > 0.76)
    ears = ~face & (v <= 0.76) & (u < 0.17) & (v > 0.53) & (v < 0.65)
    place[face] = np.stack([(u[face] - 0.63) / 0.37 * 0.75, v[face] / 0.83], 1)
    place[top] = np.stack([0.76 + (u[top] - 0.15) / 0.47 * 0.24, (v[top] - 0.76) / 0.24 * 0.4], 1)
    place[ears] = np.stack([0.76 + u[ears] / 0.17 * 0.24, 0.45 + (v[ears] - 0.53) / 0.12 * 0.4], 1)
    covered = ~(face | top | ears) | (np.abs(rest[:, 0]) > 1.9) | (rest[:, 1] < 4.2) | (face & (rest[:, 1] < 5.0))
    place[covered] = 0.985
    return np.clip(place, 0.001, 0.999).astype(np.float32)


def _compile_skin(mesh: ObjMesh, renumber: NDArray, vertices: NDArray, chosen: NDArray) -> Skin:
    local = np.full(len(mesh.vertices), -1)
    local[vertices] = np.arange(len(vertices))
    coarse = local[mesh.quads[chosen]]
    matrix, quads, uvs = catmull_clark(coarse, mesh.uvs[mesh.uv_quads[chosen]], len(vertices))
    matrix.sort_indices()
    rest = matrix @ mesh.vertices[vertices]
    source, uv, drawn = split_at_seams(quads, uvs)
    cavity = np.zeros(len(rest), np.float32)
    in_mouth = (uvs[:, :, 0] > 0.74) & (uvs[:, :, 0] < 0.94) & (uvs[:, :, 1] < 0.145)
    cavity[quads[in_mouth]] = 1
    atlas = _atlas_place(uv, rest[source])
    triangles = triangulate(drawn)
    first_drawn = np.zeros(len(rest), np.int32)
    first_drawn[source[::-1]] = np.arange(len(source), dtype=np.int32)[::-1]
    return Skin(
        vertices=renumber[vertices],
        weights=matrix.data.astype(np.float32),
        columns=matrix.indices.astype(np.int32),
        row_starts=matrix.indptr.astype(np.int32),
        quads=quads.astype(np.int32),
        rest=rest.astype(np.float32),
        mouth_cavity=cavity,
        source=source.astype(np.int32),
        atlas=atlas,
        triangles=triangles,
        # a triangle that spans much of the atlas joins two islands; baking it would smear over everything between
        bake_triangles=triangles[np.ptp(atlas[triangles], axis=1).max(1) < 0.12],
        coarse_triangles=first_drawn[triangulate(coarse)],
    )


def _compile_eyes(mesh: ObjMesh, binding: Binding) -> FittedPart:
    centre = mesh.uvs[mesh.uv_quads].mean(1)
    cornea = (centre[:, 0] > 0.85) & (centre[:, 1] < 0.15)  # a clear shell that would hide the iris
    source, uv, drawn = split_at_seams(mesh.quads[~cornea], mesh.uvs[mesh.uv_quads[~cornea]])
    flat_uv = np.concatenate([uv, np.zeros((len(uv), 1))], 1).astype(np.float32)
    return FittedPart(
        binding, mesh.quads[~cornea], source, triangulate(drawn), flat_uv, np.zeros((len(uv), 4), np.float32)
    )


def _plain_part(binding: Binding, quads: NDArray, extra: NDArray) -> FittedPart:
    count = len(binding.indices)
    return FittedPart(
        binding, quads, np.arange(count), triangulate(quads), np.zeros((count, 3), np.float32), extra.astype(np.float32)
    )


def _compile_lashes(mesh: ObjMesh, binding: Binding, base: NDArray) -> FittedPart:
    positions = binding.fit(base)
    place = weld(positions)
    _, strip_of = connected_components(adjacency(place[mesh.quads], int(place.max()) + 1), directed=False)
    strips = strip_of[place]
    from_lid, _ = KDTree(base[:_BODY_COUNT]).query(positions)
    way, upper = np.zeros(len(positions)), np.zeros(len(positions))
    for strip in np.unique(strips):
        chosen = strips == strip
        way[chosen] = from_lid[chosen] / (from_lid[chosen].max() + 1e-9)
        upper[chosen] = positions[chosen, 1].mean() > base[_LEFT_EYE_CUBE : _LEFT_EYE_CUBE + 8, 1].mean()
    return _plain_part(binding, mesh.quads, np.stack([way, np.abs(positions[:, 0]), upper, 0 * way], 1))


def _compile_teeth(mesh: ObjMesh, binding: Binding, base: NDArray) -> FittedPart:
    place = weld(binding.fit(base))
    _, piece_of = connected_components(adjacency(place[mesh.quads], int(place.max()) + 1), directed=False)
    gum = np.bincount(piece_of)[piece_of] > 200  # the gums are large connected pieces, a tooth is a small one
    return _plain_part(binding, mesh.quads, np.repeat(gum[place].astype(float)[:, None], 4, 1))


def _renumbered(binding: Binding, renumber: NDArray) -> Binding:
    return Binding(
        renumber[binding.indices].astype(np.int32),
        binding.weights.astype(np.float32),
        binding.offsets.astype(np.float32),
        renumber[binding.scale_pairs].astype(np.int32),
        binding.scale_lengths.astype(np.float32),
    )


def _mirrored(positions: NDArray) -> NDArray:
    """For each vertex [V,3] the one nearest to its mirror image: int [V]."""
    _, nearest = KDTree(positions).query(positions * [-1, 1, 1])
    return np.asarray(nearest)


def _compile(folder: Path) -> HeadAssets:
    """Read a MakeHuman data folder; everything that does not depend on the head is worked out here."""
    body = read_obj(folder / "3dobjs" / "base.obj")
    base = body.vertices

    def part(kind: str, name: str) -> tuple[ObjMesh, Binding]:
        stem = folder / kind / name / name
        return read_obj(stem.with_suffix(".obj")), read_binding(stem.with_suffix(".mhclo"))

    corners = base[body.quads]
    chosen = (body.groups == "body") & (corners[:, :, 1].min(1) > 3.0) & (np.abs(corners[:, :, 0]).max(1) < 2.6)
    skin_vertices = np.unique(body.quads[chosen])

    eyes, teeth, tongue = part("eyes", "high-poly"), part("teeth", "teeth_base"), part("tongue", "tongue01")
    lashes = {name: part("eyelashes", name) for name in LASHES}
    hair = {name: part("hair", name) for name in HAIRSTYLES if name != "none"}
    cubes = np.stack([np.arange(start, start + 8) for start in (_LEFT_EYE_CUBE, _RIGHT_EYE_CUBE)])
    seam = np.argsort(np.linalg.norm(base[:_BODY_COUNT] - _MOUTH_SEAM, axis=1))[:6]
    bindings = [eyes[1], teeth[1], tongue[1], *(b for _, b in lashes.values()), *(b for _, b in hair.values())]
    referred = [skin_vertices, cubes.ravel(), seam, *(b.indices.ravel() for b in bindings)]
    referred += [b.scale_pairs.ravel() for b in bindings]
    mirror_vertex = _mirrored(base)
    kept = np.unique(np.concatenate(referred))
    kept = np.unique(np.concatenate([kept, mirror_vertex[kept]]))
    renumber = np.full(len(base), -1)
    renumber[kept] = np.arange(len(kept))

    skin = _compile_skin(body, renumber, skin_vertices, chosen)
    texture_path = folder / "eyes" / "materials" / "brown_eye.png"
    try:
        texture = Image.open(texture_path).convert("RGB").resize((256, 256), Image.Resampling.LANCZOS)
    except OSError as error:
        raise AssetsError(
            f"{texture_path}: cannot be read as a picture ({error}); take it from MakeHuman's data"
        ) from None

    def fitted(compiled: FittedPart) -> FittedPart:
        return FittedPart(
            _renumbered(compiled.binding, renumber),
            compiled.quads.astype(np.int32),
            compiled.source.astype(np.int32),
            compiled.triangles,
            compiled.rest,
            compiled.extra,
        )

    def styled(name: str) -> Hairstyle:
        style = prepare_hairstyle(name, *hair[name], base, skin.rest)
        integers = {key: getattr(style, key).astype(np.int32) for key in ("quads", "place", "source")}
        others = {f.name: getattr(style, f.name) for f in fields(style) if f.name not in integers}
        return Hairstyle(**{**others, **integers, "binding": _renumbered(style.binding, renumber)})

    return HeadAssets(
        base=base[kept].astype(np.float32),
        flipped=renumber[mirror_vertex[kept]].astype(np.int32),
        skin_flipped=_mirrored(skin.rest).astype(np.int32),
        eye_cubes=renumber[cubes].astype(np.int32),
        mouth_seam=renumber[seam].astype(np.int32),
        targets=_quantised_targets(folder, kept),
        skin=skin,
        eyes=fitted(_compile_eyes(*eyes)),
        teeth=fitted(_compile_teeth(*teeth, base)),
        tongue=fitted(_plain_part(tongue[1], tongue[0].quads, np.ones((len(tongue[1].indices), 4)))),
        lashes={name: fitted(_compile_lashes(*lashes[name], base)) for name in LASHES},
        hairstyles={name: styled(name) for name in hair},
        eye_texture=np.asarray(texture),
    )
