"""Numbers on the command line are finite and within bounds, and options that do not apply together are refused."""

import math
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pmv.apps.cli import cli
from pmv.apps.render import write_sheet, write_turn
from pmv.errors import InputError
from pmv.pictures.overlay import Placement
from tests.inputs_table import check_section

ROWS = [
    ("numbers", "render RUN --out a.png --yaw nan", "'nan' is not a finite number."),
    ("numbers", "render RUN --out a.png --yaw inf", "'inf' is not a finite number."),
    ("numbers", "render RUN --out a.png --yaw 30 --yaw -inf", "'-inf' is not a finite number."),
    ("numbers", "render RUN --out a.png --pitch nan", "'nan' is not a finite number."),
    ("numbers", "render RUN --out a.png --pitch 90", "90.0 is not in the range -89<=x<=89."),
    ("numbers", "render RUN --out a.png --yaw 1e9", "1000000000.0 is not in the range -360<=x<=360."),
    ("numbers", "render RUN --out a.mp4 --sweep nan", "'nan' is not a finite number."),
    ("numbers", "render RUN --out a.mp4 --sweep -5", "-5.0 is not in the range 0<=x<=180."),
    ("numbers", "render RUN --out a.mp4 --frames 1", "1 is not in the range 2<=x<=10000."),
    ("numbers", "render RUN --out a.mp4 --frames 99999999", "99999999 is not in the range 2<=x<=10000."),
    ("numbers", "verify A B --tolerance nan", "'nan' is not a finite number."),
    ("numbers", "verify A B --tolerance inf", "'inf' is not a finite number."),
    ("numbers", "heads sheet --makehuman . --out a.png --yaws 0,nan", "'0,nan' is not a list of finite numbers"),
    ("numbers", "heads sheet --makehuman . --out a.png --yaws ,", "',' is not a list of finite numbers"),
    ("numbers", "invert a.png --face 0", "0 is not in the range x>=1."),
    ("numbers", "invert a.png --seed 1.5", "'1.5' is not a valid integer."),
    ("together", "render RUN --out a.png --sweep 20", "--sweep is for an --out that is .mp4, a folder"),
    ("together", "render RUN --out a.png --frames 30", "--frames is for an --out that is .mp4, a folder"),
    ("together", "render RUN --out a.png --uncrop --sweep 20", "--sweep is for an --out that is .mp4, a folder"),
    ("together", "render RUN --out a.mp4 --yaw 1 --yaw 2", "an MP4 takes one --yaw"),
    ("together", "render RUN --out a.mp4 --uncrop", "--uncrop writes one view"),
    ("together", "invert a.png --resume RUN", "give either an IMAGE or --resume RUN"),
    ("together", "invert --resume RUN --out B", "--out names a new run"),
    ("together", "invert a.png --clear-edits", "--clear-edits takes back the edits of a run"),
    ("together", "fetch --list --accept-licence", "--list takes neither NAME nor --from nor --accept-licence"),
]


def execute(line: str) -> Result:
    return CliRunner().invoke(cli, line.split())


@pytest.mark.parametrize("kind, line, told", ROWS, ids=[row[1] for row in ROWS])
def test_options(kind: str, line: str, told: str):
    result = execute(line)
    assert result.exit_code == 2 and told in result.output and "Traceback" not in result.output


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_the_operations_look_too(tmp_path: Path, number: float):
    for call in (
        lambda: write_sheet(tmp_path, tmp_path / "a.png", [0.0, number], 0.0),
        lambda: write_sheet(tmp_path, tmp_path / "a.png", [0.0], number),
        lambda: write_turn(tmp_path, tmp_path / "a.mp4", number, 0.0, None, 4),
        lambda: write_turn(tmp_path, tmp_path / "a.mp4", 0.0, 0.0, number, 4),
    ):
        with pytest.raises(InputError, match="angles are finite degrees"):
            call()


@pytest.mark.parametrize(
    "given",
    [{"size": math.nan}, {"size": 11.0}, {"rotate": math.inf}, {"opacity": math.nan}, {"at": (math.nan, 0.5)}],
)
def test_overlays_lie_within_bounds(given: dict):
    with pytest.raises(InputError):
        Placement(**{"at": (0.5, 0.5), "size": 0.2, **given})


def test_the_page_tells_every_option(write: bool):
    rows = []
    for kind, line, _ in ROWS:
        told = execute(line).output.strip().splitlines()[-1].removeprefix("Error: ")
        rows.append((kind, f"`pmv {line}`", told))
    check_section("options", rows, write)
