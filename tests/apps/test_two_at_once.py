"""Two processes that start at once in one new folder: never two successes with different photos, never a lost photo."""

import multiprocessing
import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pmv.apps.invert import Request, invert
from pmv.errors import PmvError
from pmv.files.artifacts import file_hash, read_json
from pmv.generators import EG3DGenerator
from pmv.stages.sources import PhotoSources

_SETTINGS = (
    "prepare.search_yaw_steps=1",
    "prepare.search_pitch_steps=1",
    "prepare.search_keep=1",
    "prepare.refine_steps=0",
    "run.perceptual=lpips-random-squeeze",
    "run.device=cpu",
)


@pytest.fixture
def photos(tmp_path: Path, tiny_generator: EG3DGenerator) -> list[Path]:
    """Two views of a ball, and their mask."""
    w = tiny_generator.mean_w(16)
    planes, found = tiny_generator.planes(w), []
    for name, yaw in (("a", 0.2), ("b", -0.2)):
        view = tiny_generator.render(planes, w, tiny_generator.spec.orbit(yaw, 0.0))
        pixels = ((view.image[0].clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).numpy()
        found.append(tmp_path / f"{name}.png")
        Image.fromarray(pixels).save(found[-1])
        alpha = torch.nn.functional.interpolate(view.alpha, 32)[0, 0].clamp(0, 1)
        Image.fromarray(np.uint8(alpha * 255)).save(tmp_path / f"{name}_mask.png")
    return found


def pair(photos: list[Path], out: Path, generator: EG3DGenerator, seed: int) -> list[str]:
    """Start both in processes of their own; returns what each came to: "done", or its line.

    Both have found the folder free before either of them makes it; then the one is later than the other by a random
    time, up to that of its whole run.
    """
    context = multiprocessing.get_context("fork")
    together, results = context.Barrier(2), context.SimpleQueue()
    delay = random.Random(seed).uniform(0, 1.5)

    def work(number: int) -> None:
        photo = photos[number]
        request = Request(settings=_SETTINGS, until="prepare", mask=photo.with_name(f"{photo.stem}_mask.png"))
        together.wait()
        read = PhotoSources.read

        def read_late(sources: PhotoSources) -> Any:
            values = read(sources)
            if not late.is_set():
                together.wait()
                late.set()
                time.sleep(delay if number == seed % 2 else 0)
            return values

        late, PhotoSources.read = threading.Event(), read_late  # pyright: ignore[reportAttributeAccessIssue]
        try:
            invert(request, photo, out, generator=generator)
            results.put((number, "done"))
        except PmvError as error:
            results.put((number, str(error)))
        except BaseException as error:
            results.put((number, f"{type(error).__name__}: {error}"))

    processes = [context.Process(target=work, args=(number,)) for number in range(2)]
    for process in processes:
        process.start()
    found = dict(results.get() for _ in processes)
    for process in processes:
        process.join()
    return [found[0], found[1]]


def check(photos: list[Path], out: Path, told: list[str]) -> None:
    assert sorted(line == "done" for line in told) == [False, True], told
    loser = next(line for line in told if line != "done")
    assert "is working in this folder" in loser or "holds the run of another photo" in loser, loser
    winner = photos[told.index("done")]
    assert read_json(out / "source" / "names.json")["photo"] == winner.name
    assert file_hash(out / "source" / "photo.png") == file_hash(winner)
    assert (out / "00_prepare" / "stage.json").is_file() and read_json(out / "run.json")["stages"].keys() == {"prepare"}


@pytest.mark.parametrize("pairs", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_one_of_two_with_different_photos_wins(
    pairs: int, photos: list[Path], tmp_path: Path, tiny_generator: EG3DGenerator
):
    for number in range(pairs):
        out = tmp_path / "new" / str(number)
        check(photos, out, pair(photos, out, tiny_generator, number))


def test_whoever_fails_alone_clears_its_own_folder_only(
    photos: list[Path], tmp_path: Path, tiny_generator: EG3DGenerator
):
    """One of the two cannot be inverted: it leaves nothing, or the other's run whole."""
    Image.new("RGB", (40, 30)).save(photos[1])
    for number in range(2):
        out = tmp_path / "new" / str(number)
        told = pair(photos, out, tiny_generator, number)
        assert told[1] != "done" and "Error:" not in told[1]
        if told[0] == "done":
            assert file_hash(out / "source" / "photo.png") == file_hash(photos[0])
        else:  # refused while the other one held the folder, which is gone with it
            assert "is working" in told[0] and not out.exists()
