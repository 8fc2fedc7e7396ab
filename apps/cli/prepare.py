"""`pmv prepare`: a photo aligned for a generator, as plain files."""

from collections.abc import Sequence
from pathlib import Path

import click

from pmv.apps.cli import options
from pmv.apps.cli.console import log_to_stderr, print_path
from pmv.apps.cli.options import FILE


@click.command(context_settings=options.SETTINGS)
@click.argument("photo", type=FILE)
@click.option("--out", type=FILE, required=True, help="Folder for image.png, mask.png, camera.json, crop.json.")
@options.presets
@click.option("--generator", help="For which generator: 'heads' (ships with pmv), a fetched name, or a checkpoint.")
@options.face
@click.option("--camera", type=FILE, help="Of a photo that is aligned already; see invert.")
@options.mask
@options.device(default=None)
@options.settings
def prepare(
    photo: Path,
    out: Path,
    presets: Sequence[str],
    generator: str | None,
    face: int | None,
    device: str | None,
    settings: Sequence[str],
    **given: Path | None,
) -> None:
    """Align PHOTO for a generator: find the face, crop it, find its camera and foreground. Prints the folder."""
    from pmv.apps.prepare_folder import PrepareRequest, prepare

    values = {"run.generator": generator, "run.device": device, "prepare.face": face}
    log_to_stderr()
    print_path(prepare(PrepareRequest(presets, (*settings, *options.as_settings(values)), **given), photo, out))
