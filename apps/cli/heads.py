"""`pmv heads`: synthetic heads."""

from pathlib import Path

import click

from pmv.apps.cli import options
from pmv.apps.cli.console import print_path
from pmv.apps.cli.options import FILE, numbers


@click.group(context_settings=options.SETTINGS)
def heads() -> None:
    """Synthetic heads, made from MakeHuman assets."""


@heads.command(context_settings=options.SETTINGS)
@click.option("--makehuman", type=FILE, required=True, help="A MakeHuman checkout, or a compiled .npz.")
@click.option("--scans", type=FILE, help="A checkout of ICT-FaceKit; without scans faces are MakeHuman's.")
@click.option("--out", type=FILE, required=True, help="The PNG to write.")
@click.option("--seeds", default="0,1,2,3", show_default=True, callback=numbers(int), help="One head a row.")
@click.option("--yaws", default="-90,-40,0,40,90,180", show_default=True, callback=numbers(float), help="Degrees.")
@click.option("--resolution", type=click.IntRange(32, 2048), default=256, show_default=True, help="Pixels a head.")
def sheet(makehuman: Path, scans: Path | None, out: Path, seeds: list[int], yaws: list[float], resolution: int) -> None:
    """Write a contact sheet: a row a seed, a column a yaw."""
    from pmv.errors import disk_errors
    from pmv.files.artifacts import check_output
    from pmv.pictures.images import write_png
    from pmv.training.heads import load_assets
    from pmv.training.heads.sheet import contact_sheet

    check_output(out)
    picture = contact_sheet(load_assets(makehuman, scans), seeds, yaws, resolution)
    with disk_errors(out):
        write_png(out, picture)
    print_path(out)
