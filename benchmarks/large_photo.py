"""What a large photo costs: `pmv prepare` on the demo portrait in canvases from 1 to 100 megapixels.

Each photo is a JPEG in which the portrait takes a third of the height. The command runs in a process of its own;
seconds are its wall clock and its processor time on all threads, starting Python and loading the generator included;
memory is its highest. What the work alone costs is the difference from the smallest photo.
"""

import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from pmv.errors import InputError
from pmv.files.artifacts import read_json, write_json
from pmv.pictures.images import read_bytes
from pmv.pipeline.device import cpu_name

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "large_photo.json"
PORTRAIT = ROOT / "assets" / "portraits" / "plain.png"
SIZES = ((1250, 800), (3750, 2400), (12500, 8000))
"""Width and height of the photos."""


def write_photo(path: Path, width: int, height: int) -> None:
    """The portrait off the middle of a wall with grain, as a JPEG."""
    grain = np.random.default_rng(0).integers(0, 24, (800, 1250, 3), np.uint8)
    canvas = cv2.resize(grain, (width, height), interpolation=cv2.INTER_LINEAR) + np.uint8(100)
    face = read_bytes(PORTRAIT)[0][0].permute(1, 2, 0).numpy()
    side = height // 3
    left, top = width // 2, height // 4
    canvas[top : top + side, left : left + side] = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)
    if not cv2.imwrite(str(path), canvas[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92]):
        raise InputError(f"{path}: cannot be written")


def measure(photo: Path, out: Path) -> dict[str, float]:
    """Run `pmv prepare` on a photo; seconds, processor seconds and MB.

    Raises:
        InputError: the command failed.
    """
    script = "from pmv.apps.cli import main; main()"
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", script, "prepare", str(photo), "--out", str(out), "--device", "cpu"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise InputError(f"{photo.name}: pmv prepare ended with {process.returncode}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {"seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_mb": usage.ru_maxrss / unit}


@click.command(help=(__doc__ or "").split("\n")[0])
@click.option("--out", default=OUT, type=click.Path(path_type=Path), show_default=True, help="The JSON to write.")
def main(out: Path) -> None:
    rows: list[dict[str, Any]] = []
    print("| photo | megapixels | seconds | CPU seconds | peak (MB) |\n|---|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for width, height in SIZES:
            photo = Path(folder) / f"{width}x{height}.jpg"
            write_photo(photo, width, height)
            made = Path(folder) / photo.stem
            row = {"width": width, "height": height, **measure(photo, made)}
            crop = read_json(made / "crop.json")
            row["confidence"] = read_json(made / "camera.json")["confidence"]
            row["zoom"] = float(np.hypot(*np.array(crop["matrix"])[:, 0]))
            rows.append(row)
            cells = f"{row['seconds']:.1f} | {row['cpu_seconds']:.1f} | {row['peak_mb']:.0f}"
            print(f"| {width}×{height} | {width * height / 1e6:.0f} | {cells} |", flush=True)
            photo.unlink()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    machine = f"{cpu_name()}, {os.cpu_count()} cores, {memory:.0f} GB, Python {platform.python_version()}"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, {"machine": machine, "photos": rows})
    print("\n" + machine)


if __name__ == "__main__":
    main()
