"""Makes the statistical face that pmv ships from a copy of ICT-FaceKit (github.com/ICT-VGL/ICT-FaceKit, MIT).

`python -m pmv.training.face --ict FOLDER --out assets/face/face.npz`: FOLDER is the checkout, or its `FaceXModel`.
Takes a few minutes.

**What is kept.** Face, head and neck, and the sheets that lie over the eyes; not teeth, gums, sockets and eyeballs:
what a portrait shows of them is too little to place. All modes of identity that are asked for; of the expressions those
that move the skin (`SHAPES_LEFT_OUT`).

**Where the landmarks lie.** MediaPipe's mesh has no published place on this one. Random faces of the model are drawn
from known cameras, in random light, with brows, lips and irises painted on; the landmark network looks at the pictures;
and each landmark is the point of the surface that is nearest to what the network says in all of them (geometric median
of the distances in the picture, over a grid of points finer than the mesh). What is left is the network's own error,
and becomes `landmark_modes` and `landmark_sigma`. Nothing is clicked by hand.

**What portraits add.** The network draws photos differently from drawings of bald heads: it puts the border of the face
nearer to the front and the nose further out. Where it puts its landmarks on photos, in the mean over people and in
EG3D's world, `pmv.portrait.face_model` knows; a similarity between those points and these gives the `Anchor`, and what
is left is `landmark_offset`.
"""

import argparse
import logging
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.spatial import KDTree

from pmv.errors import InputError
from pmv.geometry.camera import Camera
from pmv.geometry.raster import interpolate, rasterize
from pmv.portrait.align import find_faces, shipped_model
from pmv.portrait.face_model import FaceModel, principal_directions
from pmv.portrait.landmarks import find_landmarks
from pmv.portrait.photo import Photo
from pmv.portrait.statistical_face import Anchor, StatisticalFace, face_width
from pmv.training.heads.formats import read_obj_vertices
from pmv.training.heads.scans import EYEBALLS, FACE, HEAD

log = logging.getLogger("pmv")

EYE_SHEETS = slice(25047, 25351)
_NARROW = slice(0, 6706)  # "narrow face area": without ears, forehead's upper part and neck
# Multi-PIE's landmarks on this mesh, as ICT-FaceKit's README has them: 17 to 21 and 22 to 26, 48 to 59
_BROWS = ((268, 493, 1914, 2044, 1401), (3615, 4240, 4114, 2734, 2509))
_LIPS = (5708, 5695, 2081, 0, 4275, 6200, 6213, 6346, 6461, 5518, 5957, 5841)
SHAPES_LEFT_OUT = ("Pupil", "eyeLook", "neutral", "identity")
"""Beginnings of names of shapes that move no skin worth telling."""
_SIZE = 384
_VIEWS = ((0, 0), (-15, 6), (15, -6), (-30, 0), (30, 0), (0, 15), (0, -15), (-22, -12), (22, 12))
"""Yaw and pitch of the cameras, degrees."""
_LEAST_COSINE = 0.25  # between normal and ray: a landmark is not looked for on what turns away
_ROBUST = 0.01  # picture widths
_HABITS = 24  # modes of the network's error
_FLOOR = 0.001  # face widths: what a landmark is never better than


@dataclass(frozen=True)
class IctFaceKit:
    """ICT-FaceKit's numbers as its files have them, in centimetres.

    Attributes:
        neutral: [N,3]. triangles: [T,3] of all parts. identity: [K,N,3]. expression: [E,N,3], names: E.
    """

    neutral: np.ndarray
    triangles: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    names: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path, modes: int) -> "IctFaceKit":
        """Raises InputError where the folder is no ICT-FaceKit."""
        folder = folder / "FaceXModel" if (folder / "FaceXModel").is_dir() else folder
        path = folder / "generic_neutral_mesh.obj"
        if not path.is_file():
            raise InputError(f"{folder} has no generic_neutral_mesh.obj; give a checkout of ICT-FaceKit")
        neutral = read_obj_vertices(path)
        polygons = [line.split()[1:] for line in path.read_text().splitlines() if line.startswith("f ")]
        corners = [[int(corner.split("/")[0]) - 1 for corner in polygon] for polygon in polygons]
        triangles = np.array([(q[0], q[k], q[k + 1]) for q in corners for k in range(1, len(q) - 1)])
        identity = np.stack([read_obj_vertices(folder / f"identity{k:03d}.obj") - neutral for k in range(modes)])
        names = sorted(p.stem for p in folder.glob("*_*.obj")) + sorted(p.stem for p in folder.glob("[a-z]*[!0-9].obj"))
        names = [name for name in dict.fromkeys(names) if not name.startswith((*SHAPES_LEFT_OUT, "generic"))]
        expression = np.stack([read_obj_vertices(folder / f"{name}.obj") - neutral for name in names])
        return cls(neutral, triangles, identity, expression, tuple(names))


def _within(triangles: np.ndarray, *parts: slice) -> np.ndarray:
    """The triangles [T',3] all of whose corners lie in one of the parts."""
    inside = np.stack([((triangles >= part.start) & (triangles < part.stop)).all(1) for part in parts])
    return triangles[inside.any(0)]


def without_landmarks(kit: IctFaceKit) -> StatisticalFace:
    """The kept part of the face, its landmarks and its place in EG3D's world not yet known."""
    kept = np.concatenate([np.arange(part.start, part.stop) for part in (FACE, HEAD, EYE_SHEETS)])
    index = np.full(len(kit.neutral), -1)
    index[kept] = np.arange(len(kept))
    triangles = index[_within(kit.triangles, slice(FACE.start, HEAD.stop), EYE_SHEETS)]
    return StatisticalFace(
        mean=kit.neutral[kept],
        identity=kit.identity[:, kept].transpose(1, 2, 0).astype(np.float32),
        expression=kit.expression[:, kept].transpose(1, 2, 0).astype(np.float32),
        expression_names=kit.names,
        triangles=triangles,
        skin=_skin(kit)[kept],
        landmark_vertices=np.zeros((0, 3), np.int64),
        landmark_weights=np.zeros((0, 3)),
        landmark_modes=np.zeros((0, 2, 0)),
        landmark_sigma=np.zeros((0, 2)),
        landmark_offset=np.zeros((0, 3)),
        anchor=Anchor(1.0, 0.0, np.zeros(3)),
    )


def _skin(kit: IctFaceKit, ramp: float = 1.5) -> np.ndarray:
    """[N] 1 on the narrow face, falling to 0 over `ramp` centimetres from its border inwards and outwards."""
    triangles = _within(kit.triangles, FACE)
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    narrow = np.zeros(len(kit.neutral))
    narrow[_NARROW] = 1.0
    # the border: edges between the narrow face and the rest
    across = narrow[edges[:, 0]] != narrow[edges[:, 1]]
    border = kit.neutral[np.unique(edges[across])]
    distance = np.sqrt(((kit.neutral[:, None] - border[None]) ** 2).sum(-1)).min(1)
    value = 0.5 + np.where(narrow > 0, 0.5, -0.5) * np.minimum(distance / ramp, 1.0)
    value[FACE.stop :] = 0.0
    return value


# --- pictures


def _painted(kit: IctFaceKit, rng: np.random.Generator) -> np.ndarray:
    """Colours [N,3] in [0,1]: skin of a random tone, brows, lips, whites of the eyes, irises, dark mouth."""
    tone = np.array([0.85, 0.62, 0.5]) * rng.uniform(0.35, 1.1)
    colour = np.tile(tone, (len(kit.neutral), 1))
    x = kit.neutral
    for brow in _BROWS:
        line = np.concatenate([np.linspace(x[a], x[b], 20) for a, b in pairwise(brow)])
        apart = np.sqrt(((x[FACE, None] - line[None]) ** 2).sum(-1)).min(1)
        colour[FACE] = np.where(apart[:, None] < 0.42, tone * 0.25, colour[FACE])
    colour[FACE] = np.where(_inside(x[FACE, :2], x[list(_LIPS), :2])[:, None], tone * [0.95, 0.55, 0.55], colour[FACE])
    for ball in EYEBALLS:
        centre = (x[ball].min(0) + x[ball].max(0)) / 2
        off = np.linalg.norm(x[ball][:, :2] - centre[:2], axis=1)
        colour[ball] = np.where(off[:, None] < 0.6, 0.15, 0.85)
    colour[HEAD] = tone
    return colour


def _inside(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """[P] whether points [P,2] lie in a polygon [Q,2] (crossing number)."""
    result = np.zeros(len(points), bool)
    for a, b in zip(polygon, np.roll(polygon, -1, 0)):
        crosses = (a[1] > points[:, 1]) != (b[1] > points[:, 1])
        at = a[0] + (points[:, 1] - a[1]) / (b[1] - a[1] if b[1] != a[1] else 1.0) * (b[0] - a[0])
        result ^= crosses & (points[:, 0] < at)
    return result


def random_shape(kit: IctFaceKit, rng: np.random.Generator) -> np.ndarray:
    """Vertices [N,3] of a random person; every other one with an expression."""
    person = rng.normal(size=len(kit.identity))
    vertices = kit.neutral + np.tensordot(person, kit.identity, 1)
    if rng.random() < 0.5:
        pairs: dict[str, list[int]] = {}
        for k, name in enumerate(kit.names):
            pairs.setdefault(name.removesuffix("_L").removesuffix("_R"), []).append(k)
        for name in rng.choice(sorted(pairs), 3, replace=False):
            amount = rng.uniform(0, 0.6)
            for k in pairs[name]:
                vertices = vertices + amount * kit.expression[k]
    return vertices


def camera_around(vertices: np.ndarray, yaw: float, pitch: float, distance: float = 60.0, focal: float = 2.7) -> Camera:
    """A camera (batch of 1) that looks at the middle of a face; degrees and centimetres."""
    middle = vertices[_NARROW].mean(0) - [0, 0, 2.0]
    camera = Camera.orbit(float(np.radians(yaw)), float(np.radians(pitch)), distance, middle.tolist(), focal)
    return Camera(camera.cam2world.double(), camera.intrinsics.double())


def draw(
    vertices: np.ndarray, triangles: np.ndarray, colour: np.ndarray, camera: Camera, rng: np.random.Generator
) -> np.ndarray:
    """uint8 [S,S,3]: the mesh in a random directional light over a random grey."""
    points = torch.from_numpy(vertices)
    faces = torch.from_numpy(triangles)
    fragments = rasterize(points, faces, camera, _SIZE, _SIZE)
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    flat = np.cross(b - a, c - a)
    normals = np.stack([np.bincount(triangles.ravel(), np.repeat(flat[:, k], 3), len(vertices)) for k in range(3)], 1)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    light = np.array([rng.normal() * 0.6, 0.3 + rng.normal() * 0.4, 1.0])
    light /= np.linalg.norm(light)
    share = rng.uniform(0.25, 0.5)
    shade = share + (1 - share) * np.clip(normals @ light, 0, 1)
    value = torch.from_numpy(np.concatenate([colour * shade[:, None], np.ones((len(colour), 1))], 1))
    picture = interpolate(value, fragments, faces)[0].numpy()
    picture = picture[..., :3] + (1 - picture[..., 3:]) * rng.uniform(0.2, 0.9)
    return np.round(np.clip(picture, 0, 1) ** (1 / 1.6) * 255).astype(np.uint8)


# --- landmarks


@dataclass(frozen=True)
class _Seen:
    """One picture: vertices [V,3] of the kept part, its camera, landmarks uv [468,2] in picture widths."""

    vertices: np.ndarray
    camera: Camera
    uv: np.ndarray

    def project(self, points: np.ndarray) -> np.ndarray:
        """Points [P,3] → [P,2] in picture widths."""
        return self.camera.project(torch.from_numpy(points)[None])[0][0].numpy()

    def known(self, normals: np.ndarray) -> np.ndarray:
        """[V] in [0,1]: how well each vertex is seen; normals [V,3]."""
        towards = self.camera.position[0].numpy() - self.vertices
        cosine = (normals * towards).sum(1) / np.linalg.norm(towards, axis=1)
        return np.clip((cosine - _LEAST_COSINE) / 0.3, 0, 1)


def look_at_faces(kit: IctFaceKit, face: StatisticalFace, people: int, out: Path | None = None) -> list[_Seen]:
    """Draws random faces and asks the landmark network. With `out`, the first pictures are written there."""
    rng = np.random.default_rng(5)
    drawn = _within(kit.triangles, slice(FACE.start, HEAD.stop), slice(11248, 13294), *EYEBALLS)
    kept = np.concatenate([np.arange(part.start, part.stop) for part in (FACE, HEAD, EYE_SHEETS)])
    partner = shipped_model().partner
    flipped, turn = _mirror(face), np.array([-1.0, 1, 1])
    seen: list[_Seen] = []
    for person in range(people):
        vertices, colour = random_shape(kit, rng), _painted(kit, rng)
        for yaw, pitch in _VIEWS:
            camera = camera_around(vertices, yaw + rng.normal() * 3, pitch + rng.normal() * 3)
            photo = Photo(draw(vertices, drawn, colour, camera, rng))
            faces = find_faces(photo)
            if not faces:
                continue
            found = find_landmarks(photo, faces[0], partner)
            if found.presence > 0.5:
                uv, matrix = found.points / photo.width, camera.cam2world.clone()
                seen.append(_Seen(vertices[kept], camera, uv))
                # each also counts mirrored: a head has no side that the network should know better
                matrix[:, :3, :3] = (
                    torch.from_numpy(np.diag(turn)) @ matrix[:, :3, :3] @ torch.from_numpy(np.diag(turn))
                )
                matrix[:, 0, 3] *= -1
                mirrored = Camera(matrix, camera.intrinsics)
                seen.append(_Seen((vertices[kept] * turn)[flipped], mirrored, uv[partner] * [-1, 1] + [1, 0]))
            if out is not None and person < 3:
                _write_overlay(out / f"face_{person}_{yaw}_{pitch}.png", photo, found.points)
        log.info("face: %d pictures of %d people", len(seen), person + 1)
    return seen


def _write_overlay(path: Path, photo: Photo, points: np.ndarray) -> None:
    picture = photo.pixels[..., ::-1].copy()
    for x, y in points:
        cv2.circle(picture, (round(x), round(y)), 1, (0, 255, 0), -1)
    cv2.imwrite(str(path), picture)


def _mirror(face: StatisticalFace) -> np.ndarray:
    """[V] the vertex at the mirrored place of each."""
    distance, index = KDTree(face.mean).query(face.mean * [-1, 1, 1])
    if np.percentile(distance, 99) > 0.05:
        raise InputError("the neutral face is not symmetric: this is not ICT-FaceKit's topology")
    return np.asarray(index)


def place_landmarks(face: StatisticalFace, seen: list[_Seen]) -> StatisticalFace:
    """The face with its landmarks where the pictures have them; see the module's text."""
    partner = shipped_model().partner
    count = len(partner)
    front = np.arange(FACE.stop)
    cost = np.zeros((len(front), count), np.float32)
    knowns = [one.known(face.normals(one.vertices)) for one in seen]
    for one, known in zip(seen, knowns):
        apart = one.project(one.vertices[front])[:, None].astype(np.float32) - one.uv.astype(np.float32)
        cost += known[front, None].astype(np.float32) * np.sqrt((apart**2).sum(-1) + _ROBUST**2)
    weight = np.sum(knowns, 0)[front, None]
    mean_cost = np.where(weight > 0.2 * len(seen), cost / np.maximum(weight, 1e-9), np.inf)
    nearest = mean_cost.argmin(0)
    # finer than the mesh: points of the triangles around the nearest vertex
    steps = 8
    grid = np.array([(i, j, steps - i - j) for i in range(steps + 1) for j in range(steps + 1 - i)]) / steps
    vertices, weights = np.zeros((count, 3), np.int64), np.zeros((count, 3))
    for landmark in range(count):
        around = face.triangles[(face.triangles == nearest[landmark]).any(1)]
        around = around[(around < FACE.stop).all(1)]
        places, corners = np.tile(grid, (len(around), 1)), around.repeat(len(grid), 0)
        total = np.zeros(len(corners))
        for one, known in zip(seen, knowns):
            if known[nearest[landmark]] > 0:
                points = np.einsum("pc,pcx->px", places, one.vertices[corners])
                distance = np.linalg.norm(one.project(points) - one.uv[landmark], axis=1)
                total += known[nearest[landmark]] * np.sqrt(distance**2 + _ROBUST**2)
        best = int(total.argmin())
        vertices[landmark], weights[landmark] = corners[best], places[best]
    placed = replace(face, landmark_vertices=vertices, landmark_weights=weights)
    error = np.stack([(one.uv - one.project(placed.at_landmarks(one.vertices))) / face_width(one.uv) for one in seen])
    known = np.stack([placed.at_landmarks(known) for known in knowns])[..., None].repeat(2, -1).reshape(len(seen), -1)
    basis, filled = principal_directions(error.reshape(len(seen), -1), known, _HABITS)
    left = filled - (filled @ np.linalg.pinv(basis).T) @ basis.T
    # as many numbers were fitted to each picture as there are modes
    freedom = known.sum(1).mean() / (known.sum(1).mean() - _HABITS)
    sigma = np.sqrt((known * left**2).sum(0) / np.maximum(known.sum(0), 1e-9) * freedom + _FLOOR**2)
    return replace(placed, landmark_modes=basis.reshape(count, 2, -1), landmark_sigma=sigma.reshape(count, 2))


def settle(face: StatisticalFace, portraits: FaceModel) -> StatisticalFace:
    """The face with its place in EG3D's world, and with what landmarks of photos are off; see the module's text.

    The similarity is the least-squares one (Umeyama 1991) over all landmarks.
    """
    here, there = face.at_landmarks(face.mean), portraits.points
    middle, other = here.mean(0), there.mean(0)
    u, values, v = np.linalg.svd((there - other).T @ (here - middle))
    rotation = u @ v
    scale = values.sum() / ((here - middle) ** 2).sum()
    shift = other - scale * rotation @ middle
    turn = np.degrees(np.arctan2(rotation[2, 1], rotation[2, 2]))
    anchor = Anchor(float(scale), float(turn), np.array([0.0, shift[1], shift[2]]))
    return replace(face, anchor=anchor, landmark_offset=(there - shift) @ rotation / scale - here)


def main() -> None:
    """The command of the module's text."""
    parser = argparse.ArgumentParser(description="Make the statistical face from a copy of ICT-FaceKit.")
    parser.add_argument("--ict", type=Path, required=True, help="the checkout, or its FaceXModel")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    parser.add_argument("--modes", type=int, default=100, help="modes of identity that are kept")
    parser.add_argument("--people", type=int, default=24, help="random faces that the landmark network looks at")
    parser.add_argument("--pictures", type=Path, help="a folder for some of those pictures, with the landmarks found")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    kit = IctFaceKit.read(arguments.ict, arguments.modes)
    face = without_landmarks(kit)
    if arguments.pictures is not None:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
    seen = look_at_faces(kit, face, arguments.people, arguments.pictures)
    face = settle(place_landmarks(face, seen), FaceModel.load())
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    face.save(arguments.out)
    log.info("face: %s, %.1f MB", arguments.out, arguments.out.stat().st_size / 1e6)


if __name__ == "__main__":
    main()
