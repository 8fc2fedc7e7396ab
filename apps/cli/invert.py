"""`pmv invert`: a portrait becomes a 3D head."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from pmv.apps.cli import options
from pmv.apps.cli.console import asked_to_end, log_to_stderr, print_path
from pmv.apps.cli.edit_options import EditCommand, given_edits
from pmv.apps.cli.options import FILE


@click.command(cls=EditCommand, context_settings=options.SETTINGS)
@click.argument("image", required=False, type=FILE)
@options.presets
@click.option("--out", type=FILE, help="Folder of the run. [default: runs/IMAGE-TIME]")
@click.option("--generator", help="'heads' (ships with pmv), a name of 'pmv fetch', or the path of a checkpoint.")
@click.option("--camera", type=FILE, help="EG3D dataset.json, .npy of 25 floats, transforms.json or COLMAP folder.")
@options.mask
@click.option("--ood-mask", type=FILE, help="White = what the generator cannot draw. [default: found by latent]")
@options.face
@click.option("--seed", type=int, help="Seed of every random number.")
@options.device(default=None)
@options.settings
@click.option("--resume", type=FILE, metavar="RUN", help="Go on with this run: only what changed runs again.")
@click.option("--from", "first", metavar="STAGE", help="Run this stage and all after it again.")
@click.option("--until", metavar="STAGE", help="Stop after this stage.")
@click.option("--clear-edits", is_flag=True, help="With --resume: take back the run's edits first.")
@click.pass_context
def invert(
    context: click.Context,
    image: Path | None,
    presets: Sequence[str],
    out: Path | None,
    resume: Path | None,
    first: str | None,
    until: str | None,
    settings: Sequence[str],
    generator: str | None,
    face: int | None,
    seed: int | None,
    device: str | None,
    clear_edits: bool,
    **given: Path | None,
) -> None:
    """Turn the portrait IMAGE into a 3D head, or --resume RUN. Prints the folder of the run.

    IMAGE is a photo, or a folder that 'pmv prepare' wrote.

    Edits (--edit, --overlay) stack in their order, in a resumed run on top of its own; what belongs to one follows it.
    """
    if (image is None) == (resume is None):
        raise click.UsageError("give either an IMAGE or --resume RUN")
    if resume is not None and out is not None:
        raise click.UsageError("--out names a new run; --resume goes on in the folder it names")
    if clear_edits and resume is None:
        raise click.UsageError("--clear-edits takes back the edits of a run; give --resume RUN")
    from pmv.apps.invert import Request, invert

    values = {"run.generator": generator, "run.seed": seed, "run.device": device, "prepare.face": face}
    request = Request(
        presets=presets,
        settings=(*settings, *options.as_settings(values)),
        first=first,
        until=until,
        command=shlex.join(sys.argv),
        edits=given_edits(context),
        clear_edits=clear_edits,
        **given,
    )
    log_to_stderr()
    print_path(invert(request, image, out, resume, stop=asked_to_end))
