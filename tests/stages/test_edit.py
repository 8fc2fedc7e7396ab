"""The edit stage: what is taken over of a retouched picture or an overlay, and where it is."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pmv.errors import InputError
from pmv.generators import EG3DGenerator
from pmv.geometry.camera import Camera
from pmv.pictures.overlay import Placement
from pmv.pipeline.context import Context
from pmv.portrait.photo import crop_tensor
from pmv.stages.edit import EditConfig, EditInputs, EditOutputs, run
from pmv.stages.edit_list import LoadedEdit
from tests.scenes import sphere_view

SIZE = 128
CONFIG = EditConfig()


@pytest.fixture
def context(tiny_generator: EG3DGenerator) -> Context:
    return Context(tiny_generator, torch.device("cpu"), torch.Generator().manual_seed(0), lambda a, b, mask=None: a)


@pytest.fixture
def inputs() -> EditInputs:
    """A noisy photo of a ball, and the same on another background."""
    camera = Camera.orbit(0.0, 0.0)
    _, depth, alpha = sphere_view(camera, 32)
    foreground = sphere_view(camera, SIZE)[2]
    photo = 0.3 * torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).clamp(-2, 2)
    original = torch.where(foreground > 0, photo, torch.ones_like(photo))
    return EditInputs(photo, (), original, foreground, camera, depth, alpha)


def edited(inputs: EditInputs, context: Context, *edits: LoadedEdit) -> EditOutputs:
    return run(replace(inputs, photo_edits=edits), CONFIG, context)


def painted(base: Tensor, columns: slice = slice(60, 72)) -> Tensor:
    picture = base.clone()
    picture[:, :, 50:60, columns] = torch.tensor([-0.9, -0.9, 0.9])[:, None, None]
    return picture


def logo(at: tuple[float, float] = (0.5, 0.5), size: float = 0.2, **more: Any) -> LoadedEdit:
    return LoadedEdit("logo.png", torch.full((1, 3, 9, 9), 0.9), placement=Placement(at, size, **more))


def test_without_edits_nothing_changes(inputs: EditInputs, context: Context):
    same = LoadedEdit("same.png", inputs.photo + 0.01)
    for out in (edited(inputs, context), edited(inputs, context, same)):
        assert torch.equal(out.image, inputs.original) and not out.edit_mask.any() and out.edited == 0


@pytest.mark.parametrize("base", ["photo", "original"])
def test_an_edit_is_taken_over_and_nothing_else(inputs: EditInputs, context: Context, base: str):
    edit = painted(getattr(inputs, base))
    out = edited(inputs, context, LoadedEdit("edit.png", edit))
    assert (out.image[:, :, 50:60, 60:72] - edit[:, :, 50:60, 60:72]).abs().max() < 1e-6
    assert out.edit_mask[:, :, 50:60, 60:72].min() == 1 and out.edited > 120 / inputs.foreground.sum()
    reach = (out.edit_mask > 0)[0, 0].nonzero()
    assert reach.min() >= 45 and reach.max() <= 77
    untouched = (out.edit_mask == 0).expand_as(edit)
    assert torch.equal(out.image[untouched], inputs.original[untouched])


def test_a_transparent_edit_lies_over_the_picture(inputs: EditInputs, context: Context):
    alpha = torch.zeros(1, 1, SIZE, SIZE)
    alpha[..., 50:60, 60:72] = 1
    out = edited(inputs, context, LoadedEdit("edit.png", torch.full_like(inputs.photo, 0.9), alpha))
    assert (out.image[:, :, 50:60, 60:72] == 0.9).all() and out.edit_mask.sum() < 300


def test_a_paint_mask_says_what_is_taken_over(inputs: EditInputs, context: Context):
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., 60:66] = 1
    out = edited(inputs, context, LoadedEdit("edit.png", painted(inputs.original), mask=mask))
    assert torch.equal(out.edit_mask, mask)
    assert (out.image[0, 2, 50:60, 60:66] == 0.9).all()
    assert torch.equal(out.image[..., 66:], inputs.original[..., 66:])


def test_a_retouched_photo_goes_through_the_crop(inputs: EditInputs, context: Context):
    """A photo of which a turned and shrunk part was cropped: the edit lands where the crop takes it."""
    photo = torch.nn.functional.interpolate(inputs.photo[..., :64, :64], (300, 400), mode="bilinear")
    crop = torch.tensor([[0.4, 0.1, -10.0], [-0.1, 0.4, 20.0]])
    photo = ((photo + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    cropped = replace(inputs, photo=photo, crop=crop)
    retouched = photo.clone()
    retouched[:, :, 180:200, 200:220] = 250
    original = crop_tensor(cropped.photo, crop, SIZE)
    out = edited(replace(cropped, original=original), context, LoadedEdit("edit.png", retouched))
    column, row = (crop @ torch.tensor([210.0, 190.0, 1.0])).tolist()
    rows, columns = (out.edit_mask[0, 0] > 0.5).nonzero().float().unbind(1)
    assert abs(float(rows.mean()) + 0.5 - row) < 0.7 and abs(float(columns.mean()) + 0.5 - column) < 0.7
    assert (out.image[0, :, int(row), int(column)] - (250 / 127.5 - 1)).abs().max() < 0.02 and len(rows) < 250


def test_edits_stack_in_their_order(inputs: EditInputs, context: Context):
    """A retouch of the original leaves what lies beside it; a later overlay covers it, an earlier one is covered."""
    retouch, over = LoadedEdit("edit.png", painted(inputs.original, slice(60, 80))), logo((0.5, 0.43), 0.1)
    under = edited(inputs, context, over, retouch)
    upper = edited(inputs, context, retouch, over)
    assert (under.image[0, 2, 50:60, 60:72] == 0.9).all() and (under.image[0, 0, 52:58, 60:68] == -0.9).all()
    assert (upper.image[0, 0, 52:58, 60:68] - 0.9).abs().max() < 1e-6
    assert torch.equal(under.edit_mask, upper.edit_mask)
    # a picture that was retouched with the overlay on it changes the retouch alone
    again = edited(inputs, context, over, LoadedEdit("edit.png", painted(edited(inputs, context, over).image)))
    first = edited(inputs, context, over)
    far = (slice(None), slice(None), slice(None), slice(80, None))
    assert torch.equal(again.image[far], first.image[far])


@pytest.mark.parametrize("follow_surface", [False, True])
def test_an_overlay_is_in_the_picture_and_in_the_mask(inputs: EditInputs, context: Context, follow_surface: bool):
    out = edited(inputs, context, logo((0.55, 0.45), follow_surface=follow_surface))
    assert (out.image[:, :, 48:68, 60:80] - 0.9).abs().max() < 1e-5 and out.edit_mask[..., 48:68, 60:80].min() == 1
    untouched = (out.edit_mask == 0).expand_as(out.image)
    assert torch.equal(out.image[untouched], inputs.original[untouched]) and untouched.float().mean() > 0.9


def test_what_cannot_be_laid_is_refused(inputs: EditInputs, context: Context):
    small, big = torch.zeros(1, 3, 99, 99), torch.zeros(1, 1, 200, 130)
    for edit, message in [
        (LoadedEdit("edit.png", small), r"edit\.png is 99×99 pixels; make it 128×128"),
        (LoadedEdit("edit.png", inputs.photo, mask=big), r"paint mask of the edit edit\.png is 130×200"),
        (logo((0.02, 0.03), 0.02), r"logo\.png at 0\.02,0\.03 does not touch the head"),
        (logo((0.02, 0.03), 0.9, follow_surface=True), r"logo\.png: .*does not lie on the head"),
    ]:
        with pytest.raises(InputError, match=message):
            edited(inputs, context, edit)
