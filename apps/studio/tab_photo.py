"""The first part of the page: a picture, and what was found in it, corrected by hand."""

from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np
import torch
from PIL import Image

from pmv.apps.prepare_folder import PrepareRequest, prepare
from pmv.apps.studio import markup
from pmv.apps.studio.correction import MeanHead, Nudge, Square, corrected, write
from pmv.apps.studio.desk import WORK, Desk, file_of, told
from pmv.apps.studio.layers import layers_of
from pmv.apps.studio.painting import GROUND, HEAD, Edits, merged, with_strokes
from pmv.apps.studio.turning import data_uri
from pmv.apps.studio.workspace import HeadFolder
from pmv.errors import InputError
from pmv.files.artifacts import read_json, write_json
from pmv.files.reading import fitted
from pmv.generators import load_generator
from pmv.pictures.decode import decode
from pmv.pictures.images import to_uint8
from pmv.stages.prepared import Prepared, find_photo, read_prepared

_SMALL = 1024
"""Pixels of the longer side of the copy of the photo that the crop is drawn on."""
_PAINTED_ON = 512
"""Side of the picture that is painted on."""
_HAND = "by_hand.json"


class Hand:
    """What is set by hand for one head: `square` None = as found."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / _HAND
        known = read_json(self.path) if self.path.is_file() else {}
        self.square = fitted(known["square"], Square, "the crop") if known.get("square") else None
        self.nudge = fitted(known["nudge"], Nudge, "the camera") if known.get("nudge") else Nudge()

    def write(self, square: Square | None, nudge: Nudge) -> None:
        self.square, self.nudge = square, nudge
        write_json(self.path, {"square": None if square is None else vars(square), "nudge": vars(nudge)})


class PhotoTab:
    """The part of the page; see the module.

    Attributes:
        outputs: its components that show a head; `shown` gives their values.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._loaded: tuple[str, MeanHead] | None = None
        offered = desk.studio.settings.generators
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                self.upload = gr.File(
                    label=f"A picture, up to {desk.studio.settings.most_upload_mb} MB",
                    type="filepath",
                    height=120,
                    elem_id="upload",
                )
                labels = [Path(name).stem for name in offered]
                self.generator = gr.Dropdown(
                    list(zip(labels, offered)),
                    value=offered[0],
                    label="Generator",
                    visible=len(offered) > 1,
                    info="Pictures are cropped as its own were.",
                )
                self.crop = gr.HTML(
                    {"photo": "", "x": 0.5, "y": 0.5, "side": 1, "turn": 0, "tall": 1},
                    label="Crop",
                    html_template=markup.CROP_HTML,
                    css_template=markup.CROP_CSS,
                    js_on_load=markup.CROP_JS,
                    visible=False,
                    elem_id="crop",
                )
                with gr.Accordion("Crop by numbers", open=False, visible=False) as self.numbers:
                    self.x = gr.Slider(0, 1, 0.5, step=0.001, label="Middle, from the left")
                    self.y = gr.Slider(0, 1, 0.5, step=0.001, label="Middle, from the top")
                    self.side = gr.Slider(0.05, 3, 1, step=0.001, label="Side, in widths of the photo")
                    self.turn = gr.Slider(-180, 180, 0, step=0.5, label="Turned clockwise, degrees")
            with gr.Column(scale=2, min_width=320):
                self.views = gr.HTML(markup.paragraph("A photo may be of any size, turned, with several people.", True))
                with gr.Group(visible=False) as self.camera:
                    with gr.Row():
                        self.yaw = gr.Slider(-45, 45, 0, step=0.5, label="Camera to the right, degrees")
                        self.pitch = gr.Slider(-30, 30, 0, step=0.5, label="Camera up, degrees")
                        self.roll = gr.Slider(-30, 30, 0, step=0.5, label="Camera turned, degrees")
                with gr.Row(visible=False) as self.buttons:
                    self.as_found = gr.Button("As it was found")
                    self.next = gr.Button("Go on", variant="primary", elem_id="to-edit")
                with gr.Accordion("Correct the matte", open=False, visible=False) as self.matte:
                    gr.HTML(markup.paragraph("Green strokes belong to the head, red ones to the background.", True))
                    self.strokes = gr.ImageEditor(
                        label="The matte",
                        type="numpy",
                        sources=(),
                        transforms=(),
                        layers=False,
                        interactive=True,
                        brush=gr.Brush(default_size=16, colors=[HEAD, GROUND], default_color=HEAD, color_mode="fixed"),
                        canvas_size=(_PAINTED_ON, _PAINTED_ON),
                        fixed_canvas=True,
                        height=560,
                        buttons=[],
                    )
                    self.take_strokes = gr.Button("Take the strokes")
        self.numbers_of_crop = [self.x, self.y, self.side, self.turn]
        self.numbers_of_camera = [self.yaw, self.pitch, self.roll]
        self.outputs = [
            self.upload,  # emptied: its picture has become a head's
            self.crop,
            self.numbers,
            *self.numbers_of_crop,
            self.views,
            self.camera,
            *self.numbers_of_camera,
            self.buttons,
            self.matte,
            self.strokes,
            self.generator,
        ]

    def connect(self, head: gr.Textbox, everything: list[Any], show: Any) -> None:
        """Wire the events; `show(head, request)` gives the values of `everything`, the whole page's outputs."""
        desk = self.desk

        def begin(upload: str | None, generator: str, request: gr.Request) -> Any:
            path = file_of(upload)
            workspace = desk.workspace(request)
            new = workspace.new(path.name, self._offered(generator))
            try:
                self._find(new, path)
            except BaseException:
                workspace.remove(new)
                raise
            finally:
                path.unlink(missing_ok=True)
            return show(new, request)

        def crop(name: str, data: gr.EventData, request: gr.Request) -> Any:
            folder = desk.idle(desk.head(name, request))
            drawn = fitted({"turn": 0.0, **dict(data._data or {})}, Square, "the crop")
            now = self._square(folder)
            square = Square(drawn.x, drawn.y, drawn.side, now.turn)
            self._correct(folder, square, Hand(folder.path).nudge)
            return show(folder, request)

        def numbers(
            name: str,
            x: float,
            y: float,
            side: float,
            turn: float,
            yaw: float,
            pitch: float,
            roll: float,
            request: gr.Request,
        ) -> Any:
            folder = desk.idle(desk.head(name, request))
            square, before = Square(x, y, side, turn), Hand(folder.path).square
            as_it_is = self._square(folder)
            unmoved = all(abs(vars(square)[k] - vars(as_it_is)[k]) < 1e-3 for k in vars(square))
            self._correct(folder, before if unmoved else square, Nudge(yaw, pitch, roll))
            return show(folder, request)

        def as_found(name: str, request: gr.Request) -> Any:
            folder = desk.idle(desk.head(name, request))
            self._correct(folder, None, Nudge())
            return show(folder, request)

        def other_generator(name: str, generator: str, request: gr.Request) -> Any:
            if not name:
                return [gr.skip()] * len(everything)
            folder = desk.idle(desk.head(name, request))
            folder.made_with(self._offered(generator))
            self._find(folder, find_photo(folder.found))
            return show(folder, request)

        def take(name: str, editor: Any, request: gr.Request) -> Any:
            folder = desk.idle(desk.head(name, request))
            draft = read_prepared(folder.draft)
            size = draft.picture.shape[-1]
            strokes = merged(layers_of(editor, self.strokes), size)
            foreground = with_strokes(draft.foreground[0, 0].numpy(), strokes)
            mended = Prepared(**{**vars(draft), "foreground": torch.from_numpy(foreground).float()[None, None]})
            write(mended, folder.found, folder.draft)
            return show(folder, request)

        self.upload.upload(told(begin), [self.upload, self.generator], everything, **WORK)
        self.crop.input(told(crop), [head], everything, show_progress="minimal", **WORK)
        sliders = [*self.numbers_of_crop, *self.numbers_of_camera]
        gr.on(
            [slider.release for slider in sliders],
            told(numbers),
            [head, *sliders],
            everything,
            show_progress="minimal",
            **WORK,
        )
        self.as_found.click(told(as_found), [head], everything, **WORK)
        self.generator.input(told(other_generator), [head, self.generator], everything, **WORK)
        self.take_strokes.click(told(take), [head, self.strokes], everything, preprocess=False, **WORK)

    def shown(self, folder: HeadFolder | None) -> list[Any]:
        """Values of `outputs`."""
        if folder is None or not folder.draft.is_dir():
            hidden = gr.update(visible=False)
            nothing = markup.paragraph("A photo may be of any size, turned, with several people.", True)
            rest = [gr.skip()] * 3
            return [None, hidden, hidden, *[gr.skip()] * 4, nothing, hidden, *rest, hidden, hidden, None, gr.skip()]
        prepared, hand = read_prepared(folder.draft), Hand(folder.path)
        square, nudge = self._square(folder), hand.nudge
        small = Image.open(folder.path / "photo.jpg")
        address = f"/studio/files/{folder.name}/photo.jpg"
        crop = {"photo": address, **vars(square), "tall": small.height / small.width}
        mean_head = self._mean_head(folder.about.generator)
        picture, mean = to_uint8(prepared.picture)[0], to_uint8(mean_head.over(prepared))[0]
        tinted = _tinted(picture, prepared.foreground[0, 0].numpy())
        views = markup.views(
            {
                "as the generator sees it": data_uri(picture),
                "the mean head over it: do eyes, nose and chin meet?": data_uri(mean),
                "the matte: what is not tinted is the head": data_uri(tinted),
            }
        )
        painted_on = cv2.resize(tinted, (_PAINTED_ON, _PAINTED_ON), interpolation=cv2.INTER_LINEAR)
        seen = gr.update(visible=True)
        return [
            None,
            gr.update(value=crop, visible=True),
            seen,
            square.x,
            square.y,
            square.side,
            square.turn,
            views,
            seen,
            nudge.yaw,
            nudge.pitch,
            nudge.roll,
            seen,
            seen,
            {"background": painted_on, "layers": [], "composite": painted_on},
            folder.about.generator,
        ]

    def _mean_head(self, name: str) -> MeanHead:
        """Of a generator that is loaded when it is first needed; one is kept."""
        if self._loaded is None or self._loaded[0] != name:
            self._loaded = (name, MeanHead(load_generator(name, device=self.desk.studio.device)))
        return self._loaded[1]

    def _offered(self, generator: str) -> str:
        if generator not in self.desk.studio.settings.generators:
            raise InputError("no such generator is offered")
        return generator

    def _find(self, folder: HeadFolder, picture: Path) -> None:
        """What is found in a picture, and nothing of it changed yet."""
        name = folder.about.generator
        settings = [f"run.generator={name}", f"run.device={self.desk.studio.device}"]
        photo = decode(picture).pixels
        if photo.dtype != np.uint8:
            photo = (photo >> 8).astype(np.uint8)
        prepare(PrepareRequest(settings=settings), picture, folder.found, self._mean_head(name).generator)
        scale = min(1.0, _SMALL / max(photo.shape[:2]))
        small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else photo
        Image.fromarray(small).save(folder.path / "photo.jpg", quality=88)
        Edits(folder.edits).drop_painting()
        self._correct(folder, None, Nudge())

    def _correct(self, folder: HeadFolder, square: Square | None, nudge: Nudge) -> None:
        pivot = self._mean_head(folder.about.generator).generator.spec.pivot
        hand = Hand(folder.path)
        write(corrected(folder.found, square, nudge, pivot), folder.found, folder.draft)
        if square != hand.square and Edits(folder.edits).drop_painting():
            gr.Info("What was painted belonged to the other crop and was taken away.")
        hand.write(square, nudge)

    def _square(self, folder: HeadFolder) -> Square:
        """The crop as it is, by hand or as found."""
        found = read_json(folder.found / "crop.json")
        size = Image.open(folder.found / "image.png").width
        matrix = np.array(found["matrix"])
        return Hand(folder.path).square or Square.of(matrix, size, found["width"], found["height"])


def _tinted(picture: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """A picture uint8 [S,S,3] whose background is tinted."""
    magenta = np.array([255, 0, 255], np.float32)
    away = (1 - foreground[..., None]) * 0.6
    return (picture * (1 - away) + magenta * away).round().astype(np.uint8)
