"""``stage.json``: what a stage was made with, and what it gave; as the runner writes it and as it is believed."""

from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from msgspec import Meta

from pmv.errors import InputError
from pmv.files.reading import fitted, is_plain_name

_Hash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
_Amount = Annotated[float, Meta(ge=0, le=1e12)]
_Number = float | int | bool | None
_MOST = 10_000
"""Files, fields or numbers of a stage; more is no stage's, and would make a page that no browser shows."""


class StageRecord(TypedDict):
    """Entries of ``stage.json``.

    Attributes:
        stage: its name; hash: of all that it was made of (`pmv.pipeline.hashes`); code: pmv's version.
        seed: of its random numbers; config: its block.
        inputs: name → where it is from, and its content's hash; outputs: name → content hash.
        numbers: outputs that are numbers.
        seconds: it took; process_peak_mb, cuda_peak_mb: memory.
        losses: a row a step.
        outputs_sha256: of the file of outputs; files: names of all files that the stage wrote.
        replaced: outputs that are not what the stage gave: somebody put others in their place.
    """

    stage: str
    hash: _Hash
    code: str
    seed: Annotated[int, Meta(ge=0, lt=2**56)]
    config: dict[str, Any]
    inputs: dict[str, dict[str, str]]
    outputs: Annotated[dict[str, str], Meta(max_length=_MOST)]
    numbers: Annotated[
        dict[str, _Number | Annotated[dict[str, _Number], Meta(max_length=_MOST)]], Meta(max_length=_MOST)
    ]
    seconds: _Amount
    process_peak_mb: NotRequired[_Amount]
    cuda_peak_mb: NotRequired[_Amount]
    losses: list[dict[str, _Number]]
    outputs_sha256: _Hash
    files: Annotated[list[str], Meta(max_length=_MOST)]
    replaced: NotRequired[Annotated[list[str], Meta(max_length=_MOST)]]


def checked_record(value: Any, stage: str, where: Path) -> StageRecord:
    """Plain values as the record of a stage.

    Raises:
        InputError: they are none, or that of another stage; the message begins with `where`.
    """
    record = fitted(value, StageRecord, where)
    if record["stage"] != stage:
        raise InputError(f"{where}: damaged (it is another stage's)")
    if not all(map(is_plain_name, record["files"])):
        raise InputError(f"{where}: damaged (it names files outside its folder)")
    return record
