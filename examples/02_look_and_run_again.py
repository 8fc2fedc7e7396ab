"""What a stage left on disk, and a run of the rest after a change.

Goes on with the run of 01_invert.py.
"""

import argparse
import json
from pathlib import Path

import pmv
from pmv.pictures.images import to_uint8, write_png
from pmv.pictures.sheets import tile
from pmv.pipeline.folder import RunFolder
from pmv.pipeline.packing import load_fields
from pmv.stages.table import TABLE

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("run", nargs="?", type=Path, default=Path("runs/examples/head"))
run: Path = parser.parse_args().run

# The table says which stages there are; a run has a folder for each.
folder = RunFolder(run, TABLE)
folder.require_run()
for stage in TABLE:
    record = folder.record(stage)  # stage.json: settings, hashes, numbers, losses, seconds
    print(f"{stage.folder}: " + (f"{record['seconds']} s" if record else "not yet"))


def stage_named(name: str):
    return TABLE[TABLE.find(name)]


# Outputs are the fields of the stage's dataclass, here `pmv.stages.inpaint.InpaintOutputs`. They are exact, in contrast
# to the PNGs beside them. `pseudo_views` are the pictures that the head was tuned to: [P,3,S,S] in [-1,1].
outputs = load_fields(folder.outputs(stage_named("inpaint")), ["pseudo_views", "blend_masks"])
before = outputs["pseudo_views"]
from_photo = outputs["blend_masks"].mean((1, 2, 3))
for number, share in enumerate(from_photo.tolist()):
    print(f"pseudo-view {number}: {share:.0%} of its pixels are the photo's own")

# Another width of the seam, and only what depends on it: `inpaint` runs again, whatever came before it is kept. Without
# `until`, tuning and evaluation would follow.
pmv.invert(pmv.Request(settings=["inpaint.feather=0.08"], until="inpaint"), resume=run)
stages = json.loads((run / "run.json").read_text())["stages"]
print("ran again:", ", ".join(name for name, stage in stages.items() if stage["ran"]))

after = load_fields(folder.outputs(stage_named("inpaint")), ["pseudo_views"])["pseudo_views"]
sheet = run.parent / "02_seams.png"
pictures = [to_uint8(view)[0] for view in (before[:1], after[:1], (after - before)[:1].abs() * 4 - 1)]
write_png(sheet, tile(pictures, ["feather as it was", "0.08", "4 x the difference"], columns=3))
print(f"{sheet}: a pseudo-view before and after")

# Back to the setting of before. Results are compared by content: `inpaint` gives the same bytes as at first, so nothing
# after it has to run.
earlier = folder.record(stage_named("evaluate"))
pmv.invert(pmv.Request(settings=["inpaint.feather=0.02"]), resume=run)
assert folder.record(stage_named("evaluate")) == earlier
