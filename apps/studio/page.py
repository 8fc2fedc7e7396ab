"""The page as a whole: its head, its four parts, and what goes on by itself."""

import time
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.themes import Default

from pmv.apps.studio import markup
from pmv.apps.studio.desk import LIGHT, WORK, Desk, told
from pmv.apps.studio.jobs import read_job
from pmv.apps.studio.layers import bounded
from pmv.apps.studio.opened import Studio
from pmv.apps.studio.tab_edit import EditTab
from pmv.apps.studio.tab_head import HeadTab
from pmv.apps.studio.tab_photo import PhotoTab
from pmv.apps.studio.tab_run import RunTab
from pmv.apps.studio.workspace import HeadFolder

_TICK = 1.0
"""Seconds between two looks at the queue."""
_KEEP = 24 * 3600
"""Seconds that Gradio keeps what browsers sent and what it showed; a head's own files are not among them."""
_NEW = ""


@dataclass(frozen=True)
class Page:
    """The page, and how it looks."""

    blocks: Any
    theme: Any
    css: str
    head: str


def build_page(studio: Studio) -> Page:
    """The page of a studio, not yet served."""
    desk = Desk(studio)
    system = ("ui-sans-serif", "system-ui", "sans-serif")
    theme = Default(font=system, font_mono=("ui-monospace", "monospace"))
    with gr.Blocks(fill_width=True, title="pmv studio", analytics_enabled=False, delete_cache=(3600, _KEEP)) as blocks:
        head = gr.Textbox("", visible=False)  # its name, which the server holds against whose it is at every request
        seen = gr.Textbox("", visible=False)
        with gr.Row():
            with gr.Column(scale=3, min_width=200):
                gr.Markdown("# pmv studio", elem_classes="pmv-title")
                queue = gr.HTML("", elem_id="queue")
            heads = gr.Dropdown([], label="Your heads", scale=2, min_width=200, elem_id="heads")
            remove = gr.Button("Remove this head", scale=0, min_width=160, size="sm")
        with gr.Tabs(selected="photo") as tabs:
            with gr.Tab("1 Photo", id="photo"):
                photo = PhotoTab(desk)
            with gr.Tab("2 Edit", id="edit"):
                edit = EditTab(desk)
            with gr.Tab("3 Run", id="run"):
                run = RunTab(desk)
            with gr.Tab("4 Head", id="head"):
                finished = HeadTab(desk)
        everything = [head, heads, seen, *photo.outputs, *edit.outputs, *run.outputs, *finished.outputs]

        def show(folder: HeadFolder | None, request: gr.Request) -> list[Any]:
            mine = desk.workspace(request).heads()
            choices = [("a new one", _NEW), *((_label(one), one.name) for one in mine)]
            name = _NEW if folder is None else folder.name
            parts = [part.shown(folder) for part in (photo, edit, run, finished)]
            return [
                name,
                gr.update(choices=choices, value=name),
                _state(folder),
                *(value for part in parts for value in part),
            ]

        def arrive(request: gr.Request) -> list[Any]:
            mine = desk.workspace(request).heads()
            return show(mine[0] if mine else None, request)

        def choose(name: str, request: gr.Request) -> list[Any]:
            return show(desk.head(name, request) if name else None, request)

        def take_away(name: str, request: gr.Request) -> list[Any]:
            folder = desk.idle(desk.head(name, request))
            desk.workspace(request).remove(folder)
            return arrive(request)

        def look(name: str, before: str, request: gr.Request) -> list[Any]:
            length = studio.queue.length()
            queued = markup.paragraph("Nobody waits." if not length else f"In the queue: {length}.", True)
            if not name:
                return [queued, *[gr.skip()] * (1 + len(run.outputs) + len(finished.outputs))]
            folder = desk.head(name, request)
            now = _state(folder)
            if now == before:
                working = studio.queue.place(folder.path) is not None
                status = run.shown(folder) if working else [gr.skip()] * len(run.outputs)
                return [queued, gr.skip(), *status, *[gr.skip()] * len(finished.outputs)]
            if studio.queue.place(folder.path) is not None or now.startswith("export "):
                head_part = finished.written(folder)
            else:
                head_part = finished.shown(folder)
            return [queued, now, *run.shown(folder), *head_part]

        blocks.load(told(arrive), None, everything, show_progress="hidden", **WORK)
        # not held against the list that this page was once given, but against whose they are
        heads.input(told(choose), [heads], everything, preprocess=False, **WORK)
        remove.click(
            told(take_away),
            [head],
            everything,
            js=markup.CONFIRM_JS,
            **WORK,
        )
        looks = [queue, seen, *run.outputs, *finished.outputs]
        gr.Timer(_TICK).tick(told(look), [head, seen], looks, show_progress="hidden", trigger_mode="once", **LIGHT)
        photo.connect(head, everything, show)
        edit.connect(head, everything, show)
        run.connect(head)
        finished.connect(head)
        for button, tab in ((photo.next, "edit"), (edit.next, "run"), (run.next, "head")):
            button.click(lambda tab=tab: gr.Tabs(selected=tab), None, tabs, show_progress="hidden", **LIGHT)
    for editor in (photo.strokes, edit.editor):
        bounded(editor)
    blocks.queue(max_size=500, default_concurrency_limit=8, api_open=False)
    return Page(blocks, theme, markup.CSS, '<meta name="color-scheme" content="light dark">')


def _label(folder: HeadFolder) -> str:
    """What a head is called in the list: equal pictures are told apart by when they were begun."""
    about = folder.about
    return f"{about.name}, {time.strftime('%d %b %H:%M', time.localtime(about.created))}"


def _state(folder: HeadFolder | None) -> str:
    """A text that is another one once something has become of a head."""
    job = None if folder is None else read_job(folder.path)
    return "" if job is None else f"{job.kind} {job.state} {job.asked_at}"
