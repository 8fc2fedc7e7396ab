"""The group of all commands, and the console script `pmv`."""

import click

from pmv import __version__
from pmv.apps.cli.batch import batch
from pmv.apps.cli.console import execute
from pmv.apps.cli.convert import convert
from pmv.apps.cli.edit import edit
from pmv.apps.cli.encode import encode
from pmv.apps.cli.export import export
from pmv.apps.cli.fetch import fetch
from pmv.apps.cli.heads import heads
from pmv.apps.cli.inspect import inspect
from pmv.apps.cli.invert import invert
from pmv.apps.cli.options import SETTINGS
from pmv.apps.cli.prepare import prepare
from pmv.apps.cli.render import render
from pmv.apps.cli.report import compare, report
from pmv.apps.cli.studio import studio
from pmv.apps.cli.verify import verify


@click.group(name="pmv", context_settings=SETTINGS)
@click.version_option(__version__, prog_name="pmv")
def cli() -> None:
    """One portrait to a 3D head."""


for command in (
    *(invert, encode, batch, prepare, render, edit, export, report, compare, studio),
    *(convert, inspect, verify, fetch, heads),
):
    cli.add_command(command)


def main() -> None:
    """The console script `pmv`."""
    execute(cli)
