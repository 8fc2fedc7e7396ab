"""`pmv batch`: many portraits become 3D heads, on one machine or many."""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pmv.apps.cli import options
from pmv.apps.cli.console import asked_to_end, print_path
from pmv.apps.cli.options import FILE, Number
from pmv.errors import InputError, shown

if TYPE_CHECKING:
    from pmv.apps.batch import Outcome, Photo


def _shard(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    if not (found := re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)):
        raise click.BadParameter(f"{text!r} is not a share such as 2/8")
    return int(found[1]), int(found[2])


@click.command(context_settings=options.SETTINGS)
@click.argument("photos", nargs=-1, required=True, type=FILE)
@options.presets
@click.option("--out", required=True, type=FILE, help="Folder of the runs, one for each photo, and the summary.")
@click.option("--generator", help="'heads' (ships with pmv), a name of 'pmv fetch', or the path of a checkpoint.")
@click.option("--camera", type=FILE, help="One file with the cameras of all photos, by their names.")
@click.option("--seed", type=int, help="Seed of every random number.")
@options.device(default=None)
@options.settings
@click.option("--until", metavar="STAGE", help="Stop every run after this stage.")
@click.option("--ray", metavar="ADDRESS", help="A Ray cluster's head; auto = the one this machine belongs to.")
@click.option(
    "--workers", type=click.IntRange(0), help="Runs at once on this machine; 0 = one after another, without Ray."
)
@click.option("--cores", default=1, show_default=True, type=click.IntRange(1), help="Processor cores of a run.")
@click.option("--gpus", type=Number(0, 8), help="Part of a GPU for a run. [default: 0.25 where there is one]")
@click.option("--retries", default=3, show_default=True, type=click.IntRange(0), help="After lost machines.")
@click.option("--shard", callback=_shard, metavar="I/N", help="Only every Nth photo, in this process: for schedulers.")
def batch(
    photos: Sequence[Path],
    out: Path,
    presets: Sequence[str],
    generator: str | None,
    camera: Path | None,
    seed: int | None,
    device: str | None,
    settings: Sequence[str],
    until: str | None,
    ray: str | None,
    workers: int | None,
    cores: int,
    gpus: float | None,
    retries: int,
    shard: tuple[int, int] | None,
) -> None:
    """Turn PHOTOS (files, folders, or .txt lists) into 3D heads. Prints the folder; repeat the command to go on.

    Exit code 2 where a photo could not be used; the others are finished all the same.
    """
    if ray is not None and workers is not None:
        raise click.UsageError("--workers are of this machine; a cluster (--ray) runs as many as it has room for")
    if shard is not None and (ray is not None or workers):
        raise click.UsageError("--shard runs one photo after another in this process; leave --ray and --workers out")
    from pmv.apps import batch as work
    from pmv.apps.batch_summary import write_summary
    from pmv.apps.invert import Request
    from pmv.pipeline.device import pick_device

    found = work.find_photos(photos)
    if shard is not None:
        found = work.shard(found, *shard)
    values = {"run.generator": generator, "run.seed": seed, "run.device": device}
    given = Request(
        presets=presets,
        settings=(*settings, *options.as_settings(values)),
        until=until,
        camera=camera,
        command=shlex.join(sys.argv),
    )
    request = work.settled(given)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give a folder as --out")
    out.mkdir(parents=True, exist_ok=True)
    out = out.resolve()
    outcomes: list[Outcome] = []
    with _Table(found, out) as table:

        def told(outcome: "Outcome") -> None:
            outcomes.append(outcome)
            table.told(outcome)
            if shard is None:
                write_summary(out, outcomes)

        if shard is not None or workers == 0:
            work.run_here(found, out, request, told, asked_to_end)
        else:
            there = pick_device(device or "auto").type == "cuda"
            shares = work.Shares(cores, gpus if gpus is not None else 0.25 * there, retries)
            work.run_on_ray(found, out, request, told, shares, ray, workers, table.refresh)
    failed = [outcome for outcome in outcomes if outcome.status == work.FAILED]
    for outcome in failed:
        click.echo(f"pmv: {shown(outcome.photo.name)}: {shown(outcome.message, 1000)}", err=True)
    print_path(out)
    if failed:
        raise click.exceptions.Exit(2)


class _Table:
    """The batch as it stands, on the terminal: a line for each finished photo, and below them what is under way."""

    def __init__(self, photos: "Sequence[Photo]", out: Path) -> None:
        from tqdm import tqdm

        self.open = {photo.name: photo for photo in photos}
        self.out = out
        self.width = max(len(name) for name in self.open)
        self.bar = tqdm(total=len(photos), desc="photos", file=sys.stderr, unit="photo", disable=None)

    def __enter__(self) -> "_Table":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def told(self, outcome: "Outcome") -> None:
        self.open.pop(outcome.photo.name, None)
        psnr = outcome.figures.get("tuned_psnr")
        said = outcome.message or (f"{psnr:.1f} dB" if psnr is not None else "")
        line = f"{outcome.photo.name:{self.width}}  {outcome.status:6}  {outcome.seconds:7.1f} s  {said}"
        self.bar.write(shown(line.rstrip(), 1000), file=sys.stderr)
        self.bar.update()
        self.refresh()

    def refresh(self) -> None:
        from pmv.apps.batch import stage_of

        running = ((name, stage_of(self.out / name)) for name in self.open)
        self.bar.set_postfix_str(shown(", ".join(f"{name} ({stage})" for name, stage in running if stage), 160))
