"""The one colour map of the package: matplotlib's `seismic`, written as the function it samples.

Blue below zero, white at exactly zero, red above; matplotlib's table of 256 skips the white.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
