"""A fit of your own, from the parts that the stages are made of: the one loop and the losses. Needs no run.

A generator's latent is fitted to two views of a head that it drew itself, so that the answer is known.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor

import pmv
from pmv.fitting.losses import masked_l2, w_distance
from pmv.fitting.metrics import psnr
from pmv.fitting.optimise import Group, Ramp, Step, optimise
from pmv.fitting.perceptual import load_perceptual
from pmv.generators.views import render_views
from pmv.geometry.camera import Camera
from pmv.pictures.images import to_uint8, write_png
from pmv.pictures.sheets import tile

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--generator", default="heads")
parser.add_argument("--steps", type=int, default=40)
parser.add_argument("--out", type=Path, default=Path("runs/examples"))
given = parser.parse_args()
given.out.mkdir(parents=True, exist_ok=True)

generator = pmv.load_generator(given.generator)
spec = generator.spec
cameras = Camera.cat([spec.orbit(math.radians(yaw), 0.0) for yaw in (-25, 25)])
held_out = spec.orbit(0.0, math.radians(10))

# What is to be found: a head at random, seen from both sides.
with torch.no_grad():
    z = torch.randn(1, spec.z_dim, generator=torch.Generator().manual_seed(3))
    truth = generator.map(z, spec.canonical_camera, truncation=0.7)
target = render_views(generator, truth, {}, cameras)

# Where the fit starts: the mean head. Only w is fitted; `pmv.fitting.tuning.trainable` would open weights of the
# generator.
start = generator.mean_w(100)
w = start.clone().requires_grad_(True)
# Random weights, so that nothing is downloaded; "lpips-alex" is the real one.
perceptual = load_perceptual("lpips-random-squeeze")


def losses(step: int) -> dict[str, Tensor]:
    """The weighted terms of one step, scalars; the loop minimises their sum."""
    # Both views come from one pass of the backbone. Losses give one number a view, here averaged.
    view = generator.render(generator.planes(w), w, cameras)
    return {
        "l2": 5.0 * masked_l2(view.image, target.image).mean(),
        "perceptual": perceptual(view.image, target.image).mean(),
        "alpha": masked_l2(view.alpha, target.alpha).mean(),
        "distance": 0.01 * w_distance(w).mean(),
    }


def tell(step: Step) -> None:
    """The loop knows nothing of screens and disks; whoever wants to watch gives a callback."""
    if step.number % 10 == 0:
        terms = ", ".join(f"{name} {value:.4f}" for name, value in step.losses.items())
        print(f"step {step.number}: {terms} ({step.seconds:.2f} s)")


optimise([Group([w], 0.03)], losses, given.steps, ramp=Ramp(up=0.05, down=0.25), callback=tell)

# Judged from a side that no loss has seen.
found = [render_views(generator, latent.detach(), {}, held_out).image for latent in (start, w, truth)]
before, after = (psnr(picture, found[2]).item() for picture in found[:2])
print(f"from above, not fitted: {before:.1f} dB at the start, {after:.1f} dB at the end")
sheet = given.out / "06_fit.png"
write_png(sheet, tile([to_uint8(picture)[0] for picture in found], ["the mean", "found", "wanted"], columns=3))
print(f"{sheet}: both and the truth, from above")
