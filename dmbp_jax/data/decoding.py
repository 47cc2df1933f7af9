"""From a picture file to an upright 8-bit RGB picture, or one error that says why not.

Everything that reads pictures (networks, datasets, the command line) decodes them here.
"""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from dmbp_jax.errors import ImageError, InputTypeError

MAX_PIXELS = 89_478_485  # Pillow's own limit against decompression bombs

# Pillow would hand EPS files to an external Ghostscript, so formats are named rather than guessed.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "TGA", "ICO")


def open_image(
    source: str | os.PathLike[str] | Image.Image, *, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decode a picture to 8-bit RGB, upright.

    The EXIF rotation is applied (and gone from the result). Transparent pixels are laid over
    white. Greyscale, palette and CMYK pictures become RGB; 16-bit pictures are scaled by 1/257.
    Of an animation, the first frame is taken.

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
        return _upright_rgb(source, "image", max_pixels)
    if not isinstance(source, (str, os.PathLike)):
        raise InputTypeError(
            f"source: Expected a path or a Pillow image, got {type(source).__name__}."
        )
    path = Path(source)
    _check_file(path)
    try:
        with Image.open(path, formats=FORMATS) as picture:
            return _upright_rgb(picture, str(path), max_pixels)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{path}: too large: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(f"{path}: not a picture; Expected one of {', '.join(FORMATS)}.") from error
    except ImageError:
        raise
    except Exception as error:  # decoders meet hostile bytes with nearly any exception
        raise ImageError(f"{path}: {_reason(error)}") from error


def _check_file(path: Path) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file.") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be read: {error}") from error
    if not path.is_file():
        raise ImageError(f"{path}: not a file.")
    if size == 0:
        raise ImageError(f"{path}: empty file.")


def _reason(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if "truncated" in text.lower() else f"corrupt: {text}"


def _upright_rgb(picture: Image.Image, name: str, max_pixels: int) -> Image.Image:
    width, height = picture.size
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: too large: Expected at most {max_pixels} pixels, got {width} x {height}."
        )
    if width * height == 0:
        raise ImageError(f"{name}: Expected at least one pixel, got {width} x {height}.")
    picture.load()
    return _to_rgb(_upright(picture), name)


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # broken EXIF says nothing about the pixels, which were read in full
        return picture


def _to_rgb(picture: Image.Image, name: str) -> Image.Image:
    if picture.mode.startswith("I"):
        picture = _eight_bits(picture, name)
    elif picture.mode == "F":
        raise ImageError(f"{name}: floating-point picture; its range of brightness is unknown.")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")


def _eight_bits(picture: Image.Image, name: str) -> Image.Image:
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(
            f"{name}: Expected 16-bit values, got {values.min()} to {values.max()}; "
            "the range of brightness is unknown."
        )
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))
