"""EG3D's labels: 25 numbers, 16 of cam2world (OpenCV axes) row by row and 9 of the intrinsics, in JSON or ``.npy``.

JSON comes as EG3D's ``dataset.json`` ({"labels": [[name, label], …]}), with a mapping instead of pairs, as a mapping
alone, as one label ({"label": …}), and as the ``cameras.json`` of EG3D's preprocessing with Deep3DFaceRecon (name →
{"pose": 4×4, "intrinsics": 3×3 in pixels}, the principal point in the picture's middle).
"""

from pathlib import Path
from typing import Any

import numpy as np

from pmv.errors import InputError, shown
from pmv.geometry.camera_formats.parsing import Row, Rows, check_regular, matrix, numbers, pose

_IN_PIXELS = 2.0
"""A principal point beyond this many picture widths is one in pixels."""


def rows_of_json(data: Any) -> Rows:
    """Rows of any of the JSON kinds; InputError where it is none."""
    if isinstance(data, dict) and "label" in data:
        return Rows(None, lambda _: _row(data["label"], "its label"), 1)
    found = data.get("labels", data) if isinstance(data, dict) else data
    if isinstance(found, list) and len(found) == 25 and not any(isinstance(value, list | dict) for value in found):
        return Rows(None, lambda _: _row(found, "its label"), 1)
    if isinstance(found, dict):
        pairs = list(found.items())
    elif isinstance(found, list):
        pairs = found
    else:
        raise InputError("not a readable camera file (it lists no labels)")
    if not pairs:
        raise InputError("not a readable camera file (it lists no labels)")
    names: list[str] = []
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise InputError("not a readable camera file (a label is a pair of a file name and 25 numbers)")
        if not isinstance(pair[0], str):
            raise InputError(f'a label\'s file name is {shown(pair[0], 40)}; make it a text, such as "photo.png"')
        names.append(pair[0])
    return Rows(names, lambda i: _row(pairs[i][1], f"the label of {shown(names[i])}"), len(names))


def rows_of_npy(path: Path) -> Rows:
    """Rows of a ``.npy`` of [25] or [N,25] numbers."""
    check_regular(path)
    try:
        # mapped: a header that promises more than the file holds is refused instead of obeyed
        array = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError, EOFError, OverflowError, MemoryError, SyntaxError, TypeError, RecursionError) as error:
        why = f"no array of numbers, or a damaged one: {type(error).__name__}"
        raise InputError(f"{path}: not a readable camera file ({why})") from error
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path}: holds {shown(str(array.dtype), 20)} instead of numbers; give 25 floats a camera")
    if array.ndim not in (1, 2) or array.shape[-1] != 25 or array.size == 0:
        raise InputError(f"{path}: not a readable camera file (a label has 25 numbers, its shape is {array.shape})")
    labels = np.asarray(array, np.float64).reshape(-1, 25)
    return Rows(None, lambda i: _row(labels[i].tolist(), f"label {i}"), len(labels))


def _row(value: Any, what: str) -> Row:
    if isinstance(value, dict):
        return _deep3d(value, what)
    if not isinstance(value, list) or len(value) != 25:
        got = f"{len(value)} values" if isinstance(value, list) else shown(value, 40)
        raise InputError(f"not a readable camera file ({what} has 25 numbers, not {got})")
    label = numbers(value, 25, what)
    return Row(label[:16].reshape(4, 4), label[16:].reshape(3, 3))


def _deep3d(value: dict[str, Any], what: str) -> Row:
    for key in ("pose", "intrinsics"):
        if key not in value:
            raise InputError(f"not a readable camera file ({what} has neither 25 numbers nor a {key})")
    intrinsics = matrix(value["intrinsics"], [(3, 3)], f"the intrinsics of {what}")
    middle = intrinsics[:2, 2]
    if (middle > _IN_PIXELS).all():
        intrinsics = intrinsics / np.array([[2 * middle[0]], [2 * middle[1]], [1.0]])
    return Row(pose(value["pose"], f"the pose of {what}"), intrinsics)
