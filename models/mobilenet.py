"""MobileNetV2 (Sandler et al. 2018) for inference, with BatchNorm already in the convolutions.

Its activation is ReLU6: min(max(z, 0), 6).
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from dmbp_jax.models.layers import InvertedResidual, activate


class MobileNetV2(nn.Module):
    """Stem, stages of inverted residual blocks, a 1×1 convolution, average, dense.

    Attributes:
      stages: (expansion, features, blocks, stride of the first block) of each stage.
      stem: features of the first convolution.
      last: features of the 1×1 convolution.
      classes: number of logits.

    Example:
      >>> net = MobileNetV2(stages=((1, 8, 1, 1), (6, 16, 2, 2)), last=32, classes=10)
      >>> variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
      >>> jax.eval_shape(net.apply, variables, jnp.zeros((2, 64, 64, 3))).shape
      (2, 10)

    Reference: https://arxiv.org/abs/1801.04381, Table 2.
    """

    stages: tuple[tuple[int, int, int, int], ...] = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    stem: int = 32
    last: int = 1280
    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Preprocessed images (N, H, W, 3) -> logits (N, classes)."""
        block = partial(InvertedResidual, activation=nn.relu6)
        x = nn.Conv(self.stem, (3, 3), 2, padding=1, name="stem")(x)
        x = activate(nn.relu6, x, "act1")
        for i, (expansion, features, size, first) in enumerate(self.stages, 1):
            for j in range(size):
                expanded, stride = expansion * x.shape[-1], first if j == 0 else 1
                x = block(features, expanded, stride=stride, name=f"layer{i}_{j}")(x)
        x = nn.Conv(self.last, (1, 1), name="last")(x)
        x = activate(nn.relu6, x, "act2")
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.classes, name="classifier")(x)
