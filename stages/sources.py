"""What the user gives to a run: the photo and, optionally, its mask, its camera, a mask of what the generator cannot
draw, and edits; as files of the user's, and as the run's copies of them in ``source/``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypedDict

from msgspec import Meta

from pmv.errors import InputError, PmvError
from pmv.files.artifacts import copy_file, file_hash, read_json, value_hash, write_json
from pmv.files.reading import fitted
from pmv.geometry.camera import Camera
from pmv.pictures.images import read_bytes, read_mask
from pmv.pipeline.folder import RunFolder
from pmv.stages.edit_list import MOST_PICTURE, Edit, load_edits, plain_suffix, save_edits
from pmv.stages.prepared import CROP, Prepared, find_photo, is_prepared_folder, read_prepared, save_prepared

NAMES = ("photo", "photo_mask", "photo_camera", "photo_ood_mask", "photo_edits", "photo_prepared")
"""What the stages call them."""

_FILES = ("photo", "mask", "ood_mask")
_PREPARED = "prepared.safetensors"
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}


@dataclass(frozen=True)
class PhotoSources:
    """Paths of what was given.

    Attributes:
        photo, mask, camera, ood_mask: files; of the camera also a folder.
        edits: laid over one another in this order.
        name: the photo's file name where the user has it; None = that of `photo`.
        prepared: what was found in the photo before: a folder of `pmv prepare`, or the run's copy.
    """

    photo: Path
    mask: Path | None = None
    camera: Path | None = None
    ood_mask: Path | None = None
    edits: tuple[Edit, ...] = ()
    name: str | None = None
    prepared: Path | None = None

    @classmethod
    def of(cls, image: Path, **given: Any) -> "PhotoSources":
        """Sources of a photo, or of a folder that `pmv prepare` wrote."""
        if not is_prepared_folder(image):
            return cls(image, **given)
        crop = read_json(image / CROP) if (image / CROP).is_file() else {}
        name = crop.get("photo") if isinstance(crop, dict) else None
        photo = find_photo(image)
        return cls(photo, **given, name=name if isinstance(name, str) else photo.name, prepared=image)

    @property
    def photo_name(self) -> str:
        """The photo's file name where the user has it; camera files are searched for it."""
        return self.name or self.photo.name

    def read(self) -> dict[str, Any]:
        """Read everything.

        Returns:
            photo uint8 ``[1,3,H,W]``; photo_mask ``[1,1,H,W]`` or None (the photo's alpha, uint8, stands in for a
            missing mask);
            photo_camera: one `Camera` or None; photo_ood_mask ``[1,1,h,w]`` or None; photo_edits: a tuple of
            `LoadedEdit`; photo_prepared: a `Prepared` or None.

        Raises:
            InputError: a file is missing, damaged or holds something else.
        """
        photo, alpha = read_bytes(self.photo)
        prepared = self.read_prepared()
        mask = read_mask(self.mask) if self.mask else None if prepared else alpha
        return {
            "photo": photo,
            "photo_mask": mask,
            "photo_camera": self.read_camera((photo.shape[-1], photo.shape[-2])),
            "photo_ood_mask": read_mask(self.ood_mask, any_extent=True) if self.ood_mask else None,
            "photo_edits": tuple(edit.read() for edit in self.edits),
            "photo_prepared": prepared,
        }

    def read_prepared(self) -> Prepared | None:
        """What was found in the photo before."""
        return read_prepared(self.prepared) if self.prepared else None

    def read_camera(self, picture: tuple[int, int] | None = None) -> Camera | None:
        """The photo's own camera: files with several are searched for the photo's path.

        Args:
            picture: the photo's width and height, for camera files that say whether they are of another shape.
        """
        if self.camera is None:
            return None
        camera = Camera.load(self.camera, self.name or str(self.photo.absolute()), picture)
        if len(camera) != 1:
            raise InputError(f"{self.camera}: holds {len(camera)} cameras without names; give a file with one")
        return camera

    def hashes(self) -> dict[str, str]:
        """Content hash of each, by the stages' names; of `photo_prepared` only where there is one, so that runs which
        know nothing of it stay as they are."""
        paths = (self.photo, self.mask, self.camera, self.ood_mask)
        hashes = {name: file_hash(path) if path else "none" for name, path in zip(NAMES, paths)}
        edits = [edit.content() for edit in self.edits]
        hashes["photo_edits"] = value_hash(edits) if edits else "none"
        prepared = self.read_prepared()
        return hashes if prepared is None else {**hashes, "photo_prepared": prepared.content()}


def write_sources(folder: RunFolder, sources: PhotoSources) -> None:
    """Copy what the user gave into a run; what is not given this time is gone."""
    with folder.replacing_source() as temporary:
        for kind in _FILES:
            path: Path | None = getattr(sources, kind)
            if path is not None:
                copy_file(path, temporary / (kind + plain_suffix(path)), MOST_PICTURE)
        camera = sources.read_camera()
        if camera is not None:
            camera.save(temporary / "camera.json", image_names=[sources.photo_name])
        prepared = sources.read_prepared()
        if prepared is not None:
            save_prepared(temporary / _PREPARED, prepared)
        save_edits(sources.edits, temporary)
        write_json(temporary / "names.json", {"photo": sources.photo_name})


def open_sources(source: Path, first: Path) -> PhotoSources:
    """A run's copies; an ``edit.png`` dropped beside the first stage's outputs lies on top of the other edits.

    Args:
        source: the folder that `write_sources` wrote; first: the first stage's.
    """
    given = _given(source)
    edit, mask = _dropped(first)
    return replace(given, edits=(*given.edits, Edit(edit, mask))) if edit else given


def run_sources(folder: RunFolder) -> PhotoSources:
    """`open_sources` of a run."""
    return open_sources(folder.source, folder.first)


def sources_with(folder: RunFolder, edits: Sequence[Edit], clear: bool = False, **paths: Path | None) -> PhotoSources:
    """What `run_sources` will be after `update_sources` and `changed_edits`; nothing is written."""
    given = _given(folder.source, with_edits=False) if clear else run_sources(folder)
    given = replace(given, **{name: path for name, path in paths.items() if path is not None})
    return replace(given, edits=given.edits + tuple(edits))


def update_sources(folder: RunFolder, **paths: Path | None) -> None:
    """Replace what is given (`mask`, `camera`, `ood_mask`) in a run that exists."""
    given = {name: path for name, path in paths.items() if path is not None}
    if given:
        write_sources(folder, replace(_given(folder.source), **given))


@contextmanager
def taken_back_if_refused(folder: RunFolder) -> Iterator[None]:
    """Put what is given (`mask`, `camera`, `ood_mask`) back as it was if the first stage refuses it in the block."""
    kinds = ("mask", "camera", "ood_mask")
    before = {path: _in_place(path).read_bytes() for kind in kinds for path in folder.source.glob(f"{kind}.*")}
    first = folder.table[0]
    record = folder.record(first)
    try:
        yield
    except InputError:
        if folder.record(first) == record:
            for path in (path for kind in kinds for path in folder.source.glob(f"{kind}.*")):
                path.unlink()
            for path, content in before.items():
                path.write_bytes(content)
        raise


@contextmanager
def changed_edits(folder: RunFolder, edits: Sequence[Edit], clear: bool = False) -> Iterator[None]:
    """Put edits on top of the run's own, for good unless the block raises `PmvError` or `OSError`: then they are as
    before.

    Args:
        edits: what to add.
        clear: take back all earlier ones first; a picture that was dropped into the first stage's folder is kept
            there under another name.
    """
    if not edits and not clear:
        yield
        return
    aside = [(path, _set_aside(path)) for path in _dropped(folder.first) if path] if clear else []
    try:
        with folder.restoring_source(PmvError, OSError):
            given = _given(folder.source, with_edits=not clear)
            write_sources(folder, replace(given, edits=given.edits + tuple(edits)))
            yield
    except (PmvError, OSError):
        for path, other in aside:
            other.rename(path)
        raise


def _given(source: Path, with_edits: bool = True) -> PhotoSources:
    found: dict[str, Path] = {}
    for kind in (*_FILES, "camera", "prepared"):
        if path := next(iter(sorted(source.glob(f"{kind}.*"))), None):
            found[kind] = _in_place(path)
    if "photo" not in found:
        raise InputError(f"{source}: the photo is gone; start a new run")
    names = source / "names.json"
    name = fitted(read_json(names, follow=False), _Names, names)["photo"]
    return PhotoSources(**found, edits=tuple(load_edits(source)) if with_edits else (), name=name)


class _Names(TypedDict):
    """What the user's files were called."""

    photo: Annotated[str, Meta(min_length=1, max_length=1024)]


def _in_place(path: Path) -> Path:
    """A file found in a run; InputError where it is none, or a link, which could lead to any picture of the user's."""
    if path.is_symlink():
        raise InputError(f"{path}: is a link, and pmv follows none within a run; put the file itself there")
    if not path.is_file():
        raise InputError(f"{path}: is no file; put one there")
    return path


def _dropped(first: Path) -> tuple[Path | None, Path | None]:
    """The ``edit.png`` and the ``paint_mask.png`` that a user put beside the first stage's outputs."""
    dropped: list[Path | None] = []
    for stem in ("edit", "paint_mask"):
        found = sorted(first.glob(f"{stem}.*"))
        found = [path for path in found if path.suffix.lower() in _IMAGE_SUFFIXES]
        if len(found) > 1:
            raise InputError(f"{found[0]} and {found[1].name}: keep only one of them")
        dropped.append(_in_place(found[0]) if found else None)
    edit, mask = dropped
    if mask is not None and edit is None:
        raise InputError(f"{mask}: lies there without an edit; add edit.png beside it")
    return edit, mask


def _set_aside(path: Path) -> Path:
    """Rename a user's file so that it is no longer found: ``edit.png`` → ``edit.png.cleared``."""
    number, target = 1, path.with_name(path.name + ".cleared")
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.cleared-{number}")
    return path.rename(target)
