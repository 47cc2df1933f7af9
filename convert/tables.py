"""Which PyTorch layer becomes which Flax layer, and how: one row per layer of ResNet and VGG.

Names are torchvision's. timm and TorchRay call some layers otherwise; `RENAMES` translates.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import numpy as np

from dmbp_jax.models.resnet import ResNet
from dmbp_jax.models.vgg import VGG

Shape = tuple[int, ...]


class Transform(NamedTuple):
    """From a PyTorch weight to a Flax kernel.

    Attributes:
      shapes: weight shapes that give a kernel of this shape; the first is torchvision's.
      apply: weight and kernel shape -> kernel.
    """

    shapes: Callable[[Shape], tuple[Shape, ...]]
    apply: Callable[[np.ndarray, Shape], np.ndarray]


class Layer(NamedTuple):
    """A row of the table, names as regular expressions and their replacements.

    Attributes:
      path: of the layer in the Flax parameters.
      source: of its weight (and bias) in the state dict.
      norm: of the BatchNorm to fold into it; None without one.
      transform: what becomes of the weight.
      bias: the source has a bias.
    """

    path: str
    source: str
    norm: str | None
    transform: Transform
    bias: bool = True


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
# The dense layer behind 7×7 positions: PyTorch flattens C, H, W and Flax H, W, C.
DENSE_7X7 = Transform(
    lambda kernel: (kernel[::-1], (kernel[1], kernel[0] // 49, 7, 7)),
    lambda weight, kernel: (
        weight.reshape(kernel[1], -1, 7, 7).transpose(2, 3, 1, 0).reshape(kernel)
    ),
)

# (pattern, replacement), tried in turn on every name of a state dict.
RENAMES: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    ResNet: (
        # TorchRay: Caffe's BatchNorm and Scale layers, numbered 0 and 1.
        (r"\bbn(\d)\.[01]\.(?=\w)", r"bn\1."),
        (r"\bdownsample\.([01])\.[01]\.(?=\w)", r"downsample.\1."),
    ),
    VGG: (
        # timm: dense layers under other names.
        (r"^pre_logits\.fc1\.", "classifier.0."),
        (r"^pre_logits\.fc2\.", "classifier.3."),
        (r"^head\.fc\.", "classifier.6."),
        # TorchRay: numbered without the dropout layers between them.
        (r"^classifier\.2\.", "classifier.3."),
        (r"^classifier\.4\.", "classifier.6."),
    ),
}


def find_layer(path: str, rows: tuple[Layer, ...]) -> Layer:
    """The row of a Flax layer, with its names filled in."""
    for row in rows:
        match = re.fullmatch(row.path, path)
        if match:
            norm = None if row.norm is None else match.expand(row.norm)
            return row._replace(path=path, source=match.expand(row.source), norm=norm)
    raise LookupError(f"No row of the table fits the layer {path}.")


def table(module: nn.Module, batch_norm: bool, bgr: bool) -> tuple[Layer, ...]:
    """The rows of a `ResNet` or `VGG`.

    Args:
      module: the network.
      batch_norm: the state dict has BatchNorm layers to fold (a ResNet's always has).
      bgr: it is a Caffe network: its first convolution expects blue first, and in a ResNet has
        a bias in front of its BatchNorm.
    """
    first = CONV_BGR if bgr else CONV
    if isinstance(module, ResNet):
        return _resnet(first, stem_bias=bgr)
    if isinstance(module, VGG):
        return _vgg(module, first, batch_norm)
    raise TypeError(f"module: Expected a ResNet or a VGG, got {type(module).__name__}.")


def _resnet(first: Transform, stem_bias: bool) -> tuple[Layer, ...]:
    block, source = r"layer(\d+)_(\d+)", r"layer\1.\2"
    return (
        Layer("conv1", "conv1", "bn1", first, stem_bias),
        Layer(rf"{block}/conv(\d)", rf"{source}.conv\3", rf"{source}.bn\3", CONV, False),
        Layer(
            rf"{block}/downsample",
            rf"{source}.downsample.0",
            rf"{source}.downsample.1",
            CONV,
            False,
        ),
        Layer("fc", "fc", None, DENSE),
    )


def _vgg(module: VGG, first: Transform, batch_norm: bool) -> tuple[Layer, ...]:
    # torchvision numbers all layers in a row: convolution, (BatchNorm,) ReLU, …, max-pool.
    rows, number = [], 0
    for i, size in enumerate(module.stage_sizes, 1):
        for j in range(1, size + 1):
            norm = f"features.{number + 1}" if batch_norm else None
            transform = first if number == 0 else CONV
            rows.append(Layer(f"conv{i}_{j}", f"features.{number}", norm, transform))
            number += 3 if batch_norm else 2
        number += 1
    return (
        *rows,
        Layer("fc6", "classifier.0", None, DENSE_7X7),
        Layer("fc7", "classifier.3", None, DENSE),
        Layer("fc8", "classifier.6", None, DENSE),
    )
