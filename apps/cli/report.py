"""`pmv report` and `pmv compare`: pages of runs."""

from collections.abc import Sequence
from pathlib import Path

import click

from pmv.apps.cli import options
from pmv.apps.cli.console import log_to_stderr
from pmv.apps.cli.options import FILE


@click.command(context_settings=options.SETTINGS)
@click.argument("run", type=FILE)
@click.option("--out", type=FILE, help="The page. [default: report.html in RUN]")
@options.moved_generator
@options.device()
def report(run: Path, out: Path | None, generator: str | None, device: str) -> None:
    """Write the page of a run, with the finished head to be turned by hand. It needs no network and no other file."""
    from pmv.apps.report import report_run
    from pmv.pipeline.device import pick_device

    log_to_stderr()
    click.echo(report_run(run, out, pick_device(device), generator))


@click.command(context_settings=options.SETTINGS)
@click.argument("runs", type=FILE, nargs=-1, required=True)
@click.option("--out", type=FILE, default=Path("compare.html"), show_default=True, help="The page.")
def compare(runs: Sequence[Path], out: Path) -> None:
    """Write a page that shows RUNS beside one another: the same views, figures, and settings that differ."""
    from pmv.apps.report import compare_runs

    log_to_stderr()
    click.echo(compare_runs(runs, out))
