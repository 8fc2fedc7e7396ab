"""`pmv convert`: a checkpoint as plain tensors."""

from pathlib import Path

import click

from pmv.apps.cli import options
from pmv.apps.cli.console import log_to_stderr, print_path
from pmv.apps.cli.options import FILE


@click.command(context_settings=options.SETTINGS)
@click.argument("checkpoint")
@click.argument("out", type=FILE)
@options.like
def convert(checkpoint: str, out: Path, like: str | None) -> None:
    """Convert CHECKPOINT (read without executing it) to OUT: .safetensors and .json, or a plain state dict (.pt, .pth).

    CHECKPOINT is a name, .pkl, .pt, .pth or .safetensors.
    """
    from pmv.generators.convert import convert_checkpoint

    log_to_stderr()
    convert_checkpoint(checkpoint, out, like)
    print_path(out)
