"""`pmv inspect`: what is in a checkpoint."""

import json

import click

from pmv.apps.cli import options


@click.command(context_settings=options.SETTINGS)
@click.argument("checkpoint")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def inspect(checkpoint: str, as_json: bool) -> None:
    """Tell what is in CHECKPOINT, without building a model of it or executing anything."""
    from pmv.generators.inspection import describe, inspect_checkpoint

    facts = inspect_checkpoint(checkpoint)
    click.echo(json.dumps(facts, indent=1) if as_json else describe(facts))
