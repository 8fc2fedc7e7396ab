"""How long the published dual encoder takes on this machine, and how much memory: both halves at their own size, with
random weights, written as their authors' code would, read by pmv's reader, and run on a PanoHead of random weights.

Random weights fill space with fog, where a trained generator leaves most of it empty: the renders are the upper end.
"""

import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.generators import peak_mb
from benchmarks.official_layout import PANOHEAD
from pmv.encoders.official import PICTURE, OfficialEncoder, OfficialShape
from pmv.encoders.official_files import AVERAGE, OCCLUDED, load_official
from pmv.files.artifacts import write_json
from pmv.generators.panohead import PanoHeadConfig, PanoHeadGenerator
from pmv.pipeline.device import cpu_name

OUT = Path(__file__).resolve().parent / "results" / "official_encoder.json"
VISIBLE = "visible_net.pt"
FULL = OfficialShape()


def write_halves(folder: Path, shape: OfficialShape) -> None:
    """Both halves and the mean latent, with random weights."""
    for seed, name in enumerate((VISIBLE, OCCLUDED)):
        torch.manual_seed(seed)
        half = OfficialEncoder(shape, torch.zeros(shape.num_ws, shape.w_dim))
        state = {key: value for key, value in half.state_dict().items() if key != "latent_average"}
        torch.save({"state_dict": state}, folder / name)
    np.save(folder / AVERAGE, np.zeros((1, shape.w_dim), np.float32))


@torch.no_grad()
def measure(folder: Path, generator: PanoHeadGenerator, whole: bool) -> dict[str, Any]:
    """Of reading and of each part of a head, seconds and those of all threads together, which other programs hardly
    change; and the peak of the process's memory, MB.

    Args:
        whole: also of a head, which takes seven renders.
    """
    row: dict[str, Any] = {"generator_mb": round(peak_mb())}

    def timed(name: str, action: Callable[[], Any]) -> Any:
        started, used = time.perf_counter(), time.process_time()
        result = action()
        row[name] = [round(time.perf_counter() - started, 2), round(time.process_time() - used, 2)]
        return result

    encoders = timed("read", lambda: load_official(folder / VISIBLE, generator))
    half = encoders.visible
    assert isinstance(half, OfficialEncoder)
    row["parameters"] = sum(parameter.numel() for parameter in half.parameters())
    side, shape = generator.config.plane_resolution, generator.config.plane_shape
    picture = torch.rand(1, 3, PICTURE, PICTURE) * 2 - 1
    w = timed("latent", lambda: half.psp_encoder(picture) + half.latent_average)
    planes = timed("planes", lambda: generator.planes(w))
    given = torch.rand(1, 9, side, side)
    timed("residual", lambda: half.triplanenet_encoder(given, planes.flatten(1, -3)).reshape(1, *shape))
    camera, size = generator.spec.canonical_camera, generator.spec.resolution
    timed("render", lambda: generator.render(planes, w, camera))
    if whole:
        image, foreground = torch.rand(1, 3, size, size) * 2 - 1, torch.ones(1, 1, size, size)
        timed("head", lambda: encoders(generator, image, foreground, camera))
    return row | {"peak_mb": round(peak_mb())}


@click.command(help=(__doc__ or "").replace("\n", " "))
@click.option("--threads", default=2, show_default=True)
@click.option("--whole", is_flag=True, help="A whole head too; minutes.")
@click.option("--measure", "folder", type=click.Path(path_type=Path), hidden=True)
@click.option("--out", default=OUT, type=click.Path(path_type=Path), help="The JSON to write.")
def main(threads: int, whole: bool, folder: Path | None, out: Path) -> None:
    torch.set_num_threads(threads)
    if folder is not None:  # in a process of its own, whose memory is that of what is measured
        torch.manual_seed(0)
        generator = PanoHeadGenerator(PanoHeadConfig.from_init_kwargs(PANOHEAD, 64)).eval().requires_grad_(False)
        print(json.dumps(measure(folder, generator, whole)))
        return
    with tempfile.TemporaryDirectory() as name:
        write_halves(Path(name), FULL)
        command = [sys.executable, "-m", "benchmarks.official_encoder", "--measure", name, "--threads", str(threads)]
        command += ["--whole"] if whole else []
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    about = {"cpu": cpu_name(), "platform": platform.platform(), "threads": threads, "torch": torch.__version__}
    write_json(out, {"about": about, **row})
    for key, value in (row | about).items():
        print(f"{key}: {value}")


if __name__ == "__main__":
    main()
