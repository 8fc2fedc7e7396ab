"""The command line. `python run_inversion.py IMAGE` and `pmv invert IMAGE` are the same command; `pmv --help` lists
all.
"""

import logging
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from pmv import __version__
from pmv.errors import PmvError

# torch is imported inside the commands, so that --help and mistakes on the command line answer at once

FILE = click.Path(path_type=Path)


@click.group(name="pmv", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pmv")
def cli() -> None:
    """One portrait to a 3D head."""


_EDIT_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "edit": ("The photo, or the run's picture of it, retouched: what differs is taken over.", {"type": FILE}),
    "paint_mask": ("For the --edit before it: white is taken over, instead of what differs.", {"type": FILE}),
    "overlay": ("A picture, such as a logo, to lay on the portrait; --at and --size follow.", {"type": FILE}),
    "at": ("Its middle, in fractions of the aligned picture from the top left.", {"metavar": "X,Y"}),
    "size": ("Its width, as a fraction of the aligned picture's.", {"metavar": "S"}),
    "rotate": ("Degrees, clockwise. [default: 0]", {"metavar": "DEGREES"}),
    "blend": ("normal, multiply, screen or overlay. [default: normal]", {"metavar": "MODE"}),
    "opacity": ("Above 0, up to 1. [default: 1]", {"metavar": "O"}),
    "follow_surface": ("Draw it on the head's surface, so that it bends with it.", {"is_flag": True}),
}
"""What begins an edit, and what belongs to the edit before it: (help, how click reads it)."""


class _EditCommand(click.Command):
    """Takes edits: options that may be repeated and whose order counts, which it leaves in ``context.meta``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, (text, kind) in _EDIT_OPTIONS.items():
            option = click.Option([f"--{name.replace('_', '-')}"], multiple=True, help=text, expose_value=False, **kind)
            self.params.append(option)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        found, _, order = self.make_parser(ctx).parse_args(list(args))
        values = {name: iter(found.get(name) or ()) for name in _EDIT_OPTIONS}
        ctx.meta["pmv.edits"] = [(p.name, next(values[p.name])) for p in order if p.name in _EDIT_OPTIONS]
        return super().parse_args(ctx, args)


@cli.command(cls=_EditCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("image", required=False, type=FILE)
@click.option("--preset", "presets", multiple=True, help="demo, fidelity, hfgi3d, or a .yaml file; may be repeated.")
@click.option("--out", type=FILE, help="Folder of the run. [default: runs/IMAGE-TIME]")
@click.option("--generator", help="'heads' (ships with pmv), a name of 'pmv fetch', or the path of a checkpoint.")
@click.option("--camera", type=FILE, help="EG3D dataset.json, .npy of 25 floats, transforms.json or COLMAP folder.")
@click.option("--mask", type=FILE, help="Foreground mask, white = head. [default: alpha, or found]")
@click.option("--ood-mask", type=FILE, help="White = what the generator cannot draw. [default: found by latent]")
@click.option("--face", type=click.IntRange(1), help="Which face of the photo, numbered by size. [default: largest]")
@click.option("--seed", type=int, help="Seed of every random number.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Where to compute.")
@click.option("--set", "settings", multiple=True, metavar="STAGE.KEY=VALUE", help="Change one value of the config.")
@click.option("--resume", type=FILE, metavar="RUN", help="Go on with this run: only what changed runs again.")
@click.option("--from", "first", metavar="STAGE", help="Run this stage and all after it again.")
@click.option("--until", metavar="STAGE", help="Stop after this stage.")
@click.option("--clear-edits", is_flag=True, help="With --resume: take back the run's edits first.")
@click.pass_context
def invert(
    context: click.Context,
    image: Path | None,
    presets: Sequence[str],
    out: Path | None,
    resume: Path | None,
    first: str | None,
    until: str | None,
    settings: Sequence[str],
    generator: str | None,
    face: int | None,
    seed: int | None,
    device: str | None,
    clear_edits: bool,
    **given: Path | None,
) -> None:
    """Turn the portrait IMAGE into a 3D head, or --resume RUN. Prints the folder of the run.

    Edits (--edit, --overlay) stack in their order, in a resumed run on top of its own; what belongs to one follows it.
    """
    if (image is None) == (resume is None):
        raise click.UsageError("give either an IMAGE or --resume RUN")
    if resume is not None and out is not None:
        raise click.UsageError("--out names a new run; --resume goes on in the folder it names")
    if clear_edits and resume is None:
        raise click.UsageError("--clear-edits takes back the edits of a run; give --resume RUN")
    from pmv.apps.invert import Request, invert
    from pmv.stages.edit_list import group_options

    values = {"run.generator": generator, "run.seed": seed, "run.device": device, "prepare.face": face}
    request = Request(
        presets=presets,
        settings=(*settings, *(f"{key}={value}" for key, value in values.items() if value is not None)),
        first=first,
        until=until,
        command=shlex.join(sys.argv),
        edits=group_options(context.meta["pmv.edits"]),
        clear_edits=clear_edits,
        **given,
    )
    _log_to_stderr()
    click.echo(invert(request, image, out, resume))


@cli.command()
@click.argument("photo", type=FILE)
@click.option("--out", type=FILE, required=True, help="Folder for image.png, mask.png, camera.json, crop.json.")
@click.option("--preset", "presets", multiple=True, help="demo, fidelity, hfgi3d, or a .yaml file; may be repeated.")
@click.option("--generator", help="For which generator: 'heads' (ships with pmv), a fetched name, or a checkpoint.")
@click.option("--face", type=click.IntRange(1), help="Which face, numbered by size. [default: the largest]")
@click.option("--camera", type=FILE, help="Of a photo that is aligned already; see invert.")
@click.option("--mask", type=FILE, help="Foreground mask, white = head. [default: alpha, or found]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Where to compute.")
@click.option("--set", "settings", multiple=True, metavar="STAGE.KEY=VALUE", help="Change one value of the config.")
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
    chosen = tuple(f"{key}={value}" for key, value in values.items() if value is not None)
    _log_to_stderr()
    click.echo(prepare(PrepareRequest(presets, (*settings, *chosen), **given), photo, out))


@cli.command()
@click.argument("run", type=FILE)
@click.option("--out", type=FILE, required=True, help="PNG, or MP4 for a turn around the head.")
@click.option(
    "--yaw", "yaws", type=float, multiple=True, default=(0.0,), help="Degrees, positive to +x; PNG: may repeat."
)
@click.option("--uncrop", is_flag=True, help="PNG: put the head back into the photo; yaw and pitch from the photo's.")
@click.option("--pitch", type=float, default=0.0, help="Degrees, positive upwards.")
@click.option("--sweep", type=click.FloatRange(0, 180), help="MP4: degrees to either side of the yaw.")
@click.option("--frames", type=click.IntRange(2), default=90, help="MP4: pictures in the turn.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to compute.")
def render(
    run: Path,
    out: Path,
    yaws: Sequence[float],
    pitch: float,
    uncrop: bool,
    sweep: float | None,
    frames: int,
    device: str,
) -> None:
    """Render the finished inversion in RUN from other sides, or --uncrop it into its photo."""
    from pmv.apps.render import write_sheet, write_turn
    from pmv.pipeline.device import pick_device

    if uncrop:
        from pmv.apps.uncrop import uncrop_run

        if out.suffix.lower() != ".png" or len(yaws) != 1:
            raise click.UsageError("--uncrop writes one view: --out ends in .png, and --yaw is given at most once")
        uncrop_run(run, out, yaws[0], pitch, pick_device(device))
    elif out.suffix.lower() == ".mp4":
        if len(yaws) != 1:
            raise click.UsageError("an MP4 takes one --yaw, the middle of the turn")
        write_turn(run, out, yaws[0], pitch, sweep, frames, pick_device(device))
    elif out.suffix.lower() == ".png":
        write_sheet(run, out, yaws, pitch, pick_device(device))
    else:
        raise click.UsageError("--out ends in .png or .mp4")
    click.echo(out)


@cli.command()
@click.argument("run", type=FILE)
@click.option("--set", "settings", multiple=True, metavar="ATTRIBUTE=NUMBER", help="Standard deviations; may repeat.")
@click.option("--out", type=FILE, help="Folder of the edited head. [default: beside RUN]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to compute.")
def edit(run: Path, settings: Sequence[str], out: Path | None, device: str) -> None:
    """Change attributes of the finished head in RUN, such as --set smile=+2 --set age=-1. Prints the new folder.

    Without --set: what attributes there are.
    """
    from pmv.apps.attributes import edit_run
    from pmv.pipeline.device import pick_device

    _log_to_stderr()
    click.echo(edit_run(run, settings, out, pick_device(device)))


@cli.command()
@click.argument("checkpoint")
@click.argument("out", type=FILE)
@click.option("--like", metavar="CHECKPOINT", help="What it was tuned from, where CHECKPOINT holds weights alone.")
def convert(checkpoint: str, out: Path, like: str | None) -> None:
    """Convert CHECKPOINT (read without executing it) to OUT: .safetensors and .json, or a plain state dict (.pt, .pth).

    CHECKPOINT is a name, .pkl, .pt, .pth or .safetensors.
    """
    from pmv.generators.convert import convert_checkpoint

    _log_to_stderr()
    convert_checkpoint(checkpoint, out, like)
    click.echo(out)


@cli.command()
@click.argument("checkpoint")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def inspect(checkpoint: str, as_json: bool) -> None:
    """Tell what is in CHECKPOINT, without building a model of it or executing anything."""
    import json

    from pmv.generators.inspection import describe, inspect_checkpoint

    facts = inspect_checkpoint(checkpoint)
    click.echo(json.dumps(facts, indent=1) if as_json else describe(facts))


@cli.command()
@click.argument("checkpoint")
@click.argument("reference", type=FILE)
@click.option(
    "--tolerance", type=click.FloatRange(0, min_open=True), default=1e-4, show_default=True, help="Relative L2."
)
@click.option("--like", metavar="CHECKPOINT", help="What it was tuned from, where CHECKPOINT holds weights alone.")
def verify(checkpoint: str, reference: Path, tolerance: float, like: str | None) -> None:
    """Compare CHECKPOINT's outputs with those of the official code in REFERENCE (.npz).

    Prints the relative L2 error of every array; exit code 1 if one exceeds the tolerance (gradients: ten times it).
    """
    from pmv.generators import load_generator
    from pmv.generators.verify import read_reference, relative_errors, tolerance_of

    _log_to_stderr()
    arrays = read_reference(reference)
    errors = relative_errors(load_generator(checkpoint, like=like), arrays)
    for name, error in errors.items():
        verdict = "" if error <= tolerance_of(name, tolerance) else "  too large"
        click.echo(f"{name:24} {error:.1e}{verdict}")
    if any(not error <= tolerance_of(name, tolerance) for name, error in errors.items()):
        raise click.exceptions.Exit(1)


@cli.command()
@click.argument("name", required=False)
@click.option("--list", "listing", is_flag=True, help="Show what there is, as without a NAME.")
@click.option("--accept-licence", is_flag=True, help="You have read the licence and accept it.")
@click.option("--from", "source", type=FILE, metavar="FILE", help="Take this file, downloaded by hand.")
@click.option("--cache", type=FILE, help="Folder to keep it in. [default: $PMV_CACHE, or the platform's cache]")
def fetch(name: str | None, listing: bool, accept_licence: bool, source: Path | None, cache: Path | None) -> None:
    """Download the published checkpoint NAME, for --generator NAME. Prints the file. Without NAME: what there is."""
    from pmv.files.fetch import fetch, licence_notice, place
    from pmv.files.manifest import cache_folder, cached, find_entry, table

    if name is None or listing:
        if name is not None or source is not None:
            raise click.UsageError("--list takes neither NAME nor --from; --from needs a NAME")
        rows = [("NAME", "HERE", "LICENCE", "WHAT"), *table(cache)]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        for row in rows:
            click.echo("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]))
        click.echo(f"cache: {cache_folder(cache)}", err=True)
        return
    entry = find_entry(name)
    if source is not None:
        click.echo(licence_notice(entry), err=True)
        click.echo(place(name, source, cache))
        return
    if entry.url is not None and cached(name, cache) is None:
        click.echo(licence_notice(entry), err=True)
        if entry.needs_acceptance and not accept_licence:
            try:
                accept_licence = click.confirm("Do you accept this licence?", err=True)
            except click.Abort:  # nobody there to answer
                click.echo(err=True)
    click.echo(fetch(name, cache, accept_licence))


@cli.group()
def heads() -> None:
    """Synthetic heads, made from MakeHuman assets."""


def _numbers(kind: Callable[[str], Any]) -> Callable[..., list[Any]]:
    def parse(context: click.Context, parameter: click.Parameter, text: str) -> list[Any]:
        try:
            return [kind(part) for part in text.replace(",", " ").split()]
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is not a list such as 0,1,2") from error

    return parse


@heads.command()
@click.option("--makehuman", type=FILE, required=True, help="A MakeHuman checkout, or a compiled .npz.")
@click.option("--out", type=FILE, required=True, help="The PNG to write.")
@click.option("--seeds", default="0,1,2,3", show_default=True, callback=_numbers(int), help="One head a row.")
@click.option("--yaws", default="-90,-40,0,40,90,180", show_default=True, callback=_numbers(float), help="Degrees.")
@click.option("--resolution", type=click.IntRange(32, 2048), default=256, show_default=True, help="Pixels a head.")
def sheet(makehuman: Path, out: Path, seeds: list[int], yaws: list[float], resolution: int) -> None:
    """Write a contact sheet: a row a seed, a column a yaw."""
    from pmv.pictures.images import write_png
    from pmv.training.heads import HeadAssets
    from pmv.training.heads.sheet import contact_sheet

    write_png(out, contact_sheet(HeadAssets.load(makehuman), seeds, yaws, resolution))
    click.echo(out)


def _log_to_stderr() -> None:
    """Show the log above the progress bars; warnings and the rest alike, since stdout is for results."""
    from tqdm import tqdm

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno < logging.ERROR:  # errors are told once, at the end
                tqdm.write(f"pmv: {record.getMessage()}", file=sys.stderr)

    log = logging.getLogger("pmv")
    log.handlers = [Handler()]
    log.propagate = False


def _terminate(signum: int, frame: object) -> None:
    raise SystemExit(128 + signum)


def execute(command: click.Command) -> None:
    """Run a command with this process's arguments and exit: 0; 2 for an input that cannot be used; 130/143 when
    interrupted.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = command.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:  # what click makes of Ctrl-C
        code = 130
    except PmvError as error:
        click.echo(f"pmv: error: {' '.join(str(error).split())}", err=True)
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


def main() -> None:
    """The console script `pmv`."""
    execute(cli)


if __name__ == "__main__":
    execute(invert)
