"""How long generators take to load and to render, and how much memory that needs. See README.md beside this file.

Each model is measured in processes of its own, so that peak memory is its own. The models have random weights: what
they cost does not depend on what they draw, except that random weights fill space with fog, where a trained model
leaves most samples empty and the sparse renderer skips them. That makes these times the upper end.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.official_layout import FFHQ512_128, PANOHEAD, write_official
from pmv.files.artifacts import write_json
from pmv.generators import EMBEDDED, EG3DConfig, EG3DGenerator, load_generator, save_generator
from pmv.generators.panohead import PanoHeadConfig, PanoHeadGenerator

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "generators.json"


def _written(generator: EG3DGenerator, init_kwargs: dict[str, Any], rays: int, folder: Path) -> list[Path]:
    """A generator in pmv's own format and in the official one."""
    paths = [folder / "weights.safetensors", folder / "weights.pkl"]
    save_generator(generator, paths[0])
    write_official(generator, init_kwargs, rays, paths[1])
    return paths


def _prepare_eg3d(folder: Path) -> list[Path]:
    generator = EG3DGenerator(EG3DConfig.from_init_kwargs(FFHQ512_128, 128))
    return _written(generator, FFHQ512_128, 128, folder)


def _prepare_panohead(folder: Path) -> list[Path]:
    generator = PanoHeadGenerator(PanoHeadConfig.from_init_kwargs(PANOHEAD, 64))
    return _written(generator, PANOHEAD, 64, folder)


def _prepare_tiny(folder: Path) -> list[Path]:
    small = {"z_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 8, "plane_resolution": 16}
    generator = EG3DGenerator(EG3DConfig.small(**small, coarse_samples=4, fine_samples=4))
    save_generator(generator, folder / "tiny.safetensors")
    return [folder / "tiny.safetensors"]


CASES: dict[str, tuple[str, Callable[[Path], list[Path]]]] = {
    "eg3d": ("EG3D FFHQ 512-128", _prepare_eg3d),
    "panohead": ("PanoHead", _prepare_panohead),
    "heads": ("embedded (heads)", lambda folder: [EMBEDDED["heads"]]),
    "tiny": ("tiny, to try this script", _prepare_tiny),
}
"""Name → (what the table calls it, what writes its checkpoints into a folder: first the one that is rendered)."""


def peak_mb() -> float:
    """Highest memory that this process has held, MB."""
    status = Path("/proc/self/status")
    if status.exists():
        # not ru_maxrss: on Linux that begins with what the parent process held
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def _timed(action: Callable[[], Any], repeats: int) -> dict[str, list[float]]:
    """Wall-clock seconds of every repeat, and the seconds of all its threads together.

    The latter stay nearly the same where another program takes its share of the machine.
    """
    result: dict[str, list[float]] = {"seconds": [], "cpu_seconds": []}
    for _ in range(repeats):
        started, used = time.perf_counter(), time.process_time()
        action()
        result["seconds"].append(time.perf_counter() - started)
        result["cpu_seconds"].append(time.process_time() - used)
    return result


def measure_load(path: Path, repeats: int) -> dict[str, Any]:
    """Seconds to load a checkpoint, and the peak. The first time is apart: PyTorch then imports parts of itself."""
    before = peak_mb()
    first = _timed(lambda: load_generator(path), 1)
    times = _timed(lambda: load_generator(path), repeats)
    return {**times, "first": first, "imports_mb": before, "peak_mb": peak_mb(), "file_mb": path.stat().st_size / 1e6}


def measure_render(path: Path, repeats: int, resolution: int) -> dict[str, Any]:
    """Latent → planes → image with `resolution`² rays, then that with the gradients of all weights.

    The second needs more than the first, so that each peak is its own.
    """
    generator = load_generator(path)
    row: dict[str, Any] = {"parameters": sum(p.numel() for p in generator.parameters())}
    camera = generator.spec.canonical_camera
    with torch.no_grad():
        w = generator.map(torch.randn(1, generator.spec.z_dim, generator=torch.Generator().manual_seed(0)), camera)

    def forward() -> torch.Tensor:
        return generator.render(generator.planes(w), w, camera, resolution).image

    def step() -> None:
        generator.zero_grad(set_to_none=True)
        forward().square().mean().backward()

    for name, action in (("forward", forward), ("backward", step)):
        generator.requires_grad_(name == "backward")
        action()  # the first one also allocates
        row[name] = {**_timed(action, repeats), "peak_mb": peak_mb()}
    return row


def machine(threads: int) -> dict[str, Any]:
    """What the figures are taken on, and how busy it is."""
    from pmv.pipeline.device import cpu_name  # whose imports would add to what children hold

    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load_average": round(os.getloadavg()[0], 1),
        "torch": metadata.version("torch"),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def in_own_process(what: str, path: Path, options: dict[str, Any], threads: int) -> dict[str, Any]:
    """Run one measurement of this file in a fresh process."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [
        sys.executable,
        "-m",
        "benchmarks.generators",
        "--measure",
        json.dumps({"what": what, "path": str(path), **options}),
    ]
    done = subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def run_case(name: str, repeats: int, resolution: int, threads: int) -> dict[str, Any]:
    """All measurements of one model."""
    title, prepare = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        paths = prepare(Path(folder))
        row = {f"load{path.suffix}": in_own_process("load", path, {"repeats": repeats}, threads) for path in paths}
        row |= in_own_process("render", paths[0], {"repeats": repeats, "resolution": resolution}, threads)
    return {"model": title, **row}


def table(rows: list[dict[str, Any]], resolution: int) -> str:
    """The rows in Markdown; seconds are medians, wall-clock / of all threads together."""

    def seconds(row: dict[str, Any], key: str) -> str:
        if key not in row:
            return "–"
        wall, cpu = (statistics.median(row[key][kind]) for kind in ("seconds", "cpu_seconds"))
        return f"{wall:.2f} / {cpu:.2f}"

    def memory(row: dict[str, Any], key: str) -> str:
        return f"{row[key]['peak_mb']:.0f}" if key in row else "–"

    lines = [
        f"| model | parameters (M) | load .safetensors (s) | peak (MB) | load .pkl (s) | peak (MB) | "
        f"forward {resolution}² (s) | peak (MB) | forward + backward (s) | peak (MB) |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        cells = [
            row["model"],
            f"{row['parameters'] / 1e6:.1f}",
            seconds(row, "load.safetensors"),
            memory(row, "load.safetensors"),
            seconds(row, "load.pkl"),
            memory(row, "load.pkl"),
            seconds(row, "forward"),
            memory(row, "forward"),
            seconds(row, "backward"),
            memory(row, "backward"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


@click.command(help=(__doc__ or "").split("\n")[0])
@click.option("--case", "cases", multiple=True, type=click.Choice(list(CASES)), help="Only these models.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1), help="Measurements a figure.")
@click.option("--resolution", default=128, show_default=True, type=click.IntRange(8), help="Rays a side.")
@click.option("--threads", default=os.cpu_count(), show_default=True, type=click.IntRange(1), help="CPU threads.")
@click.option("--out", default=OUT, type=click.Path(path_type=Path), help="The JSON to write.")
@click.option("--measure", hidden=True, help="What a child process measures.")
def main(cases: tuple[str, ...], repeats: int, resolution: int, threads: int, out: Path, measure: str | None) -> None:
    if measure is not None:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        given = json.loads(measure)
        what, path = given.pop("what"), Path(given.pop("path"))
        print(json.dumps((measure_load if what == "load" else measure_render)(path, **given)))
        return
    about, rows = machine(threads), []
    for name in cases or [name for name in CASES if name != "tiny"]:
        print(f"{CASES[name][0]} …", file=sys.stderr)
        rows.append(run_case(name, repeats, resolution, threads))
    about["load_average_after"] = round(os.getloadavg()[0], 1)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, {"machine": about, "resolution": resolution, "repeats": repeats, "models": rows})
    print(table(rows, resolution))
    described = ", ".join(f"{key} {value}" for key, value in about.items())
    print(f"\n{described}")


if __name__ == "__main__":
    main()
