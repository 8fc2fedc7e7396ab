"""The page of a run with its head in 3D, and a page that compares runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pmv.apps.head_model import ModelSettings, head_surface, textured
from pmv.errors import InputError, disk_errors
from pmv.files.artifacts import check_output, write_text
from pmv.geometry.model_files import glb_bytes
from pmv.inversion import FILE_NAME
from pmv.pipeline.config import Config, load_config
from pmv.pipeline.folder import RunFolder
from pmv.pipeline.record import read_about
from pmv.pipeline.report import HeadInPage, all_numbers, escaped, page, write_report
from pmv.pipeline.report_pictures import data_uri, read_pixels
from pmv.stages.notes import NOTES
from pmv.stages.table import TABLE

PAGE_MODEL = ModelSettings(grid=128, faces=16_000, texture=1024)
"""Fine enough for a window of some hundred pixels, at 0.5 MB of page."""
_GREY = "#808080"
_VIEWS = {"what went in": NOTES.given, "from the photo's view": NOTES.result}
_SHEET = "10_evaluate/contact_sheet.png"


def report_run(
    run: Path,
    out: Path | None = None,
    device: str | torch.device = "cpu",
    generator: str | None = None,
    settings: ModelSettings = PAGE_MODEL,
) -> Path:
    """Write the page of the run in the folder `run`, its head in 3D where the run is finished; returns where.

    Args:
        out: None = ``report.html`` in the run.
        generator: see `load_inversion`.
        settings: of the head in 3D.

    Raises:
        PmvError: no run there, or no place to write to.
    """
    folder, config, about = _opened(run)
    path = out or folder / "report.html"
    check_output(path)
    head = None
    if (run / FILE_NAME).is_file():
        model = textured(head_surface(run, settings, device, generator), settings.texture)
        head = HeadInPage(glb_bytes(model.atlas, model.texture, 1.0, {}), _GREY)
    with disk_errors(path):
        write_report(folder, config, about, whole=True, head=head, path=path)
    return path


def compare_runs(runs: Sequence[Path], out: Path) -> Path:
    """Write one page with the same views, figures and differing settings of several runs beside one another.

    Raises:
        PmvError: fewer than two, no run there, or no place to write to.
    """
    if len(runs) < 2:
        raise InputError("nothing to compare; give the folders of two or more runs")
    check_output(out)
    opened = [_opened(run) for run in runs]
    names = [folder.path.resolve().name for folder, _, _ in opened]
    head = "<tr><th></th>" + "".join(f"<th>{escaped(name)}</th>" for name in names) + "</tr>"
    parts = []
    for what, files in _VIEWS.items():
        parts.append(f'<h2>{escaped(what)}</h2><div class="row">')
        parts += [_view(folder, files, f"{name}, {what}") for (folder, _, _), name in zip(opened, names)]
        parts.append("</div>")
    for title, rows in (
        ("figures", _rows([all_numbers(folder) for folder, _, _ in opened])),
        ("settings that differ", _differing([config for _, config, _ in opened])),
        ("seconds", _seconds([about for _, _, about in opened])),
    ):
        body = "".join(
            f"<tr><th>{escaped(name)}</th>{''.join(f'<td>{escaped(value)}</td>' for value in values)}</tr>"
            for name, values in rows
        )
        told = f'<div class="scroll"><table>{head}{body}</table></div>' if rows else '<p class="soft">none</p>'
        parts.append(f"<h2>{title}</h2>{told}")
    parts.append("<h2>contact sheets</h2>")
    parts += [_view(folder, (_SHEET,), name) for (folder, _, _), name in zip(opened, names)]
    with disk_errors(out):
        write_text(out, page(" | ".join(names), parts))
    return out


def _opened(run: Path) -> tuple[RunFolder, Config, dict[str, Any]]:
    folder = RunFolder(run, TABLE)
    folder.require_run()
    folder.check_links()
    return folder, load_config(TABLE, path=folder / "config.yaml"), dict(read_about(folder))


def _view(folder: RunFolder, files: Sequence[str], caption: str) -> str:
    pixels = next((found for name in files if (found := read_pixels(folder / name)) is not None), None)
    if pixels is None:
        return f"<figure><figcaption>{escaped(caption)}: not there yet</figcaption></figure>"
    wide = ' class="wide"' if pixels.shape[1] > pixels.shape[0] else ""
    image = f'<img src="{data_uri(pixels)}" alt="{escaped(caption)}">'
    return f"<figure{wide}>{image}<figcaption>{escaped(caption)}</figcaption></figure>"


def _differing(configs: Sequence[Config]) -> list[tuple[str, list[Any]]]:
    flat = [
        {f"{block}.{name}": value for block, values in config.as_dict().items() for name, value in values.items()}
        for config in configs
    ]
    return [(name, values) for name, values in _rows(flat) if any(value != values[0] for value in values)]


def _seconds(runs: Sequence[dict[str, Any]]) -> list[tuple[str, list[Any]]]:
    return _rows([{name: stage["seconds"] for name, stage in run["stages"].items()} for run in runs])


def _rows(columns: Sequence[dict[str, Any]]) -> list[tuple[str, list[Any]]]:
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, [column.get(name, "") for column in columns]) for name in names]
