"""MobileNetV2 (Sandler et al. 2018) and V3 (Howard et al. 2019) for inference, BatchNorm folded.

V2 has ReLU6, min(max(z, 0), 6); V3 has hard swish and squeeze-and-excite, which attribution takes
with `nonaffine="freeze"`.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from dmbp_jax.models.efficientnet import EfficientNet
from dmbp_jax.models.layers import Activation, InvertedResidual, activate


class MobileNetV2(EfficientNet):
    """`EfficientNet` with ReLU6, filters of 3×3, and no squeeze-and-excite.

    Example:
      >>> net = MobileNetV2(stages=((1, 8, 1, 3, 1), (6, 16, 2, 3, 2)), last=32, classes=10)
      >>> variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
      >>> jax.eval_shape(net.apply, variables, jnp.zeros((2, 64, 64, 3))).shape
      (2, 10)

    Reference: https://arxiv.org/abs/1801.04381, Table 2.
    """

    stages: tuple[tuple[int, int, int, int, int], ...] = (
        (1, 16, 1, 3, 1),
        (6, 24, 2, 3, 2),
        (6, 32, 3, 3, 2),
        (6, 64, 4, 3, 2),
        (6, 96, 3, 3, 1),
        (6, 160, 3, 3, 2),
        (6, 320, 1, 3, 1),
    )
    activation: Activation = nn.relu6
    excite: bool = False


_ACTIVATIONS: dict[str, Activation] = {"relu": nn.relu, "hard_swish": nn.hard_swish}


class MobileNetV3(nn.Module):
    """Stem, inverted residual blocks, a 1×1 convolution, average, two dense layers.

    The activation is hard swish, z · min(max(z + 3, 0), 6) / 6, and ReLU in the first blocks. Some
    blocks have squeeze-and-excite, whose gate is a hard sigmoid.

    Attributes:
      blocks: (side of the filter, expanded features, features, features of squeeze-and-excite or
        0, "relu" or "hard_swish", stride) of each block.
      stem: features of the first convolution.
      last: features of the 1×1 convolution.
      hidden: features of the first dense layer.
      classes: number of logits.

    Example:
      >>> net = MobileNetV3(blocks=((3, 16, 16, 8, "relu", 1),), last=32, hidden=32, classes=10)
      >>> variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
      >>> jax.eval_shape(net.apply, variables, jnp.zeros((2, 64, 64, 3))).shape
      (2, 10)

    Reference: https://arxiv.org/abs/1905.02244, Table 1.
    """

    blocks: tuple[tuple[int, int, int, int, str, int], ...]
    stem: int = 16
    last: int = 960
    hidden: int = 1280
    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Preprocessed images (N, H, W, 3) -> logits (N, classes)."""
        x = nn.Conv(self.stem, (3, 3), 2, padding=1, name="stem")(x)
        x = activate(nn.hard_swish, x, "act1")
        for i, (kernel, expanded, features, squeezed, act, stride) in enumerate(self.blocks, 1):
            x = InvertedResidual(
                features,
                expanded,
                activation=_ACTIVATIONS[act],
                kernel=kernel,
                stride=stride,
                squeezed=squeezed,
                gate=nn.hard_sigmoid,
                name=f"block{i}",
            )(x)
        x = nn.Conv(self.last, (1, 1), name="last")(x)
        x = activate(nn.hard_swish, x, "act2")
        x = jnp.mean(x, axis=(1, 2))
        x = activate(nn.hard_swish, nn.Dense(self.hidden, name="fc1")(x), "act3")
        return nn.Dense(self.classes, name="fc2")(x)


MobileNetV3Large = partial(
    MobileNetV3,
    blocks=(
        (3, 16, 16, 0, "relu", 1),
        (3, 64, 24, 0, "relu", 2),
        (3, 72, 24, 0, "relu", 1),
        (5, 72, 40, 24, "relu", 2),
        (5, 120, 40, 32, "relu", 1),
        (5, 120, 40, 32, "relu", 1),
        (3, 240, 80, 0, "hard_swish", 2),
        (3, 200, 80, 0, "hard_swish", 1),
        (3, 184, 80, 0, "hard_swish", 1),
        (3, 184, 80, 0, "hard_swish", 1),
        (3, 480, 112, 120, "hard_swish", 1),
        (3, 672, 112, 168, "hard_swish", 1),
        (5, 672, 160, 168, "hard_swish", 2),
        (5, 960, 160, 240, "hard_swish", 1),
        (5, 960, 160, 240, "hard_swish", 1),
    ),
)
