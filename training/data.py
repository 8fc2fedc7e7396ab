"""Multi-view sets of synthetic heads: rendered by parallel processes into one memory-mapped pack.

A pack is a folder of .npy arrays that many processes write and one trainer reads while it grows: a head fills its
slot, then raises its flag in `ready`. A process that dies loses only the head it was at; the pool starts it again.

`python -m pmv.training.data --assets DIR --pack DIR --heads 1000` renders a pack and waits for it.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pmv.errors import InputError

DEPTH_ORIGIN = 2.7
"""Depths are kept as float16 offsets from this z-depth (the radius of the training cameras): 0.0005 units of rounding
at most."""

HELD_OUT_SEED = 90_000
"""Seeds of identities from here on are never trained on."""

TRAINING, HELD_OUT, PORTRAITS = "training", "held-out", "portraits"


@dataclass(frozen=True)
class PackLayout:
    """What a pack holds.

    Attributes:
        heads, views: slots, and pictures a head.
        first_seed: the head in slot i has seed first_seed + i.
        z_dim: numbers in a head's vector.
        resolution: pixels a side of colour and alpha; depth has half of it.
        supersample: rendered pixels a picture's pixel, along each axis.
        kind: "training" (random cameras), "portraits" (`portrait_cameras`), or "held-out" (`evaluation_cameras`).
        gaussian: share of the heads whose vector is drawn from a standard normal instead of the heads' own
            distribution, so that the generator knows what a latent drawn from its prior looks like.
    """

    heads: int
    views: int
    first_seed: int
    z_dim: int
    resolution: int = 256
    supersample: int = 2
    kind: str = TRAINING
    gaussian: float = 0.0

    def arrays(self) -> dict[str, tuple[tuple[int, ...], type]]:
        """Array name → shape, dtype."""
        n, v, r = self.heads, self.views, self.resolution
        return {
            "rgb": ((n, v, r, r, 3), np.uint8),
            "alpha": ((n, v, r, r), np.uint8),
            "depth": ((n, v, r // 2, r // 2), np.float16),
            "z": ((n, self.z_dim), np.float32),
            "cameras": ((n, v, 25), np.float32),
            "ready": ((n,), np.uint8),
        }


class HeadPack:
    """A folder of memory-mapped arrays.

    Attributes:
        layout: see `PackLayout`.
        rgb [N,V,R,R,3] uint8, not premultiplied; alpha [N,V,R,R] uint8; depth [N,V,R/2,R/2] float16: z-depth −
        DEPTH_ORIGIN, infinite where nothing is; z [N,D]; cameras [N,V,25] EG3D labels; ready [N] uint8.
    """

    def __init__(self, path: Path) -> None:
        """Opens an existing pack for reading and writing. Raises InputError if there is none."""
        self.path = Path(path)
        try:
            self.layout = PackLayout(**json.loads((self.path / "pack.json").read_text()))
        except (OSError, TypeError, ValueError) as error:
            raise InputError(
                f"{path} is no pack of heads ({error}); render one with python -m pmv.training.data"
            ) from error
        arrays = {name: np.load(self.path / f"{name}.npy", mmap_mode="r+") for name in self.layout.arrays()}
        self.rgb, self.alpha, self.depth = arrays["rgb"], arrays["alpha"], arrays["depth"]
        self.z, self.cameras, self.ready = arrays["z"], arrays["cameras"], arrays["ready"]

    @classmethod
    def create(cls, path: Path, layout: PackLayout) -> "HeadPack":
        """Makes an empty pack with its cameras drawn; an existing one of the same layout is kept and goes on
        growing."""
        path = Path(path)
        if (path / "pack.json").exists():
            pack = cls(path)
            if pack.layout != layout:
                raise InputError(f"{path} holds another set of heads ({pack.layout}); name a new folder or delete it")
            return pack
        path.mkdir(parents=True, exist_ok=True)
        for name, (shape, dtype) in layout.arrays().items():
            np.lib.format.open_memmap(path / f"{name}.npy", "w+", dtype, shape).flush()
        cameras = np.load(path / "cameras.npy", mmap_mode="r+")
        seeds = range(layout.first_seed, layout.first_seed + layout.heads)
        if layout.kind == TRAINING:  # all at once: a call for each head would take half a minute for some thousands
            cameras[:] = training_cameras(seeds, layout.views).reshape(cameras.shape)
        elif layout.kind == PORTRAITS:
            cameras[:] = portrait_cameras(seeds, layout.views).reshape(cameras.shape)
        else:
            cameras[:] = evaluation_cameras()
        (path / "pack.json").write_text(json.dumps(asdict(layout)))
        return cls(path)

    def slots(self) -> np.ndarray:
        """Indices of the heads that are complete, ascending."""
        return np.flatnonzero(np.array(self.ready))  # a copy: other processes write to it, which NumPy minds


def _camera_draws(seed: int, count: int) -> list[np.ndarray]:
    """yaw, pitch, radius, pivot and focal of the random cameras of one head, float32 [count,…]."""
    from pmv.geometry.camera import EG3D_FOCAL, EG3D_RADIUS

    rng = np.random.default_rng([seed, 1])
    kind = rng.choice(3, size=count, p=[0.64, 0.08, 0.28])  # own framing, wide, close-up
    front = (rng.random(count) < 0.55) | (kind == 2)
    yaw = np.where(front, rng.uniform(-math.pi / 3, math.pi / 3, count), rng.uniform(-math.pi, math.pi, count))
    pitch = np.radians(np.where(kind == 1, rng.uniform(-35, 60, count), rng.uniform(-25, 35, count)))
    focal = np.where(
        kind == 0, EG3D_FOCAL, np.where(kind == 1, rng.uniform(3.0, 3.6, count), rng.uniform(5.5, 10.0, count))
    )
    radius = EG3D_RADIUS * np.exp(rng.normal(0.0, 0.02, count))
    spread = np.where(kind == 2, 0.05, 0.012)[:, None]
    pivot = rng.normal(0.0, 1.0, (count, 3)) * spread
    pivot[:, 1] -= np.where(kind == 2, 0.03, 0.0)  # between eyes and mouth
    return [a.astype(np.float32) for a in (yaw, pitch, radius, pivot, focal)]


def training_cameras(seeds: int | Sequence[int], count: int) -> np.ndarray:
    """[heads·count,25] labels of random cameras around each head, two thirds of them within 60° of the front.

    Two thirds are the generator's own framing (distance 2.7, focal 4.2647, a little jitter); the rest are wide views,
    which label the corners of the box, and close-ups of the face, which show the planes at their full resolution.

    Args:
        seeds: of the heads; one is one head.
        count: cameras of each.
    """
    return _labels([_camera_draws(seed, count) for seed in ([seeds] if isinstance(seeds, int) else seeds)])


def photos_of(views: int) -> int:
    """How many of the views of a head in a pack of portraits are as photos are: the first half."""
    return -(-views // 2)


def _portrait_draws(seed: int, count: int) -> list[np.ndarray]:
    """As `_camera_draws`: cameras that see a face, then others all around."""
    from pmv.geometry.camera import EG3D_FOCAL, EG3D_RADIUS

    rng = np.random.default_rng([seed, 3])
    photo = np.arange(count) < photos_of(count)
    near, turned = rng.normal(0, 16, count).clip(-60, 60), rng.uniform(-75, 75, count)
    yaw = np.where(photo, np.where(rng.random(count) < 0.7, near, turned), rng.uniform(-180, 180, count))
    pitch = np.where(photo, rng.normal(0, 9, count).clip(-25, 25), rng.uniform(-25, 35, count))
    focal = EG3D_FOCAL * np.exp(rng.normal(0, 0.03, count).clip(-0.08, 0.08))
    radius = EG3D_RADIUS * np.exp(rng.normal(0, 0.01, count))
    pivot = rng.normal(0, 0.01, (count, 3))
    return [a.astype(np.float32) for a in (np.radians(yaw), np.radians(pitch), radius, pivot, focal)]


def portrait_cameras(seeds: Sequence[int], count: int) -> np.ndarray:
    """[heads·count,25] labels: of each head first the cameras of photos, then as many from all around, both in EG3D's
    framing with the errors of a crop. Seven in ten photos are near the front, none is further than 75° from it."""
    return _labels([_portrait_draws(seed, count) for seed in seeds])


def _labels(draws: Sequence[list[np.ndarray]]) -> np.ndarray:
    import torch

    from pmv.geometry.camera import Camera

    columns = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*draws, strict=True))
    return Camera.orbit(*columns).labels().numpy()


EVALUATION_VIEWS = {
    "front": (0.0, 0.0),
    "right60": (60.0, 0.0),
    "left60": (-60.0, 0.0),
    "back": (180.0, 0.0),
    "three_quarter": (30.0, 12.0),
    "back_above": (150.0, 25.0),
}
"""View name → yaw and pitch in degrees of the held-out cameras, in the order of a held-out pack's views."""


def evaluation_cameras() -> np.ndarray:
    """[len(EVALUATION_VIEWS),25] labels of the fixed cameras that held-out heads are judged from."""
    import torch

    from pmv.geometry.camera import Camera

    degrees = torch.tensor(list(EVALUATION_VIEWS.values()))
    return Camera.orbit(degrees[:, 0].deg2rad(), degrees[:, 1].deg2rad()).labels().numpy()


def half_depth(depth: np.ndarray) -> np.ndarray:
    """z-depth [H,W], 0 where empty → [H/2,W/2] float16 offsets from DEPTH_ORIGIN, infinite unless all four pixels are
    covered.

    A cell across a silhouette is no surface: its mean would be a depth that is nowhere.
    """
    height, width = depth.shape
    cells = depth.reshape(height // 2, 2, width // 2, 2)
    covered = (cells > 0).all((1, 3))
    return np.where(covered, cells.mean((1, 3)) - DEPTH_ORIGIN, np.inf).astype(np.float16)


def head_vector(seed: int, gaussian: float) -> np.ndarray:
    """The latent [D] of the head with this seed; see `PackLayout.gaussian`."""
    from pmv.training.heads import sample_parameters

    vector = sample_parameters(seed).vector()
    rng = np.random.default_rng([seed, 2])
    return rng.standard_normal(len(vector)).astype(np.float32) if rng.random() < gaussian else vector


def training_layout(heads: int, views: int, resolution: int, gaussian: float) -> PackLayout:
    """A pack to train on: seeds from 0, random cameras."""
    return PackLayout(heads, views, 0, len(head_vector(0, 0.0)), resolution, gaussian=gaussian)


def portraits_layout(heads: int, views: int, resolution: int, first_seed: int = 0) -> PackLayout:
    """A pack to learn from what a photo tells of the whole head; `first_seed` from `HELD_OUT_SEED` on to judge by."""
    return PackLayout(heads, views, first_seed, len(head_vector(0, 0.0)), resolution, 1, kind=PORTRAITS)


def held_out_layout(heads: int, resolution: int) -> PackLayout:
    """A pack to judge by: seeds from `HELD_OUT_SEED`, the cameras of `EVALUATION_VIEWS`."""
    z_dim = len(head_vector(0, 0.0))
    return PackLayout(heads, len(EVALUATION_VIEWS), HELD_OUT_SEED, z_dim, resolution, kind=HELD_OUT)


def render_slots(pack: HeadPack, assets_path: Path, worker: int, workers: int, gpu: int | None = None) -> None:
    """Renders the heads of slots worker, worker + workers, … that are not ready yet. Ends when its parent process
    does."""
    from pmv.training.heads import HeadParameters, HeadRenderer, build_head, load_assets

    parent = os.getppid()
    assets = load_assets(assets_path)
    layout = pack.layout
    renderer = HeadRenderer(layout.resolution, layout.supersample, specular=False, device_index=gpu)
    seconds = {"build": 0.0, "load": 0.0, "render": 0.0}
    done = 0
    for slot in range(worker, layout.heads, workers):
        if pack.ready[slot]:
            continue
        if os.getppid() != parent:
            return
        z = head_vector(layout.first_seed + slot, layout.gaussian)
        start = time.perf_counter()
        head = build_head(assets, HeadParameters.from_vector(z))
        built = time.perf_counter()
        renderer.load(head)
        loaded = time.perf_counter()
        for view, label in enumerate(pack.cameras[slot]):
            picture = renderer.render(label[:16].reshape(4, 4), label[16:].reshape(3, 3))
            pack.rgb[slot, view] = picture.rgb
            pack.alpha[slot, view] = np.rint(picture.alpha * 255)
            pack.depth[slot, view] = half_depth(picture.depth)
        pack.z[slot] = z
        pack.ready[slot] = 1
        done += 1
        for name, lapse in zip(seconds, (built - start, loaded - built, time.perf_counter() - loaded)):
            seconds[name] += lapse
        if done in (1, 10) or done % 100 == 0:
            means = ", ".join(f"{name} {total / done:.3f} s" for name, total in seconds.items())
            print(f"worker {worker}: {done} heads; a head takes {means}", flush=True)


def wait_for(pack: HeadPack, heads: int, pool: "RenderPool | None", seconds: float = 300.0) -> None:
    """Returns when `heads` heads of a pack are ready.

    Args:
        pool: who renders them; None: processes that are not ours.

    Raises:
        InputError: the pool's processes ended before (naming their log), or it took longer than `seconds`.
    """
    end = time.monotonic() + seconds
    while len(pack.slots()) < heads:
        if pool is not None and not pool.running() and len(pack.slots()) < heads:
            log = pack.path / "render-0.log"
            last = (log.read_text().strip().splitlines() or ["no output"])[-1]
            raise InputError(f"rendering ended with {len(pack.slots())} of {heads} heads; {log} ends with: {last}")
        if time.monotonic() > end:
            raise InputError(f"{pack.path} has {len(pack.slots())} of {heads} heads after {seconds:.0f} s")
        time.sleep(0.2)


class RenderPool:
    """Processes that fill a pack; one that fails is started again, at most `RESTARTS` times in all a process.

    Args:
        pack: where they write; their output goes to `render-<k>.log` beside it.
        assets: what `load_assets` reads.
        workers: how many.
        gpus: EGL devices that they render on, in turn; none leaves the choice to the driver.
    """

    RESTARTS = 2

    def __init__(self, pack: HeadPack, assets: Path, workers: int, gpus: Sequence[int] = ()) -> None:
        self.pack, self.assets, self.workers, self.gpus = pack, Path(assets), workers, gpus
        self.starts = [0] * workers
        self.processes = [self._start(k) for k in range(workers)]

    def _start(self, worker: int) -> subprocess.Popen:
        command = [
            sys.executable,
            "-m",
            "pmv.training.data",
            "--assets",
            str(self.assets),
            "--pack",
            str(self.pack.path),
        ]
        command += ["--worker", str(worker), "--workers", str(self.workers)]
        command += ["--gpu", str(self.gpus[worker % len(self.gpus)])] if self.gpus else []
        environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", LP_NUM_THREADS="1")
        if self.starts[worker] == self.RESTARTS:  # the last try does without the graphics driver
            environment["LIBGL_ALWAYS_SOFTWARE"] = "1"
        self.starts[worker] += 1
        with (self.pack.path / f"render-{worker}.log").open("a") as log:
            # nice: the training loop's launches go before the pictures
            return subprocess.Popen(
                ["nice", "-n", "5", *command], stdout=log, stderr=subprocess.STDOUT, env=environment
            )

    def running(self) -> int:
        """How many processes are at work; starts the failed ones again."""
        for k, process in enumerate(self.processes):
            if process.poll() not in (None, 0) and self.starts[k] <= self.RESTARTS:
                self.processes[k] = self._start(k)
        return sum(process.poll() is None for process in self.processes)

    def stop(self) -> None:
        """Ends the processes."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pmv.training.data", description="Render a pack of synthetic heads."
    )
    parser.add_argument("--assets", type=Path, required=True, help="MakeHuman checkout, or its compiled .npz")
    parser.add_argument("--pack", type=Path, required=True, help="folder of the pack")
    parser.add_argument("--heads", type=int, default=1000)
    parser.add_argument("--views", type=int, default=12)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--held-out", action="store_true", help="identities and cameras to judge by instead")
    parser.add_argument("--portraits", action="store_true", help="cameras as photos have them, no latents at random")
    parser.add_argument("--first-seed", type=int, default=0, help=f"of portraits; held out from {HELD_OUT_SEED} on")
    parser.add_argument("--gaussian", type=float, default=0.2, help="share of heads with a standard normal vector")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--gpus", type=int, nargs="*", default=[], help="EGL devices to render on, in turn")
    parser.add_argument("--gpu", type=int, help=argparse.SUPPRESS)  # set in the processes of a pool, as the next
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)  # set in the processes of a pool
    options = parser.parse_args(arguments)
    if options.worker is not None:
        render_slots(HeadPack(options.pack), options.assets, options.worker, options.workers, options.gpu)
        return
    layout = training_layout(options.heads, options.views, options.resolution, options.gaussian)
    if options.portraits:
        layout = portraits_layout(options.heads, options.views, options.resolution, options.first_seed)
    if options.held_out:
        layout = held_out_layout(options.heads, options.resolution)
    pool = RenderPool(HeadPack.create(options.pack, layout), options.assets, options.workers, options.gpus)
    start = time.perf_counter()
    try:
        wait_for(pool.pack, options.heads, pool, math.inf)
    finally:
        pool.stop()
    print(f"{options.heads} heads in {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
