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
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
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


def png(bits: int, colour: int, row: bytes, width: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of one row, written by hand; `chunks` come before the pixels."""
    head = struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def pixels(path: Path, data: bytes) -> list[int]:
    """Red of the first row of a file with these bytes."""
    path.write_bytes(data)
    return np.asarray(open_image(path))[0, :, 0].tolist()


TRANSPARENT = {  # colour type, bits -> pixels of one row, the one that is transparent, the picture
    "grey 1": (1, 0, b"\x50", (1,), [0, 255, 0, 255]),
    "grey 2": (2, 0, b"\x1b", (1,), [0, 255, 170, 255]),
    "grey 4": (4, 0, b"\x05\xaf", (5,), [0, 255, 170, 255]),
    "grey 8": (8, 0, b"\x00\x05\x50\xff", (5,), [0, 255, 80, 255]),
    "grey 16": (16, 0, struct.pack(">4H", 0, 1285, 1286, 65535), (1285,), [0, 255, 5, 255]),
    "colour 8": (8, 2, bytes(range(12)), (3, 4, 5), [0, 255, 6, 9]),
    "colour 16": (16, 2, struct.pack(">12H", *range(0, 12000, 1000)), (3000, 4000, 5000),
                  [0, 255, 6000 >> 8, 9000 >> 8]),
}  # fmt: skip


@pytest.mark.parametrize("case", TRANSPARENT.values(), ids=TRANSPARENT)
def test_the_transparent_colour_of_a_png_at_every_depth(tmp_path: Path, case) -> None:
    bits, colour, row, clear, expected = case
    chunk = b"tRNS", struct.pack(f">{len(clear)}H", *clear)
    assert pixels(tmp_path / "a.png", png(bits, colour, row, 4, chunk)) == expected


def test_large_texts_and_profiles_of_a_png_are_not_read(tmp_path: Path) -> None:
    large = zlib.compress(bytes(3 * 2**20))
    texts = [
        *[(b"tEXt", b"k\0" + b"x" * 2**21), (b"zTXt", b"k\0\0" + large)],
        *[(b"iTXt", b"k\0\1\0\0\0" + large), (b"iCCP", b"p\0\0" + large)],
    ]
    assert pixels(tmp_path / "a.png", png(8, 0, b"\1\2", 2, *texts)) == [1, 2]
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = exif.tobytes()
    turned = b"Raw profile type exif\0\0" + zlib.compress(
        b"\nexif\n%8d\n" % len(raw) + raw.hex().encode()
    )
    (tmp_path / "b.png").write_bytes(png(8, 0, b"\1\2", 2, (b"zTXt", turned)))
    assert open_image(tmp_path / "b.png").size == (1, 2)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_white_as_zero(tmp_path: Path, compression: str | None) -> None:
    """A TIFF of 16 bits is its twin of 8."""
    values = np.array([[0, 257, 4 * 257, 65535]], np.uint16)
    for white_is_zero in (1, 0):
        tags = {262: 1 - white_is_zero}
        Image.fromarray(values).save(tmp_path / "16.tif", tiffinfo=tags, compression=compression)
        shown = np.asarray(open_image(tmp_path / "16.tif"))[0, :, 0]
        twin = (values // 257).astype(np.uint8)[0]
        assert shown.tolist() == (255 - twin if white_is_zero else twin).tolist()
    raw = (values // 257).astype(np.uint8)  # Pillow turns 8 bits round when it writes, too
    Image.fromarray(raw).save(tmp_path / "8.tif", tiffinfo={262: 0}, compression=compression)
    assert np.asarray(open_image(tmp_path / "8.tif"))[0, :, 0].tolist() == raw[0].tolist()


def tiff(bits: int, row: bytes, **tags: int) -> bytes:
    """A TIFF of one row of four grey pixels, written by hand."""
    known = {256: 4, 257: 1, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(row)}
    known |= {int(tag[1:]): value for tag, value in tags.items()}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, known[tag]) for tag in sorted(known))
    head = b"II*\0" + struct.pack("<I", 8 + len(row)) + row
    return head + struct.pack("<H", len(known)) + directory + bytes(4)


def test_tiffs_of_every_depth(tmp_path: Path) -> None:
    path, wide = tmp_path / "a.tif", struct.pack("<4H", 0, 1285, 20560, 65535)
    assert pixels(path, tiff(2, b"\x1b")) == [0, 85, 170, 255]
    assert pixels(path, tiff(4, b"\x05\xaf")) == [0, 85, 170, 255]
    assert pixels(path, tiff(12, b"\xff\xf8\x00\x00\x0f\xff")) == [255, 128, 0, 255]
    assert pixels(path, tiff(16, wide)) == [0, 5, 80, 255]
    assert pixels(path, tiff(2, b"\x1b", _262=0)) == [255, 170, 85, 0]
    assert pixels(path, tiff(16, wide, _262=0)) == [255, 250, 175, 0]
    for unknown in (
        tiff(16, wide, _339=2),
        tiff(12, b"\0" * 6, _262=0),
        tiff(32, bytes(16), _339=3),
    ):
        with pytest.raises(ImageError, match=r"unknown|does not decode"):
            pixels(path, unknown)


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
