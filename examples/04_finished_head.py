"""What can be done with a finished head: other sides, a film, an attribute changed, back into the photo.

Goes on with the run of 01_invert.py. The same as `pmv render` and `pmv edit`.
"""

import argparse
from pathlib import Path

from pmv.apps.attributes import edit_run
from pmv.apps.render import write_sheet, write_turn
from pmv.apps.uncrop import uncrop_run

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("run", nargs="?", type=Path, default=Path("runs/examples/head"))
parser.add_argument("--frames", type=int, default=60)
given = parser.parse_args()
run: Path = given.run
out = run.parent

# Angles are degrees in pmv.apps, as on the command line.
write_sheet(run, out / "04_views.png", yaws_deg=[-60, -30, 0, 30, 60], pitch_deg=5)
print(f"{out / '04_views.png'}: five sides")

# A swing to both sides, or a whole turn for a generator of full heads.
write_turn(run, out / "04_turn.mp4", yaw_deg=0, pitch_deg=0, sweep_deg=None, frames=given.frames)
print(f"{out / '04_turn.mp4'}: a film")

# Attributes in standard deviations over the heads that the generator knows. Nothing is optimised; the edited head is a
# folder of its own, which everything here takes like a run.
smiling = edit_run(run, ["smile=+2"], out / "04_smiling")
write_sheet(smiling, out / "04_smiling.png", yaws_deg=[-30, 0, 30], pitch_deg=0)
print(f"{smiling}: the head, smiling; {out / '04_smiling.png'}: from three sides")

# At its place in the photo, in the photo's resolution, turned a little.
uncrop_run(run, out / "04_in_the_photo.png", yaw_deg=8)
print(f"{out / '04_in_the_photo.png'}: back in the photo")
