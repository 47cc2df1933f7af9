"""SqueezeNet 1.0 and 1.1 (Iandola et al. 2016) for inference.

The last convolution gives one feature map for each class, whose mean after a ReLU is the logit.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from dmbp_jax.models.layers import max_pool, relu


class Fire(nn.Module):
    """Squeeze to few channels, expand with 1×1 and 3×3 filters side by side, four times each."""

    squeezed: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C) -> (N, H, W, 8 · squeezed)."""
        x = relu(nn.Conv(self.squeezed, (1, 1), name="squeeze")(x), "relu")
        small = nn.Conv(4 * self.squeezed, (1, 1), name="expand1x1")(x)
        large = nn.Conv(4 * self.squeezed, (3, 3), padding=1, name="expand3x3")(x)
        return jnp.concatenate([relu(small, "relu1x1"), relu(large, "relu3x3")], axis=-1)


class SqueezeNet(nn.Module):
    """A convolution, stages of fire modules with a max-pool before each, and a 1×1 convolution.

    logits = mean over positions of relu(conv10(…)), so no logit is negative

    Attributes:
      stages: for each stage, the squeezed features of its fire modules.
      stem: features of the first convolution.
      stem_kernel: its side; its stride is 2 and it has no padding.
      classes: number of logits.

    Example:
      >>> net = SqueezeNet11(classes=10)
      >>> variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
      >>> jax.eval_shape(net.apply, variables, jnp.zeros((2, 64, 64, 3))).shape
      (2, 10)

    Reference: https://arxiv.org/abs/1602.07360; max-pools have ceil mode, as in torchvision.
    """

    stages: tuple[tuple[int, ...], ...]
    stem: int
    stem_kernel: int
    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Preprocessed images (N, H, W, 3) -> logits (N, classes)."""
        kernel = (self.stem_kernel, self.stem_kernel)
        x = relu(nn.Conv(self.stem, kernel, 2, padding=0, name="conv1")(x), "relu1")
        number = 2
        for stage in self.stages:
            x = max_pool(x, 3, 2, ceil_mode=True)
            for squeezed in stage:
                x = Fire(squeezed, name=f"fire{number}")(x)
                number += 1
        x = relu(nn.Conv(self.classes, (1, 1), name="conv10")(x), "relu10")
        return jnp.mean(x, axis=(1, 2))


SqueezeNet10 = partial(
    SqueezeNet, stages=((16, 16, 32), (32, 48, 48, 64), (64,)), stem=96, stem_kernel=7
)
SqueezeNet11 = partial(
    SqueezeNet, stages=((16, 16), (32, 32), (48, 48, 64, 64)), stem=64, stem_kernel=3
)
