"""A door between two stages of a run: what one gave is replaced before the next takes it.

The run is brought up to a stage (`--until coarse`), that stage's outputs are replaced on disk with the pipeline's own
functions, and the run is resumed. A stage's hash speaks of what it took and not of what it gave, so the runner leaves
the replaced stage alone, and since the stages after it depend on the *content* of what they take, they run with it,
unchanged and unaware. No stage, no table and no config knows of the door, so anything can be measured through it::

    replace_outputs(folder, "coarse", {"input_depth": mine, "input_alpha": …, "view_depths": …, "view_alphas": …})

is how the oracle's surface, or anybody's better one, reaches `visibility`, `warp` and `tune`.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch

from pmv.errors import InputError
from pmv.pipeline.folder import RunFolder
from pmv.pipeline.packing import load_fields, pack
from pmv.pipeline.table import Stage


def stage_that_gives(folder: RunFolder, name: str) -> Stage:
    """The stage whose output `name` is."""
    return folder.table[folder.table.find(folder.table.origins()[name])]


def outputs_of(folder: RunFolder, stage: str) -> Any:
    """The outputs dataclass of a finished stage."""
    row = folder.table[folder.table.find(stage)]
    names = [field.name for field in fields(row.outputs)]
    return row.outputs(**load_fields(folder.outputs(row), names))


def is_replaced(folder: RunFolder) -> bool:
    """True if any stage's outputs came through the door: what the stage itself gave is no longer there."""
    return any("replaced" in (folder.record(row) or {}) for row in folder.table)


def replace_outputs(folder: RunFolder, stage: str, values: Mapping[str, Any]) -> None:
    """Put other values in the place of some of a finished stage's outputs; previews and all else stay. The stage's
    ``stage.json`` names them under "replaced".

    Args:
        folder: of a run that has finished the stage. values: by field; tensors of the shapes that the stage gives.

    Raises:
        InputError: the stage is not finished, or a tensor has another shape.
    """
    row = folder.table[folder.table.find(stage)]
    record = folder.record(row)
    if record is None:
        raise InputError(f"{folder.path}: {stage} is not finished; there is nothing to replace")
    before = outputs_of(folder, stage)
    for name, value in values.items():
        old = getattr(before, name)
        if isinstance(value, torch.Tensor) and value.shape != old.shape:
            raise InputError(f"{stage} gives {name} as {tuple(old.shape)}, not {tuple(value.shape)}")
    packed = pack(replace(before, **values))
    replaced = sorted({*record.get("replaced", []), *values})
    record = {**record, "outputs": packed.field_hashes(), "numbers": packed.numbers, "replaced": replaced}
    with folder.locked(), folder.writing(row) as temporary:
        for name in record["files"]:
            path = folder / row.folder / name
            if path.suffix != ".safetensors" and name != "stage.json":
                (temporary / name).write_bytes(path.read_bytes())
        folder.commit(row, temporary, packed, record)
