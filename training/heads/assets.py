"""What building a head needs: MakeHuman's data, and the scans' if given, compiled; kept in one `.npz`."""

from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, cast, get_type_hints

import numpy as np
from numpy.typing import NDArray

from pmv.errors import AssetsError
from pmv.training.heads.hairstyles import Hairstyle
from pmv.training.heads.makehuman import compile_parts
from pmv.training.heads.parts import FittedPart, ScanShapes, Skin, Targets


@dataclass(frozen=True)
class HeadAssets:
    """Everything that building a head needs; vertices are numbered among the `base` vertices that anything refers to.

    Attributes:
        base: float32 [B,3] base mesh in decimetres.
        flipped: int [B] the vertex at the mirrored place of each vertex.
        skin_flipped: int [S] the same for fine skin vertices.
        eye_cubes: int [2,8] vertices around the left and right eyeball.
        mouth_seam: int [6] vertices between the lips.
        landmarks: int [6]: the chin's lower front, the upper lip's lower edge, the lower lip's upper edge, the nose
            between the eyes, and where the left and right ear joins the head at its top.
        targets, skin, eyes, teeth, tongue, scans: see their classes.
        lashes, hairstyles: by MakeHuman name.
        eye_texture: uint8 [256,256,3].
    """

    base: NDArray
    flipped: NDArray
    skin_flipped: NDArray
    eye_cubes: NDArray
    mouth_seam: NDArray
    landmarks: NDArray
    targets: Targets
    skin: Skin
    eyes: FittedPart
    teeth: FittedPart
    tongue: FittedPart
    lashes: dict[str, FittedPart]
    hairstyles: dict[str, Hairstyle]
    eye_texture: NDArray
    scans: ScanShapes

    @classmethod
    def load(cls, path: str | Path, scans: str | Path | None = None) -> "HeadAssets":
        """Read a MakeHuman checkout (or its data folder; takes seconds) or a file written by `save` (fast).

        Args:
            path: the checkout or the file.
            scans: a checkout of ICT-FaceKit (see `scans.read_scans`), with a MakeHuman checkout only; a compiled file
                holds its own. Without scans every face is MakeHuman's, whatever `scan/share` says.

        Raises:
            AssetsError: something is missing; the message names the path and says where the data comes from.
        """
        path = Path(path)
        if path.is_file():
            if scans is not None:
                raise AssetsError(
                    f"{path}: a compiled file holds its own scans; give a MakeHuman checkout with {scans}"
                )
            return _read_compiled(path)
        for folder in (path, path / "data", path / "makehuman" / "data"):
            if (folder / "3dobjs" / "base.obj").is_file():
                return cls(**compile_parts(folder, scans))
        raise AssetsError(
            f"{path}: no 3dobjs/base.obj in it or in its data folder; give the data folder of a MakeHuman checkout "
            "with the makehuman-assets copied in (https://github.com/makehumancommunity), or a compiled .npz"
        )

    def save(self, path: str | Path) -> None:
        """Write one compressed `.npz` that `load` reads without MakeHuman's data."""
        target = Path(path)
        temporary = target.with_name(target.name + ".tmp")
        with temporary.open("wb") as file:
            np.savez_compressed(file, **cast(Any, _flatten(self)))
        temporary.replace(target)


def _flatten(value: Any, prefix: str = "") -> dict[str, NDArray]:
    if isinstance(value, np.ndarray):
        return {prefix: value}
    members = value.items() if isinstance(value, dict) else ((f.name, getattr(value, f.name)) for f in fields(value))
    flat: dict[str, NDArray] = {}
    for name, member in members:
        flat |= _flatten(member, f"{prefix}/{name}" if prefix else name)
    return flat


def _unflatten(kind: Any, tree: Any) -> Any:
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{f.name: _unflatten(hints[f.name], tree[f.name]) for f in fields(kind)})  # type: ignore[operator]
    if isinstance(tree, dict):
        return {name: _unflatten(kind.__args__[1], branch) for name, branch in tree.items()}
    return tree


def _read_compiled(path: Path) -> HeadAssets:
    tree: dict[str, Any] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in archive.files:
                branch, *rest = key.split("/")
                node = tree
                for name in rest:
                    node = node.setdefault(branch, {})
                    branch = name
                node[branch] = archive[key]
        return _unflatten(HeadAssets, tree)
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise AssetsError(f"{path}: not compiled head assets ({error}); write it anew with HeadAssets.save") from None
