"""The second part of the page: what is painted on the portrait and placed on it."""

from typing import Any

import cv2
import gradio as gr

from pmv.apps.studio import markup
from pmv.apps.studio.desk import LIGHT, WORK, Desk, file_of, told
from pmv.apps.studio.layers import layers_of
from pmv.apps.studio.painting import Edits, merged
from pmv.apps.studio.turning import data_uri
from pmv.apps.studio.workspace import HeadFolder
from pmv.pictures.images import to_uint8
from pmv.pictures.overlay import BLENDS, Placement
from pmv.stages.prepared import read_prepared

_PAINTED_ON = 768
"""Side of the picture that is painted on, at least; an edit is as fine as the generator."""
_NONE = "There are no edits. They can be left out, or added later: only what depends on them runs again."


class EditTab:
    """The part of the page; see the module.

    Attributes:
        outputs: its components that show a head; `shown` gives their values.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                self.editor = gr.ImageEditor(
                    label="Paint on it",
                    type="numpy",
                    sources=(),
                    transforms=(),
                    layers=True,
                    interactive=True,
                    brush=gr.Brush(default_size=12, default_color="#1d3fbb"),
                    canvas_size=(_PAINTED_ON, _PAINTED_ON),
                    fixed_canvas=True,
                    height=560,
                    buttons=[],
                    elem_id="painter",
                )
                self.take = gr.Button("Take what is painted", variant="primary", elem_id="take-painting")
            with gr.Column(scale=1, min_width=320):
                self.preview = gr.HTML(markup.paragraph(_NONE, True), js_on_load=markup.CLICK_JS, elem_id="edited")
                with gr.Accordion("Place a picture: a tattoo, a logo", open=False):
                    self.picture = gr.File(
                        label="The picture, best with a transparent ground", type="filepath", height=120
                    )
                    gr.HTML(markup.paragraph("Click on the portrait above to say where.", True))
                    with gr.Row():
                        self.x = gr.Slider(0, 1, 0.5, step=0.005, label="From the left")
                        self.y = gr.Slider(0, 1, 0.6, step=0.005, label="From the top")
                    with gr.Row():
                        self.size = gr.Slider(0.02, 1, 0.2, step=0.01, label="Width, of the portrait's")
                        self.rotate = gr.Slider(-180, 180, 0, step=1, label="Turned, degrees")
                    with gr.Row():
                        self.opacity = gr.Slider(0.05, 1, 1, step=0.05, label="Opacity")
                        self.blend = gr.Dropdown(list(BLENDS), value="normal", label="Blend")
                    self.follow = gr.Checkbox(True, label="Follow the surface of the head")
                    self.lay = gr.Button("Lay it on")
                with gr.Row():
                    self.clear = gr.Button("Take all edits away")
                    self.next = gr.Button("Go on", variant="primary", elem_id="to-run")
        self.outputs = [self.editor, self.preview]

    def connect(self, head: gr.Textbox, everything: list[Any], show: Any) -> None:
        """Wire the events; `show(head, request)` gives the values of `everything`, the whole page's outputs."""
        desk = self.desk

        def take(name: str, editor: Any, request: gr.Request) -> str:
            folder = desk.idle(desk.head(name, request))
            size = read_prepared(folder.draft).picture.shape[-1]
            Edits(folder.edits).paint(merged(layers_of(editor, self.editor), size))
            return self._preview(folder)

        def lay(
            name: str,
            picture: str | None,
            x: float,
            y: float,
            size: float,
            rotate: float,
            opacity: float,
            blend: Any,
            follow: bool,
            request: gr.Request,
        ) -> str:
            folder = desk.idle(desk.head(name, request))
            path = file_of(picture)
            Edits(folder.edits).place(path, path.name, Placement((x, y), size, rotate, blend, opacity, follow))
            return self._preview(folder)

        def clear(name: str, request: gr.Request) -> Any:
            folder = desk.idle(desk.head(name, request))
            Edits(folder.edits).clear()
            return show(folder, request)

        def point(data: gr.EventData) -> tuple[float, float]:
            at = dict(data._data or {})
            x, y = (min(1.0, max(0.0, float(at[axis]))) for axis in ("x", "y"))
            return round(x, 3), round(y, 3)

        self.take.click(told(take), [head, self.editor], self.preview, preprocess=False, **WORK)
        placement = [self.x, self.y, self.size, self.rotate, self.opacity, self.blend, self.follow]
        self.lay.click(told(lay), [head, self.picture, *placement], self.preview, **WORK)
        self.clear.click(told(clear), [head], everything, **WORK)
        self.preview.click(told(point), None, [self.x, self.y], show_progress="hidden", **LIGHT)

    def shown(self, folder: HeadFolder | None) -> list[Any]:
        """Values of `outputs`."""
        if folder is None or not folder.draft.is_dir():
            return [None, markup.paragraph("Begin with a picture.", True)]
        picture = to_uint8(read_prepared(folder.draft).picture)[0]
        side = max(_PAINTED_ON, len(picture))
        large = cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC)
        return [{"background": large, "layers": [], "composite": large}, self._preview(folder)]

    def _preview(self, folder: HeadFolder) -> str:
        edits = Edits(folder.edits)
        picture = to_uint8(edits.on(read_prepared(folder.draft).picture))[0]
        labels = edits.labels()
        said = f"Edits, the last on top: {', '.join(labels)}." if labels else _NONE
        return markup.view(data_uri(picture), "the portrait with its edits") + markup.paragraph(said, True)
