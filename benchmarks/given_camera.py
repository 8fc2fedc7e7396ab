"""How often a wrong camera is noticed, and a right one doubted.

Portraits whose cameras are known get cameras that are right, and the same written wrongly: in another convention, of
another place, scale or direction. Each goes the way that `prepare` goes without landmarks (`check_world`,
`hold_against_photo`): it is refused, warned of, or taken.

Subjects: the portraits that ship; heads of the generator at random, from the front, the sides and behind; and real
portraits with EG3D's labels, cropped for the generator by those (`--portraits`).
"""

import json
import logging
import math
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pmv.errors import InputError
from pmv.files.artifacts import write_json
from pmv.generators import load_generator
from pmv.generators.base import Generator
from pmv.geometry.camera import Camera
from pmv.pictures.images import read_bytes, read_image, read_mask, resize
from pmv.pipeline.context import Context
from pmv.portrait.crop import FRAMINGS, cut, framed_crop
from pmv.portrait.face_model import project
from pmv.portrait.matte import find_matte
from pmv.portrait.photo import from_tensor
from pmv.stages.camera_against_photo import MeanHead, hold_against_photo
from pmv.stages.camera_search import CameraSearchConfig
from pmv.stages.camera_world import check_world

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "given_camera.json"
_YAWS = (0, -15, 25, -40, 60, -80, 120, 180)
"""Degrees, from where the heads at random are seen."""
_Z_UP = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])

Change = Callable[[Camera], Camera]


@dataclass(frozen=True)
class Subject:
    """A portrait: its camera, the picture [1,3,S,S] on the generator's background, and the foreground [1,1,S,S]."""

    name: str
    camera: Camera
    picture: Tensor
    foreground: Tensor


def posed(change: Callable[[Tensor], Tensor]) -> Change:
    """A change of cam2world [1,4,4] alone."""
    return lambda camera: Camera(change(camera.cam2world.clone()), camera.intrinsics)


def flipped(*signs: float) -> Tensor:
    return torch.diag(torch.tensor([*signs, 1.0]))


def scaled(factor: float) -> Change:
    return posed(lambda m: torch.cat([m[..., :3], m[..., 3:] * m.new_tensor([factor, factor, factor, 1])[:, None]], -1))


def zoomed(factor: float) -> Change:
    by = torch.tensor([[factor, 1, 1], [1, factor, 1], [1, 1, 1]])
    return lambda camera: Camera(camera.cam2world, camera.intrinsics * by)


def moved(right: float, down: float) -> Change:
    return posed(lambda m: m + F.pad((right * m[..., :1] + down * m[..., 1:2]), (3, 0)))


def turned(yaw: float, pitch: float) -> Change:
    return lambda camera: camera.turned(math.radians(yaw), math.radians(pitch))


CHANGES: dict[str, Change] = {
    "right": lambda camera: camera,
    "5° of yaw": turned(5, 0),
    "OpenGL axes": posed(lambda m: m @ flipped(1, -1, -1)),
    "world-to-camera": posed(torch.linalg.inv),
    "z up": posed(lambda m: _Z_UP @ m),
    "y down": posed(lambda m: flipped(1, -1, -1) @ m),
    "face along −z": posed(lambda m: flipped(-1, 1, -1) @ m),
    "upside down": posed(lambda m: m @ flipped(-1, -1, 1)),
    "mirrored": posed(lambda m: flipped(-1, 1, 1) @ m @ flipped(-1, 1, 1)),
    "20° of yaw": turned(20, 0),
    "40° of yaw": turned(40, 0),
    "60° of yaw": turned(-60, 0),
    "30° of pitch": turned(0, 30),
    "10 times as far": scaled(10),
    "1.5 times as far": scaled(1.5),
    "1.25 times as far": scaled(1.25),
    "0.75 times as far": scaled(0.75),
    "focal length × 1.5": zoomed(1.5),
    "focal length × 0.68": zoomed(0.6835),
    "0.1 to the side": moved(0.1, 0),
    "0.1 down": moved(0, 0.1),
}
"""What is done to a right camera."""


def shipped(background: float) -> Iterator[Subject]:
    """The portraits in assets/."""
    folder = ROOT / "assets" / "portraits"
    for name in ("plain", "tattoo"):
        mask = read_mask(folder / f"{name}_mask.png")
        picture = torch.lerp(torch.tensor(background), read_image(folder / f"{name}.png")[0], mask)
        yield Subject(name, Camera.load(folder / "dataset.json", f"{name}.png"), picture, mask)


def labelled(folder: Path, background: float, size: int = 512) -> Iterator[Subject]:
    """Portraits with EG3D's labels (``dataset_eg3d.json`` in the folder), cropped as the embedded generator's are."""
    framing = FRAMINGS["heads"]
    assert framing.middle is not None
    turn = torch.eye(4)
    angle = math.radians(framing.turn)
    turn[1, 1] = turn[2, 2] = math.cos(angle)
    turn[2, 1] = math.sin(angle)
    turn[1, 2] = -turn[2, 1]
    for name, _ in json.loads((folder / "dataset_eg3d.json").read_text())["labels"]:
        camera = Camera.load(folder / "dataset_eg3d.json", name)
        photo = from_tensor(read_bytes(folder / name)[0])
        pose = camera.cam2world[0].double().numpy()
        middle = project(np.array([framing.middle]), pose[:3, :3], pose[:3, 3])[0]
        matrix = np.array([[size / photo.width, 0, 0], [0, size / photo.height, 0]])
        pixels, _ = cut(photo, framed_crop(matrix, middle, framing.width, size), size)
        mask = torch.from_numpy(np.ascontiguousarray(find_matte(pixels, "grabcut"))).float()[None, None]
        picture = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        # as far away as before, looking at the origin
        facing = turn @ camera.cam2world
        facing[:, :3, 3] = -facing[:, :3, 2] * camera.position.norm()
        picture = torch.lerp(torch.tensor(background), picture, mask)
        yield Subject(name, Camera(facing, camera.intrinsics), picture, mask)


@torch.no_grad()
def at_random(generator: Generator, count: int, seed: int = 0) -> Iterator[Subject]:
    """Heads that the generator draws."""
    rng, spec = torch.Generator().manual_seed(seed), generator.spec
    for i in range(count):
        pitch = math.radians(float(torch.rand(1, generator=rng)) * 20 - 10)
        camera = spec.orbit(math.radians(_YAWS[i % len(_YAWS)]), pitch)
        w = generator.map(torch.randn(1, spec.z_dim, generator=rng), camera)
        view = generator.render(generator.planes(w), w, camera)
        mask = resize(view.alpha, view.image.shape[-1]).clamp(0, 1)
        yield Subject(f"random {_YAWS[i % len(_YAWS)]}", camera, view.image.clamp(-1, 1), mask)


class Judge:
    """What becomes of a camera: "refused", "warned" or "taken", and the processor's seconds that it took to say so."""

    def __init__(self, generator: Generator) -> None:
        self.generator, self.w = generator, generator.mean_w()
        self.context = Context(generator, torch.device("cpu"), torch.Generator(), lambda a, b, mask=None: a)
        with torch.no_grad():
            self.planes = generator.planes(self.w)

    @torch.no_grad()
    def __call__(self, subject: Subject, camera: Camera) -> tuple[str, float]:
        try:
            check_world(camera, self.generator.spec)
            # what `prepare` draws anyway does not count
            view = self.generator.render(self.planes, self.w, self.generator.photo_camera(camera))
            started = time.process_time()
            head, config = MeanHead(self.w, self.planes, view), CameraSearchConfig()
            given = (camera, head, subject.picture, subject.foreground, None, config, self.context)
            confidence = hold_against_photo(*given)
        except InputError:
            return "refused", 0.0
        return "taken" if confidence == 1 else "warned", time.process_time() - started


def judged(
    judge: Judge, subjects: list[Subject], changes: dict[str, Change]
) -> tuple[dict[str, dict[str, int]], dict[str, str], float]:
    """Counts of what becomes of each change; what became of each subject's right camera; the longest time."""
    rows: dict[str, dict[str, int]] = {name: {"refused": 0, "warned": 0, "taken": 0} for name in changes}
    right: dict[str, str] = {}
    longest = 0.0
    for subject in subjects:
        for name, change in changes.items():
            outcome, seconds = judge(subject, change(subject.camera))
            rows[name][outcome] += 1
            longest = max(longest, seconds)
            if name == "right":
                right[subject.name] = outcome
    return rows, right, longest


def table(rows: dict[str, dict[str, int]]) -> str:
    """The counts as Markdown."""
    lines = ["| camera | refused | warned | taken |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(map(str, row.values()))} |" for name, row in rows.items())])


@click.command()
@click.option("--portraits", type=click.Path(path_type=Path), help="A folder of portraits with dataset_eg3d.json.")
@click.option("--random", "count", type=click.IntRange(0), default=8, show_default=True, help="Heads at random.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True)
def main(portraits: Path | None, count: int, out: Path) -> None:
    """Hold right and wrong cameras against portraits, and count what is noticed."""
    logging.getLogger("pmv").setLevel(logging.ERROR)
    generator = load_generator("heads")
    background = generator.spec.background or 0.0
    subjects = [*shipped(background), *at_random(generator, count)]
    subjects += labelled(portraits, background) if portraits else []
    rows, right, longest = judged(Judge(generator), subjects, CHANGES)
    print(table(rows))
    print(f"right cameras not taken: {[name for name, outcome in right.items() if outcome != 'taken']}")
    print(f"at most {longest:.2f} processor seconds")
    machine = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
    threads = torch.get_num_threads()
    write_json(out, {"subjects": right, "cameras": rows, "seconds": round(longest, 2), "threads": threads, **machine})


if __name__ == "__main__":
    main()
