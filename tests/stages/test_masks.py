"""What a user may give as a mask or an alpha channel, on a synthetic portrait that lies somewhere in a photo: believed
where it can be a foreground, left out with a word, or refused.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pmv.errors import InputError
from pmv.generators import EG3DGenerator
from pmv.pictures.images import read_bytes, read_mask
from pmv.pipeline.context import Context
from pmv.portrait.belonging import FacePlace, moved, own_part
from pmv.portrait.landmarks import detect_faces
from pmv.portrait.matte import find_matte
from pmv.portrait.photo import sample
from pmv.stages.latent import check_ood_share
from pmv.stages.prepare import PrepareConfig, PrepareInputs, PrepareOutputs, _believed, _People, run
from pmv.stages.sources import PhotoSources
from tests.conftest import ROOT

PORTRAITS = ROOT / "assets" / "portraits"
WIDTH, HEIGHT, LEFT, TOP = 900, 700, 330, 110
SIZE = 128


def portrait(name: str = "plain") -> np.ndarray:
    return np.asarray(Image.open(PORTRAITS / f"{name}.png").convert("RGB"))


def white(name: str = "plain") -> np.ndarray:
    return np.asarray(Image.open(PORTRAITS / f"{name}_mask.png").convert("L"))


def wall(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    small = np.random.default_rng(1).integers(70, 200, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def pasted(canvas: np.ndarray, left: int, top: int, name: str = "plain", side: int = 512) -> np.ndarray:
    """The portrait cut out into a copy of the canvas; bool [H,W], where it lies."""
    there = np.zeros(canvas.shape[:2], np.float32)
    x, y = max(left, 0), max(top, 0)
    right, bottom = min(left + side, canvas.shape[1]), min(top + side, canvas.shape[0])
    inner = (slice(y - top, bottom - top), slice(x - left, right - left))
    there[y:bottom, x:right] = cv2.resize(white(name), (side, side), interpolation=cv2.INTER_AREA)[inner] / 255
    picture = np.zeros_like(canvas)
    picture[y:bottom, x:right] = cv2.resize(portrait(name), (side, side), interpolation=cv2.INTER_AREA)[inner]
    canvas[:] = (canvas * (1 - there[..., None]) + picture * there[..., None]).round().astype(np.uint8)
    return there > 0.5


CANVAS = wall()
HEAD = pasted(CANVAS, LEFT, TOP)
MASK = HEAD.astype(np.uint8) * 255


@pytest.fixture
def context(tiny_generator: EG3DGenerator) -> Context:
    rng = torch.Generator().manual_seed(0)
    return Context(tiny_generator, torch.device("cpu"), rng, lambda a, b, mask=None: a)


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("pmv").propagate = True


CONFIG = PrepareConfig(crop="heads", resolution=SIZE, composite="never")
MATRIX = SIZE / 512 * np.array([[1.0, 0, -LEFT], [0, 1, -TOP]])
PICTURE = sample(CANVAS, MATRIX, SIZE)


@pytest.fixture(scope="module")
def people() -> _People:
    return _People.seen(PICTURE)


def prepare(context: Context, photo: Path, mask: Path | None = None) -> PrepareOutputs:
    values = PhotoSources(photo, mask).read()
    return run(PrepareInputs(values["photo"], values["photo_mask"], None), CONFIG, context)


def likeness(foreground: Tensor, matrix: np.ndarray, truth: np.ndarray = HEAD) -> float:
    """Intersection over union of a foreground and the truth, in the aligned picture."""
    wanted = sample(truth.astype(np.float32), matrix, SIZE) > 0.5
    found = foreground[0, 0].numpy() > 0.5
    return float((wanted & found).sum() / (wanted | found).sum())


def rounded() -> np.ndarray:
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.rectangle(alpha, (60, 0), (WIDTH - 60, HEIGHT), 255, -1)
    cv2.rectangle(alpha, (0, 60), (WIDTH, HEIGHT - 60), 255, -1)
    for x in (60, WIDTH - 60):
        for y in (60, HEIGHT - 60):
            cv2.circle(alpha, (x, y), 60, 255, -1)
    return alpha


def filled(value: int) -> Callable[[], np.ndarray]:
    return lambda: np.full((HEIGHT, WIDTH), value, np.uint8)


def one_pixel() -> np.ndarray:
    alpha = filled(255)()
    alpha[0, 0] = 0
    return alpha


def border() -> np.ndarray:
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[8:-8, 8:-8] = 255
    return alpha


def elsewhere() -> np.ndarray:
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[300:600, 20:160] = 255
    return alpha


def half() -> np.ndarray:
    """Only the left half of the face."""
    alpha = MASK.copy()
    alpha[:, LEFT + 256 :] = 0
    return alpha


LEFT_OUT = "; a foreground is found instead"
ALPHAS: dict[str, tuple[Callable[[], np.ndarray], str]] = {
    "the head": (lambda: MASK, ""),
    "the head, soft": (lambda: cv2.GaussianBlur(MASK, (0, 0), 3), ""),
    "the head at 200 of 255": (lambda: (MASK * (200 / 255)).astype(np.uint8), ""),
    "rounded corners": (rounded, "leaves out next to nothing (0.0 % of the head's picture)" + LEFT_OUT),
    "one transparent pixel": (one_pixel, "leaves out next to nothing"),
    "254 everywhere": (filled(254), "leaves out next to nothing"),
    "200 everywhere": (filled(200), "leaves out next to nothing"),
    "a thin border": (border, "leaves out next to nothing"),
    "inverted": (lambda: 255 - MASK, "leaves the face out; it looks inverted"),
    "upside down": (lambda: MASK[::-1, ::-1], "turned as the file stores the photo"),
    "mirrored": (lambda: MASK[:, ::-1], "turned as the file stores the photo"),
    "something else": (elsewhere, "leaves the face out" + LEFT_OUT),
    "nearly nothing": (filled(1), "leaves the face out" + LEFT_OUT),
    "half of the face": (half, "leaves the face out" + LEFT_OUT),
}


@pytest.mark.parametrize("name", ALPHAS)
def test_an_alpha_channel_is_believed_or_left_out(people: _People, caplog: pytest.LogCaptureFixture, name: str):
    make, told = ALPHAS[name]
    alpha = torch.from_numpy(np.ascontiguousarray(make()))[None, None]
    foreground = _believed(alpha, PICTURE, None, MATRIX, people, CONFIG)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == (1 if told else 0) and all(told in line for line in warnings)
    assert (foreground is None) == bool(told)
    if foreground is not None:
        assert likeness(foreground, MATRIX) > 0.95
        assert foreground[0, 0, SIZE // 2, SIZE // 2] > 0.99, "the face is opaque"


@pytest.mark.parametrize("make", [rounded, filled(200)])
def test_a_foreground_is_found_where_an_alpha_channel_is_none(
    context: Context, tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Callable[[], np.ndarray]
):
    Image.fromarray(np.dstack([CANVAS, make()])).save(tmp_path / "a.png")
    out = prepare(context, tmp_path / "a.png")
    assert likeness(out.foreground, out.crop.double().numpy()) > 0.95
    assert "alpha channel leaves out next to nothing" in caplog.text


MASKS: dict[str, tuple[Callable[[], np.ndarray], str, str]] = {
    "the head": (lambda: MASK, "", ""),
    "the head in grey": (lambda: (MASK * 0.6).astype(np.uint8), "", ""),
    "rounded corners": (rounded, "leaves out next to nothing", ""),
    "a thin border": (border, "leaves out next to nothing", ""),
    "inverted": (lambda: 255 - MASK, "", "leaves the face out; it looks inverted: white is the head"),
    "upside down": (lambda: MASK[::-1, ::-1], "", "turned as the file stores the photo, not as it is seen"),
    "mirrored": (lambda: MASK[:, ::-1], "", "turned as the file stores the photo"),
    "something else": (elsewhere, "", "leaves the face out; paint the head white"),
    "half of the face": (half, "", "leaves the face out; paint the head white"),
    "head and half the room": (
        lambda: np.maximum(MASK, np.tile((np.arange(WIDTH) < 600) * np.uint8(255), (HEIGHT, 1))),
        "agrees with the person that pmv sees to",
        "",
    ),
    "empty": (filled(0), "", "the mask is empty"),
    "everything": (filled(255), "", "the mask covers the whole picture"),
    "the photo itself": (lambda: CANVAS[..., 0], "", "is a picture rather than a mask"),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_is_believed_doubted_or_refused(
    people: _People, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
):
    make, doubt, fault = MASKS[name]
    Image.fromarray(np.ascontiguousarray(make())).save(tmp_path / "mask.png")

    def believed() -> Tensor | None:
        return _believed(read_mask(tmp_path / "mask.png"), PICTURE, None, MATRIX, people, CONFIG)

    if fault:
        with pytest.raises(InputError) as caught:
            believed()
        assert fault in str(caught.value) and "\n" not in str(caught.value)
        return
    foreground = believed()
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == (1 if doubt else 0) and all(doubt in line for line in warnings)
    if name in ("rounded corners", "a thin border"):
        assert foreground is None, "and one is found"
    else:  # what is only doubted is taken all the same
        assert foreground is not None and (likeness(foreground, MATRIX) > 0.95) == (not doubt)


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_mask_in_the_orientation_that_the_file_stores_is_told(context: Context, tmp_path: Path, orientation: int):
    turns = {3: 2, 6: 1}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(np.rot90(CANVAS, turns))).save(tmp_path / "a.jpg", exif=exif, quality=95)
    Image.fromarray(MASK).save(tmp_path / "seen.png")
    out = prepare(context, tmp_path / "a.jpg", tmp_path / "seen.png")
    assert likeness(out.foreground, out.crop.double().numpy()) > 0.97
    Image.fromarray(np.ascontiguousarray(np.rot90(MASK, turns))).save(tmp_path / "stored.png")
    message = "turned as the file stores the photo" if orientation == 3 else "make it 900×700, the same frame"
    with pytest.raises(InputError, match=message):
        prepare(context, tmp_path / "a.jpg", tmp_path / "stored.png")


def test_masks_with_an_alpha_channel_that_says_nothing_go_by_their_brightness(tmp_path: Path):
    grey = np.repeat(MASK[..., None], 3, 2)
    for name, alpha in {"opaque": filled(255)(), "rounded": rounded()[::1], "one": one_pixel()}.items():
        Image.fromarray(np.dstack([grey, alpha])).save(tmp_path / f"{name}.png")
        assert torch.equal(read_mask(tmp_path / f"{name}.png") > 0.5, torch.from_numpy(HEAD)[None, None]), name
    Image.fromarray(np.dstack([CANVAS, MASK])).save(tmp_path / "cut.png")
    assert torch.equal(read_mask(tmp_path / "cut.png") > 0.5, torch.from_numpy(HEAD)[None, None])


def disc(x: float, y: float, radius: float) -> Tensor:
    v, u = torch.meshgrid(*(torch.linspace(0, 1, 64),) * 2, indexing="ij")
    return ((u - x) ** 2 + (v - y) ** 2 < radius**2).float()[None, None]


@pytest.mark.parametrize(
    "mask, told",
    [
        (torch.zeros(1, 1, 64, 64), None),
        (disc(0.6, 0.5, 0.05), None),
        (disc(0.5, 0.5, 0.2), None),
        (1 - disc(0.6, 0.5, 0.05), "covers 97 % of the head: is it inverted"),
        (1 - disc(0.2, 0.2, 0.05), "is it inverted"),
        (disc(0.5, 0.5, 0.4), "covers 100 % of the head"),
        (disc(0.5, 0.5, 0.27), "of the head: is it inverted"),
        (disc(0.05, 0.05, 0.04), "marks nothing of the head"),
    ],
)
def test_masks_of_what_the_generator_cannot_draw(caplog: pytest.LogCaptureFixture, mask: Tensor, told: str | None):
    head = disc(0.5, 0.5, 0.3)
    if told and told.startswith("marks"):
        check_ood_share(mask, head)
        assert told in caplog.text
    elif told:
        with pytest.raises(InputError, match=told):
            check_ood_share(mask, head)
    else:
        check_ood_share(mask, head)
        assert not caplog.records


# --- what of a matte belongs to the chosen face


def crowd() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two people whose heads touch, and where each of them lies."""
    canvas = wall(640, 900)
    back = pasted(canvas, 380, 130, "tattoo")
    front = pasted(canvas, 70, 120, "plain")
    return canvas, front, back & ~front


@pytest.mark.parametrize("chosen", [0, 1])
def test_somebody_beside_the_chosen_face_is_left_out(context: Context, tmp_path: Path, chosen: int):
    canvas, *people = crowd()
    Image.fromarray(canvas).save(tmp_path / "a.png")
    values = PhotoSources(tmp_path / "a.png").read()
    faces = detect_faces(canvas)
    assert len(faces) == 2
    number = 1 + [face.box[0] > 350 for face in faces].index(bool(chosen))
    config = PrepareConfig(crop="heads", resolution=SIZE, composite="never", face=number)
    out = run(PrepareInputs(values["photo"], None, None), config, context)
    matrix = out.crop.double().numpy()
    assert likeness(out.foreground, matrix, people[chosen]) > 0.85
    other = sample(people[1 - chosen].astype(np.float32), matrix, SIZE) > 0.5
    picture = (out.original[0].permute(1, 2, 0).numpy() + 1) * 127.5
    raw = find_matte(picture.round().astype(np.uint8))
    assert raw[other].mean() > 0.6, "the matte alone holds both"
    assert out.foreground[0, 0].numpy()[other].mean() < 0.35


def test_three_in_a_row_and_one_without_a_face_in_the_picture():
    canvas = wall(640, 1200)
    pasted(canvas, -60, 130, "tattoo")
    pasted(canvas, 700, 130, "tattoo")
    own = pasted(canvas, 330, 120, "plain")
    faces = sorted(detect_faces(canvas), key=lambda face: face.box[0])
    assert len(faces) == 3
    matrix = np.array([[0.4, 0, -586 * 0.4 + 128], [0, 0.4, -376 * 0.4 + 128]])
    picture = cv2.warpAffine(canvas, matrix, (256, 256), flags=cv2.INTER_AREA)
    matte = find_matte(picture)
    places = [moved(face, matrix, 256) for face in faces]
    kept = own_part(picture, matte, places[1], [places[0], places[2]])
    wanted = cv2.warpAffine(own.astype(np.float32), matrix, (256, 256)) > 0.5
    assert kept[~wanted].mean() < 0.35 * matte[~wanted].mean() and kept[wanted].mean() > 0.95


def shape(*parts: tuple[str, float, float, float, float]) -> np.ndarray:
    """float32 [256,256] of ellipses (x, y, half width, half height) and boxes (left, top, right, bottom)."""
    v, u = (np.mgrid[0:256, 0:256] + 0.5) / 256
    found = np.zeros((256, 256), bool)
    for kind, a, b, c, d in parts:
        if kind == "ellipse":
            found |= ((u - a) / c) ** 2 + ((v - b) / d) ** 2 < 1
        else:
            found |= (u > a) & (v > b) & (u < c) & (v < d)
    return found.astype(np.float32)


PERSON = (("ellipse", 0.5, 0.45, 0.18, 0.26), ("box", 0.42, 0.65, 0.58, 0.85), ("box", 0.2, 0.8, 0.8, 1.0))
THINGS = {
    "a hand at the border": ("box", 0.0, 0.2, 0.12, 1.0),
    "a chair's back": ("box", 0.74, 0.3, 0.86, 1.0),
    "an arm over the shoulder": ("box", 0.05, 0.35, 0.25, 0.95),
    "somebody who turns away": ("ellipse", 0.9, 0.4, 0.13, 0.2),
}


@pytest.mark.parametrize("name", THINGS)
def test_things_beside_the_head_are_left_out(name: str):
    thing = shape(THINGS[name]) > 0.5
    person = shape(*PERSON) > 0.5
    joined = shape(("box", 0.0, 0.9, 1.0, 1.0)) > 0.5
    picture = np.full((256, 256, 3), 90, np.uint8)
    picture[thing] = (190, 150, 120)
    picture[person | joined] = (60, 70, 130)
    matte = (thing | person | joined).astype(np.float32)
    kept = own_part(picture, matte, FacePlace(0.5, 0.47, 0.34), [])
    assert kept[thing & ~person & ~joined].mean() < 0.1 and kept[person].mean() > 0.97


@pytest.mark.parametrize(
    "extra",
    [(), (("ellipse", 0.5, 0.4, 0.45, 0.35),), (("box", 0.15, 0.7, 0.85, 1.0),), (("box", 0.33, 0.3, 0.67, 1.0),)],
)
def test_one_person_alone_stays_as_found_to_the_bit(extra: tuple):
    """Also with much hair, raised shoulders, long hair."""
    matte = shape(*PERSON, *extra)
    picture = np.full((256, 256, 3), 90, np.uint8)
    assert own_part(picture, matte, FacePlace(0.5, 0.47, 0.34), []) is matte
    far = [FacePlace(1.8, 0.4, 0.3)]
    assert own_part(picture, matte, FacePlace(0.5, 0.47, 0.34), far) is matte


@pytest.mark.parametrize("name", ["plain", "tattoo"])
def test_the_demo_portraits_keep_their_masks(context: Context, name: str, caplog: pytest.LogCaptureFixture):
    photo, _ = read_bytes(PORTRAITS / f"{name}.png")
    mask = read_mask(PORTRAITS / f"{name}_mask.png")
    config = PrepareConfig(crop="heads", resolution=512, composite="never", align="never")
    out = run(PrepareInputs(photo, mask, None), config, context)
    assert torch.equal(out.foreground, mask)
    assert not [record for record in caplog.records if "mask" in record.getMessage()]
