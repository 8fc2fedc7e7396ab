"""A run's folder: what lies where, and how it stays whole when a process dies.

``source/`` holds copies of what the user gave, so that a run can be resumed without the originals. Each stage writes
into ``.tmp-NN_name`` and appears under its own name only when it is complete. Whatever a killed process left is
removed at the next start.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pmv.artifacts import Packed, file_hash, fsync_folder, read_json, save_packed, value_hash, write_json, write_text
from pmv.camera import Camera
from pmv.errors import InputError, PmvError
from pmv.images import read_bytes, read_mask
from stages.edit_list import Edit, edit_files, load_edits, save_edits
from stages.table import Stage

OUTPUTS = "outputs.safetensors"
RECORD = "stage.json"

_FILES = ("photo", "mask", "ood_mask")
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}


@dataclass(frozen=True)
class Sources:
    """What the user gives: paths of the photo and, optionally, of its mask, its camera, a mask of what the generator
    cannot draw, and edits.
    """

    photo: Path
    mask: Path | None = None
    camera: Path | None = None
    ood_mask: Path | None = None
    edits: tuple[Edit, ...] = ()
    name: str | None = None

    @property
    def photo_name(self) -> str:
        """The photo's file name where the user has it; camera files are searched for it."""
        return self.name or self.photo.name

    def read(self) -> dict[str, Any]:
        """Read everything; the values are the table's sources.

        Returns:
            photo uint8 ``[1,3,H,W]``; photo_mask ``[1,1,H,W]`` or None (the photo's alpha, uint8, stands in for a
            missing mask);
            photo_camera: one `Camera` or None; photo_ood_mask ``[1,1,h,w]`` or None; photo_edits: a tuple of
            `LoadedEdit`.

        Raises:
            InputError: a file is missing, damaged or holds something else.
        """
        photo, alpha = read_bytes(self.photo)
        mask = read_mask(self.mask) if self.mask else alpha
        return {
            "photo": photo,
            "photo_mask": mask,
            "photo_camera": self.read_camera(),
            "photo_ood_mask": read_mask(self.ood_mask, any_extent=True) if self.ood_mask else None,
            "photo_edits": tuple(edit.read() for edit in self.edits),
        }

    def read_camera(self) -> Camera | None:
        """The photo's own camera: files with several are searched for the photo's name."""
        if self.camera is None:
            return None
        camera = Camera.load(self.camera, image_name=self.photo_name)
        if len(camera) != 1:
            raise InputError(f"{self.camera}: holds {len(camera)} cameras without names; give a file with one")
        return camera


def _set_aside(path: Path) -> Path:
    """Rename a user's file so that it is no longer found: ``edit.png`` → ``edit.png.cleared``."""
    number, target = 1, path.with_name(path.name + ".cleared")
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.cleared-{number}")
    return path.rename(target)


class RunFolder:
    """One run on disk."""

    def __init__(self, path: str | Path, table: Sequence[Stage]) -> None:
        self.path = Path(path)
        self.table = table

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def is_run(self) -> bool:
        return (self / "source").is_dir() and (self / "config.yaml").is_file()

    def require_run(self) -> None:
        """InputError where there is no run."""
        if not self.path.is_dir():
            raise InputError(f"{self.path}: no such run folder")
        if not self.is_run:
            raise InputError(
                f"{self.path}: not a run folder (it lacks source/ or config.yaml); start a new run with an image"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process. The lock dies with the process, however it ends."""
        with open(self / ".lock", "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                owner = file.read().strip() or "unknown"
                raise InputError(
                    f"{self.path}: process {owner} is working in this folder; wait for it or stop it"
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def tidy(self) -> None:
        """Remove what a killed process left, and finish a swap that it had begun."""
        for old in self.path.glob(".old-*"):
            target = self / old.name.removeprefix(".old-")
            if target.exists():
                shutil.rmtree(old)
            else:
                old.rename(target)
        for leftover in [*self.path.glob(".tmp-*"), *self.path.glob(".*.part")]:
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    def clear(self) -> None:
        """Remove everything that a run without a finished stage has made."""
        if self.path.is_dir():
            self.tidy()
            shutil.rmtree(self / "source", ignore_errors=True)
            for name in ("config.yaml", "run.json", "report.html", "log.txt", ".lock"):
                (self / name).unlink(missing_ok=True)

    def _swap_in(self, temporary: Path, target: Path) -> None:
        """Put a complete folder in the place of another; `tidy` mends a death in between."""
        old = self / f".old-{target.name}"
        for file in temporary.iterdir():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
        if target.exists():
            target.rename(old)
        temporary.rename(target)
        fsync_folder(self.path)
        shutil.rmtree(old, ignore_errors=True)

    # --- sources

    def write_sources(self, sources: Sources) -> None:
        """Copy what the user gave; what is not given this time is gone."""
        temporary = self / ".tmp-source"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for kind in _FILES:
            path: Path | None = getattr(sources, kind)
            if path is not None:
                shutil.copyfile(path, temporary / (kind + (path.suffix.lower() or ".image")))
        camera = sources.read_camera()
        if camera is not None:
            camera.save(temporary / "camera.json", image_names=[sources.photo_name])
        save_edits(sources.edits, temporary)
        write_json(temporary / "names.json", {"photo": sources.photo_name})
        self._swap_in(temporary, self / "source")

    def sources_with(self, edits: Sequence[Edit], clear: bool = False, **paths: Path | None) -> Sources:
        """What `sources` will be after `update_sources` and `changed_edits`; nothing is written."""
        given = self._given(with_edits=False) if clear else self.sources()
        given = replace(given, **{name: path for name, path in paths.items() if path is not None})
        return replace(given, edits=given.edits + tuple(edits))

    def update_sources(self, **paths: Path | None) -> None:
        """Replace what is given (`mask`, `camera`, `ood_mask`) in a run that exists."""
        given = {name: path for name, path in paths.items() if path is not None}
        if given:
            self.write_sources(replace(self._given(), **given))

    @contextmanager
    def changed_edits(self, edits: Sequence[Edit], clear: bool = False) -> Iterator[None]:
        """Put edits on top of the run's own, for good unless the block raises `PmvError`: then they are as before.

        Args:
            edits: what to add.
            clear: take back all earlier ones first; a picture that was dropped into the first stage's folder is kept
                there under another name.
        """
        if not edits and not clear:
            yield
            return
        folder = self / "source"
        before = {path: path.read_bytes() for path in edit_files(folder)}
        aside = [(path, _set_aside(path)) for path in self._dropped() if path] if clear else []
        try:
            given = self._given(with_edits=not clear)
            self.write_sources(replace(given, edits=given.edits + tuple(edits)))
            yield
        except PmvError:
            for path in edit_files(folder):
                path.unlink()
            for path, content in before.items():
                path.write_bytes(content)
            for path, other in aside:
                other.rename(path)
            raise

    def _given(self, with_edits: bool = True) -> Sources:
        folder = self / "source"
        found: dict[str, Path] = {}
        for kind in (*_FILES, "camera"):
            if path := next(iter(sorted(folder.glob(f"{kind}.*"))), None):
                found[kind] = path
        if "photo" not in found:
            raise InputError(f"{folder}: the photo is gone; start a new run")
        name = read_json(folder / "names.json")["photo"]
        return Sources(**found, edits=tuple(load_edits(folder)) if with_edits else (), name=name)

    def _dropped(self) -> tuple[Path | None, Path | None]:
        """The ``edit.png`` and the ``paint_mask.png`` that a user put beside the first stage's outputs."""
        first: list[Path | None] = []
        for stem in ("edit", "paint_mask"):
            found = sorted((self / self.table[0].folder).glob(f"{stem}.*"))
            found = [path for path in found if path.suffix.lower() in _IMAGE_SUFFIXES]
            if len(found) > 1:
                raise InputError(f"{found[0]} and {found[1].name}: keep only one of them")
            first.append(found[0] if found else None)
        edit, mask = first
        if mask is not None and edit is None:
            raise InputError(f"{mask}: lies there without an edit; add edit.png beside it")
        return edit, mask

    def sources(self) -> Sources:
        """The run's copies; an ``edit.png`` dropped beside the first stage's outputs lies on top of the other edits."""
        given = self._given()
        edit, mask = self._dropped()
        return replace(given, edits=(*given.edits, Edit(edit, mask))) if edit else given

    def source_hashes(self) -> dict[str, str]:
        """Content hash of each source of the table."""
        sources = self.sources()
        names = {"photo": "photo", "photo_mask": "mask", "photo_camera": "camera", "photo_ood_mask": "ood_mask"}
        paths = {source: getattr(sources, name) for source, name in names.items()}
        hashes = {source: file_hash(path) if path else "none" for source, path in paths.items()}
        edits = [edit.content() for edit in sources.edits]
        return {**hashes, "photo_edits": value_hash(edits) if edits else "none"}

    # --- stages

    def record(self, stage: Stage) -> dict[str, Any] | None:
        """The stage's ``stage.json``, or None where the stage is not complete."""
        path = self / stage.folder / RECORD
        try:
            return read_json(path)
        except InputError:
            return None

    def is_intact(self, stage: Stage, record: dict[str, Any]) -> bool:
        """True if the outputs are the bytes that the stage wrote."""
        path = self / stage.folder / OUTPUTS
        return path.is_file() and file_hash(path) == record.get("outputs_sha256")

    def outputs(self, stage: Stage) -> Path:
        return self / stage.folder / OUTPUTS

    @contextmanager
    def writing(self, stage: Stage) -> Iterator[Path]:
        """A temporary folder for the stage; removed unless `commit` takes it."""
        temporary = self / f".tmp-{stage.folder}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def commit(self, stage: Stage, temporary: Path, packed: Packed, record: dict[str, Any]) -> None:
        """Write outputs and record, and let the stage appear. Files that a user put into the old folder are kept."""
        save_packed(temporary / OUTPUTS, packed)
        record = {**record, "outputs_sha256": file_hash(temporary / OUTPUTS)}
        record["files"] = sorted([*(path.name for path in temporary.iterdir()), RECORD])
        old = self.record(stage)
        if old is not None:
            for path in (self / stage.folder).iterdir():
                if path.is_file() and path.name not in old["files"] and not (temporary / path.name).exists():
                    shutil.copy2(path, temporary / path.name)
        write_json(temporary / RECORD, record)
        self._swap_in(temporary, self / stage.folder)

    def write_config(self, text: str) -> None:
        write_text(self / "config.yaml", text)
