"""`pmv verify`: a checkpoint's outputs against those of the official code."""

from pathlib import Path

import click

from pmv.apps.cli import options
from pmv.apps.cli.console import log_to_stderr
from pmv.apps.cli.options import FILE, Number


@click.command(context_settings=options.SETTINGS)
@click.argument("checkpoint")
@click.argument("reference", type=FILE)
@click.option("--tolerance", type=Number(0, 1, min_open=True), default=1e-4, show_default=True, help="Relative L2.")
@options.like
def verify(checkpoint: str, reference: Path, tolerance: float, like: str | None) -> None:
    """Compare CHECKPOINT's outputs with those of the official code in REFERENCE (.npz).

    Prints the relative L2 error of every array; exit code 1 if one exceeds the tolerance (gradients: ten times it).
    """
    from pmv.generators import load_generator
    from pmv.generators.verify import read_reference, relative_errors, tolerance_of

    log_to_stderr()
    arrays = read_reference(reference)
    errors = relative_errors(load_generator(checkpoint, like=like), arrays)
    # an error that is no number is too large
    wrong = {name for name, error in errors.items() if not error <= tolerance_of(name, tolerance)}
    for name, error in errors.items():
        click.echo(f"{name:24} {error:.1e}{'  too large' if name in wrong else ''}")
    if wrong:
        raise click.exceptions.Exit(1)
