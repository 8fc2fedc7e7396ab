"""The identity network: dlib's own numbers, gradients, what it says of people and views.

`tests/data/identity_golden.npz` holds what dlib 20.0.1 computes for one of its own chips of `plain`, and for the chips
that bilinear cropping by five points gives of `plain` and `tattoo`.
"""

import math

import numpy as np
import pytest
import torch

from pmv import data_path
from pmv.errors import AssetsError
from pmv.fitting.identity import (
    SAME_PERSON,
    Jitter,
    describe,
    frontal_weight,
    identity_distance,
    identity_loss,
    load_identity,
)
from pmv.geometry.camera import Camera
from pmv.pictures.chips import face_chips
from pmv.pictures.images import read_image
from pmv.portrait.five_points import anchor_points, camera_points
from tests.conftest import ROOT

PORTRAITS = ("plain", "tattoo")


@pytest.fixture(scope="module")
def network():
    return load_identity()


@pytest.fixture(scope="module")
def golden():
    with np.load(ROOT / "tests" / "data" / "identity_golden.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def portrait(name: str) -> torch.Tensor:
    image, _ = read_image(data_path("assets", "portraits", f"{name}.png"))
    return image


def points_of(golden, i: int, side: int = 512) -> torch.Tensor:
    # dlib's landmarks are pixel centres
    return (golden["points"][i : i + 1] + 0.5) / side


def test_descriptor_is_dlibs(network, golden):
    """Largest difference of any of 128 numbers 4e-4 and a distance of 2e-3, from rounding the weights to fp16; 0.6 is
    what tells people apart."""
    chip = golden["chip"].permute(2, 0, 1)[None].float() / 127.5 - 1
    found = network(chip)[0]
    assert (found - golden["descriptor"]).abs().max() < 1e-3
    assert (found - golden["descriptor"]).norm() < 5e-3


@pytest.mark.parametrize("i", [0, 1], ids=PORTRAITS)
def test_crops_from_points_and_from_the_camera_alone(network, golden, i):
    image = portrait(PORTRAITS[i])
    found = network(face_chips(image, points_of(golden, i)))
    # 6e-3: the reference's chip was rounded to bytes
    assert identity_distance(found, golden["descriptors"][i : i + 1]).item() < 0.015
    camera = Camera.load(data_path("assets", "portraits", "dataset.json"), f"{PORTRAITS[i]}.png")
    blind = network(face_chips(image, camera_points(camera, anchor_points("heads"))))
    # 0.09 and 0.17
    assert identity_distance(found, blind).item() < 0.25
    assert identity_distance(blind, golden["descriptors"][1 - i][None]).item() > SAME_PERSON


def test_target_of_many_looks_is_near_the_exact_crop_and_repeatable(network, golden):
    image, points = portrait("plain"), points_of(golden, 0)
    target = describe(network, image, points, looks=3)
    assert torch.equal(target, describe(network, image, points, looks=3))
    assert 0 < identity_distance(target, describe(network, image, points, looks=0)).item() < 0.2


def test_loss_reaches_the_image_at_every_call_through_another_crop(network, golden):
    image = portrait("plain").requires_grad_(True)
    points, target = points_of(golden, 0), golden["descriptors"][1:]
    generator = torch.Generator().manual_seed(0)
    values = [identity_loss(network, image, points, target, generator) for _ in range(2)]
    assert values[0].shape == (1,) and values[0].item() != values[1].item()
    values[0].sum().backward()
    gradient = image.grad
    assert gradient is not None and gradient.isfinite().all()
    # the chip covers two fifths of the picture, and all of it counts
    assert 0.2 < (gradient != 0).float().mean() < 0.6
    with torch.no_grad():
        start = identity_loss(network, image, points, target, torch.Generator().manual_seed(1), looks=2)
        step = image - 0.02 * gradient.sign()
        assert identity_loss(network, step, points, target, torch.Generator().manual_seed(1), looks=2) < start


def test_gradients_are_right(network):
    double = load_identity().double()
    generator = torch.Generator().manual_seed(0)
    image = (torch.rand(1, 3, 40, 40, generator=generator, dtype=torch.float64) - 0.5).requires_grad_(True)
    points = torch.tensor([[[0.7, 0.4], [0.6, 0.42], [0.3, 0.41], [0.42, 0.4], [0.5, 0.62]]], dtype=torch.float64)
    points.requires_grad_(True)
    chips = face_chips(image, points)
    value = double(chips).square().sum()
    gradients = torch.autograd.grad(value, [image, points])
    for of, gradient in zip((image, points), gradients):
        direction = torch.randn(of.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            h = 1e-8  # relu and bilinear sampling have kinks everywhere
            moved = [
                double(face_chips(*(x + s * h * direction if x is of else x for x in (image, points)))).square().sum()
                for s in (1, -1)
            ]
        assert ((moved[0] - moved[1]) / (2 * h)).item() == pytest.approx((gradient * direction).sum().item(), rel=1e-3)


def test_distance_is_euclidean_with_no_slope_at_zero():
    a = torch.zeros(2, 128, requires_grad=True)
    b = torch.zeros(2, 128)
    b[1, :4] = 0.5
    distance = identity_distance(a, b)
    assert distance.tolist() == [0.0, 1.0]
    distance.sum().backward()
    assert a.grad is not None and a.grad.isfinite().all() and not a.grad[0].any()


def test_identity_counts_from_the_front_only():
    yaw = torch.tensor([0.0, -29.0, 37.5, -46.0, 180.0]).deg2rad()
    assert frontal_weight(Camera.orbit(yaw, 0.2)).tolist() == pytest.approx([1.0, 1.0, 0.5, 0.0, 0.0], abs=1e-4)


def test_jitter_stays_in_its_bounds_and_hangs_on_its_generator_alone():
    jitter, like = Jitter(turn=0.1, scale=0.1, shift=0.02), torch.zeros(1)
    matrix, shift = jitter.draw(200, torch.Generator().manual_seed(3), like)
    again, _ = jitter.draw(200, torch.Generator().manual_seed(3), like)
    assert torch.equal(matrix, again)
    size = torch.linalg.det(matrix).sqrt()
    angle = torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0])
    assert size.log().abs().max() <= 0.1 + 1e-6 and angle.abs().max() <= 0.1 + 1e-6 and shift.abs().max() <= 0.02
    assert size.std() > 0.03 and angle.std() > 0.03 and shift.std() > 0.005


def test_wrong_chips_and_damaged_weights_are_refused(network, tmp_path):
    with pytest.raises(ValueError, match="150"):
        network(torch.zeros(1, 3, 112, 112))
    file = tmp_path / "face.safetensors"
    with pytest.raises(AssetsError, match=str(file)):
        load_identity(path=file)
    file.write_bytes(b"no weights at all")
    with pytest.raises(AssetsError, match=str(file)):
        load_identity(path=file)


def test_descriptors_have_the_length_that_the_network_is_known_for(network, golden):
    length = network(face_chips(portrait("plain"), points_of(golden, 0))).norm().item()
    assert 1.2 < length < 1.7 and math.isfinite(length)
