"""From a portrait to a 3D head, and the head rendered from three sides.

What `pmv invert` does, from Python.
"""

import argparse
import logging
import math
from pathlib import Path

import torch

import pmv
from pmv.pictures.images import to_uint8, write_png
from pmv.pictures.sheets import tile

PORTRAITS = Path(__file__).resolve().parents[1] / "assets" / "portraits"

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("photo", nargs="?", type=Path, help="default: a portrait that ships with pmv")
parser.add_argument("--camera", type=Path)
parser.add_argument("--generator", default="heads")
parser.add_argument("--preset", default="demo")
parser.add_argument("--out", type=Path, default=Path("runs/examples/head"))
given = parser.parse_args()

photo, camera = given.photo, given.camera
if photo is None:
    # An aligned, square picture whose camera is known is taken as it is. Of any other, given without a camera, the
    # face is found, cropped, and its camera estimated.
    photo, camera = PORTRAITS / "plain.png", PORTRAITS / "dataset.json"

# The library logs what it does and is silent until somebody listens.
logging.basicConfig(level=logging.INFO, format="%(message)s")

# A request is what a user asks for besides photo and folder. Settings are those of configs/base.yaml, as texts like on
# the command line; they lie over the presets, and the presets over the base.
request = pmv.Request(
    presets=[given.preset],
    settings=[f"run.generator={given.generator}", "run.seed=0"],
    camera=camera,
)
# The runner saves every stage as soon as it is done. Called again with the same folder and photo, it finds that nothing
# changed and runs nothing: an interrupted script is simply started again.
run = pmv.invert(request, photo, given.out)

# A finished head is four things: the tuned generator, its latent (the pivot), its noise and the photo's camera.
generator, w, noise, view = pmv.load_inversion(run)

# Planes are made once for a latent, and rendered from as many cameras as one likes. Angles are radians here; yaw > 0
# moves the camera towards +x, which is to the right of a picture from the front.
with torch.no_grad():
    planes = generator.planes(w, noise)
    views = {"the photo's view": view}
    views |= {f"{yaw:+d}°": generator.spec.orbit(math.radians(yaw), 0.0) for yaw in (-30, 30)}
    pictures = [to_uint8(generator.render(planes, w, at).image)[0] for at in views.values()]

sheet = run.parent / "01_three_sides.png"
write_png(sheet, tile(pictures, list(views), columns=len(views)))
print(f"{run}: the run; open report.html in it\n{sheet}: the head from three sides")
