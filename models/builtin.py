"""The small residual network that ships with its weights: demo, tutorial and tests run on it.

It names the objects of `dmbp_jax.data.generated`; `python -m benchmarks train_builtin`
trained it.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from dmbp_jax.models.layers import Activation, activate

INPUT_SHAPE = (96, 96, 3)
# x = (pixels / 255 - MEAN) / STD, one number for all three channels.
MEAN = 0.5
STD = 0.25


class Block(nn.Module):
    """Residual block of two 3×3 convolutions."""

    features: int
    stride: int = 1
    activation: Activation = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """(N, H, W, C) -> (N, H / stride, W / stride, features)."""
        conv = partial(nn.Conv, self.features, use_bias=False)
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)

        y = conv((3, 3), self.stride, padding=1, name="conv1")(x)
        y = norm(name="bn1")(y)
        y = numbered(self.activation, y, 1)
        y = conv((3, 3), padding=1, name="conv2")(y)
        y = norm(name="bn2")(y)
        if x.shape != y.shape:
            x = conv((1, 1), self.stride, padding=0, name="conv_proj")(x)
            x = norm(name="bn_proj")(x)
        return numbered(self.activation, x + y, 2)


def numbered(activation: Activation, x: jax.Array, number: int) -> jax.Array:
    """`activation(x)` in a scope of its name and a number, such as `relu1`."""
    return activate(activation, x, f"{activation.__name__}{number}")


class BuiltinNet(nn.Module):
    """Residual network for 96×96 pictures: stem, overlapping max-pool, stages, mean, dense.

    logits = dense(mean over positions of the last stage)

    Multi-label: sigmoid(logits[:, k]) is the probability that an object of class k is shown.
    BatchNorm stays unfolded (`params` and `batch_stats`), so that a reader meets one.

    Example:
      >>> net = BuiltinNet()
      >>> variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, *INPUT_SHAPE)))
      >>> jax.eval_shape(net.apply, variables, jnp.zeros((2, *INPUT_SHAPE))).shape
      (2, 10)
    """

    classes: int = 10
    stage_sizes: tuple[int, ...] = (2, 1)
    features: int = 32
    activation: Activation = nn.relu  # the shipped weights are for ReLU

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Preprocessed pictures (N, 96, 96, 3) -> logits (N, classes)."""
        x = nn.Conv(24, (5, 5), 2, padding=2, use_bias=False, name="conv1")(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="bn1")(x)
        x = numbered(self.activation, x, 1)
        x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for i, size in enumerate(self.stage_sizes):
            for j in range(size):
                stride = 2 if i > 0 and j == 0 else 1
                block = Block(
                    self.features * 2**i, stride, self.activation, name=f"layer{i + 1}_{j}"
                )
                x = block(x, train)
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.classes, name="dense")(x)
