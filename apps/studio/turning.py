"""Heads that are turned on the page: kept loaded while somebody looks, drawn coarsely at once and fully when still."""

import base64
import io
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from pmv.apps.head import Head, open_head
from pmv.inversion import FILE_NAME

COARSE = 24
"""Rays a side of a picture while the head is being turned."""
_MOST = 2
"""Heads that are kept loaded: each takes its generator's memory."""


class Turntable:
    """Draws the heads of all people, one picture at a time.

    Args:
        device: where they are drawn.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._heads: OrderedDict[tuple[str, int], Head] = OrderedDict()

    def picture(
        self, folder: Path, yaw: float, pitch: float, coarse: bool = False, amounts: Mapping[str, float] | None = None
    ) -> np.ndarray:
        """uint8 [R,R,3] of the finished head in a folder.

        Args:
            yaw, pitch: degrees. amounts: attributes to show changed, in deviations.
        """
        with self._lock:
            head = self._head(folder)
            if changed := {name: amount for name, amount in (amounts or {}).items() if amount}:
                head = head.changed(changed)
            return head.render(yaw, pitch, rays=COARSE if coarse else None)

    def attributes(self, folder: Path) -> dict[str, tuple[str, float]]:
        """What can be changed of a head: name → what more of it is, and how far it goes; none where nothing is known of
        its generator."""
        with self._lock:
            return self._head(folder).attributes()

    def _head(self, folder: Path) -> Head:
        key = (str(folder), (folder / FILE_NAME).stat().st_mtime_ns)
        if key not in self._heads:
            while len(self._heads) >= _MOST:
                self._heads.popitem(last=False)
            self._heads[key] = open_head(folder, self._device)
        self._heads.move_to_end(key)
        return self._heads[key]


def data_uri(pixels: np.ndarray, quality: int = 90) -> str:
    """A picture as an address that holds all of it: it lies in no folder that others could ask for."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
