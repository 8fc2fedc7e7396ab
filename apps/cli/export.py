"""`pmv export`: a finished head in files of other programs."""

import logging
from dataclasses import replace
from pathlib import Path

import click

from pmv.apps.cli import options
from pmv.apps.cli.console import log_to_stderr
from pmv.apps.cli.options import FILE

_MESHES, _TEXTURED = ("glb", "obj", "ply", "stl"), ("glb", "obj")
_SURFACES = (*_MESHES, "gaussians")
_APPLIES = {"texture": _TEXTURED, "faces": _SURFACES, "grid": _SURFACES, "smooth": _SURFACES, "metres": _SURFACES}
_APPLIES |= {"views": ("views",), "splats": ("gaussians",)}


@click.command(context_settings=options.SETTINGS)
@click.argument("run", type=FILE)
@click.option(
    "--format",
    "kind",
    type=click.Choice([*_SURFACES, "views", "npz"]),
    required=True,
    help="Textured mesh (glb, obj), mesh with vertex colours (ply), shape (stl), "
    "3D Gaussians (gaussians), pictures with cameras (views), EG3D's projected_w.npz (npz).",
)
@click.option(
    "--out", type=FILE, help="File; for obj and views a folder; gaussians: .ply or .spz. [default: beside RUN]"
)
@click.option("--texture", type=click.IntRange(256, 4096), help="glb, obj: pixels a side. [default: 2048]")
@click.option("--faces", type=click.IntRange(100), help="Surfaces: triangles at most. [default: glb, obj: 40000]")
@click.option("--grid", type=click.IntRange(16, 512), help="Surfaces: density samples a side. [default: 160]")
@click.option("--smooth", type=click.IntRange(0, 100), help="Surfaces: steps of Taubin's smoothing. [default: 3]")
@click.option(
    "--metres", type=float, help="Surfaces: metres in a world unit. [default: a mean adult's head is assumed]"
)
@click.option("--views", type=click.IntRange(1, 1000), help="views: how many. [default: 60]")
@click.option("--splats", type=click.IntRange(1000, 5_000_000), help="gaussians: about how many. [default: 200000]")
@options.moved_generator
@options.device()
@click.pass_context
def export(
    context: click.Context,
    run: Path,
    kind: str,
    out: Path | None,
    texture: int | None,
    faces: int | None,
    grid: int | None,
    smooth: int | None,
    metres: float | None,
    views: int | None,
    splats: int | None,
    generator: str | None,
    device: str,
) -> None:
    """Write the finished head in RUN for other programs, with the photo's own texels where it shows the surface."""
    options.refuse_others(context, kind, "--format", _APPLIES)
    if metres is not None and not 0 < metres < float("inf"):
        raise click.UsageError(f"--metres is {metres:g}; give the metres in a world unit, such as 0.46")
    from pmv.apps.export import export_run, usual_settings
    from pmv.apps.gaussians import SPLATS
    from pmv.pipeline.device import pick_device

    log_to_stderr()
    logging.getLogger("pmv").setLevel(logging.INFO)
    asked = {"texture": texture, "faces": faces, "grid": grid, "smooth": smooth}
    settings = replace(usual_settings(kind), **{name: value for name, value in asked.items() if value is not None})
    path = export_run(
        run,
        kind,
        out,
        settings,
        metres=metres,
        views=views or 60,
        splats=splats or SPLATS,
        device=pick_device(device),
        generator=generator,
    )
    click.echo(path)
