"""The third part of the page: the head is run, watched, stopped, and run again from a stage on."""

from pathlib import Path
from typing import Any

import gradio as gr

from pmv.apps.batch import figures, stage_of
from pmv.apps.studio import markup
from pmv.apps.studio.desk import LIGHT, Desk, public, told
from pmv.apps.studio.jobs import Job, read_job, read_progress
from pmv.apps.studio.workspace import HeadFolder
from pmv.errors import InputError
from pmv.pipeline.config import load_config
from pmv.stages.table import TABLE

_CHANGED = "only what has changed"
_MOST_SETTINGS = 200
_REFUSED = ("run.", "generator.")
"""Settings that are the operator's: they name files of this machine, and its processors."""


class RunTab:
    """The part of the page; see the module.

    Attributes:
        outputs: its components that show a head; `shown` gives their values.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        offered = desk.studio.settings.presets
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                self.preset = gr.Dropdown(
                    [(Path(name).stem, name) for name in offered],
                    value=offered[0],
                    label="Preset",
                    info="demo: minutes on two cores; fidelity: the most, on a GPU; hfgi3d: as in the paper",
                )
                self.first = gr.Dropdown(
                    [_CHANGED, *(stage.name for stage in TABLE)],
                    value=_CHANGED,
                    label="Run again",
                    info="Finished stages are kept unless something that they depend on has changed.",
                )
                with gr.Accordion("Settings", open=False):
                    self.settings = gr.Textbox(
                        label="STAGE.KEY=VALUE, a line each",
                        lines=3,
                        placeholder="tune.steps=1000",
                    )
                with gr.Row():
                    self.run = gr.Button("Run", variant="primary", elem_id="run")
                    self.stop = gr.Button("Stop", variant="stop", elem_id="stop")
            with gr.Column(scale=2, min_width=320):
                self.status = gr.HTML(markup.paragraph("Begin with a picture.", True), elem_id="status")
                self.next = gr.Button("To the head", visible=False, variant="primary", elem_id="to-head")
        self.outputs = [self.status, self.next]

    def connect(self, head: gr.Textbox) -> None:
        """Wire the events."""
        desk = self.desk

        def run(name: str, preset: str, first: str, settings: str, request: gr.Request) -> list[Any]:
            folder = desk.head(name, request)
            if preset not in desk.studio.settings.presets:
                raise InputError("no such preset is offered")
            lines = _settings(settings)
            load_config(TABLE, [preset], lines)  # what is wrong with them is told now rather than after the queue
            asked = {
                "presets": [preset],
                "settings": lines,
                "first": None if first == _CHANGED or not folder.run.is_dir() else first,
                "device": desk.studio.device,
            }
            desk.studio.queue.ask(folder.path, "run", asked)
            return self.shown(folder)

        def stop(name: str, request: gr.Request) -> list[Any]:
            folder = desk.head(name, request)
            desk.studio.queue.stop(folder.path)
            return self.shown(folder)

        asked = [head, self.preset, self.first, self.settings]
        self.run.click(told(run), asked, self.outputs, show_progress="hidden", **LIGHT)
        self.stop.click(told(stop), [head], self.outputs, show_progress="hidden", **LIGHT)

    def shown(self, folder: HeadFolder | None) -> list[Any]:
        """Values of `outputs`."""
        if folder is None or not folder.draft.is_dir():
            return [markup.paragraph("Begin with a picture.", True), gr.update(visible=False)]
        job = read_job(folder.path)
        parts = [markup.paragraph(self._sentence(folder, job))]
        progress = read_progress(folder.path)
        place = self.desk.studio.queue.place(folder.path)
        if place == 0 and progress is not None and progress.total:
            parts.append(markup.bar(progress.done / progress.total))
            said = f"{progress.stage}: {progress.done} of {progress.total}"
            parts.append(markup.paragraph(f"{said}, {progress.losses}" if progress.losses else said, True))
        if folder.live.is_file():
            address = f"/studio/files/{folder.name}/live.jpg?{folder.live.stat().st_mtime_ns}"
            parts.append(markup.views({"the head so far, from the photo's view": address}))
        return ["".join(parts), gr.update(visible=folder.is_finished)]

    def _sentence(self, folder: HeadFolder, job: Job | None) -> str:
        if job is None:
            return "Nothing was run yet."
        place = self.desk.studio.queue.place(folder.path)
        what = {"run": "The run", "export": "The export", "edit": "The change"}[job.kind]
        if place == 0:
            stage = stage_of(folder.run) if job.kind == "run" else ""
            return f"{what} is under way{f', in stage {stage}' if stage else ''}."
        if place is not None:
            return f"{what} waits: number {place} in the queue."
        if job.state == "failed":
            return f"{what} failed: {public(job.message)}"
        if job.state == "stopped":
            return f"{what} was stopped: {job.message}"
        found = figures(folder.run) if job.kind == "run" else {}
        psnr = f" The photo's head is met at {found['tuned_psnr']:.1f} dB." if "tuned_psnr" in found else ""
        return f"{what} is done, in {job.seconds:.0f} s: {job.message}.{psnr}"


def _settings(text: Any) -> list[str]:
    """The settings of a text. InputError for those that are not a stage's."""
    lines = [line.strip() for line in str(text or "").splitlines() if line.strip()]
    if len(lines) > _MOST_SETTINGS:
        raise InputError(f"{len(lines)} settings; give at most {_MOST_SETTINGS}")
    for line in lines:
        if line.startswith(_REFUSED):
            raise InputError(
                f"{line.partition('=')[0]}: is chosen by whoever opened the studio; give settings of stages"
            )
    return lines
