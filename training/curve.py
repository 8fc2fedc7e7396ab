"""The learning curve of a chain of pieces: one CSV with fixed columns, to which every piece appends.

piece                number of the piece, from 1
step                 steps of the optimisers since the chain began
pictures             that the generator drew in training since then, on all GPUs: what the schedule runs on
minutes              of training within this piece
gpu_minutes          minutes of training times GPUs, of the whole chain
machine              GPUs, or "cpu"
heads                identities rendered so far for this piece
pictures_per_second  since the line before
learning_rate        of all but the mapping
raw … penalty        mean losses since the line before; those against the truth with their weights in the sum, the
                     discriminator's without
psnr_front …         the averaged generator on the first held-out heads with their true z (`training.evaluate`;
                     psnr_side: both sides' mean); empty on lines without a look
"""

import csv
from pathlib import Path

LOSSES = ("raw", "raw_gradient", "alpha", "depth", "image", "gradient", "opinion", "matching", "judge", "penalty")
JUDGED = ("psnr_front", "psnr_side", "psnr_back", "psnr", "iou", "depth_error", "high_pass")
POSITION = ("piece", "step", "pictures", "minutes", "gpu_minutes", "machine")
SPEED = ("heads", "pictures_per_second", "learning_rate")
COLUMNS: tuple[str, ...] = (*POSITION, *SPEED, *LOSSES, *JUDGED)

Row = dict[str, float | int | str]


def append(path: Path, row: Row) -> None:
    """Adds a line; what the row lacks stays empty. Raises ValueError for a column that there is not."""
    begins = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        if begins:
            writer.writeheader()
        writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})


def read(path: Path) -> list[Row]:
    """The lines, numbers as floats; without what is empty."""
    with path.open(newline="") as file:
        return [{k: v if k == "machine" else float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
