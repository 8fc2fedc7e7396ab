"""Checkpoints from one format to another: official files to pmv's safetensors, and back out to plain state dicts."""

from pathlib import Path

from pmv.errors import InputError
from pmv.files.artifacts import check_no_link, file_hash
from pmv.files.manifest import recognise
from pmv.generators import load_generator, resolve_generator
from pmv.generators.native import notes_of, save_generator, save_state_dict


def convert_checkpoint(source: str | Path, out: Path, like: str | Path | None = None) -> None:
    """Write the generator in `source` to `out`.

    Args:
        source: any that `load_generator` takes.
        out: ends in .safetensors (the weights, and a JSON beside it that says the rest: configuration, where it came
            from, licence), or in .pt or .pth (a plain state dict with the official keys).
        like: see `load_generator`.

    Raises:
        CheckpointError: `source` cannot be used.
        InputError: `out` is of another kind, is `source` or `like` itself, or cannot be written.
    """
    if out.suffix not in (".safetensors", ".pt", ".pth"):
        raise InputError(f"{out}: of an unknown kind; end OUT in .safetensors (pmv's own), or .pt (a plain state dict)")
    check_no_link(out)
    path = resolve_generator(source)
    for given, what in ((path, "the checkpoint itself"), (like, "what --like names")):
        if given is not None and out.exists() and out.samefile(resolve_generator(given)):
            raise InputError(f"{out}: is {what}; give another OUT")
    generator = load_generator(source, like=like)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error}); give another OUT") from error
    if out.suffix == ".safetensors":
        save_generator(generator, out, notes=_notes(source, path))
    else:
        save_state_dict(generator, out)


def _notes(source: str | Path, path: Path) -> dict[str, object]:
    """Where a checkpoint comes from and under which licence; of pmv's own, what they say of it already goes along."""
    notes = notes_of(path) if path.suffix == ".safetensors" else {}
    return _origin(source, path) | notes


def _origin(source: str | Path, path: Path) -> dict[str, object]:
    entry = recognise(str(source))
    licence = "as of the file it came from; ask where you got that"
    if entry is not None:
        licence = f"{entry.licence}, see {entry.terms}"
    return {
        "origin": {
            "file": path.name,
            "sha256": file_hash(path),
            "published_as": entry.name if entry is not None else None,
        },
        "licence": licence,
    }
