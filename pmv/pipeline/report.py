"""``report.html``: one page of a run: the finished head beside the photo, then every stage with what it made, its
numbers and its curves.

While a run goes on the page links to the run's pictures; at its end everything is inside it, so that it can be sent to
somebody. The words come from the table's notes (`pmv.pipeline.notes`). Nothing of a run is trusted to be HTML.
"""

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from pmv import data_path
from pmv.errors import InputError, shown_lines
from pmv.files.artifacts import write_text
from pmv.files.reading import read_content
from pmv.pictures.sheets import GAP
from pmv.pipeline.config import Config, read_yaml
from pmv.pipeline.folder import RunFolder
from pmv.pipeline.notes import Notes, Pair, StageNotes, Strip
from pmv.pipeline.report_pictures import (
    base64_text,
    bytes_uri,
    data_uri,
    heat_map,
    in_colour,
    picture_shape,
    read_pixels,
    tinted,
    untiled,
)
from pmv.pipeline.stage_record import StageRecord
from pmv.pipeline.table import Stage

_SMALL = 128
"""Pictures up to this side are drawn with hard pixels."""
_WIDE = 1.2
"""Width over height from which a picture takes two columns."""
_ALONE = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data: blob:; media-src data:; '
    "connect-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
)
_MOST_LOG, _MOST_FILM = 16 << 20, 256 << 20
"""Bytes of a log that are looked through for warnings, and of a film inside the page."""
_UNPLOTTED = {"step", "seconds", "rolled_back"}


@dataclass(frozen=True)
class HeadInPage:
    """A head that is turned in the page: a GLB's bytes, and the colour behind it, "#808080"."""

    glb: bytes
    ground: str


def write_report(
    folder: RunFolder,
    config: Config,
    run: dict[str, Any],
    whole: bool = False,
    head: HeadInPage | None = None,
    path: Path | None = None,
) -> None:
    """Write the page from what lies in the folder.

    Args:
        run: the content of ``run.json``.
        whole: put pictures, film and scripts inside the page.
        head: to be turned by hand; needs `whole`.
        path: where; None = ``report.html`` in the run.
    """
    write_text(path or folder / "report.html", _Page(folder, config, run, whole, head).text())


def escaped(value: Any) -> str:
    """A value as text of a page (`pmv.errors.shown_lines`); numbers with four digits."""
    return html.escape(f"{value:.4g}" if isinstance(value, float) else shown_lines(str(value)), quote=True)


def page(title: str, body: Sequence[str], scripts: Sequence[str] = ("page.js",), alone: bool = True) -> str:
    """A whole page.

    Args:
        title: a text; body: HTML.
        scripts: files of ``assets/report``.
        alone: forbid the page to fetch anything from anywhere: all of it is inside.
    """
    style = _asset("page.css") + (_asset("uPlot.min.css") if "uPlot.iife.min.js" in scripts else "")
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{_ALONE if alone else ''}<title>{escaped(title)}</title><style>{style}</style></head>"
    )
    code = "".join(f"<script>{_asset(name)}</script>\n" for name in scripts)
    button = '<button id="theme" type="button" aria-label="switch between light and dark">light / dark</button>'
    return f"{head}\n<body><header><h1>{escaped(title)}</h1>{button}</header><main>\n" + "\n".join(
        [*body, f"</main>\n{code}</body></html>\n"]
    )


def _asset(name: str) -> str:
    return data_path("assets", "report", name).read_text(encoding="utf-8")


class _Page:
    """One page in the making."""

    def __init__(
        self, folder: RunFolder, config: Config, run: dict[str, Any], whole: bool, head: HeadInPage | None
    ) -> None:
        self.folder, self.config, self.run, self.whole, self.head = folder, config, run, whole, head
        self.notes: Notes = folder.table.notes
        self.plots = False

    def text(self) -> str:
        parts = [*self._result(), self._contents()]
        for stage in self.folder.table:
            parts += self._stage(stage)
        parts += self._settings()
        scripts = ["page.js"]
        if self.head is not None:
            scripts.insert(0, "three.min.js")
        if self.plots:
            scripts.insert(0, "uPlot.iife.min.js")
        return page(self.folder.path.resolve().name, parts, scripts, alone=self.whole)

    # --- the result

    def _result(self) -> list[str]:
        given, result = self._first(self.notes.given), self._first(self.notes.result)
        shown = []
        if given:
            shown.append(self._picture(given, "what went in: the photo, aligned, with its edits", "large"))
        if result and result != given:
            done = "the finished head" if self.run["complete"] else "the head so far"
            shown.append(self._picture(result, f"{done}, from the photo's view", "large"))
        shown.append(self._turned())
        parts = [f'<div class="row">{"".join(shown)}</div>']
        if not self.run["complete"]:
            parts.append("<p>The run is not complete: what follows is what there is so far.</p>")
        elif self.head is None and self.notes.to_turn:
            parts.append(f'<p class="soft">{escaped(self.notes.to_turn)}</p>')
        numbers = all_numbers(self.folder)
        cards = [
            f"<div><dt>{escaped(called)}</dt><dd>{numbers[name]:.1f} {escaped(unit)}"
            f"<small>{escaped(meaning)}</small></dd></div>"
            for name, called, unit, meaning in self.notes.headline
            if isinstance(numbers.get(name), int | float)
        ]
        if cards:
            parts.append(f'<dl class="numbers">{"".join(cards)}</dl>')
        if warned := self._warnings():
            rows = "".join(f"<li>{escaped(line)}</li>" for line in warned)
            parts.append(f'<h3>Warnings</h3><ul class="warnings">{rows}</ul>')
        parts.append(_table(self._facts()))
        return parts

    def _turned(self) -> str:
        if self.head is None:
            return ""
        return (
            '<figure class="large"><canvas class="head" tabindex="0" role="img" '
            'aria-label="the finished head in 3D; arrow keys turn it, Home puts it back" '
            f'data-ground="{escaped(self.head.ground)}"></canvas>'
            '<figcaption id="head-told">the finished head as a textured mesh: drag it, or use the arrow keys; scroll '
            "or pinch to come nearer; Home puts it back</figcaption>"
            f'<script type="text/plain" id="head-data">{base64_text(self.head.glb)}</script></figure>'
        )

    def _facts(self) -> list[tuple[str, Any]]:
        run = self.run
        facts = [("command", run["command"]), ("started", run["started"]), ("generator", run["generator"]["name"])]
        facts += [("perceptual distance", run["perceptual"]), ("seed", run["seed"])]
        facts += [("device", run["gpu"] or run["cpu"])]
        seconds = sum(stage["seconds"] for stage in run["stages"].values())
        return [(name, str(value)) for name, value in [*facts, ("seconds in stages", round(seconds, 1))]]

    def _warnings(self) -> list[str]:
        """What the log warned of, each once, the last session's words last."""
        try:
            content = read_content(self.folder / "log.txt", _MOST_LOG, follow=False)
        except InputError:
            return []
        lines = content.decode("utf-8", "replace").splitlines()
        told = [line.partition(" WARNING ")[2] for line in lines if " WARNING " in line]
        return list(dict.fromkeys(line for line in told if not line.startswith("interrupted in ")))

    def _contents(self) -> str:
        links = [f'<a href="#{escaped(stage.folder)}">{escaped(stage.name)}</a>' for stage in self.folder.table]
        return f'<nav aria-label="stages">{"".join(links)}<a href="#settings">settings</a></nav>'

    # --- a stage

    def _stage(self, stage: Stage) -> list[str]:
        record, notes = self.folder.record(stage), self.notes.stages.get(stage.name, StageNotes(""))
        parts = [f'<h2 id="{escaped(stage.folder)}">{escaped(stage.folder)}</h2>']
        if notes.text:
            parts.append(f"<p>{escaped(notes.text)}</p>")
        if record is None:
            return [*parts, '<p class="soft">not run yet</p>']
        parts.append(f'<p class="soft">{escaped(self._cost(stage, record))}</p>')
        pairs = [self._pair(pair) for pair in notes.pairs]
        pictures = [self._figure(stage, name, notes) for name in record["files"]]
        parts += [f'<div class="row">{"".join(row)}</div>' for row in (pairs, pictures) if any(row)]
        parts += [self._strip(strip) for strip in self.notes.strips if strip.stage == stage.name]
        parts.append(self._plot(record["losses"]))
        for name, value in record["numbers"].items():
            rows = sorted(value.items()) if isinstance(value, dict) else [(name, value)]
            parts.append(_table([(key, number, notes.meaning(key)) for key, number in rows]))
        others = [name for name in record["files"] if not name.endswith((".png", ".mp4"))]
        links = ", ".join(f'<a href="{_link(stage.folder, name)}">{escaped(name)}</a>' for name in others)
        return [*parts, f'<p class="soft">beside these: {links}</p>']

    def _cost(self, stage: Stage, record: StageRecord) -> str:
        noted = self.run["stages"].get(stage.name)
        told = [f"{record['seconds']} s"]
        for key, what in (("process_peak_mb", "memory"), ("cuda_peak_mb", "GPU memory")):
            if key in record:
                told.append(f"{record[key]:.0f} MB of {what} at most")
        if not (noted and noted["hash"] == record["hash"]):
            told.append("made with an earlier setting or input")
        return ", ".join(told)

    def _pair(self, pair: Pair) -> str:
        before, after = (self._source(name) for name in (pair.before, pair.after))
        if before is None or after is None:
            return ""
        label = escaped(f"{pair.caption}: move between them")
        figure = (
            f'<figure><div class="slider"><img src="{before}" alt="">'
            f'<img class="after" src="{after}" alt="{escaped(pair.caption)}"></div>'
            f'<input type="range" min="0" max="100" value="50" aria-label="{label}">'
            f"<figcaption>{escaped(pair.caption)}</figcaption></figure>"
        )
        first, second = (read_pixels(self.folder / name) for name in (pair.before, pair.after))
        if not (pair.difference and self.whole) or first is None or second is None:
            return figure
        caption = "where they differ: black = not at all, yellow = by a quarter of the range or more"
        return figure + _figure(data_uri(heat_map(first, second)), caption, first.shape)

    def _figure(self, stage: Stage, name: str, notes: StageNotes) -> str:
        stem, _, suffix = name.rpartition(".")
        caption = notes.pictures.get(stem, stem.replace("_", " "))
        path = f"{stage.folder}/{name}"
        if suffix == "mp4":
            source = _link(stage.folder, name)
            if self.whole:
                source = bytes_uri(read_content(self.folder / path, _MOST_FILM, follow=False), "video/mp4")
            film = f'<video src="{source}" controls loop muted aria-label="{escaped(caption)}"></video>'
            return f"<figure>{film}<figcaption>{escaped(caption)}</figcaption></figure>"
        if suffix != "png":
            return ""
        if stem in notes.depth and self.whole and (grey := read_pixels(self.folder / path)) is not None:
            return _figure(data_uri(in_colour(grey)), caption, grey.shape)
        return self._picture(path, caption)

    def _strip(self, strip: Strip) -> str:
        """The views of several sheets, each view a row."""
        side = self._side()
        if not side or not self.whole:
            return ""
        columns: dict[str, Sequence[np.ndarray]] = {}
        for heading, (pictures, masks) in strip.masked.items():
            sheet, mask = self._sheet(pictures), self._sheet(masks)
            if sheet is not None and mask is not None:
                sheet = tinted(sheet, mask)
                columns[heading] = untiled(sheet, side, _count(sheet, side), GAP)
        for heading, files in strip.columns.items():
            if (sheet := self._sheet(files)) is not None:
                columns[heading] = untiled(sheet, side, _count(sheet, side), GAP)
        if not columns:
            return ""
        count = min(map(len, columns.values()))
        head = "".join(f"<th>{escaped(heading)}</th>" for heading in columns)
        rows = [
            "".join(
                f'<td><img src="{data_uri(pictures[i])}" alt="{escaped(f"{heading}, pseudo-view {i + 1}")}"></td>'
                for heading, pictures in columns.items()
            )
            for i in range(count)
            if not all((pictures[i] == 255).all() for pictures in columns.values())
        ]
        body = "".join(f"<tr><th>{i}</th>{row}</tr>" for i, row in enumerate(rows, 1))
        table = (
            '<div class="scroll" tabindex="0" role="region" aria-label="pseudo-views">'
            f'<table class="strip"><tr><th></th>{head}</tr>{body}</table></div>'
        )
        return f"<details><summary>{escaped(strip.caption)}</summary>{table}</details>"

    def _side(self) -> int:
        """Pixels a side of the pictures that sheets are made of."""
        picture = self._first(self.notes.given)
        pixels = read_pixels(self.folder / picture) if picture else None
        return 0 if pixels is None else pixels.shape[1]

    def _sheet(self, files: Sequence[str]) -> np.ndarray | None:
        name = self._first(files)
        return None if name is None else read_pixels(self.folder / name)

    def _plot(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """The curves of what a stage recorded; one row is a table."""
        if not rows:
            return ""
        label = next(iter(rows[0]))
        names = [name for name in rows[0] if name != label and name not in _UNPLOTTED]
        if len(rows) == 1:
            return _table(list(rows[0].items()))
        if not names or not self.whole:
            return ""
        self.plots = True
        series = {name: [_finite(row.get(name)) for row in rows] for name in names}
        given = {"label": label, "log": label == "step", "x": [row.get(label, i) for i, row in enumerate(rows)]}
        data = json.dumps({**given, "series": series}).replace("<", "\\u003c")
        told = escaped(f"curves of {', '.join(names)} over {len(rows)} {label}s")
        return f'<div class="plot" role="img" aria-label="{told}"><script type="application/json">{data}</script></div>'

    # --- settings

    def _settings(self) -> list[str]:
        parts = ['<h2 id="settings">settings</h2>']
        changed = changed_settings(self.config)
        if changed:
            head = "<tr><th>setting</th><th>here</th><th>base.yaml</th></tr>"
            rows = "".join(
                f"<tr><td>{escaped(name)}</td><td>{escaped(here)}</td><td>{escaped(there)}</td></tr>"
                for name, here, there in changed
            )
            parts.append("<p>What differs from the base config, by presets, the generator's domain or --set:</p>")
            parts.append(f'<div class="scroll"><table>{head}{rows}</table></div>')
        text = escaped(self.config.as_yaml())
        return [*parts, f"<details><summary>all settings</summary><pre>{text}</pre></details>"]

    # --- pictures

    def _first(self, names: Sequence[str]) -> str | None:
        return next((name for name in names if (self.folder / name).is_file()), None)

    def _source(self, name: str) -> str | None:
        """Where a page finds a picture of the run, None = there is none."""
        if not self.whole:
            return _link(*name.split("/")) if (self.folder / name).is_file() else None
        pixels = read_pixels(self.folder / name)
        return None if pixels is None else data_uri(pixels)

    def _picture(self, name: str, caption: str, kind: str = "") -> str:
        source, shape = self._source(name), picture_shape(self.folder / name)
        if source is None or shape is None:
            return ""
        return _figure(source, caption, shape, _link(*name.split("/")), kind)


def all_numbers(folder: RunFolder) -> dict[str, Any]:
    """The numbers of all stages by name."""
    found: dict[str, Any] = {}
    for stage in folder.table:
        for name, value in (folder.record(stage) or {}).get("numbers", {}).items():
            found |= value if isinstance(value, dict) else {name: value}
    return found


def changed_settings(config: Config) -> list[tuple[str, Any, Any]]:
    """(name, the value here, that of the shipped base config) of all that differ."""
    path = data_path("configs", "base.yaml")
    try:
        base = _base(path, path.stat().st_mtime_ns)
    except (InputError, OSError):
        return []
    return [
        (f"{block}.{name}", value, base.get(block, {}).get(name))
        for block, values in config.as_dict().items()
        for name, value in values.items()
        if block in base and value != base[block].get(name)
    ]


@lru_cache(maxsize=1)
def _base(path: Path, changed: int) -> dict[str, Any]:
    """The shipped base config: Python's reader takes a fifth of a second, and the report is written after every
    stage."""
    return read_yaml(path)


def _count(sheet: np.ndarray, side: int) -> int:
    """How many pictures a sheet has room for."""
    return max((sheet.shape[0] + GAP) // (side + GAP), 1) * max((sheet.shape[1] + GAP) // (side + GAP), 1)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _link(*parts: str) -> str:
    return html.escape(quote("/".join(parts)), quote=True)


def _figure(source: str, caption: str, shape: Sequence[int], link: str | None = None, kind: str = "") -> str:
    kinds = [kind, "small" if max(shape[:2]) <= _SMALL else "", "wide" if shape[1] > _WIDE * shape[0] else ""]
    image = f'<img src="{source}" alt="{escaped(caption)}">'
    image = image if link is None else f'<a href="{link}">{image}</a>'
    return (
        f'<figure class="{" ".join(filter(None, kinds))}">{image}<figcaption>{escaped(caption)}</figcaption></figure>'
    )


def _table(rows: Sequence[Sequence[Any]]) -> str:
    def cell(value: Any) -> str:
        kind = ' class="number"' if isinstance(value, int | float) else ""
        return f"<td{kind}>{escaped(value)}</td>"

    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f'<div class="scroll"><table>{body}</table></div>'
