"""Contact sheets: pictures side by side, with labels."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_LABEL_HEIGHT = 20
GAP = 4
"""Pixels between two pictures."""


def tile(images: Sequence[np.ndarray], labels: Sequence[str] | None = None, columns: int | None = None) -> np.ndarray:
    """Lay pictures out in a grid, row by row, each with an optional label above it.

    Args:
        images: uint8 ``[H,W,3]``, or all ``[H,W,4]``, of any sizes; each is centred in a cell of the largest.
        labels: one text a picture, or None.
        columns: pictures in a row; by default a grid about as wide as high.

    Returns:
        uint8 ``[height, width, 3]`` on white, or ``[height, width, 4]`` on nothing.

    Raises:
        ValueError: no picture, or another number of labels than pictures.
    """
    if not images:
        raise ValueError("a sheet needs at least one picture")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"{len(images)} pictures but {len(labels)} labels")
    if len(images) == 1 and labels is None:
        return images[0]
    columns = columns or int(np.ceil(np.sqrt(len(images))))
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    top = _LABEL_HEIGHT if labels is not None else 0
    height = max(image.shape[0] for image in images) + top + GAP
    width = max(image.shape[1] for image in images) + GAP
    clear = images[0].shape[2] == 4
    ground = (255, 255, 255, 0) if clear else (255, 255, 255)
    sheet = Image.new("RGBA" if clear else "RGB", (columns * width - GAP, rows * height - GAP), ground)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    for i, image in enumerate(images):
        x, y = i % columns * width, i // columns * height
        left = (width - GAP - image.shape[1]) // 2
        upper = (height - GAP - top - image.shape[0]) // 2
        sheet.paste(Image.fromarray(image), (x + left, y + top + upper))
        if labels is not None:
            draw.text((x + 3, y + 2), labels[i], fill="black", font=font)
    return np.asarray(sheet)
