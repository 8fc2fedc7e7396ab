"""MakeHuman's data, and the scans' if given, made into `HeadAssets`. Everything that does not depend on the head is
worked out here:

python -m pmv.training.heads.compile --makehuman makehuman/data --scans ICT-FaceKit --out heads.npz
"""

import argparse
import logging
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from pmv.errors import AssetsError
from pmv.training.heads.assets import LASHES, FittedPart, HeadAssets, ScanShapes, Skin, Targets
from pmv.training.heads.formats import Binding, ObjMesh, read_binding, read_obj, read_target
from pmv.training.heads.hairstyles import Hairstyle, prepare_hairstyle
from pmv.training.heads.meshes import adjacency, catmull_clark, split_at_seams, triangulate, weld
from pmv.training.heads.parameters import HAIRSTYLES
from pmv.training.heads.registration import HeadMesh, register
from pmv.training.heads.scans import read_scans
from pmv.training.heads.shape import average_weights, target_names

_log = logging.getLogger(__name__)

_BODY_COUNT = 13380  # body vertices come first; helpers, which eyes, lashes and hair hang on, follow
_LEFT_EYE_CUBE, _RIGHT_EYE_CUBE = 13606, 13614  # eight vertices each; their mean is the eyeball's centre
_LANDMARKS = np.array([5225, 474, 493, 133])
_EAR_ROOT = np.array([0.71, 7.36, 0.50])  # left; where a temple of glasses rests
_MOUTH_SEAM = np.array([0.0, 6.61, 1.62])


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


_HELPER_GROUPS = {
    "left-eye": ("helper-l-eye", "joint-l-eye"),
    "right-eye": ("helper-r-eye", "joint-r-eye"),
    "upper-teeth": ("helper-upper-teeth",),
    "lower-teeth": ("helper-lower-teeth", "helper-tongue"),
}


def _compile_scans(
    folder: str | Path, body: ObjMesh, renumber: NDArray, chosen: NDArray, assets: HeadAssets
) -> ScanShapes:
    def group(names: tuple[str, ...]) -> NDArray:
        inside = renumber[np.unique(body.quads[np.isin(body.groups, names)])]
        return inside[inside >= 0]

    mesh = HeadMesh(
        reference=assets.targets.morph(assets.base, average_weights()),
        base=assets.base.astype(np.float64),
        quads=renumber[body.quads[chosen]],
        groups={name: group(members) for name, members in _HELPER_GROUPS.items()},
        number=renumber,
        eye_cubes=assets.eye_cubes,
        mouth_seam=assets.mouth_seam,
    )
    carried = register(mesh, read_scans(folder), assets.flipped)
    ends = 1000 * np.percentile(carried.distance[carried.matched], [50, 95])
    _log.info(
        "scans carried: %.0f %% of the skin matched, %.1f and %.1f tenths of a millimetre off (median, 95 %%)",
        100 * carried.matched.mean(), *ends,
    )  # fmt: skip
    return ScanShapes(carried.mean, carried.modes, carried.rotation)


def load_assets(path: str | Path, scans: str | Path | None = None) -> HeadAssets:
    """Read a MakeHuman checkout (or its data folder; takes seconds) or a file written by `HeadAssets.save` (fast).

    Args:
        path: the checkout or the file.
        scans: a checkout of ICT-FaceKit (see `scans.read_scans`), with a MakeHuman checkout only; a compiled file holds
            its own. Without scans every face is MakeHuman's, whatever `scan/share` says.

    Raises:
        AssetsError: something is missing; the message names the path and says where the data comes from.
    """
    path = Path(path)
    if path.is_file():
        if scans is not None:
            raise AssetsError(f"{path}: a compiled file holds its own scans; give a MakeHuman checkout with {scans}")
        return HeadAssets.read(path)
    for folder in (path, path / "data", path / "makehuman" / "data"):
        if (folder / "3dobjs" / "base.obj").is_file():
            return compile_assets(folder, scans)
    raise AssetsError(
        f"{path}: no 3dobjs/base.obj in it or in its data folder; give the data folder of a MakeHuman checkout "
        "with the makehuman-assets copied in (https://github.com/makehumancommunity), or a compiled .npz"
    )


def compile_assets(folder: Path, scans: str | Path | None) -> HeadAssets:
    """Read a MakeHuman data folder and, unless None, a checkout of ICT-FaceKit (see `load_assets`)."""
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
    ear_roots = KDTree(base[:_BODY_COUNT]).query(_EAR_ROOT * [[1, 1, 1], [-1, 1, 1]])[1]
    seam = np.argsort(np.linalg.norm(base[:_BODY_COUNT] - _MOUTH_SEAM, axis=1))[:6]
    bindings = [eyes[1], teeth[1], tongue[1], *(b for _, b in lashes.values()), *(b for _, b in hair.values())]
    referred = [skin_vertices, ear_roots, cubes.ravel(), seam, *(b.indices.ravel() for b in bindings)]
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

    assets = HeadAssets(
        base=base[kept].astype(np.float32),
        flipped=renumber[mirror_vertex[kept]].astype(np.int32),
        skin_flipped=_mirrored(skin.rest).astype(np.int32),
        eye_cubes=renumber[cubes].astype(np.int32),
        mouth_seam=renumber[seam].astype(np.int32),
        landmarks=renumber[np.concatenate([_LANDMARKS, ear_roots])].astype(np.int32),
        targets=_quantised_targets(folder, kept),
        skin=skin,
        eyes=fitted(_compile_eyes(*eyes)),
        teeth=fitted(_compile_teeth(*teeth, base)),
        tongue=fitted(_plain_part(tongue[1], tongue[0].quads, np.ones((len(tongue[1].indices), 4)))),
        lashes={name: fitted(_compile_lashes(*lashes[name], base)) for name in LASHES},
        hairstyles={name: styled(name) for name in hair},
        eye_texture=np.asarray(texture),
        scans=ScanShapes.none(),
    )
    if scans is None:
        _log.warning("no scans of faces given: every face is MakeHuman's (scan/share counts as 0)")
        return assets
    return replace(assets, scans=_compile_scans(scans, body, renumber, chosen, assets))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pmv.training.heads.compile", description="Compile heads' assets.")
    parser.add_argument("--makehuman", type=Path, required=True, help="MakeHuman checkout or its data folder (CC0)")
    parser.add_argument("--scans", type=Path, help="checkout of ICT-FaceKit (MIT); without it faces are MakeHuman's")
    parser.add_argument("--out", type=Path, required=True, help="the compiled .npz")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    load_assets(options.makehuman, options.scans).save(options.out)
    print(f"{options.out}: {options.out.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
