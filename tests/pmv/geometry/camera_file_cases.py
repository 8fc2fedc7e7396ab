"""Camera files as programs and people write them, with the camera that each must give, or what its refusal says."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pmv.geometry.camera import Camera

TRUTH = Camera.orbit(np.radians(8.0), np.radians(2.0))
"""The camera that the files are about."""
OTHER = Camera.orbit(np.radians(-60.0), np.radians(17.0))
"""Another one, for a wrong row."""
PHOTO = "/pictures/00001/photo.png"
LABEL: list[float] = TRUTH.labels()[0].tolist()
WRONG: list[float] = OTHER.labels()[0].tolist()
FOCAL = 4.2647
GL: list[list[float]] = (TRUTH.cam2world[0].double().numpy() @ np.diag([1, -1, -1, 1])).tolist()
"""The same with OpenGL axes."""
IN_PIXELS = {"w": 512, "h": 512, "fl_x": FOCAL * 512, "fl_y": FOCAL * 512, "cx": 256, "cy": 256}
ANGLE = 2 * float(np.arctan(0.5 / FOCAL))


@dataclass(frozen=True)
class Case:
    """One camera file.

    Attributes:
        kind, what: as docs/inputs.md names it.
        make: writes it into a folder and returns what a user would give.
        told: part of the line that refuses it; None = it is read.
        camera: what is read.
        photo: the photo's path.
    """

    kind: str
    what: str
    make: Callable[[Path], Path]
    told: str | None = None
    camera: Camera = TRUTH
    photo: str = PHOTO


def text(name: str, content: str | bytes) -> Callable[[Path], Path]:
    """A file of this content."""

    def make(folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


def as_json(value: Any, name: str = "dataset.json", encoding: str = "utf-8") -> Callable[[Path], Path]:
    return text(name, json.dumps(value, ensure_ascii=False).encode(encoding))


def frames(
    shared: dict[str, Any] | None = None, name: str = "photo.png", pose: Any = GL, **changes: Any
) -> Callable[[Path], Path]:
    """A transforms.json with one frame; a changed value of ... takes its key out."""
    frame = {"file_path": name, "transform_matrix": pose}
    values = {**(IN_PIXELS if shared is None else shared), **changes}
    values = {key: value for key, value in values.items() if value is not ...}
    return as_json({**values, "frames": [frame]}, "transforms.json")


def npy(array: Any, name: str = "label.npy") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with (folder / name).open("wb") as file:
            np.save(file, array, allow_pickle=True)
        return folder / name

    return make


def npy_header(shape: str, descr: str = "'<f4'") -> Callable[[Path], Path]:
    """A ``.npy`` whose header promises what the file does not hold."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return text("label.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(100))


def label(changes: dict[int, float]) -> Callable[[Path], Path]:
    """A camera.json whose 25 numbers are changed in places."""
    return as_json({"label": [changes.get(i, value) for i, value in enumerate(LABEL)]}, "camera.json")


def matrices(pose: Any, intrinsics: Any = None) -> Callable[[Path], Path]:
    k = np.array(LABEL[16:]).reshape(3, 3) if intrinsics is None else np.asarray(intrinsics)
    return as_json({"label": [*np.asarray(pose).ravel().tolist(), *k.ravel().tolist()]}, "camera.json")


def colmap(
    camera: str = f"PINHOLE 512 512 {FOCAL * 512} {FOCAL * 512} 256 256",
    names: tuple[str, ...] = ("photo.png",),
    between: str = "\n",
    place: str = "model",
    newline: str = "\n",
) -> Callable[[Path], Path]:
    """A COLMAP folder; returns ``model``. The first image is the truth's, others are the other's.

    Args:
        between: what follows every image's line: its 2D points and the line break.
    """

    def make(folder: Path) -> Path:
        Camera.cat([TRUTH] + [OTHER] * (len(names) - 1)).save(folder / place, [f"{i}.png" for i in range(len(names))])
        images = [line for line in (folder / place / "images.txt").read_text().splitlines() if line]
        for i, name in enumerate(names):
            images[1 + i] = f"{' '.join(images[1 + i].split()[:8])} 1 {name}"
        written = images[0] + "\n" + "".join(line + "\n" + between for line in images[1:])
        (folder / place / "images.txt").write_bytes(written.replace("\n", newline).encode())
        (folder / place / "cameras.txt").write_bytes(f"# cameras{newline}1 {camera}{newline}".encode())
        return folder / "model"

    return make


def changed(make: Callable[[Path], Path], change: Callable[[Path], Any]) -> Callable[[Path], Path]:
    """A file or folder that something is done to."""

    def made(folder: Path) -> Path:
        path = make(folder)
        change(path)
        return path

    return made


def own_export(name: str, names: list[str]) -> Callable[[Path], Path]:
    """What pmv itself writes: the second image's camera is the truth's."""

    def make(folder: Path) -> Path:
        Camera.cat([OTHER, TRUTH]).save(folder / name, names)
        return folder / name

    return make


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "camera.json")
    return folder / "camera.json"


def endless(folder: Path) -> Path:
    (folder / "camera.json").symlink_to("/dev/zero")
    return folder / "camera.json"


def sparse_file(folder: Path) -> Path:
    with (folder / "camera.json").open("wb") as file:
        file.truncate(3 << 30)
    return folder / "camera.json"


def many_frames(folder: Path) -> Path:
    one = '{"file_path":"f.png","transform_matrix":[]},'
    path = folder / "transforms.json"
    path.write_text('{"frames":[' + one * 60_000 + one[:-1] + "]}")
    return path


def pose(change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return change(TRUTH.cam2world[0].double().numpy().copy())


def scaled(matrix: np.ndarray, factor: float) -> np.ndarray:
    matrix[:3, :3] *= factor
    return matrix


def mirrored(matrix: np.ndarray) -> np.ndarray:
    matrix[:3, 0] *= -1
    return matrix


K = f"{FOCAL * 512} 256 256"
KK = f"{FOCAL * 512} {FOCAL * 512} 256 256"
DEEP3D = {"angle": [0, 0, 0], "intrinsics": [[1015, 0, 112], [0, 1015, 112], [0, 0, 1]], "pose": LABEL[:16]}
DEEP3D["pose"] = np.reshape(LABEL[:16], (4, 4)).tolist()
AT_1015 = Camera.orbit(np.radians(8.0), np.radians(2.0), focal=1015 / 224)

CASES = [
    Case("lens", "`k1`, `k2`, `p1`, `p2` of nerfstudio", frames(k1=0.35, k2=-0.1, p1=0.01), "lens distortion k1"),
    Case("lens", "`k4` alone", frames(k4=1e-3), "lens distortion k4"),
    Case("lens", "`distortion_params`, a list", frames(distortion_params=[0, 0, 0.01]), "distortion_params"),
    Case("lens", "all coefficients 0, `OPENCV`", frames(k1=0, k2=0.0, p1=0, camera_model="OPENCV")),
    Case("lens", "`OPENCV_FISHEYE`, all 0", frames(k1=0, camera_model="OPENCV_FISHEYE"), "no pinhole"),
    Case("lens", "`EQUIRECTANGULAR`", frames(camera_model="EQUIRECTANGULAR"), "no pinhole"),
    Case("lens", "`is_fisheye` of instant-ngp", frames(is_fisheye=True), "no pinhole"),
    Case("lens", "`camera_model` that is no text", frames(camera_model=["PINHOLE"]), "no pinhole"),
    Case("lens", "COLMAP `OPENCV`, k1 = 0.1", colmap(f"OPENCV 512 512 {KK} 0.1 0 0 0"), "lens distortion"),
    Case("lens", "COLMAP `OPENCV`, all 0", colmap(f"OPENCV 512 512 {KK} 0 0 0 0")),
    Case("lens", "COLMAP `SIMPLE_RADIAL`, 0", colmap(f"SIMPLE_RADIAL 512 512 {K} 0")),
    Case("lens", "COLMAP `SIMPLE_PINHOLE`", colmap(f"SIMPLE_PINHOLE 512 512 {K}")),
    Case("lens", "COLMAP `OPENCV_FISHEYE`, all 0", colmap(f"OPENCV_FISHEYE 512 512 {KK} 0 0 0 0"), "no pinhole"),
    Case("lens", "COLMAP `FOV`", colmap(f"FOV 512 512 {KK} 0"), "no pinhole"),
    Case("intrinsics", "`camera_angle_x` alone", frames({"camera_angle_x": ANGLE})),
    Case("intrinsics", "`camera_angle_x`, `w`, `h`", frames({"camera_angle_x": ANGLE, "w": 512, "h": 512})),
    Case("intrinsics", "`camera_angle_y` alone", frames({"camera_angle_y": ANGLE})),
    Case("intrinsics", "no `cx`, `cy`", frames(cx=..., cy=...)),
    Case("intrinsics", "no `fl_y`", frames(fl_y=...)),
    Case("intrinsics", "`w` alone", frames(h=...)),
    Case("intrinsics", "in every frame instead of once", own_export("transforms.json", ["a.png", "photo.png"])),
    Case("intrinsics", "no `w` and `h`", frames(w=..., h=...), "in pixels and not of how many"),
    Case("intrinsics", "no focal length", frames({"w": 512, "h": 512}), "no focal length"),
    Case("intrinsics", "`camera_angle_x` in degrees", frames({"camera_angle_x": 13.4}), "in radians"),
    Case("intrinsics", "angle and `fl_x` disagree", frames(camera_angle_x=0.5), "say two focal lengths"),
    Case("intrinsics", "of another aspect ratio, `fl_x` = `fl_y`", frames(h=384, cy=192), "picture of 512×384 pixels"),
    Case("intrinsics", "COLMAP of 640×480", colmap("PINHOLE 640 480 2730 2730 320 240"), "picture of 640×480 pixels"),
    Case("matrix", "3×4", frames(pose=GL[:3])),
    Case("matrix", "3×3", frames(pose=[row[:3] for row in GL[:3]]), "not a matrix of 4×4 or 3×4"),
    Case("matrix", "rows of different length", frames(pose=[*GL[:3], [0, 0, 1]]), "not a matrix of 4×4 or 3×4"),
    Case("matrix", "texts instead of numbers", frames(pose=[["1"] * 4] * 4), "make it a finite number"),
    Case("matrix", "no matrix", frames(pose=None), "not a matrix of 4×4 or 3×4"),
    Case("matrix", "24 numbers in a label", as_json({"label": LABEL[:24]}), "25 numbers, not 24 values"),
    Case("matrix", "`.npy` [25]", npy(np.array(LABEL))),
    Case("matrix", "`.npy` [1,25] in float64", npy(np.array([LABEL], np.float64))),
    Case("matrix", "`.npy` [4,4]", npy(np.eye(4)), "its shape is (4, 4)"),
    Case("matrix", "`.npy` [5,5]", npy(np.eye(5)), "its shape is (5, 5)"),
    Case("text", "a byte order mark", as_json({"labels": [["photo.png", LABEL]]}, encoding="utf-8-sig")),
    Case("text", "UTF-16 of Windows", as_json({"labels": [["photo.png", LABEL]]}, encoding="utf-16")),
    Case("text", "`DATASET.JSON`", as_json({"labels": [["photo.png", LABEL]]}, "DATASET.JSON")),
    Case("text", "`LABEL.NPY`", npy(np.array(LABEL, np.float32), "LABEL.NPY")),
    Case("text", "COLMAP with Windows line ends", colmap(newline="\r\n")),
    Case("text", "Latin-1", text("dataset.json", b'{"labels": [["caf\xe9.png", []]]}'), "not a text in UTF-8"),
    Case("text", "cut in the middle", text("dataset.json", '{"labels": [["photo.png", [1, 2'), "JSONDecodeError"),
    Case("text", "empty", text("dataset.json", ""), "is empty"),
    Case("text", "`camera.txt`", text("camera.txt", "1 2 3"), "unknown camera format"),
    Case("layout", '`{"labels": {name: label}}`', as_json({"labels": {"photo.png": LABEL}})),
    Case("layout", "`{name: label}`", as_json({"photo.png": LABEL, "other.png": WRONG})),
    Case("layout", '`{"label": …}` of `pmv prepare`', label({})),
    Case("layout", "one list of 25 numbers", as_json(LABEL)),
    Case("layout", "a list of pairs", as_json([["photo.png", LABEL], ["other.png", WRONG]])),
    Case("layout", "`cameras.json` of Deep3D, pixels of 224²", as_json({"photo.png": DEEP3D}), camera=AT_1015),
    Case(
        "layout",
        "the same with a 3×4 pose",
        as_json({"photo.png": {**DEEP3D, "pose": DEEP3D["pose"][:3]}}),
        camera=AT_1015,
    ),
    Case("layout", "the same without a pose", as_json({"photo.png": {"intrinsics": []}}), "nor a pose"),
    Case("layout", '`{"labels": null}` of StyleGAN', as_json({"labels": None}), "it lists no labels"),
    Case("layout", '`{"labels": []}`', as_json({"labels": []}), "it lists no labels"),
    Case("layout", "class labels of StyleGAN", as_json({"labels": [["photo.png", 3]]}), "25 numbers, not 3"),
    Case("layout", "rows without names", as_json({"labels": [LABEL, WRONG]}), "a pair of a file name and 25 numbers"),
    Case("layout", '`{"frames": []}`', as_json({"frames": []}), "it lists no frames"),
    Case("layout", "frames without `file_path`", as_json({"frames": [{"w": 1}]}), "make it a text"),
    Case("names", "backslashes", as_json({"labels": [["00001\\photo.png", LABEL], ["00000\\photo.png", WRONG]]})),
    Case(
        "names",
        "two folders, the photo's path tells",
        as_json({"labels": [["00000/photo.png", WRONG], ["00001/photo.png", LABEL]]}),
    ),
    Case(
        "names",
        "two folders, the path does not tell",
        as_json({"labels": [["00000/photo.png", WRONG], ["00001/photo.png", LABEL]]}),
        "2 cameras may be that of photo.png",
        photo="photo.png",
    ),
    Case("names", "twice with the same camera", as_json({"labels": [["a/photo.png", LABEL], ["b/photo.png", LABEL]]})),
    Case(
        "names",
        "one key twice in JSON",
        text("dataset.json", f'{{"photo.png": {WRONG}, "photo.png": {LABEL}}}'),
        "photo.png stands there twice",
    ),
    Case("names", "another suffix (`photo.jpg`)", as_json({"labels": [["photo.jpg", LABEL], ["a.png", WRONG]]})),
    Case("names", "no suffix (`./train/photo` of Blender)", frames(name="./train/photo")),
    Case(
        "names",
        "the suffix decides between two",
        as_json({"labels": [["photo.jpg", WRONG], ["photo.png", LABEL]]}),
    ),
    Case(
        "names",
        "the file's name alone before one in another folder",
        as_json({"labels": [["old/photo.png", WRONG], ["photo.png", LABEL]]}),
    ),
    Case(
        "names",
        "spaces and accents",
        own_export("dataset.json", ["a.png", "sur la plage/été 1.png"]),
        photo="/x/sur la plage/été 1.png",
    ),
    Case("names", "the photo is not there", as_json({"labels": [["other.png", LABEL]]}), "no camera for photo.png"),
    Case("names", "numbers instead of names", as_json({"labels": [[5, LABEL], [6, LABEL]]}), "file name is 5"),
    Case("names", "a terminal's codes", as_json({"labels": [["\x1b[31m.png", LABEL]]}), "it lists ?[31m.png"),
    Case(
        "COLMAP",
        "pmv's own export, names with spaces",
        own_export("colmap", ["my photo 1.png", "my photo 2.png"]),
        photo="my photo 2.png",
    ),
    Case("COLMAP", "no lines for 2D points", colmap(names=("photo.png", "b.png"), between="")),
    Case(
        "COLMAP", "2D points", colmap(names=("photo.png", "b c.png"), between="12.5 3.25 -1 200.0 7.5 42 1.0 2.0 3\n")
    ),
    Case("COLMAP", "comments between the images", colmap(names=("photo.png", "b.png"), between="\n# note\n")),
    Case("COLMAP", "below `sparse/0`", colmap(place="model/sparse/0")),
    Case("COLMAP", "below `colmap/sparse/0` of nerfstudio", colmap(place="model/colmap/sparse/0")),
    Case("COLMAP", "below `sparse`", colmap(place="model/sparse")),
    Case(
        "COLMAP",
        "`sparse/0` and `sparse/1`",
        changed(colmap(place="model/sparse/0"), lambda p: colmap(place="sparse/1")(p)),
        "holds the models 0, 1; give the folder of one",
    ),
    Case(
        "COLMAP",
        "a file of a binary model",
        text("model/sparse/0/images.bin", b"\1"),
        "a part of a COLMAP model; give its folder",
    ),
    Case(
        "COLMAP",
        "the folder of a binary model",
        lambda folder: text("model/sparse/0/images.bin", b"\1")(folder).parents[2],
        "colmap model_converter --input_path",
    ),
    Case("COLMAP", "an empty folder", lambda folder: folder, "no COLMAP model is in it"),
    Case("COLMAP", "`images.txt` itself", lambda f: colmap()(f) / "images.txt", "a part of a COLMAP model"),
    Case(
        "COLMAP",
        "an image whose camera is not there",
        changed(colmap(), lambda p: (p / "images.txt").write_text("1 1 0 0 0 0 0 2.7 7 photo.png\n")),
        "line 1 is none of an image",
    ),
    Case("COLMAP", "a focal length too few", colmap("PINHOLE 512 512 2183 256 256"), "PINHOLE has 6 numbers"),
    Case(
        "COLMAP",
        "a quaternion that is none",
        changed(colmap(), lambda p: (p / "images.txt").write_text("1 1 1 1 1 0 0 2.7 1 photo.png\n")),
        "line 1 is none of an image",
    ),
    Case("hostile", "pictures of no width", frames(w=0, h=0), "make it a number above 0"),
    Case("hostile", "COLMAP pictures of no width", colmap("PINHOLE 0 0 1 1 1 1"), "write the picture's size"),
    Case("hostile", "numbers of 400 digits", as_json({"label": [10**400] * 25}), "make it a finite number"),
    Case(
        "hostile", "a number of 5000 digits", text("c.json", '{"label": [1' + "0" * 5000 + "]}"), "thousands of digits"
    ),
    Case("hostile", "`NaN` and `Infinity`", label({3: float("nan"), 7: float("inf")}), "make it a finite number"),
    Case("hostile", "numbers beyond single precision", label({3: 1e200}), "contains NaN or infinity"),
    Case("hostile", "COLMAP with `nan`", colmap("PINHOLE 512 512 nan nan 256 256"), "PINHOLE has 6 numbers"),
    Case("hostile", "`.npy` with NaN", npy(np.full(25, np.nan)), "make it a finite number"),
    Case("hostile", "lists in lists, 100 000 deep", text("c.json", "[" * 100_000), "nested too deeply"),
    Case("hostile", "a header that promises 100 TB", npy_header("(1000000000000, 25)"), "not a readable camera file"),
    Case("hostile", "a header of negative shape", npy_header("(-1, 25)"), "not a readable camera file"),
    Case("hostile", "a header that is code", npy_header("(__import__('os').system('id'),)"), "a damaged one"),
    Case("hostile", "pickled objects in `.npy`", npy(np.array([{}] * 25)), "not a readable camera file"),
    Case("hostile", "complex numbers", npy(np.full(25, 1j)), "holds complex128 instead of numbers"),
    Case("hostile", "texts in `.npy`", npy(np.array(["a"] * 25)), "instead of numbers"),
    Case("hostile", "a zip named `.npy`", text("label.npy", b"PK\3\4" + bytes(60)), "not a readable camera file"),
    Case("hostile", "a pipe", fifo, "not a file"),
    Case("hostile", "a link to an endless device", endless, "not a file"),
    Case("hostile", "3 GiB of zeros", sparse_file, "has 3072 MiB, at most 80 are read"),
    Case("hostile", "60 001 frames of other pictures", many_frames, "no camera for photo.png"),
    Case("hostile", "a line break in a name", as_json({"labels": [["a\nb.png", LABEL]]}), "it lists a?b.png"),
    Case("numbers", "cam2world transposed", matrices(TRUTH.cam2world[0].T), "cam2world is transposed"),
    Case("numbers", "another last row", label({12: 0.5}), "another row than 0 0 0 1"),
    Case("numbers", "a scaled rotation", matrices(pose(lambda m: scaled(m, 0.35))), "scaled by 0.35"),
    Case("numbers", "mirrored axes", matrices(pose(mirrored)), "mirrored (left-handed axes)"),
    Case("numbers", "no rotation at all", label({0: 0.1}), "no proper rotation"),
    Case("numbers", "zeros", as_json({"label": [0] * 25}), "another row than 0 0 0 1"),
    Case("numbers", "intrinsics in pixels", label({16: 2183.5, 20: 2183.5, 18: 256, 21: 256}), "look like pixels"),
    Case("numbers", "only the focal length in pixels", label({16: 2183.5, 20: 2183.5}), "look like pixels"),
    Case("numbers", "intrinsics transposed", label({18: 0, 21: 0, 22: 0.5, 23: 0.5}), "intrinsics are transposed"),
    Case("numbers", "principal point outside", label({18: 1.3}), "lies outside the picture"),
    Case("numbers", "fx : fy of 4 : 3", label({20: FOCAL * 4 / 3}), "fx : fy is 0.750"),
    Case("numbers", "skewed pixels", label({17: 0.4}), "skewed"),
    Case("numbers", "focal length 0", label({16: 0.0, 20: 0.0}), "must be positive"),
    Case("numbers", "negative focal length", label({16: -FOCAL, 20: -FOCAL}), "must be positive"),
    Case("numbers", "six digits only", as_json({"label": [round(value, 6) for value in LABEL]})),
]
