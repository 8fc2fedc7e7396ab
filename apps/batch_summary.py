"""What a batch came to, for a spreadsheet and for eyes: summary.csv and summary.html."""

import csv
import html
import io
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from pmv.apps.batch import DONE, FAILED, Outcome
from pmv.errors import shown
from pmv.files.artifacts import write_text

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 1200px; padding: 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .4rem .6rem; text-align: left; vertical-align: middle; border-bottom: 1px solid #8884; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
img { display: block; height: 96px; width: auto; max-width: 100%; border-radius: 4px; background: #8882; }
.failed td { background: #d4404022; }
.scroll { overflow-x: auto; }
"""
PICTURES = (("photo", "00_prepare/original.png"), ("head", "10_evaluate/contact_sheet.png"))
"""Heading → picture of a finished run, from its folder on."""


def write_summary(out: Path, outcomes: Sequence[Outcome]) -> None:
    """Writes both files into the batch's folder, finished photos before failed ones, by name."""
    rows = sorted(outcomes, key=lambda o: (o.status == FAILED, o.photo.name.lower()))
    columns = sorted({name for row in rows for name in row.figures})
    write_text(out / "summary.csv", _csv(rows, columns))
    write_text(out / "summary.html", _html(out, rows, columns))


def _csv(rows: Sequence[Outcome], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "photo", "status", "message", "seconds", *columns])
    for row in rows:
        values = [f"{row.figures[c]:.4f}" if c in row.figures else "" for c in columns]
        # a spreadsheet takes a text that begins so for a formula
        message, name, path = (_harmless(t) for t in (row.message, row.photo.name, str(row.photo.path)))
        writer.writerow([name, path, row.status, message, f"{row.seconds:.1f}", *values])
    return text.getvalue()


def _harmless(text: str) -> str:
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text


def _html(out: Path, rows: Sequence[Outcome], columns: Sequence[str]) -> str:
    done = sum(row.status == DONE for row in rows)
    heads = ["name", *(heading for heading, _ in PICTURES), "status", "seconds", *columns]
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in heads)
    body = "\n".join(_row(out, row, columns) for row in rows)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{done} of {len(rows)} photos</title><style>{_STYLE}</style></head>
<body><h1>{done} of {len(rows)} photos became heads</h1>
<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>
{body}
</tbody></table></div></body></html>
"""


def _row(out: Path, row: Outcome, columns: Sequence[str]) -> str:
    name, folder = html.escape(shown(row.photo.name)), quote(row.photo.name)
    title = f'<a href="{folder}/report.html">{name}</a>' if (out / row.photo.name / "report.html").exists() else name
    cells = [f"<td>{title}</td>"]
    for heading, path in PICTURES:
        there = (out / row.photo.name / path).exists()
        picture = f'<img loading="lazy" src="{folder}/{path}" alt="{heading} of {name}">' if there else ""
        cells.append(f"<td>{picture}</td>")
    cells.append(f"<td>{row.status}{': ' + html.escape(shown(row.message, 1000)) if row.message else ''}</td>")
    cells.append(f'<td class="number">{row.seconds:.1f}</td>')
    cells += [f'<td class="number">{row.figures[c]:.2f}</td>' if c in row.figures else "<td></td>" for c in columns]
    return f'<tr class="{row.status}">{"".join(cells)}</tr>'
