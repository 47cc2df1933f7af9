"""DenseNet 121 (Huang et al. 2017) for inference.

BatchNorm stands before the ReLU and the convolution here: the one of a block's input cannot be
folded and stays as a scale and a shift of each channel.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from dmbp_jax.models.layers import max_pool, relu


class ScaleShift(nn.Module):
    """BatchNorm in inference: out = scale · x + bias, both for each channel."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C) -> (N, H, W, C)."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return x * scale[None, None, None] + bias[None, None, None]


class DenseLayer(nn.Module):
    """1×1 and 3×3 convolution, each behind BatchNorm and ReLU; their output joins the input.

    The second BatchNorm is folded into the 1×1 convolution.
    """

    growth: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C) -> (N, H, W, C + growth)."""
        y = relu(ScaleShift(name="norm1")(x), "relu1")
        y = nn.Conv(4 * self.growth, (1, 1), name="conv1")(y)
        y = relu(y, "relu2")
        y = nn.Conv(self.growth, (3, 3), padding=1, use_bias=False, name="conv2")(y)
        return jnp.concatenate([x, y], axis=-1)


class Transition(nn.Module):
    """Between two blocks: half the channels, then half the height and width."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C) -> (N, H / 2, W / 2, C / 2)."""
        x = relu(ScaleShift(name="norm")(x), "relu")
        x = nn.Conv(x.shape[-1] // 2, (1, 1), use_bias=False, name="conv")(x)
        return nn.avg_pool(x, (2, 2), (2, 2))


class DenseNet(nn.Module):
    """Stem and max-pool, blocks of layers that see all earlier ones, average, dense.

    Attributes:
      block_sizes: layers of each block.
      growth: channels that a layer adds.
      stem: features of the first convolution.
      classes: number of logits.

    Example:
      >>> net = DenseNet121(block_sizes=(1, 2), growth=4, stem=8, classes=10)
      >>> variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
      >>> jax.eval_shape(net.apply, variables, jnp.zeros((2, 64, 64, 3))).shape
      (2, 10)

    Reference: https://arxiv.org/abs/1608.06993; DenseNet-BC with compression ½.
    """

    block_sizes: tuple[int, ...]
    growth: int = 32
    stem: int = 64
    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Preprocessed images (N, H, W, 3) -> logits (N, classes)."""
        x = relu(nn.Conv(self.stem, (7, 7), 2, padding=3, name="conv0")(x), "relu0")
        x = max_pool(x, 3, 2, padding=1)
        for i, size in enumerate(self.block_sizes, 1):
            if i > 1:
                x = Transition(name=f"transition{i - 1}")(x)
            for j in range(1, size + 1):
                x = DenseLayer(self.growth, name=f"block{i}_{j}")(x)
        x = relu(ScaleShift(name="norm5")(x), "relu5")
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.classes, name="classifier")(x)


DenseNet121 = partial(DenseNet, block_sizes=(6, 12, 24, 16))
