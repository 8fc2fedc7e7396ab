"""`pmv fetch`: published checkpoints, by name."""

from pathlib import Path

import click

from pmv.apps.cli import options
from pmv.apps.cli.console import print_path
from pmv.apps.cli.options import FILE


@click.command(context_settings=options.SETTINGS)
@click.argument("name", required=False)
@click.option("--list", "listing", is_flag=True, help="Show what there is, as without a NAME.")
@click.option("--accept-licence", is_flag=True, help="You have read the licence and accept it.")
@click.option("--from", "source", type=FILE, metavar="FILE", help="Take this file, downloaded by hand.")
@click.option("--cache", type=FILE, help="Folder to keep it in. [default: $PMV_CACHE, or the platform's cache]")
def fetch(name: str | None, listing: bool, accept_licence: bool, source: Path | None, cache: Path | None) -> None:
    """Download the published checkpoint NAME, for --generator NAME. Prints the file. Without NAME: what there is."""
    from pmv.files.fetch import fetch, licence_notice, place
    from pmv.files.manifest import cached, find_entry

    if name is None or listing:
        if name is not None or source is not None or accept_licence:
            raise click.UsageError("--list takes neither NAME nor --from nor --accept-licence; these need a NAME")
        _print_table(cache)
        return
    entry = find_entry(name)
    if source is not None:
        click.echo(licence_notice(entry), err=True)
        print_path(place(name, source, cache))
        return
    if entry.url is not None and cached(name, cache) is None:
        click.echo(licence_notice(entry), err=True)
        accept_licence = accept_licence or (entry.needs_acceptance and _ask())
    print_path(fetch(name, cache, accept_licence))


def _print_table(cache: Path | None) -> None:
    from pmv.files.manifest import cache_folder, table

    rows = [("NAME", "HERE", "LICENCE", "WHAT"), *table(cache)]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        click.echo("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]))
    click.echo(f"cache: {cache_folder(cache)}", err=True)


def _ask() -> bool:
    try:
        return click.confirm("Do you accept this licence?", err=True)
    except click.Abort:  # nobody there to answer
        click.echo(err=True)
        return False
