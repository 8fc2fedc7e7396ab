"""`pmv render`: pictures and films of a finished head, or the head back in its photo."""

from collections.abc import Sequence
from pathlib import Path

import click

from pmv.apps.cli import options
from pmv.apps.cli.console import print_path
from pmv.apps.cli.options import DEGREES, ELEVATION, FILE, Number

_TURNS = (".mp4", "a folder")
_APPLIES = {"sweep": _TURNS, "frames": _TURNS, "way": _TURNS, "layers": ("a folder",), "exr": ("a folder",)}
_APPLIES |= {"size": (".png", *_TURNS), "background": (".png", *_TURNS)}
_WAYS = ("swing", "orbit", "ellipse", "eight")


@click.command(context_settings=options.SETTINGS)
@click.argument("run", type=FILE)
@click.option(
    "--out", type=FILE, required=True, help="PNG, MP4 for a turn around the head, or a folder for its frames."
)
@click.option(
    "--yaw", "yaws", type=DEGREES, multiple=True, default=(0.0,), help="Degrees, positive to +x; PNG: may repeat."
)
@click.option("--uncrop", is_flag=True, help="PNG: put the head back into the photo; yaw and pitch from the photo's.")
@click.option("--pitch", type=ELEVATION, default=0.0, help="Degrees, positive upwards.")
@click.option("--sweep", type=Number(0, 180), help="Turns: degrees to either side of the yaw.")
@click.option("--frames", type=click.IntRange(2, 10_000), default=90, help="Turns: how many pictures.")
@click.option(
    "--path",
    "way",
    metavar="PATH",
    help="Films and folders: swing, orbit, ellipse, eight, or a file of cameras (transforms.json). [default: orbit for "
    "heads from all sides, else swing]",
)
@click.option("--size", callback=options.read_size, help="Pixels, such as 512 or 640x360. [default: the generator's]")
@click.option("--background", callback=options.read_ground, help="A colour such as white or #204080, or transparent.")
@click.option(
    "--layer",
    "layers",
    type=click.Choice(["image", "depth", "normals"]),
    multiple=True,
    help="Folders: what to write of each view; may repeat. [default: image]",
)
@click.option("--exr", is_flag=True, help="Folders: depth and normals as EXR of 32-bit floats, not 16-bit PNG.")
@options.moved_generator
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
    way: str | None,
    size: tuple[int, int] | None,
    background: str | tuple[int, int, int] | None,
    layers: Sequence[str],
    exr: bool,
    generator: str | None,
    device: str,
) -> None:
    """Render the finished inversion in RUN from other sides, or --uncrop it into its photo.

    An --out without a suffix is a folder, which gets one picture for each camera.
    """
    kind = "uncrop" if uncrop else out.suffix.lower() or "a folder"
    if uncrop and (out.suffix.lower() != ".png" or len(yaws) != 1):
        raise click.UsageError("--uncrop writes one view: --out ends in .png, and --yaw is given at most once")
    if kind not in ("uncrop", ".png", ".mp4", "a folder"):
        raise click.UsageError("--out ends in .png or .mp4, or is a folder")
    if kind in (".mp4", "a folder") and len(yaws) != 1:
        raise click.UsageError(f"{'an MP4' if kind == '.mp4' else kind} takes one --yaw, the middle of the turn")
    options.refuse_others(context, kind, "an --out that is", _APPLIES)
    if exr and not {"depth", "normals"} & set(layers):
        raise click.UsageError("--exr is for --layer depth and --layer normals; give one of them")
    way_is_file = way is not None and way not in _WAYS
    if way_is_file:
        options.refuse_all(context, ("yaws", "pitch", "sweep", "frames"), "a --path that is a file")
    elif way == "orbit":
        options.refuse_all(context, ("sweep",), "--path orbit")
    if kind == ".mp4" and background == "transparent":
        raise click.UsageError("an MP4 cannot be transparent; give a folder as --out, or a colour as --background")
    from pmv.apps.cli.console import log_to_stderr
    from pmv.apps.layers import Look
    from pmv.apps.render import write_frames, write_sheet, write_turn
    from pmv.apps.uncrop import uncrop_run
    from pmv.pipeline.device import pick_device

    log_to_stderr()
    look, where = Look(size, background), pick_device(device)
    if uncrop:
        uncrop_run(run, out, yaws[0], pitch, where, generator)
    elif kind == ".mp4":
        write_turn(run, out, yaws[0], pitch, sweep, frames, where, way, look, generator)
    elif kind == ".png":
        write_sheet(run, out, yaws, pitch, where, look, generator)
    else:
        angles = {"yaw_deg": yaws[0], "pitch_deg": pitch, "sweep_deg": sweep, "frames": frames}
        others = {"path": way, "look": look, "exr": exr, "device": where, "generator": generator}
        write_frames(run, out, layers or ("image",), **angles, **others)
    print_path(out)
