"""The edit stage: what is taken over of a retouched picture, and where it is."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pmv.errors import InputError
from pmv.generators import EG3DGenerator
from stages.context import Context
from stages.edit import EditConfig, EditInputs, EditOutputs, run

SIZE = 128
CONFIG = EditConfig()


@pytest.fixture
def context(tiny_generator: EG3DGenerator) -> Context:
    return Context(tiny_generator, torch.device("cpu"), torch.Generator().manual_seed(0), lambda a, b, mask=None: a)


@pytest.fixture
def inputs() -> EditInputs:
    """A noisy photo, and the same on another background."""
    photo = 0.3 * torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).clamp(-2, 2)
    original = photo.clone()
    original[..., :30] = 1.0
    return EditInputs(photo, None, original)


def edited(inputs: EditInputs, context: Context, **given: Any) -> EditOutputs:
    return run(replace(inputs, **given), CONFIG, context)


def painted(base: Tensor) -> Tensor:
    picture = base.clone()
    picture[:, :, 50:60, 60:72] = torch.tensor([-0.9, -0.9, 0.9])[:, None, None]
    return picture


def test_without_edits_nothing_changes(inputs: EditInputs, context: Context):
    out = edited(inputs, context)
    assert torch.equal(out.image, inputs.original) and not out.edit_mask.any()
    out = edited(inputs, context, photo_edit=inputs.photo + 0.01)
    assert torch.equal(out.image, inputs.original) and not out.edit_mask.any()


@pytest.mark.parametrize("base", ["photo", "original"])
def test_an_edit_is_taken_over_and_nothing_else(inputs: EditInputs, context: Context, base: str):
    edit = painted(getattr(inputs, base))
    out = edited(inputs, context, photo_edit=edit)
    assert (out.image[:, :, 50:60, 60:72] - edit[:, :, 50:60, 60:72]).abs().max() < 1e-6
    assert out.edit_mask[:, :, 50:60, 60:72].min() == 1
    reach = (out.edit_mask > 0)[0, 0].nonzero()
    assert reach.min() >= 45 and reach.max() <= 77
    untouched = (out.edit_mask == 0).expand_as(edit)
    assert torch.equal(out.image[untouched], inputs.original[untouched])


def test_an_edit_of_another_size_is_refused(inputs: EditInputs, context: Context):
    with pytest.raises(InputError, match="edit is 99×99 pixels; make it 128×128"):
        edited(inputs, context, photo_edit=torch.zeros(1, 3, 99, 99))
