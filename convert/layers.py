"""The row of a conversion table: which PyTorch layer becomes which Flax layer, and how.

`dmbp_jax.convert.tables` has the tables.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Shape = tuple[int, ...]


class Transform(NamedTuple):
    """From a PyTorch weight to a Flax kernel or scale."""

    # Weight shapes that give a kernel of this shape; the first is torchvision's.
    shapes: Callable[[Shape], tuple[Shape, ...]]
    apply: Callable[[np.ndarray, Shape], np.ndarray]  # weight and kernel shape -> kernel


class Layer(NamedTuple):
    """A row of the table, names as regular expressions and their replacements."""

    path: str  # of the layer in the Flax parameters
    source: str | None  # of its weight (and bias) in the state dict; None of a lone BatchNorm
    norm: str | None  # of the BatchNorm to fold into it
    transform: Transform  # of the weight
    bias: bool = True  # the source has one
    epsilon: float = 1e-5  # of the BatchNorm

    @property
    def name(self) -> str:
        """Of the layer in the state dict."""
        return self.source or self.norm or self.path


# (O, I, H, W) -> (H, W, I, O)
CONV = Transform(
    lambda kernel: ((kernel[3], kernel[2], kernel[0], kernel[1]),),
    lambda weight, kernel: weight.transpose(2, 3, 1, 0),
)
# The same for a first layer that expects blue, green, red.
CONV_BGR = Transform(CONV.shapes, lambda weight, kernel: weight.transpose(2, 3, 1, 0)[:, :, ::-1])
# (O, I) -> (I, O); timm and Caffe keep dense layers as 1×1 convolutions.
DENSE = Transform(
    lambda kernel: (kernel[::-1], (*kernel[::-1], 1, 1)),
    lambda weight, kernel: weight.reshape(kernel[::-1]).T,
)
# A number for each channel, in whatever shape; and parameters that stay as they are.
SCALE = Transform(
    lambda scale: (scale, (*scale, 1, 1)),
    lambda weight, scale: weight.reshape(scale),
)


def dense_behind(side: int) -> Transform:
    """The dense layer behind side × side positions: PyTorch flattens C, H, W and Flax H, W, C."""

    def shapes(kernel: Shape) -> tuple[Shape, ...]:
        return kernel[::-1], (kernel[1], kernel[0] // side**2, side, side)

    def apply(weight: np.ndarray, kernel: Shape) -> np.ndarray:
        channels_first = weight.reshape(kernel[1], -1, side, side)
        return channels_first.transpose(2, 3, 1, 0).reshape(kernel)

    return Transform(shapes, apply)


def find_layer(path: str, rows: tuple[Layer, ...]) -> Layer:
    """The row of a Flax layer, with its names filled in."""
    for row in rows:
        match = re.fullmatch(row.path, path)
        if match:
            source, norm = (
                None if name is None else match.expand(name) for name in (row.source, row.norm)
            )
            return row._replace(path=path, source=source, norm=norm)
    raise LookupError(f"No row of the table fits the layer {path}.")
