"""`pmv studio`: all of it on a page in a browser."""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import click

from pmv.apps.cli import options
from pmv.apps.cli.console import asked_to_end, log_to_stderr
from pmv.apps.cli.options import FILE


@click.command(context_settings=options.SETTINGS)
@click.option("--out", type=FILE, default=Path("studio"), show_default=True, help="Folder of all that it keeps.")
@click.option("--generator", "generators", multiple=True, help="To choose from; may repeat. [default: heads]")
@click.option("--preset", "presets", multiple=True, help="To choose from; may repeat. [default: all that ship]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(1, 65535), help="[default: the first free one from 7860 on]")
@click.option("--share", is_flag=True, help="Also through Gradio's tunnel, for the whole world; wants --auth.")
@click.option("--auth", type=FILE, help="File with a line NAME:PASSWORD for each who may come in.")
@click.option("--most-upload", type=click.IntRange(1, 1000), default=50, show_default=True, help="Megabytes a picture.")
@click.option("--most-waiting", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Jobs queued.")
@options.device()
def studio(
    out: Path,
    generators: Sequence[str],
    presets: Sequence[str],
    host: str,
    port: int | None,
    share: bool,
    auth: Path | None,
    most_upload: int,
    most_waiting: int,
    device: str,
) -> None:
    """Open a page in the browser: photo, crop, edits, run, the head turned and taken away. Prints its address.

    Ctrl-C ends it; what is under way is stopped, and goes on when it is asked for again.
    """
    from pmv.apps.studio.opened import Settings, Studio
    from pmv.apps.studio.server import serve

    given = {name: tuple(value) for name, value in (("generators", generators), ("presets", presets)) if value}
    settings = Settings(
        root=out,
        host=host,
        port=port,
        share=share,
        auth=auth,
        device=device,
        most_upload_mb=most_upload,
        most_waiting=most_waiting,
        **given,
    )
    log_to_stderr()

    def opened(studio: Studio) -> None:
        if share or auth is not None:
            logging.getLogger("pmv").warning("others can come in, with a name and password of %s", auth)
        for address in studio.addresses:
            click.echo(address)

    def wait() -> None:
        end = threading.Event()
        while not asked_to_end():
            end.wait(0.5)

    serve(settings, wait, opened)
