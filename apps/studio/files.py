"""What of a head may be taken away, and under which names: nothing else of its folder is ever handed out."""

import mimetypes
from pathlib import Path

from pmv.apps.export import FORMATS
from pmv.apps.studio.workspace import HeadFolder
from pmv.errors import InputError

EXPORTS = FORMATS
_SUFFIX = {"glb": ".glb", "obj": "-obj.zip", "ply": ".ply", "stl": ".stl", "views": "-views.zip", "npz": ".npz"}
_SUFFIX |= {"gaussians": ".gs.ply"}
REPORT, FILM, LIVE, PHOTO = "report.html", "turntable.mp4", "live.jpg", "photo.jpg"
_FILM = "10_evaluate/turntable.mp4"


def export_name(kind: str, version: str) -> str:
    """What the file of a format of a version is called: "head.glb", "head-1a2b3c4d.glb"."""
    return ("head" if version == "run" else f"head-{version}") + _SUFFIX[kind]


def offered(head: HeadFolder) -> dict[str, Path]:
    """The files of a head by the names that they are asked for."""
    files = {REPORT: head.run / REPORT, FILM: head.run / _FILM, LIVE: head.live, PHOTO: head.path / PHOTO}
    names = (export_name(kind, version.path.name) for version in head.versions() for kind in EXPORTS)
    files |= {name: head.exports / name for name in names}
    return {name: path for name, path in files.items() if path.is_file() and not path.is_symlink()}


def find(head: HeadFolder, name: str) -> tuple[Path, str]:
    """A file that is offered, and its type. InputError where there is none of that name."""
    path = offered(head).get(name)
    if path is None:
        raise InputError("there is no such file")
    kinds = {".glb": "model/gltf-binary", ".npz": "application/octet-stream", ".ply": "application/octet-stream"}
    return path, kinds.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
