"""Pictures of every depth become 8 bits, with their transparent colour; PNG and TIFF by hand."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmbp_jax.data import open_image
from dmbp_jax.errors import ImageError


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


def test_fits_is_read_where_its_numbers_are_pixels(tmp_path: Path) -> None:
    """Numbers of 16 bits are signed there, with a scale in the head that Pillow does not read."""

    def fits(bits: int, row: bytes) -> bytes:
        cards = ["SIMPLE  =                    T", f"BITPIX  = {bits:20d}", f"NAXIS   = {2:20d}"]
        cards += [f"NAXIS1  = {4:20d}", f"NAXIS2  = {1:20d}", "END"]
        return "".join(card.ljust(80) for card in cards).encode().ljust(2880) + row.ljust(2880)

    assert pixels(tmp_path / "a.fits", fits(8, b"\0\x05\x50\xff")) == [0, 5, 80, 255]
    for bits, kind in ((16, "h"), (32, "i"), (-32, "f")):
        with pytest.raises(ImageError, match="range of brightness is unknown"):
            pixels(tmp_path / "a.fits", fits(bits, struct.pack(f">4{kind}", 0, 1, 2, 3)))


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
        tiff(8, b"\x80\xff\0\x7f", _339=2),
        tiff(12, b"\0" * 6, _262=0),
        tiff(32, bytes(16), _339=3),
    ):
        with pytest.raises(ImageError, match=r"unknown|does not decode"):
            pixels(path, unknown)
