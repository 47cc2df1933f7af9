"""From a picture file to an upright 8-bit RGB picture, or one error that says why not.

Everything that reads pictures (networks, datasets, runs, the command line) decodes them here.
"""

import io
import os
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from dmbp_jax.errors import ImageError, InputTypeError

MAX_PIXELS = 89_478_485  # Pillow's own limit against decompression bombs
_MAX_BYTES = 2**30  # of a file; as many pixels of 16 bits and three channels are half of it

# Formats that Pillow knows by name alone, or hands to a program outside, as EPS to Ghostscript.
_OUTSIDE = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}

_TIFF_PHOTOMETRIC, _TIFF_BITS, _TIFF_FORMAT = 262, 258, 339  # tags
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_NEEDED = (b"tRNS", b"eXIf")  # beside the critical chunks
_PNG_ORIENTATION = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")  # texts that may have one
_PNG_TEXT = 2**20  # bytes of such a text


@cache
def find_formats() -> tuple[str, ...]:
    """Names of the formats that Pillow decodes by itself, as `Image.open(formats=)` takes them."""
    Image.init()
    return tuple(sorted(set(Image.OPEN) - _OUTSIDE))


def open_image(
    source: str | os.PathLike[str] | Image.Image, *, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decode a picture to 8-bit RGB, upright.

    The EXIF rotation is applied (and gone from the result). Transparent pixels are laid over
    white. Greyscale, palette, CMYK and Lab pictures become RGB; pictures of 12 or 16 bits are
    scaled to 8. The first frame of an animation is taken.

    Args:
      source: path of a file, or a Pillow image (its current frame is used, it is not changed).
      max_pixels: pictures with more pixels are refused before they are decoded.

    Returns:
      A new Pillow image of mode "RGB".

    Raises:
      ImageError: the file is missing, empty, truncated, too large or not a picture.
      InputTypeError: `source` is neither a path nor a Pillow image.

    Example:
      >>> from PIL import Image
      >>> open_image(Image.new("LA", (4, 3), (0, 0))).getpixel((0, 0))
      (255, 255, 255)
    """
    if isinstance(source, Image.Image):
        try:
            return _upright_rgb(source, max_pixels)
        except Exception as error:
            raise ImageError(f"image: {_reason(error)}") from error
    return read_image(source, max_pixels=max_pixels)[0]


def read_image(
    source: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS
) -> tuple[Image.Image, str]:
    """`open_image` of a file, and the SHA-256 (hexadecimal) of the bytes that were decoded."""
    if not isinstance(source, (str, os.PathLike)):
        raise InputTypeError(
            f"source: Expected a path or a Pillow image, got {type(source).__name__}."
        )
    path = Path(source)
    data = _read(path)
    try:
        stream = io.BytesIO(_without_texts(data) if data.startswith(_PNG) else data)
        with Image.open(stream, formats=find_formats()) as picture:
            return _upright_rgb(picture, max_pixels), sha256(data).hexdigest()
    except Exception as error:  # decoders meet hostile bytes with nearly any exception
        raise ImageError(f"{path}: {_reason(error)}") from error


def _read(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise ImageError(f"{path}: not a file.")
        if path.stat().st_size > _MAX_BYTES:
            raise ImageError(f"{path}: too large: Expected at most {_MAX_BYTES} bytes.")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file.") from error
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{path}: cannot be read: {error}") from error
    if not data:
        raise ImageError(f"{path}: empty file.")
    return data


def _reason(error: Exception) -> str:
    if isinstance(error, ImageError):
        return str(error)
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a picture, or one of a kind that Pillow does not decode."
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"too large: {error}"
    text = str(error) or type(error).__name__
    return text if "truncated" in text.lower() else f"corrupt: {text}"


def _without_texts(data: bytes) -> bytes:
    """A PNG with the chunks that decide its pixels alone.

    Pillow refuses a picture whose texts or colour profile are large, though it shows neither.
    """
    kept, at, kind = [data[: len(_PNG)]], len(_PNG), b""
    while at < len(data) and kind != b"IEND":
        kind = data[at + 4 : at + 8]
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        oriented = end - at < _PNG_TEXT and data.startswith(_PNG_ORIENTATION, at + 8)
        if kind[:1].isupper() or kind in _PNG_NEEDED or oriented:
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _upright_rgb(picture: Image.Image, max_pixels: int) -> Image.Image:
    _check_size(picture, max_pixels)
    tiles = getattr(picture, "tile", None)  # how the pixels are stored; gone once they are read
    stored = str(tiles[0][3]) if tiles else ""
    picture.load()
    _check_size(picture, max_pixels)  # an icon says so only now
    tags = getattr(picture, "tag_v2", {})
    try:
        upright = ImageOps.exif_transpose(picture)
    except Exception:  # broken EXIF says nothing about the pixels, which were read in full
        upright = picture.copy()
    bits, kind = tags.get(_TIFF_BITS, (16,))[0], tags.get(_TIFF_FORMAT, (1,))[0]
    # Pillow reads the signed numbers of a FITS picture as unsigned ones, and no scale.
    signed = (kind == 2 and bits <= 16) or (picture.format == "FITS" and upright.mode != "L")
    if upright.mode == "F" or signed:
        what = "floating-point" if upright.mode == "F" else "signed"
        raise ImageError(f"{what} picture; its range of brightness is unknown.")
    if upright.mode.startswith("I"):
        upright = _eight_bits(upright, 2 ** min(bits, 16) - 1, tags.get(_TIFF_PHOTOMETRIC) == 0)
    elif upright.mode == "LAB":
        upright = _from_lab(upright)
    elif "transparency" in upright.info:
        upright.info["transparency"] = _as_decoded(upright.info["transparency"], stored)
    if upright.has_transparency_data:
        white = Image.new("RGBA", upright.size, "white")
        return Image.alpha_composite(white, upright.convert("RGBA")).convert("RGB")
    return upright.convert("RGB")


def _check_size(picture: Image.Image, max_pixels: int) -> None:
    width, height = picture.size
    if width * height > max_pixels:
        raise ImageError(
            f"too large: Expected at most {max_pixels} pixels, got {width} x {height}."
        )
    if width * height == 0:
        raise ImageError(f"Expected at least one pixel, got {width} x {height}.")


def _eight_bits(picture: Image.Image, white: int, white_is_zero: bool) -> Image.Image:
    """A grey picture with values up to `white`; of PNG, one value may be transparent."""
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > white:
        raise ImageError(
            f"Expected values of {white.bit_length()} bits, got {values.min()} to {values.max()}, "
            "at most 16-bit; the range of brightness is unknown."
        )
    shown = white - values if white_is_zero else values
    grey = Image.fromarray(((shown * 255 + white // 2) // white).astype(np.uint8))
    clear = picture.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def _as_decoded(clear: object, stored: str) -> object:
    """The transparent colour of a PNG in the 8 bits that its pixels were decoded to."""
    if isinstance(clear, int) and stored in ("L;2", "L;4"):
        return clear * {"L;2": 85, "L;4": 17}[stored]
    if isinstance(clear, tuple) and stored == "RGB;16B":  # Pillow keeps the upper 8 bits
        return tuple(value >> 8 for value in clear)
    return clear


def _from_lab(picture: Image.Image) -> Image.Image:
    from PIL import ImageCms  # of the library that Pillow is mostly built with

    profiles = (ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"))
    converted = ImageCms.profileToProfile(picture, *profiles, outputMode="RGB")
    assert converted is not None  # only None when made in place
    return converted
