"""Attributions laid over their image: each part on its own scale, or as the authors draw them.

For sizes that can be compared see `diverging`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from dmbp_jax.checks import check_number
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.pictures.maps import check_map, own_scale, seismic, to_picture


def overlay(
    image: Any,
    positive: ArrayLike | None = None,
    negative: ArrayLike | None = None,
    *,
    heatmap: ArrayLike | None = None,
    percentile: float = 99.95,
    alpha: float = 0.7,
) -> Image.Image:
    """Lay an attribution over its image, each part on a scale of its own; zero is white.

    `alpha * seismic(p + n) + (1 - alpha) * image`, where p and n are the means over channels of
    the two parts, each divided by the percentile of its own absolute value and clipped to
    [-1, 1]; a part that is zero or constant adds nothing. It shows places: a negative part that
    is a thousand times weaker is drawn just as dark.

    Args:
      image: the network's crop before normalisation (`net.crop(path)`): a Pillow picture, or an
        array (H, W) or (H, W, 3) of uint8, or of floats in [0, 1].
      positive: (H, W) or (H, W, C); `Attribution.positive`.
      negative: (H, W) or (H, W, C); `Attribution.negative`. One part alone may be given.
      heatmap: (H, W) or (H, W, C), a single signed map (any other method) instead of two parts.
      percentile: in (0, 100].
      alpha: opacity of the colours, in [0, 1].

    Returns:
      RGB picture, W pixels wide and H high.

    Raises:
      InputError: no map, a map besides `heatmap`, different sizes, values that are not finite.
      InputTypeError: neither a picture nor an array of numbers.

    Example:
      >>> import numpy as np
      >>> from dmbp_jax.pictures import overlay
      >>> overlay(np.zeros((4, 6, 3), np.uint8), heatmap=np.eye(4, 6)).size
      (6, 4)

    Ours; `authors_overlay` is the authors' picture. This one subtracts no minimum, so that zero
    stays white, and divides each part by its own percentile instead of both by one maximum.
    """
    picture = check_picture(image)
    parts = {"positive": positive, "negative": negative, "heatmap": heatmap}
    given = {name: part for name, part in parts.items() if part is not None}
    if not given or (heatmap is not None and len(given) > 1):
        raise InputError(
            "overlay: Expected positive, negative or both, or else heatmap alone, "
            f"got {', '.join(given) or 'none of them'}."
        )
    means = _channel_means(picture, given, percentile)
    total = sum((own_scale(mean, percentile) for mean in means), np.zeros(picture.size[::-1]))
    return _blend(picture, total, alpha)


def authors_overlay(
    image: Any,
    positive: ArrayLike,
    negative: ArrayLike,
    *,
    percentile: float = 99.95,
    alpha: float = 0.7,
) -> Image.Image:
    """Lay both parts of an attribution over their image, as the authors draw them.

        p = clip(mean(positive), ±q_p),  n = clip(−mean(negative), ±q_n)
        p ← p − min p,  n ← n − min n,  m = max(max p, max n)
        alpha · seismic((p − n) / m) + (1 − alpha) · image

    with means over channels and q the percentile of each part's own absolute value. The common
    maximum m keeps the parts comparable: a weak negative part stays pale.

    Args:
      image: as for `overlay`.
      positive: (H, W) or (H, W, C); `Attribution.positive`.
      negative: (H, W) or (H, W, C); `Attribution.negative`, with its sign.
      percentile: in (0, 100].
      alpha: opacity of the colours, in [0, 1].

    Returns:
      RGB picture, W pixels wide and H high. Two constant parts are drawn white.

    Raises:
      InputError: different sizes, values that are not finite, numbers outside their range.
      InputTypeError: neither a picture nor an array of numbers.

    Example:
      >>> import numpy as np
      >>> from dmbp_jax.pictures import authors_overlay
      >>> image, positive = np.zeros((4, 6, 3), np.uint8), np.eye(4, 6)
      >>> authors_overlay(image, positive, -0.25 * positive[::-1], alpha=1).getpixel((0, 0))
      (128, 0, 0)

    Source: the steps of the authors' code. Ours is that the sign of the negative part is turned
    before them, because a part is at least 0 after them: evidence against is then blue. A pixel
    without attribution is white only where both parts have the same minimum; docs/pictures.md
    compares the pictures.
    """
    picture = check_picture(image)
    given = {"positive": positive, "negative": negative}
    parts = _channel_means(picture, given, percentile)
    clipped = [
        np.clip(sign * part, -limit, limit)
        for sign, part in zip((1, -1), parts, strict=True)
        for limit in [np.percentile(np.abs(part), percentile)]
    ]
    # Units do not matter; in units of the largest value no difference below can overflow.
    unit = max(np.abs(part).max() for part in clipped) or 1.0
    for_label, against = (part / unit - (part / unit).min() for part in clipped)
    maximum = max(for_label.max(), against.max()) or 1.0
    return _blend(picture, (for_label - against) / maximum, alpha)


def _channel_means(
    picture: Image.Image, parts: Mapping[str, ArrayLike], percentile: float
) -> list[NDArray[np.float64]]:
    """The parts as checked maps (H, W) of the picture's size."""
    check_number(percentile, "percentile", low=0, high=100, above=True)
    return [check_map(part, name, mean=True, picture=picture) for name, part in parts.items()]


def _blend(picture: Image.Image, values: NDArray[np.float64], alpha: float) -> Image.Image:
    """Colours of values in [-1, 1] over a picture."""
    check_number(alpha, "alpha", low=0, high=1)
    return to_picture(alpha * seismic(values) + (1 - alpha) * np.asarray(picture) / 255)


def check_picture(image: Any) -> Image.Image:
    """A Pillow picture, or an array of uint8 or of floats in [0, 1], as a Pillow RGB picture."""
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
    floats = array.astype(np.float64)
    if not (np.isfinite(floats).all() and floats.min() >= 0 and floats.max() <= 1):
        raise InputError(
            f"image: Expected floats in [0, 1], got values from {floats.min():.4g} to "
            f"{floats.max():.4g}. A preprocessed input cannot be drawn; net.crop(path) can."
        )
    return to_picture(floats)
