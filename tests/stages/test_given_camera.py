"""A camera that was given: refused where its numbers cannot be the photo's, doubted where the photo says otherwise."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import pmv.stages.prepare
from pmv.errors import InputError, PhotoError
from pmv.generators import EG3DGenerator, load_generator
from pmv.generators.base import GeneratorSpec
from pmv.geometry.camera import Camera
from pmv.pictures.images import read_bytes, read_mask
from pmv.pipeline.context import Context
from pmv.portrait.align import USUAL_ERROR, Aligned
from pmv.stages.camera_against_photo import MeanHead, describe, hold_against_photo, overlap
from pmv.stages.camera_search import CameraSearchConfig
from pmv.stages.camera_world import check_world, conventions, is_ordinary, sight
from pmv.stages.prepare import PrepareConfig, PrepareInputs, PrepareOutputs, _landmarked, run
from tests.conftest import ROOT
from tests.inputs_table import check_section

PORTRAITS = ROOT / "assets" / "portraits"
TRUTH = Camera.load(PORTRAITS / "dataset.json", "plain.png")
SPEC = GeneratorSpec("eg3d", 256, 64, 8, 25, 8, 4, 0.75, None, None, full_head=True, background=0.0, has_alpha=True)
"""The embedded generator's, as far as cameras go."""


def posed(change: Callable[[Tensor], Tensor], camera: Camera = TRUTH) -> Camera:
    return Camera(change(camera.cam2world.clone()), camera.intrinsics)


def flipped(*signs: float) -> Tensor:
    return torch.diag(torch.tensor([*signs, 1.0]))


def scaled(factor: float) -> Camera:
    def change(pose: Tensor) -> Tensor:
        pose[:, :3, 3] *= factor
        return pose

    return posed(change)


def zoomed(factor: float) -> Camera:
    return Camera(TRUTH.cam2world, TRUTH.intrinsics * torch.tensor([[factor, 1, 1], [1, factor, 1], [1, 1, 1]]))


def moved(right: float, down: float = 0.0) -> Camera:
    def change(pose: Tensor) -> Tensor:
        pose[:, :3, 3] += right * pose[:, :3, 0] + down * pose[:, :3, 1]
        return pose

    return posed(change)


def turned(yaw: float, pitch: float = 0.0) -> Camera:
    return TRUTH.turned(math.radians(yaw), math.radians(pitch))


def transposed(pose: Tensor) -> Tensor:
    pose[:, :3, :3] = pose[:, :3, :3].mT.clone()
    return pose


Z_UP = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
OPENGL = flipped(1, -1, -1)
MIRROR = flipped(-1, 1, 1)


@dataclass(frozen=True)
class Case:
    """A camera for plain.png.

    Attributes:
        kind, what: as docs/inputs.md names it.
        told: part of the refusal, or of the warning; None = nothing is said.
        refused: whether it is a refusal.
    """

    kind: str
    what: str
    camera: Camera
    told: str | None
    refused: bool = False


# what the numbers alone tell
NUMBERS = [
    Case("another convention", "OpenGL axes", posed(lambda m: m @ OPENGL), "it looks like OpenGL axes", True),
    Case("another convention", "world-to-camera", posed(torch.linalg.inv), "it looks like world-to-camera", True),
    Case("another convention", "OpenGL axes and z up", posed(lambda m: Z_UP @ m @ OPENGL), "OpenGL axes (", True),
    Case(
        "another convention",
        "world-to-camera with OpenGL axes",
        posed(lambda m: torch.linalg.inv(m @ OPENGL)),
        "world-to-camera (invert it) and OpenGL axes",
        True,
    ),
    Case(
        "another convention",
        "z up and another scale",
        posed(lambda m: Z_UP @ m, scaled(5)),
        "a world with z up (turn it until y is up) and another world's scale: it stands 13.5 away",
        True,
    ),
    Case("scale and place", "10 times as far", scaled(10), "another world's scale: it stands 27 away", True),
    Case("scale and place", "4 times as far", scaled(4), "another world's scale: it stands 10.8 away", True),
    Case(
        "scale and place", "0.37 times as far (radius 1)", scaled(1 / 2.7), "another world's scale: it stands 1", True
    ),
    Case("scale and place", "0.1 times as far", scaled(0.1), "10 times as large as in the generator's pictures", True),
    Case("scale and place", "1 unit to the side", moved(1.0), "it looks past the head", True),
    Case("scale and place", "a focal length of 50 mm (1.39)", zoomed(1.39 / 4.2647), "0.33 times as large", True),
    Case("scale and place", "a focal length of 12", zoomed(12 / 4.2647), "2.8 times as large", True),
]
# what the photo tells
PICTURE = [
    Case("the photo's own", "as labelled", TRUTH, None),
    Case("the photo's own", "a focal length of 4.53 (Deep3D)", zoomed(4.53125 / 4.2647), None),
    Case("another convention", "a world with z up", posed(lambda m: Z_UP @ m), "a world with z up", True),
    Case("another convention", "a world with y down", posed(lambda m: OPENGL @ m), "a world with y down", True),
    Case("another convention", "a face along −z", posed(lambda m: flipped(-1, 1, -1) @ m), "along −z", True),
    Case("another convention", "a transposed rotation", posed(transposed), "it looks like a transposed rotation"),
    Case("another convention", "upside down", posed(lambda m: m @ flipped(-1, -1, 1)), "upside-down picture", True),
    Case("another direction", "mirrored", posed(lambda m: MIRROR @ m @ MIRROR), "mirrored left to right?"),
    Case("another direction", "40° of yaw", turned(40), "the mean head is more like the photo from yaw +8°"),
    Case("another direction", "another row of the file (−60°, 17°)", turned(-68, 15), "more like the photo from"),
    Case("scale and place", "1.25 times as far", scaled(1.25), "outline is rather that of a head seen from yaw +8°"),
    Case("scale and place", "0.75 times as far", scaled(0.75), "the foreground's outline is rather"),
    Case("scale and place", "a focal length of 2.9 (EG3D's uncut picture)", zoomed(0.6835), "outline is rather"),
    Case("scale and place", "a focal length of 6.4", zoomed(1.5), "outline is rather"),
    Case("scale and place", "0.1 to the side", moved(0.1), "middle at 0."),
    Case("scale and place", "0.2 to the side", moved(0.2), "middle at 0."),
    Case("scale and place", "0.2 down", moved(0.0, 0.2), "the foreground's outline is rather"),
    Case("scale and place", "0.29 to the side", moved(0.29), "overlap by 0.", True),
]


@pytest.fixture(autouse=True)
def without_landmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the face networks see in a picture is not what is tried here."""
    monkeypatch.setattr(pmv.stages.prepare, "find_faces", lambda photo: [])


@pytest.fixture(scope="module")
def embedded() -> EG3DGenerator:
    return load_generator("heads")


@pytest.fixture(scope="module")
def mean(embedded: EG3DGenerator) -> MeanHead:
    """The mean head, seen from the front; other views are `seen_from`."""
    w = embedded.mean_w()
    planes = embedded.planes(w)
    return MeanHead(w, planes, embedded.render(planes, w, embedded.spec.canonical_camera))


def context_of(generator: EG3DGenerator) -> Context:
    return Context(generator, torch.device("cpu"), torch.Generator().manual_seed(0), lambda a, b, mask=None: a)


def plain() -> tuple[Tensor, Tensor]:
    """Photo in [-1,1] on the generator's background, and foreground."""
    photo, mask = read_bytes(PORTRAITS / "plain.png")[0], read_mask(PORTRAITS / "plain_mask.png")
    return (photo.float() / 127.5 - 1) * mask, mask


class Judge:
    """Holds cameras against plain.png, each once."""

    def __init__(self, generator: EG3DGenerator, mean: MeanHead) -> None:
        self.generator, self.mean, self.known = generator, mean, {}
        self.photo, self.mask = plain()

    def __call__(self, camera: Camera, told: Aligned | None = None) -> tuple[float | None, str]:
        """The confidence, None where it is refused, and what is said."""
        lines: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: lines.append(record.getMessage())
        log = logging.getLogger("pmv")
        log.addHandler(handler)
        try:
            view = self.generator.render(self.mean.planes, self.mean.w, camera)
            head = replace(self.mean, view=view)
            arguments = (camera, head, self.photo, self.mask, told, CameraSearchConfig())
            return hold_against_photo(*arguments, context_of(self.generator)), "; ".join(lines)
        except InputError as error:
            return None, str(error)
        finally:
            log.removeHandler(handler)

    def case(self, case: Case) -> tuple[float | None, str]:
        if case.what not in self.known:
            self.known[case.what] = self(case.camera)
        return self.known[case.what]


@pytest.fixture(scope="module")
def judge(embedded: EG3DGenerator, mean: MeanHead) -> Judge:
    return Judge(embedded, mean)


@pytest.mark.parametrize("case", NUMBERS, ids=[case.what for case in NUMBERS])
def test_numbers_alone(case: Case):
    with pytest.raises(InputError) as caught:
        check_world(case.camera, SPEC)
    assert case.told is not None and case.told in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("case", PICTURE, ids=[f"{case.kind}: {case.what}" for case in PICTURE])
def test_against_the_photo(judge: Judge, case: Case):
    confidence, said = judge.case(case)
    assert len(said.splitlines()) <= 1
    if case.told is None:
        assert (confidence, said) == (1.0, "")
    elif case.refused:
        assert confidence is None and case.told in said
    else:
        assert confidence is not None and confidence < 0.5 and case.told in said
        assert describe(sight(case.camera, SPEC)) in said, "both cameras are told"


def test_the_page_tells_every_camera(judge: Judge, write: bool):
    rows = []
    for case in sorted(NUMBERS + PICTURE, key=lambda case: case.kind):
        if case in NUMBERS:
            with pytest.raises(InputError) as caught:
                check_world(case.camera, SPEC)
            rows.append((case.kind, case.what, f"refused: {caught.value}"))
            continue
        confidence, said = judge.case(case)
        said = said.removeprefix("prepare: ")
        rows.append((case.kind, case.what, f"refused: {said}" if confidence is None else said or "taken"))
    check_section("given", rows, write)


def test_the_embedded_generator_is_what_the_numbers_were_tried_on(embedded: EG3DGenerator):
    names = ("box", "near", "far", "radius", "pivot", "focal", "full_head", "background", "has_alpha")
    assert all(getattr(embedded.spec, name) == getattr(SPEC, name) for name in names)


@pytest.mark.parametrize("yaw, pitch", [pytest.param(70, -10, marks=pytest.mark.slow), (180, 5)])
def test_other_heads_keep_their_cameras(embedded: EG3DGenerator, mean: MeanHead, yaw: float, pitch: float):
    """Also from behind, which no portrait shows but a full head may."""
    camera = embedded.spec.orbit(math.radians(yaw), math.radians(pitch))
    z = torch.randn(1, embedded.spec.z_dim, generator=torch.Generator().manual_seed(abs(yaw)))
    w = embedded.map(z, camera)
    photo = embedded.render(embedded.planes(w), w, camera)
    mask = torch.nn.functional.interpolate(photo.alpha, photo.image.shape[-1], mode="bilinear").clamp(0, 1)
    head = replace(mean, view=embedded.render(mean.planes, mean.w, camera))
    config, context = CameraSearchConfig(), context_of(embedded)
    assert hold_against_photo(camera, head, photo.image.clamp(-1, 1), mask, None, config, context) == 1.0


def landmarked(camera: Camera, error: float = USUAL_ERROR) -> Aligned:
    nothing: Any = None
    return Aligned(nothing, nothing, nothing, camera, error, nothing)


def test_landmarks_have_the_last_word_on_the_direction(judge: Judge):
    assert judge(TRUTH, landmarked(turned(10)))[0] == 1.0
    confidence, said = judge(TRUTH, landmarked(turned(30)))
    assert confidence is not None and confidence < 0.1
    assert "(yaw +8°, pitch +2°)" in said and "the face's landmarks say yaw +38°, pitch +2°" in said
    assert judge(TRUTH, landmarked(turned(30), error=15.0))[0] == 1.0, "landmarks of a profile say little"
    mirrored = posed(lambda m: MIRROR @ m @ MIRROR, turned(20))
    assert "mirrored left to right? the face's landmarks say" in judge(turned(20), landmarked(mirrored))[1]
    upside_down = posed(lambda m: OPENGL @ m)
    confidence, said = judge(upside_down, landmarked(TRUTH))
    assert confidence is None and "read as a world with y down" in said


def test_overlaps_find_back_scale_and_shift():
    x = torch.linspace(0, 1, 64)
    disc = lambda u, v, r: (((x[None] - u) ** 2 + (x[:, None] - v) ** 2) < r * r).float()[None, None]  # noqa: E731
    same = overlap(disc(0.5, 0.5, 0.25), disc(0.5, 0.5, 0.25))
    assert same.iou == pytest.approx(1.0) and (same.scale, same.right, same.down) == (1.0, 0.0, 0.0)
    found = overlap(disc(0.5, 0.5, 0.2), disc(0.6, 0.45, 0.25))
    assert found.iou < 0.6 < 0.9 < found.best
    assert (found.scale, found.right, found.down) == pytest.approx((1.25, 0.1, -0.05), abs=1e-6)


def test_generators_without_a_silhouette_or_a_usual_view_are_asked_less(embedded: EG3DGenerator, mean: MeanHead):
    """Cars look anywhere; EG3D's faces have their surroundings in the volume."""
    photo, mask = plain()
    behind = posed(lambda m: flipped(-1, 1, -1) @ m)
    head = replace(mean, view=embedded.render(mean.planes, mean.w, behind))
    cars = CameraSearchConfig(prior_weight=0.0)
    assert hold_against_photo(behind, head, photo, mask, None, cars, context_of(embedded)) == 1.0
    check_world(Camera.orbit(3.0, 1.2), SPEC)  # seen from above and behind: no numbers are wrong
    with pytest.raises(InputError, match=r"but 2\.25 to 3\.3 away is what is drawn"):
        clipped = replace(SPEC, near=2.25, far=3.3)
        far = Camera.orbit(0.0, 0.0, radius=4.0, focal=4.2647 * 4 / 2.7)
        check_world(far, clipped)


def test_what_is_ordinary():
    assert is_ordinary(TRUTH, SPEC)
    for camera in (posed(lambda m: Z_UP @ m), scaled(2), moved(0.5), turned(120), posed(lambda m: OPENGL @ m)):
        assert not is_ordinary(camera, SPEC)
    names = [name for name, _ in conventions(posed(lambda m: m @ OPENGL), SPEC)]
    assert names[0] == "OpenGL axes (negate the second and third column)", "the simplest first"
    seen = sight(TRUTH, SPEC)
    assert (seen.u, seen.v, seen.size) == pytest.approx((0.5, 0.5, 1.0), abs=1e-3)
    assert (seen.yaw, seen.pitch, seen.roll) == pytest.approx((8.0, 2.0, 0.0), abs=0.01)


# --- through the stage


def prepared(generator: EG3DGenerator, camera: Camera, **changes: Any) -> PrepareOutputs:
    photo, mask = read_bytes(PORTRAITS / "plain.png")[0], read_mask(PORTRAITS / "plain_mask.png")
    return run(PrepareInputs(photo, mask, camera), PrepareConfig(**changes), context_of(generator))


def test_the_stage_keeps_a_right_camera_and_doubts_a_wrong_one(embedded: EG3DGenerator, caplog):
    with caplog.at_level("WARNING", "pmv"):
        right = prepared(embedded, TRUTH)
        assert right.camera_confidence == 1.0 and not caplog.records
        wrong = prepared(embedded, scaled(1.25))
    assert wrong.camera_confidence < 0.1 and len(caplog.records) == 1
    assert torch.equal(wrong.label_camera.labels(), scaled(1.25).labels()), "it is taken all the same"
    assert torch.equal(right.original, wrong.original)


def test_the_stage_asks_for_landmarks_where_there_are_any(embedded: EG3DGenerator, monkeypatch, caplog):
    monkeypatch.setattr(pmv.stages.prepare._People, "seen", lambda picture: pmv.stages.prepare._People(None))
    monkeypatch.setattr(pmv.stages.prepare, "find_faces", lambda photo: [object()])
    monkeypatch.setattr(pmv.stages.prepare, "align", lambda *_: landmarked(turned(50)))
    with caplog.at_level("WARNING", "pmv"):
        assert prepared(embedded, TRUTH).camera_confidence < 0.05
    assert "the face's landmarks say yaw +58°" in caplog.text


def test_landmarks_are_none_where_there_is_no_face_or_nobody_asks(embedded: EG3DGenerator, monkeypatch):
    photo = read_bytes(PORTRAITS / "plain.png")[0]
    given, context = PrepareInputs(photo, None, TRUTH), context_of(embedded)

    def refuse(*_: Any) -> Aligned:
        raise PhotoError("the face is blurred; give a sharper photo")

    assert _landmarked(given, PrepareConfig(), context, 64) is None
    monkeypatch.setattr(pmv.stages.prepare, "find_faces", lambda photo: [object()])
    monkeypatch.setattr(pmv.stages.prepare, "align", refuse)
    assert _landmarked(given, PrepareConfig(), context, 64) is None
    monkeypatch.setattr(pmv.stages.prepare, "align", lambda *_: landmarked(TRUTH))
    assert _landmarked(given, PrepareConfig(), context, 64) is not None
    assert _landmarked(given, PrepareConfig(align="never"), context, 64) is None
