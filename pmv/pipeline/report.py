"""``report.html``: what every stage produced, its numbers and its seconds, on one plain page with relative links."""

import html
from typing import Any
from urllib.parse import quote

from pmv.errors import shown, shown_lines
from pmv.files.artifacts import write_text
from pmv.pipeline.config import Config
from pmv.pipeline.folder import RunFolder

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h2 { border-bottom: 1px solid #ccc; margin-top: 2.2rem }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top }
figure img, figure video { max-width: 22rem; max-height: 22rem; border: 1px solid #ddd }
figcaption { color: #555 }
table { border-collapse: collapse } td, th { padding: .15rem .8rem .15rem 0; text-align: left }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto }
.note { color: #777 }
"""


def write_report(folder: RunFolder, config: Config, run: dict[str, Any]) -> None:
    """Write the page from what lies in the folder; `run` is the content of ``run.json``."""
    parts = [f"<h1>{_text(folder.path.resolve().name)}</h1>", _table(_facts(run))]
    for stage in folder.table:
        record = folder.record(stage)
        parts.append(f"<h2>{stage.folder}</h2>")
        if record is None:
            parts.append('<p class="note">not run yet</p>')
            continue
        noted = run["stages"].get(stage.name)
        state = "" if noted and noted["hash"] == record["hash"] else " · made with an earlier setting or input"
        parts.append(f'<p class="note">{_text(round(record["seconds"], 2))} s{state}</p>')
        parts += [_numbers(name, value) for name, value in record["numbers"].items()]
        parts += [_figure(stage.folder, name) for name in record["files"]]
    parts.append(f"<h2>config</h2><pre>{html.escape(shown_lines(config.as_yaml()))}</pre>")
    title = _text(folder.path.resolve().name)
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    write_text(folder / "report.html", page + "\n".join(parts) + "</html>\n")


def _facts(run: dict[str, Any]) -> list[tuple[str, Any]]:
    facts = [("command", run["command"]), ("started", run["started"]), ("generator", run["generator"]["name"])]
    facts += [("perceptual distance", run["perceptual"]), ("seed", run["seed"]), ("device", run["gpu"] or run["cpu"])]
    return [*facts, ("seconds in stages", round(sum(s["seconds"] for s in run["stages"].values()), 1))]


def _text(value: Any) -> str:
    return html.escape(f"{value:.4g}" if isinstance(value, float) else shown(value, 500))


def _table(rows: list[tuple[str, Any]]) -> str:
    return "<table>" + "".join(f"<tr><td>{_text(k)}</td><td>{_text(v)}</td></tr>" for k, v in rows) + "</table>"


def _numbers(name: str, value: Any) -> str:
    return _table(sorted(value.items()) if isinstance(value, dict) else [(name, value)])


def _figure(folder: str, name: str) -> str:
    link = html.escape(quote(f"{folder}/{name}"), quote=True)
    caption = f"<figcaption>{_text(name)}</figcaption>"
    if name.endswith(".png"):
        return f'<figure><a href="{link}"><img src="{link}" alt="" loading="lazy"></a>{caption}</figure>'
    if name.endswith(".mp4"):
        return f'<figure><video src="{link}" controls loop muted></video>{caption}</figure>'
    return f'<p><a href="{link}">{_text(name)}</a></p>'
