"""The authors' picture: both parts of an attribution in `seismic`, laid over the image.

Each part is scaled by itself here; for sizes that can be compared see `diverging`.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.pictures.colours import seismic
from dmbp_jax.pictures.maps import check_map, check_percentile, own_scale, to_picture


def overlay(
    image: Any,
    positive: ArrayLike | None = None,
    negative: ArrayLike | None = None,
    *,
    heatmap: ArrayLike | None = None,
    percentile: float = 99.95,
    alpha: float = 0.7,
) -> Image.Image:
    """Lay an attribution over its image, as the authors' code draws it.

    `alpha * seismic(p + n) + (1 - alpha) * image`, where p and n are the means over channels of
    the two parts, each divided by the percentile of its own absolute value and clipped to
    [-1, 1]; a part that is zero or constant adds nothing.

    Args:
      image: the picture the network saw, without normalisation (`net.crop(path)`): a Pillow
        picture, or an array (H, W) or (H, W, 3) of uint8, or of floats in [0, 1].
      positive: (H, W) or (H, W, C); `Attribution.positive`.
      negative: (H, W) or (H, W, C); `Attribution.negative`. One part alone may be given.
      heatmap: (H, W) or (H, W, C), a single signed map (any other method) instead of two parts.
      percentile: in (0, 100].
      alpha: opacity of the colours, in [0, 1].

    Returns:
      RGB picture, W pixels wide and H high.

    Raises:
      InputError: no map, a map besides `heatmap`, different sizes, values that are not finite.
      InputTypeError: something that is no picture or no array of numbers.

    Example:
      >>> import numpy as np
      >>> from dmbp_jax.pictures import overlay
      >>> overlay(np.zeros((4, 6, 3), np.uint8), heatmap=np.eye(4, 6)).size
      (6, 4)

    Source: the authors' code. They colour through a table of 256 entries in which no entry is
    white; here zero is exactly white.
    """
    picture = check_picture(image)
    parts = {"positive": positive, "negative": negative, "heatmap": heatmap}
    given = {name: part for name, part in parts.items() if part is not None}
    if not given or (heatmap is not None and len(given) > 1):
        raise InputError(
            "overlay: Expected positive, negative or both, or else heatmap alone, "
            f"got {', '.join(given) or 'none of them'}."
        )
    check_percentile(percentile)
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha: Expected 0 <= alpha <= 1, got {alpha}.")
    total = np.zeros(picture.size[::-1])
    for name, part in given.items():
        heat = check_map(part, name, "mean")
        check_same_size(picture, heat, name)
        total += own_scale(heat, percentile)
    return to_picture(alpha * seismic(total) + (1 - alpha) * np.asarray(picture) / 255)


def check_picture(image: Any) -> Image.Image:
    """A Pillow picture, or an array of uint8 or of floats in [0, 1], as a Pillow RGB picture.

    Raises:
      InputTypeError: neither a picture nor an array of uint8 or floats.
      InputError: wrong shape, or floats outside [0, 1] (a preprocessed network input).
    """
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    array = np.asarray(image)
    if array.dtype != np.uint8 and array.dtype.kind not in "fV":  # V: bfloat16
        raise InputTypeError(
            "image: Expected a Pillow picture, or an array of uint8 or of floats in [0, 1], "
            f"got {type(image).__name__} ({array.dtype})."
        )
    if array.ndim not in (2, 3) or 0 in array.shape or array.shape[2:] not in ((), (1,), (3,)):
        raise InputError(f"image: Expected shape (H, W) or (H, W, 3), got {array.shape}.")
    if array.ndim == 2:
        array = array[..., None]
    array = np.broadcast_to(array, (*array.shape[:2], 3))
    if array.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(array))
    floats = check_unit_range(array.astype(np.float64))
    return to_picture(floats)


def check_unit_range(floats: NDArray[np.float64]) -> NDArray[np.float64]:
    """Refuse floats outside [0, 1]: most likely a normalised network input."""
    if not (np.isfinite(floats).all() and floats.min() >= 0 and floats.max() <= 1):
        raise InputError(
            f"image: Expected floats in [0, 1], got values from {floats.min():.4g} to "
            f"{floats.max():.4g}. A preprocessed input is no picture; net.crop(path) is."
        )
    return floats


def check_same_size(picture: Image.Image, heat: NDArray[np.float64], name: str) -> None:
    """Refuse a map that does not lie on the picture pixel by pixel."""
    if heat.shape != picture.size[::-1]:
        raise InputError(
            f"{name}: Expected the size of the image, {picture.size[::-1]}, got {heat.shape}. "
            "net.crop(path) is the picture exactly as the network sees it."
        )
