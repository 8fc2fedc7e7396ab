"""The last part of the page: the finished head is turned, changed, and taken away."""

import inspect
from typing import Any

import gradio as gr

from pmv.apps.studio import markup
from pmv.apps.studio.desk import LIGHT, WORK, Desk, told
from pmv.apps.studio.files import EXPORTS, FILM, REPORT, offered
from pmv.apps.studio.turning import data_uri
from pmv.apps.studio.workspace import HeadFolder
from pmv.errors import InputError

_FORMATS = {
    "glb": "GLB: textured mesh",
    "obj": "OBJ: textured mesh",
    "ply": "PLY: mesh with colours",
    "stl": "STL: shape, to print",
    "gaussians": "PLY: 3D Gaussians",
    "views": "pictures with cameras (nerfstudio, COLMAP)",
    "npz": "EG3D's projected_w.npz",
}
_YET = "There is no head yet; run it first."
_MOST_ATTRIBUTES = 16
_STILL = 0.7
"""Seconds after which sliders that have not moved are taken to be still."""


class HeadTab:
    """The part of the page; see the module.

    Attributes:
        outputs: its components that show a head; `shown` gives their values.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        # what was drawn fully last, and what the sliders said when they were last looked at
        self.drawn, self.before = gr.Textbox("", visible=False), gr.Textbox("", visible=False)
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                self.view = gr.HTML(markup.paragraph(_YET, True), elem_id="view")
                self.yaw = gr.Slider(-180, 180, 0, step=1, label="To the right, degrees", elem_id="yaw")
                self.pitch = gr.Slider(-60, 60, 0, step=1, label="Up, degrees", elem_id="pitch")
            with gr.Column(scale=1, min_width=320):
                self.version = gr.Dropdown([], label="Which head", visible=False)
                self.pages = gr.HTML("", elem_id="pages")
                with gr.Accordion("Attributes", open=False, visible=False) as self.attributes:
                    gr.HTML(markup.paragraph("In standard deviations, from the head as the photo has it.", True))
                    self.amounts = [
                        gr.Slider(-3, 3, 0, step=0.1, label=f"attribute {i + 1}", visible=False)
                        for i in range(_MOST_ATTRIBUTES)
                    ]
                    self.keep = gr.Button("Keep this head")
                with gr.Group():
                    self.format = gr.Dropdown(
                        [(_FORMATS[kind], kind) for kind in EXPORTS], value="glb", label="Take it away as"
                    )
                    self.export = gr.Button("Write the file", variant="primary", elem_id="export")
                self.files = gr.HTML("", elem_id="files")
                self.status = gr.HTML("", elem_id="head-status")
        self.outputs = [
            self.view,
            self.yaw,
            self.pitch,
            self.version,
            self.pages,
            self.attributes,
            *self.amounts,
            self.files,
            self.status,
        ]

    def connect(self, head: gr.Textbox) -> None:
        """Wire the events."""
        desk = self.desk

        def draw(name: str, version: str, yaw: float, pitch: float, *rest: Any) -> tuple[str, str]:
            *amounts, request = rest
            return self._view(desk.head(name, request), version, yaw, pitch, amounts, coarse=True), ""

        def finish(name: str, version: str, yaw: float, pitch: float, *rest: Any) -> tuple[Any, Any, Any]:
            *amounts, drawn, before, request = rest
            now = repr((name, version, yaw, pitch, amounts))
            if drawn == now or not name or not (folder := desk.head(name, request)).is_finished:
                return gr.skip(), gr.skip(), gr.skip()
            if before != now:  # it may still move
                return gr.skip(), gr.skip(), now
            return self._view(folder, version, yaw, pitch, amounts, coarse=False), now, now

        seen = [head, self.version, self.yaw, self.pitch, *self.amounts]
        moves = [*(slider.input for slider in (self.yaw, self.pitch, *self.amounts)), self.version.input]
        at_once = {"show_progress": "hidden", "trigger_mode": "always_last", **WORK}
        gr.on(moves, told(_with_request(draw, len(seen))), seen, [self.view, self.drawn], **at_once)
        looked_at = [*seen, self.drawn, self.before]
        gr.Timer(_STILL).tick(
            told(_with_request(finish, len(looked_at))),
            looked_at,
            [self.view, self.drawn, self.before],
            show_progress="hidden",
            trigger_mode="once",
            **LIGHT,
        )

        def keep(name: str, *rest: Any) -> list[Any]:
            *amounts, request = rest
            folder = desk.head(name, request)
            changed = self._named(folder, amounts)
            if not changed:
                raise InputError("nothing is changed; move an attribute's slider first")
            desk.studio.queue.ask(folder.path, "edit", {"amounts": changed, "device": desk.studio.device})
            return self.status_of(folder)

        def export(name: str, version: str, kind: str, request: gr.Request) -> list[Any]:
            folder = desk.head(name, request)
            if kind not in EXPORTS:
                raise InputError("no such format is offered")
            asked = {"format": kind, "version": folder.version(version).path.name, "device": desk.studio.device}
            desk.studio.queue.ask(folder.path, "export", asked)
            return self.status_of(folder)

        told_there = [self.status]
        kept = [head, *self.amounts]
        self.keep.click(told(_with_request(keep, len(kept))), kept, told_there, show_progress="hidden", **LIGHT)
        asked = [head, self.version, self.format]
        self.export.click(told(export), asked, told_there, show_progress="hidden", **LIGHT)

    def status_of(self, folder: HeadFolder) -> list[str]:
        """What stands below the files: whether something is being written."""
        place = self.desk.studio.queue.place(folder.path)
        if place is None:
            return [""]
        return [markup.paragraph("Being worked on." if place == 0 else f"Waits: number {place} in the queue.", True)]

    def shown(self, folder: HeadFolder | None) -> list[Any]:
        """Values of `outputs`."""
        if folder is None or not folder.is_finished:
            hidden = gr.update(visible=False)
            return [markup.paragraph(_YET, True), 0, 0, hidden, "", hidden, *[gr.skip()] * _MOST_ATTRIBUTES, "", ""]
        versions = folder.versions()
        choices = [(version.label, version.path.name) for version in versions]
        version = gr.update(choices=choices, value=choices[0][1], visible=len(choices) > 1)
        known = list(self.desk.studio.turntable.attributes(folder.run).items())[:_MOST_ATTRIBUTES]
        sliders = [
            gr.update(visible=True, label=f"{name}: {plus}", minimum=-round(span, 1), maximum=round(span, 1), value=0)
            for name, (plus, span) in known
        ]
        sliders += [gr.update(visible=False, value=0)] * (_MOST_ATTRIBUTES - len(known))
        view = self._view(folder, "run", 0.0, 0.0, (), coarse=False)
        return [
            view,
            0,
            0,
            version,
            self._pages(folder),
            gr.update(visible=bool(known)),
            *sliders,
            self._files(folder),
            *self.status_of(folder),
        ]

    def written(self, folder: HeadFolder) -> list[Any]:
        """Values of `outputs` after a file was written: nothing else has changed."""
        told = {id(self.files): self._files(folder), id(self.status): self.status_of(folder)[0]}
        return [told.get(id(component), gr.skip()) for component in self.outputs]

    def _view(self, folder: HeadFolder, version: str, yaw: float, pitch: float, amounts: Any, coarse: bool) -> str:
        chosen = folder.version(version)
        # attributes are changed from the head as the photo has it; one that was kept has its own
        changed = self._named(folder, amounts) if chosen.path == folder.run else {}
        pixels = self.desk.studio.turntable.picture(chosen.path, float(yaw), float(pitch), coarse, changed)
        return markup.view(data_uri(pixels, 80 if coarse else 92), f"the head from {yaw:.0f}° and {pitch:.0f}°")

    def _named(self, folder: HeadFolder, amounts: Any) -> dict[str, float]:
        if not any(amounts):
            return {}
        names = self.desk.studio.turntable.attributes(folder.run)
        return {name: float(amount) for name, amount in zip(names, amounts) if amount}

    def _pages(self, folder: HeadFolder) -> str:
        there = offered(folder)
        said = {REPORT: "The run's page: all stages, figures, and the head in 3D to be turned", FILM: "The film"}
        addresses = {text: _address(folder, name) for name, text in said.items() if name in there}
        return markup.links(addresses, new_page=True)

    def _files(self, folder: HeadFolder) -> str:
        names = [name for name in offered(folder) if name.startswith("head")]
        return markup.links({f"{name}": _address(folder, name) for name in names})


def _address(folder: HeadFolder, name: str) -> str:
    return f"/studio/files/{folder.name}/{name}"


def _with_request(handler: Any, count: int) -> Any:
    """A handler of any number of values with Gradio's request after them: Gradio finds the request by its annotation,
    and counts what stands before it."""

    def called(*values: Any) -> Any:
        return handler(*values)

    parameters = [inspect.Parameter(f"value{i}", inspect.Parameter.POSITIONAL_OR_KEYWORD) for i in range(count)]
    asked = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=gr.Request)
    called.__signature__ = inspect.Signature([*parameters, asked])  # pyright: ignore[reportFunctionMemberAccess]
    called.__annotations__ = {"request": gr.Request}
    called.__name__ = handler.__name__
    return called
