"""ResNet 18 to 152 (He et al. 2015), Wide ResNet and ResNeXt for inference, BatchNorm folded.

`dmbp_jax.convert` folds BatchNorm, so a block is convolutions with bias, ReLUs and one addition.
"""

from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from dmbp_jax.models.layers import max_pool, relu


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (ResNet 18 and 34)."""

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C) -> (N, H / stride, W / stride, features)."""
        y = nn.Conv(self.features, (3, 3), self.stride, padding=1, name="conv1")(x)
        y = relu(y, "relu1")
        y = nn.Conv(self.features, (3, 3), padding=1, name="conv2")(y)
        if x.shape != y.shape:
            x = nn.Conv(self.features, (1, 1), self.stride, padding=0, name="downsample")(x)
        return relu(x + y, "relu2")


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolution and a shortcut (ResNet 50, 101 and 152).

    The 3×3 convolution takes the stride, as in torchvision.
    """

    features: int
    stride: int = 1

    expansion: ClassVar[int] = 4
    strided: ClassVar[int] = 2  # which convolution takes the stride
    widening: ClassVar[int] = 1  # how many times `features` the 3×3 convolution has
    groups: ClassVar[int] = 1  # of the 3×3 convolution

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C) -> (N, H / stride, W / stride, 4 · features)."""
        stride1, stride2 = (self.stride, 1) if self.strided == 1 else (1, self.stride)
        inner, outputs = self.features * self.widening, self.features * self.expansion
        conv2 = partial(nn.Conv, feature_group_count=self.groups, name="conv2")

        y = nn.Conv(inner, (1, 1), stride1, padding=0, name="conv1")(x)
        y = relu(y, "relu1")
        y = conv2(inner, (3, 3), stride2, padding=1)(y)
        y = relu(y, "relu2")
        y = nn.Conv(outputs, (1, 1), padding=0, name="conv3")(y)
        if x.shape != y.shape:
            x = nn.Conv(outputs, (1, 1), self.stride, padding=0, name="downsample")(x)
        return relu(x + y, "relu3")


class WideBottleneck(Bottleneck):
    """`Bottleneck` with twice the features inside (Zagoruyko and Komodakis 2016)."""

    widening: ClassVar[int] = 2


class GroupedBottleneck(Bottleneck):
    """`Bottleneck` with twice the features inside, in 32 groups (Xie et al. 2017)."""

    widening: ClassVar[int] = 2
    groups: ClassVar[int] = 32


class CaffeBottleneck(Bottleneck):
    """`Bottleneck` as Caffe has it: the first 1×1 convolution takes the stride."""

    strided: ClassVar[int] = 1


class ResNet(nn.Module):
    """Residual network: stem, max-pool, four stages of blocks, average over positions, dense.

    Of a stage, the first block halves height and width (not in stage 1) and the features double.

    Attributes:
      stage_sizes: blocks of each stage.
      block: `BasicBlock`, `Bottleneck`, or a variant of it.
      classes: number of logits.
      width: features of the stem and of the first stage.
      caffe_stem: the stem's max-pool has no padding and `ceil_mode`, as in Caffe.

    Example:
      >>> net = ResNet18(classes=10, width=8)
      >>> variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
      >>> jax.eval_shape(net.apply, variables, jnp.zeros((2, 64, 64, 3))).shape
      (2, 10)

    Reference: https://arxiv.org/abs/1512.03385; sizes and strides as in torchvision ("v1.5").
    """

    stage_sizes: tuple[int, ...]
    block: type[BasicBlock] | type[Bottleneck]
    classes: int = 1000
    width: int = 64
    caffe_stem: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Preprocessed images (N, H, W, 3) -> logits (N, classes)."""
        x = nn.Conv(self.width, (7, 7), 2, padding=3, name="conv1")(x)
        x = relu(x, "relu1")
        x = max_pool(x, 3, 2, padding=0 if self.caffe_stem else 1, ceil_mode=self.caffe_stem)
        for i, size in enumerate(self.stage_sizes):
            for j in range(size):
                stride = 2 if i > 0 and j == 0 else 1
                x = self.block(self.width * 2**i, stride, name=f"layer{i + 1}_{j}")(x)
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.classes, name="fc")(x)


ResNet18 = partial(ResNet, stage_sizes=(2, 2, 2, 2), block=BasicBlock)
ResNet34 = partial(ResNet, stage_sizes=(3, 4, 6, 3), block=BasicBlock)
ResNet50 = partial(ResNet, stage_sizes=(3, 4, 6, 3), block=Bottleneck)
ResNet101 = partial(ResNet, stage_sizes=(3, 4, 23, 3), block=Bottleneck)
ResNet152 = partial(ResNet, stage_sizes=(3, 8, 36, 3), block=Bottleneck)
WideResNet50 = partial(ResNet, stage_sizes=(3, 4, 6, 3), block=WideBottleneck)
ResNeXt50 = partial(ResNet, stage_sizes=(3, 4, 6, 3), block=GroupedBottleneck)
CaffeResNet50 = partial(ResNet, stage_sizes=(3, 4, 6, 3), block=CaffeBottleneck, caffe_stem=True)
