"""Where the time of a fit goes, and what the short cuts of `pmv.generators.speed` save. See README.md beside this file.

Everything in one call and so on one card: its ceilings; seconds, TFLOP, bytes and launches by part of a tuning step,
with the short cuts and without; seconds of whole steps, each short cut taken away in turn; whole runs. The full-size
generator has random weights, which fill space with fog, so that no sample can be skipped: the upper end.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.official_layout import FFHQ512_128
from pmv.apps.invert import Request, invert
from pmv.files.artifacts import write_json
from pmv.fitting.losses import masked_l2
from pmv.fitting.optimise import Drawn, Group, optimise
from pmv.fitting.perceptual import load_perceptual
from pmv.generators import EG3DConfig, EG3DGenerator, load_generator, save_generator
from pmv.generators.speed import REFERENCE, Speed, fast, in_order, with_speed
from pmv.generators.superresolution import SuperResolutionHead
from pmv.pipeline.device import cpu_name, peak_memory

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "speed.json"
PORTRAITS = ROOT / "assets" / "portraits"
SIZES = ("eg3d", "heads", "tiny")
TITLES = {"eg3d": "EG3D FFHQ 512-128, random weights", "heads": "embedded", "tiny": "tiny, to try this script"}
TINY = {
    "z_dim": 16,
    "w_dim": 32,
    "channel_base": 256,
    "channel_max": 16,
    "plane_resolution": 16,
    "plane_channels": 8,
    "coarse_samples": 6,
    "fine_samples": 6,
    "neural_resolution": 16,
    "resolution": 32,
    "head": SuperResolutionHead(16, (8, 8), (True, False), stores_filter=False),
}
# what each size is run with: perceptual network of the steps, presets and settings of whole runs
NETWORKS = {"eg3d": "lpips-random-alex", "heads": "lpips-random-squeeze", "tiny": "lpips-random-squeeze"}
RUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    # all steps are made: with random weights the perceptual distance says nothing of when to stop
    "eg3d": ("hfgi3d", ("run.perceptual=lpips-random-alex", "coarse.stop_at=0", "run.domain=ffhq")),
    "heads": ("demo", ()),
    "tiny": ("demo", ("prepare.search_resolution=16",)),
}


def make_generator(size: str, folder: Path) -> str:
    """What `run.generator` says of a generator of this size."""
    if size == "heads":
        return "heads"
    torch.manual_seed(0)
    config = EG3DConfig.from_init_kwargs(FFHQ512_128, 128) if size == "eg3d" else EG3DConfig.small(**TINY)
    save_generator(EG3DGenerator(config), folder / f"{size}.safetensors")
    return str(folder / f"{size}.safetensors")


# --- time


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(action: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median seconds of an action, after one to warm up."""
    action()
    times = []
    for _ in range(repeats):
        _wait(device)
        started = time.perf_counter()
        action()
        _wait(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def ceilings(device: torch.device) -> dict[str, float]:
    """Matrix products (TFLOP/s, random data) and a copy (TB/s, bytes read and written) that this device reaches."""
    cuda = device.type == "cuda"
    side = 8192 if cuda else 2048
    found = {}
    kinds = {"bf16": torch.bfloat16, "fp32": torch.float32} | ({"tf32": torch.float32} if cuda else {})
    before = torch.backends.cuda.matmul.allow_tf32
    for name, kind in kinds.items():
        a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        found[name] = 2 * side**3 / seconds_of(lambda a=a, b=b: a @ b, device, 5) / 1e12
    torch.backends.cuda.matmul.allow_tf32 = before
    source = torch.randn(2**30 if cuda else 2**26, device=device)
    target = torch.empty_like(source)
    found["copy"] = 2 * source.numel() * 4 / seconds_of(lambda: target.copy_(source), device, 5) / 1e12
    return found


class _Bytes(TorchDispatchMode):
    """Adds up what operations read and write, if each reads its inputs and writes its results once."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not getattr(func, "is_view", False):
            tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
            self.total += sum(x.numel() * x.element_size() for x in tensors)
        return result


def launches_of(action: Callable[[], Any], device: torch.device) -> tuple[int, float]:
    """Kernels of an action and the seconds that the GPU works on them; operations on a CPU."""
    cuda = device.type == "cuda"
    kind = torch.profiler.ProfilerActivity.CUDA if cuda else torch.profiler.ProfilerActivity.CPU
    action()
    _wait(device)
    with torch.profiler.profile(activities=[kind]) as profiler:
        action()
        _wait(device)
    rows = profiler.key_averages()
    if not cuda:
        return sum(row.count for row in rows), sum(row.self_cpu_time_total for row in rows) / 1e6
    kernels = [row for row in rows if row.self_device_time_total > 0]
    return sum(row.count for row in kernels), sum(row.self_device_time_total for row in kernels) / 1e6


# --- one step by its parts


def parts_of(generator: EG3DGenerator, network: str, device: torch.device, views: int) -> dict[str, Callable[[], Any]]:
    """The parts of a tuning step of some views, each forward and backward by itself."""
    perceptual = load_perceptual(network, device, quick=generator.speed.fused)
    w, noise = generator.mean_w(), generator.noise_buffers()
    angle = torch.linspace(-0.3, 0.3, views).to(device)
    cameras = generator.spec.orbit(angle, 0.3 * angle)
    parameters = list(generator.tunable_parameters("all").values())
    for parameter in parameters:
        parameter.requires_grad_(True)
    rays = generator.spec.neural_resolution
    with torch.no_grad():
        planes = generator.planes(w, noise)
        features = generator.march(planes, cameras, rays, None)[0]
        target = generator.render(planes, w, cameras).image * 0.9
    planes, features = planes.requires_grad_(True), features.requires_grad_(True)
    image = (target * 1.05).requires_grad_(True)
    upstream = {
        name: torch.randn_like(x) * 1e-3 for name, x in (("planes", planes), ("features", features), ("image", image))
    }
    style = w if generator.speed.folded else w.expand(views, -1, -1)
    optimizer = torch.optim.Adam(parameters, 1e-4, fused=generator.speed.fused or None)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)

    def backbone() -> None:
        generator.planes(w, noise).backward(upstream["planes"])

    def march() -> None:
        generator.march(planes, cameras, rays, None)[0].backward(upstream["features"])

    def superresolution() -> None:
        with generator.mixed(generator.speed.mixed):
            result = generator.superresolution(features[:, :3], features, style)[0]
        result.backward(upstream["image"])

    def losses() -> None:
        (perceptual(image, target).mean() + masked_l2(image, target).mean()).backward()

    z = torch.randn(1, generator.spec.z_dim).to(device)
    conditions = generator.spec.canonical_camera

    def mapping() -> None:
        generator.map(z, conditions)

    return {
        "mapping (not in a step)": mapping,
        "backbone": backbone,
        "planes → samples → features": march,
        "super-resolution": superresolution,
        "perceptual and squared distance": losses,
        "Adam": optimizer.step,
    }


def measure_parts(size: str, name: str, device: torch.device, views: int, repeats: int) -> list[dict[str, Any]]:
    """A row for each part, without short cuts and with them."""
    rows: list[dict[str, Any]] = []
    for speed in (REFERENCE, fast(device)):
        generator = with_speed(load_generator(name, device=device), speed)
        for part, action in parts_of(generator, NETWORKS[size], device, views).items():
            row = next((row for row in rows if row["part"] == part), None)
            if row is None:
                action()
                with FlopCounterMode(display=False) as flop, _Bytes() as moved:
                    action()
                row = {"part": part, "tflop": flop.get_total_flops() / 1e12, "gigabytes": moved.total / 1e9}
                rows.append(row)
            kind = "reference" if speed == REFERENCE else "fast"
            with in_order(speed.ordered):
                seconds = seconds_of(action, device, repeats)
                launches, busy = launches_of(action, device)
            row[kind] = {"seconds": seconds, "launches": launches, "busy": busy}
    return rows


# --- whole steps


def measure_steps(
    size: str, name: str, device: torch.device, views: int, steps: int, variants: Mapping[str, tuple[Speed, bool]]
) -> dict[str, dict[str, float]]:
    """Milliseconds of a tuning step and megabytes of its peak, by variant: a speed and whether steps are recorded."""
    found = {}
    for title, (speed, recorded) in variants.items():
        generator = with_speed(load_generator(name, device=device), speed)
        perceptual = load_perceptual(NETWORKS[size], device, quick=speed.fused)
        w, noise = generator.mean_w(), generator.noise_buffers()
        angle = torch.linspace(-0.3, 0.3, 8).to(device)
        cameras = generator.spec.orbit(angle, 0.3 * angle)
        with torch.no_grad():
            targets = torch.cat([generator.render(generator.planes(w, noise), w, cameras[i]).image for i in range(8)])
            targets = (targets * 0.8 + 0.1).clamp(-1, 1)
        parameters = list(generator.tunable_parameters("all").values())
        for parameter in parameters:
            parameter.requires_grad_(True)

        def terms(
            which: Tensor,
            generator=generator,
            cameras=cameras,
            targets=targets,
            w=w,
            noise=noise,
            perceptual=perceptual,
        ) -> dict[str, Tensor]:
            out = generator.render(generator.planes(w, noise), w, cameras[which])
            asked = targets[which]
            return {"l2": masked_l2(out.image, asked).mean(), "perceptual": perceptual(out.image, asked).mean()}

        random = torch.Generator().manual_seed(0)
        drawn = Drawn(lambda step, random=random: (torch.randperm(8, generator=random)[:views],), terms)
        seconds: list[float] = []
        curve: list[float] = []
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

        def note(step, seconds=seconds, curve=curve) -> None:
            seconds.append(step.seconds)
            curve.append(sum(step.losses.values()))

        with in_order(speed.ordered):
            started = time.perf_counter()
            optimise([Group(parameters, 1e-4)], drawn, steps, callback=note, recorded=recorded)
            whole = time.perf_counter() - started
        found[title] = {
            "ms": 1000 * statistics.median(seconds[len(seconds) // 2 :]),
            "first_and_rest_s": whole,
            "curve": curve[:: max(1, steps // 20)],
            "peak_mb": peak_memory(device).get("cuda_peak_mb", 0),
        }
        row = found[title]
        print(
            f"{size} {title}: {row['ms']:.1f} ms, {row['peak_mb']} MB, loss {curve[0]:.4f} → {curve[-1]:.4f}",
            flush=True,
        )
        del generator, parameters, terms, drawn
    return found


def variants_of(device: torch.device) -> dict[str, tuple[Speed, bool]]:
    """The reference, all short cuts, and all but one."""
    best = fast(device)
    cuda = device.type == "cuda"
    found = {"reference": (REFERENCE, False), "fast": (best, cuda and best.fused)}
    if cuda:
        found |= {
            "fast, not recorded": (best, False),
            "fast, bf16 planes too": (replace(best, mixed_planes=True), True),
        }
        found |= {
            "fast, no bf16": (replace(best, mixed=False), True),
            "fast, any order": (replace(best, ordered=False), True),
        }
    return found


# --- whole runs


def measure_run(
    size: str, name: str, device: torch.device, speed: str, folder: Path, settings: Sequence[str]
) -> dict[str, Any]:
    """A whole run: seconds of each stage and in all, its figures, its peak."""
    preset, own = RUNS[size]
    portrait = "tattoo.png"
    request = Request(
        presets=(preset,),
        settings=(f"run.generator={name}", f"run.device={device.type}", f"run.speed={speed}", *own, *settings),
        camera=PORTRAITS / "dataset.json",
    )
    started = time.perf_counter()
    run = invert(request, PORTRAITS / portrait, folder)
    whole = time.perf_counter() - started
    stages, curves, peak = {}, {}, 0
    for path in sorted(run.glob("*/stage.json")):
        record = json.loads(path.read_text())
        losses = record["losses"]
        stages[record["stage"]] = record["seconds"]
        peak = max(peak, record.get("cuda_peak_mb", 0))
        if losses and "seconds" in losses[0]:
            totals = [sum(v for k, v in row.items() if k not in ("step", "seconds")) for row in losses]
            curves[record["stage"]] = {
                "ms_a_step": 1000 * statistics.median(row["seconds"] for row in losses[len(losses) // 2 :]),
                "steps": len(losses),
                "curve": totals[:: max(1, len(totals) // 20)],
            }
    metrics = json.loads((run / "10_evaluate" / "stage.json").read_text()).get("numbers", {})
    print(
        f"{size} {speed} {settings}: {whole:.1f} s " + " ".join(f"{k} {v:.1f}" for k, v in stages.items()), flush=True
    )
    return {
        "seconds": whole,
        "stages": stages,
        "fits": curves,
        "metrics": metrics,
        "peak_mb": peak,
        "settings": list(settings),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The parts in Markdown."""
    lines = ["| part | TFLOP | GB | reference ms | launches | fast ms | launches |", "|---|--:|--:|--:|--:|--:|--:|"]
    for row in rows:
        cells = [row["part"], f"{row['tflop']:.3f}", f"{row['gigabytes']:.1f}"]
        for kind in ("reference", "fast"):
            cells += [f"{1000 * row[kind]['seconds']:.1f}", str(row[kind]["launches"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cuda", "cpu"))
    parser.add_argument("--size", action="append", choices=SIZES, help="only these generators")
    parser.add_argument("--what", action="append", choices=("ceilings", "parts", "steps", "runs"), help="only these")
    parser.add_argument("--views", type=int, default=2, help="views a step")
    parser.add_argument("--steps", type=int, default=40, help="steps of each variant")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of a part")
    parser.add_argument(
        "--reference",
        default="",
        help="settings of the reference's whole run, such as 'tune.steps=40 coarse.steps=20'; its steps' time is what "
        "counts",
    )
    parser.add_argument("--settings", default="", help="further settings of every whole run")
    parser.add_argument("--speeds", default="reference fast", help="of whole runs")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    device, what = torch.device(options.device), options.what or ["ceilings", "parts", "steps", "runs"]
    machine = torch.cuda.get_device_name() if device.type == "cuda" else cpu_name()
    result: dict[str, Any] = {
        "machine": {"device": machine, "torch": torch.__version__, "python": platform.python_version()},
        "date": time.strftime("%Y-%m-%d"),
    }

    def keep() -> None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, result)

    print(machine, flush=True)
    if "ceilings" in what:
        result["ceilings"] = ceilings(device)
        print(" ".join(f"{name} {value:.2f}" for name, value in result["ceilings"].items()), flush=True)
        keep()
    with tempfile.TemporaryDirectory() as temporary:
        for size in options.size or ("eg3d", "heads"):
            found: dict[str, Any] = {"title": TITLES[size]}
            result[size] = found
            name = make_generator(size, Path(temporary))
            if "steps" in what:
                found["steps"] = measure_steps(size, name, device, options.views, options.steps, variants_of(device))
                keep()
            if "parts" in what:
                found["parts"] = measure_parts(size, name, device, options.views, options.repeats)
                print(f"{TITLES[size]}, {options.views} views\n{table(found['parts'])}", flush=True)
                keep()
            if "runs" in what:
                found["runs"] = []
                for number, speed in enumerate(options.speeds.split()):
                    more = (options.reference if speed == "reference" else "").split() + options.settings.split()
                    folder = Path(temporary) / f"{size}-{speed}-{number}"
                    found["runs"].append(measure_run(size, name, device, speed, folder, more))
                    keep()


if __name__ == "__main__":
    main()
