"""Many photos: each becomes a run of its own, one after another or side by side on this machine or a cluster (Ray).

What a photo's run folder already holds is not made again, so a batch that was interrupted, or lost a machine, goes on
when its command is repeated. One photo that cannot be used is noted and does not stop the others. All machines of a
cluster must see the photos and the output folder under the same paths.
"""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pmv.apps.invert import Request, invert
from pmv.errors import AssetsError, BusyError, InputError, PmvError, Stopped, shown
from pmv.files.reading import is_file, read_text
from pmv.generators import load_generator, resolve_generator
from pmv.pipeline.config import load_config
from pmv.pipeline.context import never
from pmv.pipeline.device import pick_device
from pmv.pipeline.folder import RunFolder
from pmv.stages.table import TABLE

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".heic", ".heif", ".avif")
"""Files of a folder that are taken for photos."""
PATIENCE = 90.0
"""Seconds to wait for another process to leave a run's folder: of a machine that was lost, the work is given to another
one before its own processes have ended."""
_MOST_LIST = 64 << 20
"""Bytes of a list: some hundred thousand paths."""
DONE, FAILED = "done", "failed"


@dataclass(frozen=True)
class Photo:
    """One of a batch.

    Attributes:
        name: unique in the batch, the name of its run's folder. path: absolute.
    """

    name: str
    path: Path


@dataclass(frozen=True)
class Outcome:
    """What became of a photo.

    Attributes:
        status: "done" or "failed". message: one line, of a failed one. seconds: that it took now. figures: of the
            finished run's `evaluate`, by name.
    """

    photo: Photo
    status: str
    message: str = ""
    seconds: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Shares:
    """What one run may use.

    Attributes:
        cores: processor cores. gpus: of a graphics card, 0.25 = four runs share one; 0 = none.
        retries: how often a run is begun again after its machine or process was lost.
    """

    cores: int = 1
    gpus: float = 0.0
    retries: int = 3


def find_photos(paths: Sequence[Path]) -> list[Photo]:
    """The photos of a batch, in the order given; a folder's by name.

    Args:
        paths: photos, folders of photos, and lists (.txt: a path a line, from the list's folder on; # begins a remark).

    Raises:
        InputError: a path or a line of a list is not there, or there is no photo at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        elif path.suffix.lower() == ".txt":
            found += _listed(path)
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"{path}: no such photo, folder or list")
    found = list(dict.fromkeys(Path(os.path.abspath(path)) for path in found))
    if not found:
        raise InputError(f"{paths[0]}: holds no photo ({', '.join(SUFFIXES)})" if paths else "there are no photos")
    return [Photo(name, path) for name, path in zip(_names(found), found, strict=True)]


def _listed(path: Path) -> list[Path]:
    lines = read_text(path, _MOST_LIST).splitlines()
    photos = [path.parent / line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    for photo in photos:
        if not is_file(photo):
            raise InputError(f"{path}: names {shown(photo.name)}, which is not there")
    return photos


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for each: its stem, with the suffix where two share one, with folders where they share that too."""
    names = [path.stem for path in paths]
    for longer in (lambda p: p.name, lambda p: f"{p.parent.name}-{p.name}", lambda p: "-".join(p.parts[1:])):
        # file systems that do not tell Photo from photo are many
        count = Counter(name.lower() for name in names)
        names = [longer(p) if count[n.lower()] > 1 else n for n, p in zip(names, paths, strict=True)]
    return names


def shard(photos: Sequence[Photo], index: int, count: int) -> list[Photo]:
    """The photos of one of `count` processes that share a batch without knowing of each other, numbered from 1."""
    if not 1 <= index <= count:
        raise InputError(f"--shard {index}/{count}: there are shards 1/{count} to {count}/{count}")
    return list(photos[index - 1 :: count])


def settled(request: Request) -> Request:
    """A request that means the same wherever it is read: paths absolute.

    Raises:
        PmvError: a preset, setting or generator that no photo could be inverted with.
    """
    presets = [str(Path(p).resolve()) if Path(p).is_file() else p for p in request.presets]
    run = load_config(TABLE, presets, request.settings).run
    resolve_generator(run.generator)
    settings = list(request.settings)
    for name, value in (("generator", run.generator), ("perceptual", run.perceptual)):
        if Path(value).is_file():
            settings.append(f"run.{name}={Path(value).resolve()}")
    if request.until is not None:
        TABLE.find(request.until)
    camera = request.camera and request.camera.resolve()
    return replace(request, presets=presets, settings=settings, camera=camera)


def invert_one(photo: Photo, out: Path, request: Request, stop: Callable[[], bool] = never) -> Outcome:
    """One photo, to the end or to its failure.

    Args:
        out: folder of the batch. request: the same for all.

    Raises:
        Stopped: `stop` said so.
    """
    started = time.monotonic()
    folder = out / photo.name
    try:
        _when_free(lambda: invert(request, photo.path, folder, generator=_generator(request), stop=stop))
    except Stopped:  # of the whole batch, and no fault of this photo
        raise
    except PmvError as error:
        message = " ".join(str(error).split())
        return Outcome(photo, FAILED, message, time.monotonic() - started)
    except Exception as error:  # a bug of ours must not cost the other photos their turn; the run's log has the rest
        message = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return Outcome(photo, FAILED, f"a bug: {message}; see {folder / 'log.txt'}", time.monotonic() - started)
    return Outcome(photo, DONE, "", time.monotonic() - started, figures(folder))


def _when_free(run: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return run()
        except BusyError:
            if time.monotonic() > end:
                raise
            time.sleep(1.0)


def _generator(request: Request) -> Any:
    """The request's generator, loaded once a process."""
    run = load_config(TABLE, request.presets, request.settings).run
    return _loaded(run.generator, str(pick_device(run.device)))


@lru_cache(maxsize=1)
def _loaded(name: str, device: str) -> Any:
    return load_generator(name, device=device)


def figures(run: Path) -> dict[str, float]:
    """The figures of a finished run's `evaluate`; none where it was not run."""
    folder = RunFolder(run, TABLE)
    record = folder.record(TABLE[TABLE.find("evaluate")])
    metrics = record["numbers"].get("metrics") if record else None
    if not isinstance(metrics, dict):
        return {}
    return {name: float(value) for name, value in metrics.items() if value is not None}


def stage_of(run: Path) -> str:
    """What a run is at: the stage whose folder is being written, or "" where nothing is."""
    names = sorted(path.name for path in run.glob(".tmp-[0-9]*")) if run.is_dir() else []
    return names[-1].split("_", 1)[-1] if names else ""


Told = Callable[[Outcome], Any]
"""Hears of every photo that is finished, in the order in which they are."""


def run_here(
    photos: Sequence[Photo], out: Path, request: Request, told: Told, stop: Callable[[], bool] = never
) -> list[Outcome]:
    """One after another, in this process."""
    outcomes = []
    for photo in photos:
        outcomes.append(invert_one(photo, out, request, stop))
        told(outcomes[-1])
    return outcomes


def run_on_ray(
    photos: Sequence[Photo],
    out: Path,
    request: Request,
    told: Told,
    shares: Shares,
    address: str | None = None,
    workers: int | None = None,
    waiting: Callable[[], Any] = lambda: None,
) -> list[Outcome]:
    """Side by side, as Ray tasks: as many at once as the machines have room for by `shares`; a task whose machine or
    process is lost begins again on another one, and goes on with what its folder holds.

    Args:
        address: of a cluster's head, "auto" for the one that this machine belongs to; None = this machine alone.
        workers: runs at once on this machine; None = as many as it has room for.
        waiting: called about every second.

    Raises:
        AssetsError: Ray is not installed. InputError: there is no cluster at the address.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise AssetsError('many photos side by side need Ray: pip install "pmv[batch]", or give --workers 0') from error
    _connect(ray, address, workers and workers * shares.cores)
    try:
        resources: dict[str, Any] = {"num_cpus": shares.cores, "num_gpus": shares.gpus, "max_retries": shares.retries}
        task = ray.remote(**resources)(_in_worker)
        open_tasks = {task.remote(photo, out, request, shares.cores): photo for photo in photos}
        outcomes = []
        try:
            while open_tasks:
                ready, _ = ray.wait(list(open_tasks), timeout=1.0)
                waiting()
                for reference in ready:
                    outcomes.append(_fetched(ray, reference, open_tasks.pop(reference)))
                    told(outcomes[-1])
        except BaseException:
            for reference in open_tasks:
                with suppress(Exception):
                    ray.cancel(reference, force=True)
            raise
    finally:
        ray.shutdown()
    return outcomes


def _connect(ray: Any, address: str | None, cores: int | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told that pmv is used
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        # a local cluster listens on the loopback interface alone
        local = {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "num_cpus": cores}
        ray.init(address=address, **quiet) if address else ray.init(**quiet, **local)
    except (ConnectionError, ValueError, RuntimeError) as error:
        said = f"--ray {address}: no cluster answers there" if address else "Ray does not start on this machine"
        raise InputError(f"{said} ({type(error).__name__})") from error


def _in_worker(photo: Photo, out: Path, request: Request, cores: int) -> Outcome:
    import torch

    torch.set_num_threads(cores)
    logging.getLogger("pmv").propagate = False
    return invert_one(photo, out, request)


def _fetched(ray: Any, reference: Any, photo: Photo) -> Outcome:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:  # lost more often than it is begun again
        return Outcome(photo, FAILED, f"its machine or process was lost ({type(error).__name__}); repeat the command")
