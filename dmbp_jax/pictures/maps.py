"""A signed map as a plain picture: red for, blue against, white for exactly zero.

Zero is always the centre, so colours keep the sign; only the size of the scale is a choice.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from dmbp_jax.checks import check_number
from dmbp_jax.errors import InputError, InputTypeError

# matplotlib's `seismic`, as the function it samples; its table of 256 skips the white.
_ANCHORS = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
_COLOURS = np.array(
    [[0.0, 0.0, 0.3], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.5, 0.0, 0.0]]
)


def seismic(values: ArrayLike) -> NDArray[np.float64]:
    """Colours of values between -1 and 1; values outside are drawn like the nearest end.

    Piecewise linear through dark blue (-1), blue (-1/2), white (0), red (1/2), dark red (1).

    Args:
      values: finite numbers of any shape.

    Returns:
      RGB in [0, 1], shape (*values.shape, 3).

    Example:
      >>> from dmbp_jax.pictures import seismic
      >>> seismic([-0.5, 0.0, 0.5]).tolist()
      [[0.0, 0.0, 1.0], [1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]
    """
    return np.stack(
        [np.interp(np.asarray(values), _ANCHORS, channel) for channel in _COLOURS.T], axis=-1
    )


def diverging(
    heatmap: ArrayLike, *, vmax: float | None = None, percentile: float = 99.5
) -> Image.Image:
    """Draw one signed map; red is evidence for the label, blue against it, white is zero.

    The colour of a pixel is `seismic(clip(h / vmax, -1, 1))`, with h the sum over channels.

    Args:
      heatmap: (H, W) or (H, W, C), finite; channels are summed.
      vmax: value drawn in the darkest red; None takes this percentile of |h|, or the maximum
        of |h| where so few pixels differ from zero that the percentile is 0. Give the same
        number (see `shared_scale`) to maps that are to be compared.
      percentile: in (0, 100]; only used where `vmax` is None.

    Returns:
      RGB picture, W pixels wide and H high. A map that is zero, or constant and drawn on its
      own scale, is drawn white.

    Raises:
      InputError: a wrong shape, a value that is not finite, vmax <= 0, percentile outside (0, 100].
      InputTypeError: not an array of real numbers.

    Example:
      >>> import numpy as np
      >>> from dmbp_jax.pictures import diverging
      >>> diverging(np.array([[-1.0, 0.0, 1.0]]), percentile=100).getpixel((1, 0))
      (255, 255, 255)
    """
    heat = check_map(heatmap, "heatmap")
    check_number(percentile, "percentile", low=0, high=100, above=True)
    if vmax is None:
        return to_picture(seismic(own_scale(heat, percentile)))
    scale = check_number(float(vmax), "vmax", low=0, above=True)
    return to_picture(seismic(clip_to(heat, scale)))


def shared_scale(maps: Iterable[ArrayLike], *, percentile: float = 99.5) -> float:
    """One `vmax` for several maps: the percentile of |h| over all their pixels together.

    Args:
      maps: arrays (H, W) or (H, W, C), sizes may differ; channels are summed first.
      percentile: in (0, 100].

    Returns:
      A number above 0. The maximum of |h| where the percentile is 0; 1.0 where every map is
      zero (any scale draws those white).

    Raises:
      InputError: no map, or a map that `diverging` refuses.

    Example:
      >>> import numpy as np
      >>> from dmbp_jax.pictures import shared_scale
      >>> shared_scale([np.full((2, 2), -3.0), np.ones((4, 4))], percentile=100)
      3.0
    """
    check_number(percentile, "percentile", low=0, high=100, above=True)
    heats = [check_map(m, f"maps[{i}]") for i, m in enumerate(maps)]
    if not heats:
        raise InputError("maps: Expected at least one map, got none.")
    return magnitude(np.concatenate([np.abs(heat).ravel() for heat in heats]), percentile) or 1.0


def own_scale(heat: NDArray[np.float64], percentile: float) -> NDArray[np.float64]:
    """A checked map divided by the percentile of its own |h|, in [-1, 1]; constant gives 0."""
    scale = magnitude(np.abs(heat), percentile)
    if scale == 0 or heat.min() == heat.max():
        return np.zeros_like(heat)
    return clip_to(heat, scale)


def magnitude(sizes: NDArray[np.float64], percentile: float) -> float:
    """Percentile of |h|, or its maximum where the percentile is 0."""
    return float(np.percentile(sizes, percentile)) or float(sizes.max())


def clip_to(heat: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """`clip(heat / scale, -1, 1)`, clipped first so that a tiny scale cannot overflow."""
    return np.clip(heat, -scale, scale) / scale


def to_picture(rgb: NDArray[np.float64]) -> Image.Image:
    """RGB in [0, 1], (H, W, 3), as a Pillow picture."""
    return Image.fromarray(np.rint(255 * rgb).astype(np.uint8))


def check_map(
    values: ArrayLike, name: str, *, mean: bool = False, picture: Image.Image | None = None
) -> NDArray[np.float64]:
    """A map as finite float64 (H, W), its channels summed or averaged, of the picture's size."""
    try:
        raw = np.asarray(values)
        if np.iscomplexobj(raw):
            raise TypeError("complex numbers")
        array = raw.astype(np.float64)  # covers bfloat16, which NumPy's reductions do not know
    except (TypeError, ValueError) as error:
        raise InputTypeError(f"{name}: Expected an array of real numbers, got {error}.") from error
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise InputError(
            f"{name}: Expected one map of shape (H, W) or (H, W, C), got {array.shape}."
        )
    if array.ndim == 3:
        with np.errstate(over="ignore", invalid="ignore"):  # refused just below, as not finite
            array = array.mean(axis=-1) if mean else array.sum(axis=-1)
    if not np.isfinite(array).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(
            f"{name}: Expected finite values, got {array[row, column]} at row {row}, "
            f"column {column}."
        )
    if picture is not None and array.shape != picture.size[::-1]:
        raise InputError(
            f"{name}: Expected the size of the image, {picture.size[::-1]}, got {array.shape}. "
            "net.crop(path) is the picture at the size of the network's input."
        )
    return array
