"""Pictures of every kind become upright RGB; bad files are one error that names them."""

import os
import struct
import zlib
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from dmbp_jax.data import open_image
from dmbp_jax.data.decoding import read_image
from dmbp_jax.errors import ImageError, InputTypeError


def noise(height: int = 12, width: int = 20) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "RGBA", "LA", "PA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    picture = open_image(noise().convert(mode))
    assert picture.mode == "RGB" and picture.size == (20, 12)


def test_rgb_pixels_are_untouched_and_copied(tmp_path: Path) -> None:
    original = noise()
    original.save(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "a.png")), np.asarray(original))
    result = open_image(original)
    result.putpixel((0, 0), (1, 2, 3))
    assert result is not original and original.getpixel((0, 0)) != (1, 2, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_once(tmp_path: Path, orientation: int) -> None:
    pixels = np.zeros((12, 20, 3), np.uint8)
    pixels[:4, :5] = (255, 0, 0)  # red corner
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    # The table of the EXIF standard: what to do to show the stored rows and columns upright.
    upright = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(pixels, 1),
    }
    once = open_image(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(once), upright[orientation])
    np.testing.assert_array_equal(np.asarray(open_image(once)), upright[orientation])


def test_alpha_lies_over_white(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (3, 2), (200, 0, 0, 0))
    picture.putpixel((1, 0), (200, 0, 0, 255))
    picture.putpixel((2, 0), (0, 0, 0, 51))  # a fifth
    for name in ("a.png", "a.webp"):
        picture.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
        result = open_image(tmp_path / name)
        assert [result.getpixel((i, 0)) for i in range(3)] == [
            (255, 255, 255),
            (200, 0, 0),
            (204, 204, 204),
        ]


def test_transparent_palette_lies_over_white(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1), 0)
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "a.gif", transparency=0)
    result = open_image(tmp_path / "a.gif")
    assert result.getpixel((0, 0)) == (255, 255, 255)
    assert result.getpixel((1, 0)) == (40, 50, 60)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    assert np.asarray(open_image(tmp_path / f"a.{suffix}"))[0, :, 1].tolist() == [0, 1, 128, 255]


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert open_image(tmp_path / "a.gif").getpixel((2, 2)) == (255, 0, 0)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    red, green, blue = open_image(tmp_path / "a.jpg").getpixel((4, 4))
    assert red > 240 and green < 15 and blue < 15


def test_bad_files_are_named_with_their_reason(tmp_path: Path) -> None:
    noise(64, 64).save(tmp_path / "good.jpg")
    whole = (tmp_path / "good.jpg").read_bytes()
    bad = {
        "empty.jpg": (b"", "empty"),
        "truncated.jpg": (whole[: len(whole) // 2], "truncated"),
        "text.jpg": (b"hello, I am text" * 20, "not a picture"),
        "script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    }
    for name, (content, reason) in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=f"{name}.*{reason}"):
            open_image(tmp_path / name)
    with pytest.raises(ImageError, match=r"absent\.jpg: no such file"):
        open_image(str(tmp_path / "absent.jpg"))
    with pytest.raises(ImageError, match="not a file"):
        open_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="not a file"):
        open_image(tmp_path / "pipe.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "webp", "tif"])
def test_damaged_bytes_raise_nothing_but_image_error(tmp_path: Path, suffix: str) -> None:
    noise(16, 16).save(tmp_path / f"good.{suffix}")
    whole = (tmp_path / f"good.{suffix}").read_bytes()
    rng = np.random.default_rng(1)
    for trial in range(40):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[rng.integers(0, len(whole), 6)] = rng.integers(0, 256, 6)
        path = tmp_path / f"{trial}.{suffix}"
        path.write_bytes(damaged[: rng.integers(1, len(whole))].tobytes())
        try:
            assert open_image(path).mode == "RGB"
        except ImageError as error:
            assert path.name in str(error)


def test_large_pictures_are_refused_before_decoding(tmp_path: Path) -> None:
    Image.new("1", (1, 1)).save(tmp_path / "bomb.png")
    data = bytearray((tmp_path / "bomb.png").read_bytes())
    data[16:24] = struct.pack(">II", 20_000, 20_000)  # the size, whose pixels are not there
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(ImageError, match=r"bomb\.png: too large"):
        open_image(tmp_path / "bomb.png")
    with pytest.raises(ImageError, match="too large: Expected at most 100 pixels, got 20 x 12"):
        open_image(noise(), max_pixels=100)


def test_values_without_a_range_are_refused() -> None:
    with pytest.raises(ImageError, match="floating-point"):
        open_image(Image.fromarray(np.ones((2, 2), np.float32)))
    with pytest.raises(ImageError, match="16-bit"):
        open_image(Image.fromarray(np.full((2, 2), 70_000, np.int32)))


def test_wrong_type() -> None:
    with pytest.raises(InputTypeError, match="source: Expected a path or a Pillow image, got int"):
        open_image(3)  # pyrefly: ignore[bad-argument-type]


def test_lab(tmp_path: Path) -> None:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    picture = Image.new("RGB", (2, 2), (200, 30, 60))
    lab = ImageCms.profileToProfile(picture, *profiles, outputMode="LAB")
    lab.save(tmp_path / "a.tif")
    for source in (lab, tmp_path / "a.tif"):
        difference = np.asarray(open_image(source)).astype(int) - np.asarray(picture)
        assert np.abs(difference).max() <= 2


def test_a_mode_that_pillow_cannot_turn_into_rgb_is_our_error() -> None:
    with pytest.raises(ImageError, match="image: corrupt: conversion"):
        open_image(Image.new("La", (2, 2)))


@pytest.mark.parametrize(
    "suffix", ["jfif", "jp2", "qoi", "dds", "sgi", "pcx", "tga", "apng", "mpo"]
)
def test_formats_and_truncations(tmp_path: Path, suffix: str) -> None:
    """What is left of a cut file is the whole picture, or an error; never half of it."""
    path = tmp_path / f"a.{suffix}"
    noise(24, 24).save(path)
    whole, data = np.asarray(open_image(path)), path.read_bytes()
    for cut in (len(data) // 2, len(data) - 200, len(data) - 5, len(data) - 1):
        path.write_bytes(data[:cut])
        try:
            np.testing.assert_array_equal(np.asarray(open_image(path)), whole)
        except ImageError as error:
            assert path.name in str(error)


def test_the_hash_is_that_of_the_bytes_that_were_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    noise().save(path)
    data, read = path.read_bytes(), Path.read_bytes

    def replaced_afterwards(one: Path) -> bytes:
        content = read(one)
        one.write_bytes(b"another picture")
        return content

    monkeypatch.setattr(Path, "read_bytes", replaced_afterwards)
    picture, digest = read_image(path)
    assert digest == sha256(data).hexdigest()
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(noise()))
