"""What a training step of the embedded generator costs, by kind of kernel.

`python -m benchmarks.training_step` on a GPU, without any rendered heads: noise has the same shapes. Prints a table and
writes JSON.
"""

import argparse
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from pmv.files.artifacts import write_json
from pmv.training.batches import HeadStore
from pmv.training.data import HeadPack, PackLayout
from pmv.training.generator import shape_of
from pmv.training.profiling import profile
from pmv.training.trainer import LAZY, TrainConfig, Trainer

Z_DIM = 169


def noise_pack(folder: Path, heads: int, resolution: int) -> HeadPack:
    """A pack of noise in the shape of heads."""
    pack = HeadPack.create(folder, PackLayout(heads, 4, 0, Z_DIM, resolution))
    rng = np.random.default_rng(0)
    for slot in range(heads):
        pack.rgb[slot] = rng.integers(0, 256, pack.rgb.shape[1:], dtype=np.uint8)
        pack.alpha[slot] = 255
        pack.depth[slot] = rng.normal(0, 0.1, pack.depth.shape[1:])
        pack.z[slot] = rng.standard_normal(Z_DIM)
    pack.ready[:] = 1
    return pack


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_step", description="Cost of a training step.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", choices=("heads", "tiny"), default="heads")
    parser.add_argument("--heads", type=int, default=TrainConfig.heads, help="identities a step")
    parser.add_argument("--plain", action="store_true", help="single precision, nothing compiled")
    parser.add_argument("--work", type=Path, default=Path("runs/training-step"), help="folder of the noise")
    parser.add_argument("--out", type=Path, default=Path("runs/training-step/step.json"))
    options = parser.parse_args(arguments)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit = True, 2
    device, shape = torch.device(options.device), shape_of(options.size, Z_DIM)
    store = HeadStore(noise_pack(options.work / f"pack-{shape.resolution}", 64, shape.resolution), device)
    store.refresh()
    fast = {} if options.plain else {"precision": "mixed", "compiled": True, "replayed": device.type == "cuda"}
    config = TrainConfig(
        heads=options.heads, keep=16, half_until=0, raw_until=0, adversarial_from=0, judge_warmup=0, **fast
    )
    trainer = Trainer(config, shape, store, device)
    start = time.perf_counter()
    for _ in range(3):
        trainer.step()
    first = time.perf_counter() - start
    cost = profile(trainer, 2 * LAZY)
    machine = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    pictures = config.heads * config.views / cost.seconds
    print(f"{machine}: {first:.1f} s for the first three steps, then {pictures:.0f} pictures a second\n{cost.table()}")
    result = {"machine": machine, "first_steps_seconds": first, "pictures_per_second": pictures}
    result |= {"config": asdict(config), "seconds": cost.seconds, "kinds": cost.kinds(), "kernels": cost.kernels}
    write_json(options.out, result)


if __name__ == "__main__":
    main()
