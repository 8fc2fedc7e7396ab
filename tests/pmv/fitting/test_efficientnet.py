"""EfficientNet-Lite0's features: the published model's numbers, and what the distance built on them does.

`tests/data/efficientnet_golden.npz` holds what the PyTorch model of the package efficientnet-lite-pytorch 0.1.0
computes with the published weights for `plain` at 64 pixels: for each level three pixels, on the border, in the middle
and in the corner, before they are made unit length.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pmv import data_path
from pmv.errors import AssetsError
from pmv.files.artifacts import save_tensors
from pmv.fitting.efficientnet import LEVELS, SOFTNESS, EfficientNetDistance, is_efficientnet, load_efficientnet
from pmv.fitting.features import feature_distance, unit_length
from pmv.fitting.perceptual import identity, load_perceptual
from pmv.pictures.images import read_image
from pmv.training.efficientnet import convert
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def distance():
    return load_efficientnet()


@pytest.fixture(scope="module")
def portrait():
    image, _ = read_image(data_path("assets", "portraits", "plain.png"))
    return F.interpolate(image, size=64, mode="area")


def test_features_are_the_published_models(distance, portrait):
    """Relative error: 4e-6 at most where the weights are kept in fp32 (all levels, 64, 224 and 256 px), up to 1.3e-2
    in the deepest with the weights in fp16; of the shipped levels, below 6e-3."""
    features = distance.features(portrait)
    with np.load(ROOT / "tests" / "data" / "efficientnet_golden.npz") as golden:
        for level, found in zip(LEVELS, features, strict=True):
            side = found.shape[-1]
            some = found[0][:, [0, side // 2, side - 1], [side // 3, side // 2, side - 1]]
            wanted = unit_length(torch.from_numpy(golden[level]).float()[None, ..., None], SOFTNESS)[0, ..., 0]
            assert ((some - wanted).norm() / wanted.norm()).item() < 1e-2, level


def test_levels_halve_and_have_unit_length(distance):
    image = torch.rand(1, 3, 37, 52, generator=torch.Generator().manual_seed(0)) * 2 - 1
    shapes = [tuple(f.shape[1:]) for f in distance.features(image)]
    assert shapes == [(32, 19, 26), (96, 19, 26), (144, 10, 13), (240, 5, 7)]
    for feature in distance.features(image):
        length = feature.norm(dim=1)
        assert length.max() <= 1 + 1e-5 and length.median() > 0.95


def test_features_of_one_picture_are_computed_once(distance, portrait):
    other = portrait.roll(2, -1)
    known = distance.features(other)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :32] = 1
    for where in (None, mask):
        found = feature_distance(distance.features(portrait), known, distance.level_weights, where)
        assert torch.equal(found, distance(portrait, other, where))
    assert distance(portrait, other, torch.zeros_like(mask)).item() == 0


def test_blur_and_displacement_count_more_than_a_little_light(distance, portrait):
    blurred = F.interpolate(F.avg_pool2d(portrait, 4), scale_factor=4.0, mode="bilinear", align_corners=False)
    brighter = portrait + (blurred - portrait).square().mean().sqrt()
    values = [distance(portrait, other).item() for other in (blurred, portrait.roll(2, -1), brighter)]
    assert min(values[:2]) > 2 * values[2] > 0


def test_half_precision_follows_single(distance, portrait):
    other = portrait.roll(2, -1)
    single = distance(portrait, other).item()
    with torch.autocast("cpu", torch.bfloat16):
        assert distance(portrait, other).item() == pytest.approx(single, rel=0.05)


def test_gradient_reaches_every_pixel(distance, portrait):
    a = portrait.clone().requires_grad_(True)
    distance(a, portrait.roll(3, -1)).sum().backward()
    assert a.grad is not None and (a.grad.abs().amax(1) > 0).float().mean() > 0.99


def test_gradcheck():
    double = load_efficientnet().double()
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(1, 3, 32, 32, dtype=torch.float64, generator=generator) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x: double(x, b), a.requires_grad_(), fast_mode=True)


@pytest.mark.slow
def test_exported_whole(distance, portrait):
    """A graph without a break: no branch hangs on a value."""
    program = torch.export.export(distance, (portrait, portrait.roll(1, -1)))
    assert torch.allclose(program.module()(portrait, portrait.roll(2, -1)), distance(portrait, portrait.roll(2, -1)))


def test_folding_is_the_normalised_network():
    """`convert` on a made-up model: its convolutions followed by their normalisations."""
    generator = torch.Generator().manual_seed(0)
    shapes = {f"features.{k}": v.shape for k, v in EfficientNetDistance(["project0"]).features.state_dict().items()}
    published = {}
    for old, new in (("_conv_stem", "stem"), ("_blocks.0._depthwise_conv", "blocks.0.depthwise")):
        published[f"{old}.weight"] = torch.randn(shapes[f"features.{new}.weight"], generator=generator)
    published["_blocks.0._project_conv.weight"] = torch.randn(16, 32, 1, 1, generator=generator)
    for norm, channels in (("_bn0", 32), ("_blocks.0._bn1", 32), ("_blocks.0._bn2", 16)):
        for part in ("weight", "bias", "running_mean", "running_var"):
            published[f"{norm}.{part}"] = torch.rand(channels, generator=generator) + 0.5
    for i in range(1, 16):  # not needed, but there
        for part in ("expand", "depthwise", "project"):
            published[f"_blocks.{i}._{part}_conv.weight"] = torch.zeros(1, 1, 1, 1)
        for norm in range(3):
            for part in ("weight", "bias", "running_mean", "running_var"):
                published[f"_blocks.{i}._bn{norm}.{part}"] = torch.ones(1)
    distance = EfficientNetDistance(["project0"])
    distance.load_state_dict({name: value.float() for name, value in convert(published, ["project0"]).items()})
    image = torch.rand(1, 3, 32, 32, generator=generator) * 2 - 1

    def normalised(x, norm):
        p = {part: published[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")}
        return F.batch_norm(x, p["running_mean"], p["running_var"], p["weight"], p["bias"], eps=1e-3)

    x = F.relu6(normalised(F.conv2d(F.pad(image, (0, 1, 0, 1)), published["_conv_stem.weight"], stride=2), "_bn0"))
    y = F.conv2d(x, published["_blocks.0._depthwise_conv.weight"], padding=1, groups=32)
    y = F.conv2d(F.relu6(normalised(y, "_blocks.0._bn1")), published["_blocks.0._project_conv.weight"])
    wanted = unit_length(normalised(y, "_blocks.0._bn2"), SOFTNESS)
    assert torch.allclose(distance.features(image)[0], wanted, atol=5e-3)


def test_by_name_and_by_file(distance, portrait, tmp_path):
    assert identity("efficientnet") == "efficientnet"
    named = load_perceptual("efficientnet")
    assert named.name == "efficientnet"
    assert torch.equal(named(portrait, portrait.roll(1, -1)), distance(portrait, portrait.roll(1, -1)))
    file = tmp_path / "other.safetensors"
    few = EfficientNetDistance(["stem"])
    save_tensors(file, few.state_dict(), {"levels": ["stem"]})
    other = load_perceptual(str(file))
    assert other.name == f"efficientnet-{identity(str(file))[:8]}"
    assert other(portrait, portrait.roll(1, -1)).item() == pytest.approx(few(portrait, portrait.roll(1, -1)).item())


def test_wrong_files_and_levels_are_refused(tmp_path):
    file = tmp_path / "weights.safetensors"
    for write in (lambda: None, lambda: file.write_bytes(b"nothing"), lambda: save_tensors(file, {}, {"levels": [1]})):
        write()
        with pytest.raises(AssetsError, match=str(file)):
            load_efficientnet(file)
    assert not is_efficientnet(tmp_path / "missing.safetensors")
    for wrong in ([], ["expand0"], ["project16"]):
        with pytest.raises(ValueError, match="levels are"):
            EfficientNetDistance(wrong)
