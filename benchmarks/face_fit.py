"""Surfaces of a face from one picture against the truth, the statistical face's and an encoder's; and their cameras.

`python -m benchmarks.face_fit --scan FOLDER --portraits FOLDER --makehuman FOLDER --runs FOLDER`; each part is left
out with its option. The folder of runs holds what `pmv invert PICTURE --camera LABEL --until coarse --out RUNS/NAME`
made of the scan's front (NAME: `lps`, `lpst`) or of a synthetic head (NAME: its seed); a picture without a run has no
coarse row. `--encoder` takes the state of an encoder's chain (`pmv.training.encoder`).

Depth errors are of z-depth in world units inside the hull of the landmarks, a little eroded, where the truth has skin,
their median taken out: mean of the absolute value, and root mean square. *Sure*: where the fit's confidence is
above .3.
"""

import json
import math
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import click
import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation
from torch import Tensor

from pmv.encoders.network import Encoder
from pmv.files.artifacts import write_json
from pmv.generators import load_generator
from pmv.generators.base import Generator
from pmv.geometry.blend import blend_surface
from pmv.geometry.camera import EG3D_FOCAL, Camera
from pmv.geometry.scene import edge_step
from pmv.pictures.images import read_bytes
from pmv.pipeline.device import cpu_name
from pmv.portrait.align import choose_face, find_faces, shipped_model
from pmv.portrait.face_depth import face_depth
from pmv.portrait.face_fit import FaceFit, fit_face
from pmv.portrait.landmarks import find_landmarks
from pmv.portrait.photo import Photo, from_tensor
from pmv.portrait.pose import find_camera
from pmv.portrait.statistical_face import Anchor, shipped_face
from pmv.training.encoder.trainer import average_of

OUT = Path(__file__).resolve().parent / "results" / "face_fit.json"
INTRINSICS = np.array([[EG3D_FOCAL, 0, 0.5], [0, EG3D_FOCAL, 0.5], [0, 0, 1]])
_VIEWS = ("yaw15", "yawm15", "yaw30", "yawm30", "up20")
_SIZE = 256
_SURE = 0.3
ROWS = ("mean head", "coarse", "fit alone", "fit with coarse", "blend", "encoder", "fit with encoder")


@dataclass(frozen=True)
class Case:
    """A picture [1,4,S,S] (colour in [-1,1] over mid grey, alpha) with a true depth [S,S] (0 = not counted), landmarks
    [468,2], the camera that a user has, and the coarse depth and alpha [1,1,D,D] of a run, or None."""

    name: str
    picture: Tensor
    truth: np.ndarray
    uv: np.ndarray
    camera: Camera
    coarse: tuple[Tensor, Tensor] | None


def landmarks_of(pixels: np.ndarray) -> np.ndarray | None:
    """[468,2] in picture widths of uint8 [H,W,3], or None."""
    photo = Photo(np.ascontiguousarray(pixels))
    faces = find_faces(photo)
    return find_landmarks(photo, faces[0], shipped_model().partner).points / photo.width if faces else None


def _over_white(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise click.ClickException(f"{path} is not there")
    alpha = picture[..., 3:].astype(float) / 255
    return np.round(picture[..., 2::-1] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def _as_picture(rgb: np.ndarray, alpha: np.ndarray) -> Tensor:
    """uint8 [S,S,3], not premultiplied, and alpha [S,S] in [0,1] as a case's picture."""
    matte = torch.from_numpy(alpha).float()[None, None]
    colour = torch.from_numpy(rgb.copy()).float().permute(2, 0, 1)[None] / 127.5 - 1
    return F.interpolate(torch.cat([colour * matte, matte], 1), (_SIZE, _SIZE), mode="area")


def _with_alpha(path: Path) -> Tensor:
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    return _as_picture(picture[..., 2::-1], picture[..., 3] / 255)


def _run(runs: Path | None, name: str) -> tuple[Tensor, Tensor] | None:
    path = runs / name / "03_coarse" / "outputs.safetensors" if runs is not None else None
    if path is None or not path.is_file():
        return None
    from safetensors.torch import load_file

    outputs = load_file(path)
    depth = outputs.get("coarse_input_depth", outputs.get("input_depth"))
    assert depth is not None
    return depth, outputs["input_alpha"]


def scan_cases(folder: Path, runs: Path | None) -> Iterator[Case]:
    for name in ("lps", "lpst"):
        uv = landmarks_of(_over_white(folder / f"{name}_front.png"))
        assert uv is not None
        truth = np.load(folder / f"{name}_front.npz")["z"].astype(np.float64)
        truth = cv2.resize(truth, (_SIZE, _SIZE), interpolation=cv2.INTER_NEAREST)
        picture = _with_alpha(folder / f"{name}_front.png")
        yield Case(name, picture, truth, uv, Camera.load(folder / f"{name}_found.json"), _run(runs, name))


def _draw_heads(makehuman: Path, heads: int) -> list[tuple[str, np.ndarray, Tensor, np.ndarray]]:
    """Seed, picture over light grey uint8 [S,S,3], the same as `Case.picture`, and z-depth [S,S] of held-out heads from
    the front; the depth is 0 where hair or a beard hides the skin."""
    from pmv.training.data import HELD_OUT_SEED
    from pmv.training.heads import HeadRenderer, build_head, load_assets, sample_parameters

    assets, renderer, camera = load_assets(makehuman), HeadRenderer(resolution=_SIZE), Camera.orbit(0.0, 0.0)
    pose = camera.cam2world[0].numpy(), camera.intrinsics[0].numpy()
    drawn = []
    for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + heads):
        head = build_head(assets, sample_parameters(seed))
        renderer.load(head)
        view = renderer.render(*pose)
        renderer.load(replace(head, parts=tuple(part for part in head.parts if part.name not in ("hair", "beard"))))
        bald = renderer.render(*pose).depth
        truth = np.where(np.abs(view.depth - bald) < 0.003, view.depth, 0).astype(np.float64)
        picture = _as_picture(view.rgb, view.alpha.astype(np.float32))
        drawn.append((str(seed), view.over((0.9, 0.9, 0.9)), picture, truth))
    return drawn


def head_cases(makehuman: Path, runs: Path | None, heads: int) -> Iterator[Case]:
    """Held-out synthetic heads from the front."""
    # in a process of their own: Mesa's compiler and PyTorch's do not always agree in one
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        drawn = pool.submit(_draw_heads, makehuman, heads).result()
    for name, shown, picture, truth in drawn:
        uv = landmarks_of(shown)
        if uv is not None:
            yield Case(name, picture, truth, uv, Camera.orbit(0.0, 0.0), _run(runs, name))


def _resized(depth: Tensor) -> np.ndarray:
    return cv2.resize(depth[0, 0].double().numpy(), (_SIZE, _SIZE), interpolation=cv2.INTER_CUBIC)


def _error(depth: np.ndarray, truth: np.ndarray, mask: np.ndarray, scaled: bool = False) -> tuple[float, float]:
    if scaled:
        depth = depth * np.median((truth / np.maximum(depth, 1e-6))[mask])
    error = (depth - truth)[mask]
    error = error - np.median(error)
    return float(np.abs(error).mean()), float(np.sqrt((error**2).mean()))


def looked(case: Case, encoder: Encoder | None, generator: Generator) -> Tensor | None:
    """The surface [1,1,r,r] that an encoder sees."""
    if encoder is None:
        return None
    with torch.no_grad():
        return encoder.look(case.picture[:, :3], case.picture[:, 3:], case.camera, generator.spec).depth


def depth_rows(case: Case, encoder: Encoder | None) -> dict[str, tuple[float, float, float, float]]:
    """Row → mean and rms in the hull, mean and rms where the fit is sure."""
    hull = np.zeros((_SIZE, _SIZE), np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(np.round(case.uv * _SIZE).astype(np.int32)[:, None]), 1)
    generator = load_generator("heads")
    with torch.no_grad():
        w = generator.mean_w()
        mean_head = generator.render(generator.planes(w), w, case.camera).depth
    depths = {"mean head": (_resized(mean_head), False)}
    if (seen := looked(case, encoder, generator)) is not None:
        depths["encoder"] = _resized(seen), False
    fits = {"fit alone": fit_face(case.uv, INTRINSICS)}
    drawn = face_depth(fits["fit alone"], case.camera, _SIZE)
    if case.coarse is not None:
        coarse, alpha = case.coarse
        size = coarse.shape[-1]
        known = torch.where(alpha > 0.9, coarse, 0.0)[0, 0].double().numpy()
        fits["fit with coarse"] = fit_face(case.uv, INTRINSICS, depth=known)
        drawn = face_depth(fits["fit with coarse"], case.camera, _SIZE)
        small = face_depth(fits["fit with coarse"], case.camera, size)
        edge = edge_step(case.camera, size)
        depths["coarse"] = _resized(coarse), False
        depths["blend"] = _resized(blend_surface(coarse, alpha, small.depth, small.confidence, edge)), False
    if seen is not None:
        matte = F.interpolate(case.picture[:, 3:], seen.shape[-2:], mode="area")
        known = torch.where(matte > 0.9, seen, 0.0)[0, 0].double().numpy()
        fits["fit with encoder"] = fit_face(case.uv, INTRINSICS, depth=known)
    for name, fit in fits.items():
        depths[name] = face_depth(fit, case.camera, _SIZE).depth[0, 0].double().numpy(), True
    mask = cv2.erode(hull * (case.truth > 0).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    for depth, _ in depths.values():
        mask &= depth > 0
    sure = mask & (drawn.confidence[0, 0].numpy() > _SURE)
    return {
        name: (*_error(depth, case.truth, mask, scaled), *_error(depth, case.truth, sure, scaled))
        for name, (depth, scaled) in depths.items()
    }


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.linalg.norm(Rotation.from_matrix(a.T @ b).as_rotvec())))


def _orthogonal(matrix: np.ndarray) -> np.ndarray:
    u, _, v = np.linalg.svd(matrix)
    return u @ v


def relative_poses(folder: Path) -> dict[str, dict[str, tuple[float, float]]]:
    """Scan → view → degrees by which its turn against the front is wrong: of the fit, of `pmv.portrait.pose`."""
    labels = {name: np.array(row) for name, row in json.loads((folder / "dataset.json").read_text())["labels"]}
    result: dict[str, dict[str, tuple[float, float]]] = {}
    for scan in ("lps", "lpst"):
        turns = {}
        for view in ("front", *_VIEWS):
            uv = landmarks_of(_over_white(folder / f"{scan}_{view}.png"))
            assert uv is not None
            true = labels[f"{scan}_{view}.png"][:16].reshape(4, 4)[:3, :3]
            fit, pose = fit_face(uv, INTRINSICS), find_camera(uv, shipped_model())
            turns[view] = true @ fit.rotation, true @ pose.camera.cam2world[0, :3, :3].double().numpy().T
        result[scan] = {
            view: (_angle(turns[view][0], turns["front"][0]), _angle(turns[view][1], turns["front"][1]))
            for view in _VIEWS
        }
    return result


def anchored(fits: list[FaceFit], poses: list[np.ndarray]) -> Anchor:
    """The similarity to EG3D's world that labelled cameras cam2world [4,4] ask for: turn by the median, offset by least
    squares with a scale of its own for every portrait."""
    turns, rows, wanted = [], [], []
    for k, (fit, pose) in enumerate(zip(fits, poses)):
        rotation = _orthogonal(pose[:3, :3])
        turns.append(Rotation.from_matrix(rotation @ fit.rotation).as_rotvec(degrees=True)[0])
        row = np.zeros((3, 2 + len(fits)))
        row[1, 0] = row[2, 1] = 1.0
        row[:, 2 + k] = -rotation @ fit.translation
        rows.append(row)
        wanted.append(pose[:3, 3])
    y, z, *scales = np.linalg.lstsq(np.concatenate(rows), np.concatenate(wanted), rcond=None)[0]
    return Anchor(float(np.median(scales)), float(np.median(turns)), np.array([0.0, y, z]))


def portrait_cameras(folder: Path) -> dict[str, dict[str, float]]:
    """Portrait → rotation error (degrees) and position error (world units), the similarity learned from the others."""
    labels = json.loads((folder / "dataset_eg3d.json").read_text())["labels"]
    fits, poses = {}, {}
    for name, row in labels:
        photo = from_tensor(read_bytes(folder / name)[0])
        found = find_landmarks(photo, choose_face(find_faces(photo)), shipped_model().partner)
        fits[name] = fit_face(found.points / photo.width, np.array(row[16:]).reshape(3, 3))
        poses[name] = np.array(row[:16]).reshape(4, 4)
    result = {}
    for name in fits:
        others = [other for other in fits if other != name]
        anchor = anchored([fits[other] for other in others], [poses[other] for other in others])
        fit = replace(fits[name], face=replace(fits[name].face, anchor=anchor))
        camera = fit.camera().cam2world[0].double().numpy()
        result[name] = {
            "rotation": _angle(_orthogonal(poses[name][:3, :3]), camera[:3, :3]),
            "position": float(np.linalg.norm(camera[:3, 3] - poses[name][:3, 3])),
        }
    return result


_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--scan", type=_FOLDER, help="Views of a real scan: NAME_VIEW.png, .npz (z), dataset.json, NAME_found.json."
)
@click.option("--portraits", type=_FOLDER, help="Portraits with EG3D's labels, dataset_eg3d.json.")
@click.option("--makehuman", type=_FOLDER, help="MakeHuman's data, for held-out synthetic heads.")
@click.option("--runs", type=_FOLDER, help="Runs that went as far as coarse.")
@click.option("--encoder", type=_FOLDER, help="An encoder's chain: a folder with state.json.")
@click.option("--heads", type=int, default=8, show_default=True, help="Synthetic heads.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True, help="JSON to write.")
def main(
    scan: Path | None,
    portraits: Path | None,
    makehuman: Path | None,
    runs: Path | None,
    encoder: Path | None,
    heads: int,
    out: Path,
) -> None:
    """Depth and camera of the fitted statistical face against the truth."""
    result: dict = {"machine": f"{cpu_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"}
    groups: dict[str, Iterator[Case]] = {}
    seeing = average_of(encoder, None) if encoder is not None else None
    if scan is not None:
        groups["scan"] = scan_cases(scan, runs)
    if makehuman is not None:
        groups["heads"] = head_cases(makehuman, runs, heads)
    for group, cases in groups.items():
        table = {case.name: depth_rows(case, seeing) for case in cases}
        click.echo(f"{group + ': depth':<18}{'row':<18}{'hull: mean':>12}{'rms':>9}{'sure: mean':>12}{'rms':>9}")
        for name, rows in table.items():
            for row in ROWS:
                if row in rows:
                    click.echo(f"{name:<18}{row:<18}" + "{:>12.4f}{:>9.4f}{:>12.4f}{:>9.4f}".format(*rows[row]))
        for row in ROWS:
            have = [rows[row] for rows in table.values() if row in rows]
            if have:
                means = np.mean(have, axis=0)
                click.echo(
                    f"{f'mean of {len(have)}':<18}{row:<18}" + "{:>12.4f}{:>9.4f}{:>12.4f}{:>9.4f}".format(*means)
                )
        result[group] = table
    if scan is not None:
        result["turns"] = relative_poses(scan)
        click.echo("turn against the front, degrees wrong: statistical face, pmv.portrait.pose")
        for name, views in result["turns"].items():
            click.echo(f"{name:<8}" + "  ".join(f"{view} {a:.1f}, {b:.1f}" for view, (a, b) in views.items()))
    if portraits is not None:
        result["portraits"] = portrait_cameras(portraits)
        for name, row in result["portraits"].items():
            click.echo(f"{name:<24}{row['rotation']:>8.2f}°{row['position']:>8.3f}")
        turns = [row["rotation"] for row in result["portraits"].values()]
        click.echo(f"leave-one-out: mean {np.mean(turns):.2f}°, worst {max(turns):.2f}°")
    uv = shipped_face().at_landmarks(shipped_face().mean)[:, :2] * [1, -1] / 40 + 0.5
    started = time.process_time()
    for _ in range(5):
        fit_face(uv, INTRINSICS)
    result["seconds"] = (time.process_time() - started) / 5
    click.echo(f"one fit: {result['seconds']:.2f} CPU seconds")
    assert math.isfinite(result["seconds"])
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, result)


if __name__ == "__main__":
    main()
