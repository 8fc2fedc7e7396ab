"""What an image editor on the page sends: its layers, read by the project's own decoder and in bounds."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pmv.apps.studio.painting import MOST_LAYERS, read_layer
from pmv.errors import InputError
from pmv.files.reading import read_content

_MOST_SENT = 40
"""Pictures that browsers sent and that nobody has asked for yet."""
_MOST_LAYER = 16 << 20


class Sent(OrderedDict[str, Any]):
    """Where Gradio's editor keeps what browsers send ahead of an event; bounded, the oldest goes."""

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        while len(self) > _MOST_SENT:
            self.popitem(last=False)


def bounded(editor: Any) -> None:
    """Bound what an editor of Gradio's keeps in memory."""
    editor.blob_storage = Sent()


def layers_of(sent: Any, editor: Any) -> list[np.ndarray]:
    """The layers of an editor as its event has them without Gradio's own reading, each uint8 [H,W,4].

    Raises:
        InputError: they are no pictures, too many, or nothing was sent.
    """
    if not isinstance(sent, Mapping):
        raise InputError("nothing is painted; take the brush and paint on the picture first")
    if (key := sent.get("id")) is not None:
        blobs = editor.blob_storage.pop(key, None)
        contents = [layer for layer in (blobs.layers if blobs else []) if layer]
    else:
        # files in Gradio's own folder of uploads, which it has made sure of
        contents = [read_content(Path(layer["path"]), _MOST_LAYER) for layer in sent.get("layers") or [] if layer]
    if len(contents) > MOST_LAYERS:
        raise InputError(f"there are {len(contents)} layers; paint on at most {MOST_LAYERS}")
    return [read_layer(content) for content in contents]
