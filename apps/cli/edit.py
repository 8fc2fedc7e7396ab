"""`pmv edit`: attributes of a finished head."""

from collections.abc import Sequence
from pathlib import Path

import click

from pmv.apps.cli import options
from pmv.apps.cli.console import log_to_stderr, print_path
from pmv.apps.cli.options import FILE


@click.command(context_settings=options.SETTINGS)
@click.argument("run", type=FILE)
@click.option("--set", "settings", multiple=True, metavar="ATTRIBUTE=NUMBER", help="Standard deviations; may repeat.")
@click.option("--out", type=FILE, help="Folder of the edited head. [default: beside RUN]")
@options.device()
def edit(run: Path, settings: Sequence[str], out: Path | None, device: str) -> None:
    """Change attributes of the finished head in RUN, such as --set smile=+2 --set age=-1. Prints the new folder.

    Without --set: what attributes there are.
    """
    from pmv.apps.attributes import edit_run
    from pmv.pipeline.device import pick_device

    log_to_stderr()
    print_path(edit_run(run, settings, out, pick_device(device)))
