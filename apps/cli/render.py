"""`pmv render`: pictures and films of a finished head, or the head back in its photo."""

from collections.abc import Sequence
from pathlib import Path

import click

from pmv.apps.cli import options
from pmv.apps.cli.console import print_path
from pmv.apps.cli.options import DEGREES, ELEVATION, FILE, Number


@click.command(context_settings=options.SETTINGS)
@click.argument("run", type=FILE)
@click.option("--out", type=FILE, required=True, help="PNG, or MP4 for a turn around the head.")
@click.option(
    "--yaw", "yaws", type=DEGREES, multiple=True, default=(0.0,), help="Degrees, positive to +x; PNG: may repeat."
)
@click.option("--uncrop", is_flag=True, help="PNG: put the head back into the photo; yaw and pitch from the photo's.")
@click.option("--pitch", type=ELEVATION, default=0.0, help="Degrees, positive upwards.")
@click.option("--sweep", type=Number(0, 180), help="MP4: degrees to either side of the yaw.")
@click.option("--frames", type=click.IntRange(2, 10_000), default=90, help="MP4: pictures in the turn.")
@options.device()
@click.pass_context
def render(
    context: click.Context,
    run: Path,
    out: Path,
    yaws: Sequence[float],
    pitch: float,
    uncrop: bool,
    sweep: float | None,
    frames: int,
    device: str,
) -> None:
    """Render the finished inversion in RUN from other sides, or --uncrop it into its photo."""
    kind = out.suffix.lower()
    if uncrop and (kind != ".png" or len(yaws) != 1):
        raise click.UsageError("--uncrop writes one view: --out ends in .png, and --yaw is given at most once")
    if kind not in (".png", ".mp4"):
        raise click.UsageError("--out ends in .png or .mp4")
    if kind == ".png" and (films := options.given(context, "sweep", "frames")):
        raise click.UsageError(f"{films[0]} is of a turn: give an --out that ends in .mp4, or leave it out")
    if kind == ".mp4" and len(yaws) != 1:
        raise click.UsageError("an MP4 takes one --yaw, the middle of the turn")
    from pmv.apps.render import write_sheet, write_turn
    from pmv.apps.uncrop import uncrop_run
    from pmv.pipeline.device import pick_device

    if uncrop:
        uncrop_run(run, out, yaws[0], pitch, pick_device(device))
    elif kind == ".mp4":
        write_turn(run, out, yaws[0], pitch, sweep, frames, pick_device(device))
    else:
        write_sheet(run, out, yaws, pitch, pick_device(device))
    print_path(out)
