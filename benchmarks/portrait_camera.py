"""How well crop and camera of a portrait are found, leave-one-out; and how the shipped face model was learned.

PORTRAITS is a folder of EG3D crops of portraits with their cameras in dataset_eg3d.json, and of PanoHead's in
dataset_panohead.json. The camera of each EG3D portrait is found with a face model learned from the others: in the crop
as it is given, and in copies of it that are turned, scaled and shifted into a larger canvas, as a raw photo would show
it. A head that is tilted in its given crop stays so in an upright photo, but is turned upright in a turned one; "level"
says how far the corners are apart but for that turn.

Numbers of modes and weights were chosen while looking at these very portraits, so figures on others may be a little
worse. The correction for turned heads (`FaceModel.turn_table`) is learned from renders of the embedded generator.
"""

import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from pmv.files.artifacts import write_json
from pmv.generators import load_generator
from pmv.geometry.camera import EG3D_FOCAL, Camera
from pmv.pictures.images import read_bytes
from pmv.pipeline.device import cpu_name
from pmv.portrait.align import align_landmarks, choose_face, find_faces
from pmv.portrait.crop import FRAMINGS, apply, corners, eg3d_crop, invert, spanning
from pmv.portrait.face_model import FaceModel, Sample, fit_face_model, project
from pmv.portrait.landmarks import find_landmarks
from pmv.portrait.photo import Photo, from_tensor
from pmv.portrait.pose import find_camera

OUT = Path(__file__).resolve().parent / "results" / "portrait_camera.json"
COPIES = ((0, 1.0), (0, 0.4), (15, 1.5), (-40, 0.8), (90, 1.2), (180, 1.0))
"""Degrees and scale of the copies in larger canvases."""
_YAWS = (0, 15, 30, 40, 45, 50, 55, 60, 65)
_FRAMING_YAWS = (0, 20, 40)
_SIZE = 512
_UPRIGHT = 8.0


def _labels(folder: Path, name: str) -> dict[str, Camera]:
    rows = json.loads((folder / name).read_text())["labels"]
    return {file: Camera.from_labels(torch.tensor([label])) for file, label in rows}


def _pose(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (made orthogonal: labels are rounded) and position."""
    u, _, v = np.linalg.svd(camera.cam2world[0, :3, :3].double().numpy())
    return u @ v, camera.position[0].double().numpy()


def _placed(photo: Photo, degrees: float, scale: float) -> tuple[Photo, np.ndarray]:
    """The picture turned and scaled, off the middle of a larger canvas; and the matrix to there."""
    side = round(2.2 * scale * photo.width)
    turn = scale * Rotation.from_euler("z", degrees, degrees=True).as_matrix()[:2, :2]
    place = np.array([0.55, 0.47]) * side
    matrix = np.concatenate([turn, (place - turn @ [photo.width / 2, photo.height / 2])[:, None]], 1)
    warp = matrix.copy()
    warp[:, 2] += turn @ [0.5, 0.5] - 0.5
    pixels = photo.pixels
    if scale < 1:
        pixels = cv2.GaussianBlur(pixels, (0, 0), 0.4 / scale)
    canvas = cv2.warpAffine(pixels, warp, (side, side), flags=cv2.INTER_CUBIC, borderValue=(90, 110, 70))
    return Photo(canvas), matrix


def _offset(matrix: np.ndarray, place: np.ndarray, width: int) -> tuple[float, float]:
    """Mean distance of a crop's corners from the given crop's, in percent of its width; and after the given crop was
    turned about its middle as the found one is.

    Args:
        matrix: canvas → crop. place: given crop → canvas.
    """
    found = apply(invert(place), corners(matrix, _SIZE))
    given = np.array([[0, 0], [width, 0], [width, width], [0, width]])
    linear = matrix[:, :2] @ place[:, :2]
    turn = Rotation.from_euler("z", -math.atan2(linear[1, 0], linear[0, 0])).as_matrix()[:2, :2]
    turned = (given - width / 2) @ turn.T + width / 2
    apart, level = (np.linalg.norm(found - square, axis=1).mean() / width * 100 for square in (given, turned))
    return float(apart), float(level)


def _error(camera: Camera, truth: Camera, matrix: np.ndarray, place: np.ndarray) -> tuple[float, float]:
    """Rotation error in degrees and radius error in world units; a crop that is turned has a turned camera."""
    rotation, position = _pose(camera)
    wanted, there = _pose(truth)
    linear = matrix[:, :2] @ place[:, :2]
    angle = math.atan2(linear[1, 0], linear[0, 0])
    wanted = wanted @ Rotation.from_euler("z", angle).as_matrix().T
    degrees = np.degrees(np.linalg.norm(Rotation.from_matrix(wanted.T @ rotation).as_rotvec()))
    return float(degrees), float(abs(np.linalg.norm(position) - np.linalg.norm(there)))


def rendered_heads(heads: int, yaws: Sequence[int]) -> Iterator[dict[int, tuple[Camera, Photo]]]:
    """For each of some random heads of the embedded generator: yaw in degrees → the camera and what it sees."""
    generator = load_generator("heads")
    rng = torch.Generator().manual_seed(11)
    for _ in range(heads):
        views = {}
        with torch.no_grad():
            z = torch.randn(1, generator.spec.z_dim, generator=rng)
            w = generator.map(z, generator.spec.canonical_camera, truncation=0.8)
            planes = generator.planes(w)
            for yaw in yaws:
                camera = generator.spec.orbit(math.radians(yaw), 0.0)
                image = generator.render(planes, w, camera).image
                pixels = ((image[0].clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).numpy()
                views[yaw] = camera, Photo(cv2.resize(pixels, (_SIZE, _SIZE), interpolation=cv2.INTER_CUBIC))
        yield views


def heads_framing(model: FaceModel, heads: int) -> dict[str, Any]:
    """What `FRAMINGS["heads"]` ought to be, from renders of the embedded generator.

    Returns:
        width, middle and turn as of `Framing`, and how far single renders are from them: width (relative), middle (in
        picture widths) and turn (degrees), root mean square.
    """
    widths, turns, rays, centres = [], [], [], []
    for views in rendered_heads(heads, _FRAMING_YAWS):
        for camera, photo in views.values():
            faces = find_faces(photo)
            if not faces:
                continue
            landmarks = find_landmarks(photo, faces[0], model.partner)
            matrix = eg3d_crop(landmarks.five, _SIZE, 180.0)
            rotation, position = _pose(find_camera(apply(matrix, landmarks.points) / _SIZE, model).camera)
            centre = apply(matrix, np.array([_SIZE / 2, _SIZE / 2])) / _SIZE
            direction = rotation @ [*((centre - 0.5) / EG3D_FOCAL), 1.0]
            away = np.eye(3) - np.outer(direction, direction) / (direction @ direction)
            widths.append(float(np.sqrt(np.linalg.det(matrix[:, :2]))))
            turns.append(Rotation.from_matrix(_pose(camera)[0] @ rotation.T).as_rotvec(degrees=True)[0])
            rays.append((away, away @ position))
            centres.append((rotation, position, centre))
    # the point nearest to all rays through the pictures' middles; a head is symmetric
    matrices, vectors = (np.sum([ray[k] for ray in rays], axis=0) for k in (0, 1))
    y, z = np.linalg.solve(matrices[1:, 1:], vectors[1:])
    middle = np.array([0.0, y, z])
    apart = [project(middle[None], rotation, position)[0] - centre for rotation, position, centre in centres]
    width, turn = float(np.median(widths)), float(np.median(turns))
    return {
        "renders": len(widths),
        "width": width,
        "middle": middle.tolist(),
        "turn": turn,
        "width_rms": float(np.sqrt(np.mean((np.array(widths) / width - 1) ** 2))),
        "middle_rms": float(np.sqrt(np.mean(np.square(apart).sum(1)))),
        "turn_rms": float(np.sqrt(np.mean((np.array(turns) - turn) ** 2))),
    }


def turn_table(model: FaceModel, heads: int) -> np.ndarray:
    """[T,4] as of `FaceModel`, from renders of the embedded generator: what the found cameras of one head seen from
    several yaws lack against each other, the median over heads.
    """
    found: dict[int, list[np.ndarray]] = {yaw: [] for yaw in _YAWS}
    for views in rendered_heads(heads, _YAWS):
        poses = {}
        for yaw, (camera, photo) in views.items():
            faces = find_faces(photo)
            if faces:
                uv = find_landmarks(photo, faces[0], model.partner).points / _SIZE
                pose = find_camera(uv, model, correct=False)
                poses[yaw] = (_pose(pose.camera)[0], _pose(camera)[0], pose.yaw)
        near = [poses[yaw] for yaw in (0, 15, 30) if yaw in poses]
        if len(near) == 3:
            # the synthetic head's own idea of the front
            front = Rotation.from_matrix(np.stack([a @ b.T for a, b, _ in near])).mean().as_matrix()
            for yaw, (a, b, lagging) in poses.items():
                turn = Rotation.from_matrix(a.T @ front @ b).as_rotvec(degrees=True)
                found[yaw].append(np.array([abs(lagging), *turn]))
    rows = [np.median(found[yaw], axis=0) for yaw in _YAWS if yaw >= 40]
    return np.array([[0.0, 0, 0, 0], [32.0, 0, 0, 0], *rows])


def _summary(rows: list[dict[str, float]], name: str, middle: Any = np.mean) -> tuple[float, float]:
    values = [row[name] for row in rows]
    return float(middle(values)), float(np.max(values))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("portraits", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True, help="JSON to write.")
@click.option("--write-model", type=click.Path(path_type=Path), help="Learn from all portraits and write the .npz.")
@click.option("--framing", is_flag=True, help="Only tell what the embedded generator's framing ought to be.")
@click.option("--heads", type=int, default=14, show_default=True, help="Rendered heads, for the two above.")
def main(portraits: Path, out: Path, write_model: Path | None, framing: bool, heads: int) -> None:
    """Measure crop and camera on PORTRAITS, leave-one-out."""
    shipped = FaceModel.load()
    if framing:
        click.echo(json.dumps(heads_framing(shipped, heads), indent=1))
        click.echo(f"shipped: {FRAMINGS['heads']}")
        return
    truth = _labels(portraits, "dataset_eg3d.json")
    photos = {name: from_tensor(read_bytes(portraits / name)[0]) for name in truth}
    found, samples = {}, {}
    for name, photo in photos.items():
        found[name] = find_landmarks(photo, choose_face(find_faces(photo)), shipped.partner)
        samples[name] = Sample(found[name].points / photo.width, *_pose(truth[name]))
    if write_model is not None:
        model = fit_face_model(list(samples.values()), shipped.partner)
        shipped = replace(model, turn_table=turn_table(model, heads))
        shipped.save(write_model)
    # how far apart the five points of the given crops lie, in spans of what is found: 1 in the median
    spans = {
        name: math.sqrt(np.linalg.det(eg3d_crop(found[name].five, photo.width, _UPRIGHT)[:, :2]))
        for name, photo in photos.items()
    }
    as_given, copies, names = [], [], []
    for name, photo in photos.items():
        model = fit_face_model([s for other, s in samples.items() if other != name], shipped.partner)
        model = replace(model, turn_table=shipped.turn_table)
        identity = np.array([[1.0, 0, 0], [0, 1, 0]])
        span = float(np.median([value for other, value in spans.items() if other != name]))
        pose = find_camera(samples[name].uv, model)
        rotation, radius = _error(pose.camera, truth[name], identity, identity)
        five = spanning(found[name].five, span)
        offset = _offset(eg3d_crop(five, _SIZE, _UPRIGHT), identity, photo.width)
        as_given.append({"rotation": rotation, "radius": radius, "corners": offset[0], "level": offset[1]})
        names.append(name)
        for degrees, scale in COPIES:
            canvas, place = _placed(photo, degrees, scale)
            started = time.process_time()
            landmarks = find_landmarks(canvas, choose_face(find_faces(canvas)), shipped.partner)
            landmarks = replace(landmarks, five=spanning(landmarks.five, span))
            aligned = align_landmarks(canvas, landmarks, FRAMINGS["eg3d"], _SIZE, _UPRIGHT, model)
            seconds = time.process_time() - started
            rotation, radius = _error(aligned.camera, truth[name], aligned.matrix, place)
            row = {"degrees": degrees, "scale": scale, "rotation": rotation, "radius": radius}
            offset = _offset(aligned.matrix, place, photo.width)
            row |= {"corners": offset[0], "level": offset[1], "seconds": seconds}
            copies.append({**row, "confidence": aligned.confidence})
    pano = []
    for name, camera in _labels(portraits, "dataset_panohead.json").items():
        photo = from_tensor(read_bytes(portraits / name)[0])
        landmarks = find_landmarks(photo, choose_face(find_faces(photo)), shipped.partner)
        aligned = align_landmarks(photo, landmarks, FRAMINGS["panohead"], _SIZE, _UPRIGHT, shipped)
        identity = np.array([[1.0, 0, 0], [0, 1, 0]])
        rotation, radius = _error(aligned.camera, camera, aligned.matrix, identity)
        offset = _offset(aligned.matrix, identity, photo.width)
        pano.append({"rotation": rotation, "radius": radius, "corners": offset[0], "level": offset[1]})
    count = len(COPIES)
    click.echo(f"{'portrait':<22}{'rotation °':>11}{'radius':>8}{'corners %':>11}{'copies: °':>13}{'level %':>9}")
    for i, name in enumerate(names):
        part, row = copies[i * count : (i + 1) * count], as_given[i]
        click.echo(
            f"{name:<22}{row['rotation']:>11.2f}{row['radius']:>8.3f}{row['corners']:>11.2f}"
            f"{np.mean([r['rotation'] for r in part]):>13.2f}{np.mean([r['level'] for r in part]):>9.2f}"
        )
    groups = {"as given": as_given, "copies": copies, "PanoHead": pano}
    groups |= {f"turned {d}°, ×{s:g}": copies[k::count] for k, (d, s) in enumerate(COPIES)}
    titles = ("rotation mean, worst °", "radius worst", "corners median, worst %", "level median, worst %", "CPU s")
    click.echo(f"{'':<18}" + "".join(f"{title:>25}" for title in titles))
    summary: dict[str, Any] = {}
    for group, rows in groups.items():
        rotation, radius = _summary(rows, "rotation"), _summary(rows, "radius")
        offset, level = _summary(rows, "corners", np.median), _summary(rows, "level", np.median)
        seconds = float(np.median([row["seconds"] for row in rows])) if "seconds" in rows[0] else math.nan
        cells = (f"{rotation[0]:.2f}, {rotation[1]:.2f}", f"{radius[1]:.3f}", f"{offset[0]:.2f}, {offset[1]:.2f}")
        cells += (f"{level[0]:.2f}, {level[1]:.2f}", f"{seconds:.2f}")
        click.echo(f"{group:<18}" + "".join(f"{cell:>25}" for cell in cells))
        summary[group] = {"rotation": rotation, "radius": radius, "corners": offset, "level": level}
        summary[group]["seconds"] = None if math.isnan(seconds) else seconds
    span = float(np.median(list(spans.values())))
    click.echo(f"the five points' span in the given crops is {span:.4f} of what is found")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        out,
        {
            "span": span,
            "machine": f"{cpu_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
            "opencv": cv2.__version__,
            "summary": summary,
            "portraits": {name: row for name, row in zip(names, as_given)},
            "copies": copies,
        },
    )


if __name__ == "__main__":
    main()
