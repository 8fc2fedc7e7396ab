"""`pmv edit`: attributes of a finished head, or a part of another head put onto it."""

from collections.abc import Sequence
from pathlib import Path

import click

from pmv.apps.cli import options
from pmv.apps.cli.console import log_to_stderr, print_path
from pmv.apps.cli.options import FILE
from pmv.errors import InputError


@click.command(context_settings=options.SETTINGS)
@click.argument("run", type=FILE)
@click.option("--set", "settings", multiple=True, metavar="ATTRIBUTE=NUMBER", help="Standard deviations; may repeat.")
@click.option("--reference", type=FILE, metavar="OTHER", help="Run of a head that lends a part of itself.")
@click.option("--part", metavar="PART", help="What it lends: hair, face, eyes, nose or mouth.")
@click.option("--out", type=FILE, help="Folder of the edited head. [default: beside RUN]")
@options.device()
def edit(
    run: Path, settings: Sequence[str], reference: Path | None, part: str | None, out: Path | None, device: str
) -> None:
    """Change attributes of the finished head in RUN, such as --set smile=+2 --set age=-1, or put a part of another
    head onto it: --reference OTHER --part hair. Prints the new folder.

    Without either: what attributes there are.
    """
    if (reference is None) != (part is None):
        raise InputError("--reference OTHER and --part PART go together; give both")
    if reference is not None and settings:
        raise InputError("--set and --reference are two edits; make one, then the other of the folder that it writes")
    from pmv.apps.attributes import edit_run
    from pmv.apps.reference import take_part
    from pmv.pipeline.device import pick_device

    log_to_stderr()
    if reference is not None and part is not None:
        print_path(take_part(run, reference, part, out, pick_device(device)))
    else:
        print_path(edit_run(run, settings, out, pick_device(device)))
