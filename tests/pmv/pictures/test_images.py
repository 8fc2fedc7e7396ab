"""Images from disk and back."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from pmv.errors import InputError
from pmv.pictures.images import read_image, read_mask, resize, to_uint8, write_png
from pmv.pictures.sheets import tile


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def test_png_round_trip_is_exact(tmp_path: Path, pixels: np.ndarray):
    write_png(tmp_path / "a.png", pixels)
    image, alpha = read_image(tmp_path / "a.png")
    assert image.shape == (1, 3, 6, 8) and image.dtype == torch.float32 and alpha is None
    assert image.min() >= -1 and image.max() <= 1
    np.testing.assert_array_equal(to_uint8(image)[0], pixels)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]  # no temporary left


def test_exif_orientation_turns_the_picture(tmp_path: Path, pixels: np.ndarray):
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90° clockwise to view"
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    image, _ = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(to_uint8(image)[0], np.rot90(pixels, -1))


def test_alpha_becomes_a_mask_only_where_it_says_something(tmp_path: Path, pixels: np.ndarray):
    alpha = np.full((6, 8, 1), 255, np.uint8)
    Image.fromarray(np.concatenate([pixels, alpha], 2)).save(tmp_path / "opaque.png")
    alpha[:2] = 0
    Image.fromarray(np.concatenate([pixels, alpha], 2)).save(tmp_path / "cut.png")
    assert read_image(tmp_path / "opaque.png")[1] is None
    image, mask = read_image(tmp_path / "cut.png")
    assert mask is not None and mask.shape == (1, 1, 6, 8)
    assert mask[0, 0, :2].max() == 0 and mask[0, 0, 2:].min() == 1
    np.testing.assert_array_equal(to_uint8(image)[0], pixels)
    np.testing.assert_array_equal(read_mask(tmp_path / "cut.png"), mask)


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA", "YCbCr"])
def test_every_mode_becomes_rgb(tmp_path: Path, pixels: np.ndarray, mode: str):
    path = tmp_path / ("a.tiff" if mode in ("CMYK", "YCbCr") else "a.png")
    converted = Image.fromarray(pixels).convert(mode)
    converted.save(path)
    image, _ = read_image(path)
    np.testing.assert_allclose(to_uint8(image)[0], np.asarray(converted.convert("RGB")), atol=1)


def test_sixteen_bits_are_not_clipped(tmp_path: Path):
    grey = np.linspace(0, 65535, 48).round().astype(np.uint16).reshape(6, 8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    image, _ = read_image(tmp_path / "a.png")
    np.testing.assert_allclose(image[0, 0].numpy(), grey / 65535 * 2 - 1, atol=1e-6)


def test_colour_tiffs_of_sixteen_bits_are_read(tmp_path: Path, pixels: np.ndarray):
    cv2.imwrite(str(tmp_path / "deep.tiff"), pixels[:, :, ::-1].astype(np.uint16) * 257)
    image, _ = read_image(tmp_path / "deep.tiff")
    np.testing.assert_allclose(to_uint8(image)[0], pixels, atol=1)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_an_animation_gives_its_first_frame(tmp_path: Path, suffix: str):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue", "lime")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], duration=100)
    image, _ = read_image(tmp_path / f"a.{suffix}")
    assert image.shape == (1, 3, 6, 8) and np.abs(to_uint8(image)[0].astype(int) - [255, 0, 0]).max() < 6


@pytest.mark.parametrize("alpha", [False, True])
def test_colours_are_brought_from_the_files_profile_to_srgb(tmp_path: Path, alpha: bool):
    """A profile in which red and blue have changed places."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in ((b"rXYZ", b"----"), (b"bXYZ", b"rXYZ"), (b"----", b"bXYZ")):
        profile = profile.replace(old, new, 1)
    profile = profile.replace("sRGB".encode("utf-16-be"), "odd ".encode("utf-16-be"))
    picture = Image.new("RGBA" if alpha else "RGB", (8, 6), (255, 0, 0, 90) if alpha else (255, 0, 0))
    picture.save(tmp_path / "odd.png", icc_profile=profile)
    image, mask = read_image(tmp_path / "odd.png")
    assert np.abs(to_uint8(image)[0].astype(int) - [0, 0, 255]).max() < 4
    assert (mask is not None) == alpha
    picture.save(tmp_path / "broken.png", icc_profile=profile[:90])
    assert np.abs(to_uint8(read_image(tmp_path / "broken.png")[0])[0].astype(int) - [255, 0, 0]).max() < 1


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "text", "truncated", "pixel"])
def test_unreadable_images_are_named(tmp_path: Path, pixels: np.ndarray, kind: str):
    path = tmp_path / "a.png"
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("not an image")
    elif kind == "truncated":
        Image.fromarray(np.tile(pixels, (20, 20, 1))).save(path)
        path.write_bytes(path.read_bytes()[:400])
    elif kind == "pixel":
        Image.new("RGB", (1, 1)).save(path)
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0, 255])
def test_masks_that_separate_nothing_are_refused(tmp_path: Path, value: int):
    Image.new("L", (8, 8), value).save(tmp_path / "m.png")
    with pytest.raises(InputError, match="mask"):
        read_mask(tmp_path / "m.png")


def test_resize_keeps_mean_and_range():
    image = (torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) > 0.5).float() * 2 - 1
    small = resize(image, 16)
    assert small.shape == (1, 3, 16, 16)
    assert abs(float(small.mean() - image.mean())) < 0.02
    assert small.std() < 0.5 * image.std()  # antialiased: noise averages out
    assert small.min() >= -1 and small.max() <= 1
    assert resize(image, (64, 64)) is image


def test_sheet_places_every_picture(pixels: np.ndarray):
    black = np.zeros((6, 8, 3), np.uint8)
    sheet = tile([black, pixels, black], columns=2)
    assert sheet.shape == (2 * 6 + 4, 2 * 8 + 4, 3)
    np.testing.assert_array_equal(sheet[:6, 12:20], pixels)
    np.testing.assert_array_equal(sheet[10:, :8], black)
    assert (sheet[10:, 12:] == 255).all()
    labelled = tile([black, pixels], ["one", "two"], columns=2)
    assert labelled.shape[0] > 6 and (labelled[:20] < 128).any()
    with pytest.raises(ValueError, match="labels"):
        tile([black], ["a", "b"])
