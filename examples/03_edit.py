"""A logo on the cheek, in 3D.

Goes on with the run of 01_invert.py, which has the logo afterwards; `pmv invert --resume RUN --clear-edits` takes it
back.
"""

import argparse
import math
from pathlib import Path

import torch
from PIL import Image, ImageDraw

import pmv
from pmv.pictures.images import to_uint8, write_png
from pmv.pictures.overlay import Placement
from pmv.pictures.sheets import tile
from pmv.stages.edit_list import Edit

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("run", nargs="?", type=Path, default=Path("runs/examples/head"))
run: Path = parser.parse_args().run

# Any picture will do; what is transparent in it stays as it is on the photo. Here a star of five points.
logo = run.parent / "03_logo.png"
star = Image.new("RGBA", (240, 240))
corners = [
    (120 + r * math.sin(i * math.pi / 5), 120 - r * math.cos(i * math.pi / 5)) for i, r in enumerate((115, 46) * 5)
]
ImageDraw.Draw(star).polygon(corners, fill=(150, 20, 40, 255))
star.save(logo)

# Where its middle lies, and how wide it is, in fractions of the aligned picture (00_prepare/original.png). Following
# the surface, it bends with the cheek; multiplied, the skin's shading shows through.
placement = Placement(at=(0.6, 0.56), size=0.1, rotate=15, blend="multiply", opacity=0.9, follow_surface=True)
edit = Edit(logo, placement=placement)
# A retouched picture would be Edit(Path("retouched.png")): what differs in it is taken over.


@torch.no_grad()
def sides() -> list:
    """The head of the run as it is now, from two sides."""
    generator, w, noise, camera = pmv.load_inversion(run)
    planes = generator.planes(w, noise)
    cameras = [camera, generator.spec.orbit(math.radians(25), 0.0)]
    return [to_uint8(generator.render(planes, w, at).image)[0] for at in cameras]


before = sides()
# The edit is carried to the pseudo-views along the coarse geometry and put into the finished head by `retune`;
# everything else is held as it is. Geometry and tuning of the unedited head do not run again.
pmv.invert(pmv.Request(edits=[edit], clear_edits=True), resume=run)

sheet = run.parent / "03_edited.png"
write_png(sheet, tile(before + sides(), ["before", "", "with the logo", "+25°"], columns=2))
print(f"{sheet}: the head before and after")
