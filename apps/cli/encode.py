"""`pmv encode`: a head in one forward pass."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from pmv.apps.cli import options
from pmv.apps.cli.console import asked_to_end, log_to_stderr, print_path
from pmv.apps.cli.options import FILE


@click.command(context_settings=options.SETTINGS)
@click.argument("photo", type=FILE)
@click.option("--out", type=FILE, help="Folder of the run. [default: runs/PHOTO-TIME]")
@options.presets
@click.option("--generator", help="'heads' (ships with pmv), a name of 'pmv fetch', or the path of a checkpoint.")
@click.option("--encoders", help="File of encoders, or a name of 'pmv fetch'. [default: those of the generator]")
@click.option("--parts", type=click.Choice(["both", "visible", "whole"]), help="One of two encoders alone.")
@click.option("--camera", type=FILE, help="Of a photo that is aligned already; see invert.")
@options.mask
@options.face
@options.device(default=None)
@options.settings
def encode(
    photo: Path,
    out: Path | None,
    presets: Sequence[str],
    generator: str | None,
    encoders: str | None,
    parts: str | None,
    face: int | None,
    device: str | None,
    settings: Sequence[str],
    camera: Path | None,
    mask: Path | None,
) -> None:
    """Turn the portrait PHOTO into a 3D head at once, without optimisation. Prints the folder of the run.

    'pmv invert --resume RUN' makes the best of it that the generator gives.
    """
    from pmv.apps.encode import encode
    from pmv.apps.invert import Request

    values = {"run.generator": generator, "run.device": device, "prepare.face": face}
    values |= {"seed.encoders": encoders, "seed.parts": parts}
    settings = (*settings, *options.as_settings(values))
    request = Request(presets, settings, camera=camera, mask=mask, command=shlex.join(sys.argv))
    log_to_stderr()
    print_path(encode(request, photo, out, stop=asked_to_end))
