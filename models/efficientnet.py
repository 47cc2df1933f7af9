"""EfficientNet B0 (Tan and Le 2019) and EfficientNet-Lite 1 for inference, BatchNorm folded.

The Lite networks have ReLU6 in place of SiLU and no squeeze-and-excite, and come from TensorFlow.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from dmbp_jax.models.layers import Activation, InvertedResidual, activate


class EfficientNet(nn.Module):
    """Stem, stages of inverted residual blocks, a 1×1 convolution, average, dense.

    Attributes:
      stages: (expansion, features, blocks, side of the filter, stride of the first block) of each.
      stem: features of the first convolution.
      last: features of the 1×1 convolution.
      classes: number of logits.
      activation: of the whole network.
      excite: the blocks have squeeze-and-excite, with a quarter of their input's features.
      padding: "torch" pads both sides alike, "SAME" as TensorFlow does.

    Example:
      >>> net = EfficientNetB0(stages=((1, 8, 1, 3, 1), (6, 16, 2, 5, 2)), last=32, classes=10)
      >>> variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
      >>> jax.eval_shape(net.apply, variables, jnp.zeros((2, 64, 64, 3))).shape
      (2, 10)

    References: https://arxiv.org/abs/1905.11946, Table 1;
      https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
    """

    stages: tuple[tuple[int, int, int, int, int], ...]
    stem: int = 32
    last: int = 1280
    classes: int = 1000
    activation: Activation = nn.silu
    excite: bool = True
    padding: str = "torch"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Preprocessed images (N, H, W, 3) -> logits (N, classes)."""
        act, padding = self.activation, 1 if self.padding == "torch" else self.padding
        x = nn.Conv(self.stem, (3, 3), 2, padding=padding, name="stem")(x)
        x = activate(act, x, "act1")
        for i, (expansion, features, size, kernel, first) in enumerate(self.stages, 1):
            for j in range(size):
                x = InvertedResidual(
                    features,
                    expanded=expansion * x.shape[-1],
                    activation=act,
                    kernel=kernel,
                    stride=first if j == 0 else 1,
                    padding=self.padding,
                    squeezed=x.shape[-1] // 4 if self.excite else 0,
                    squeeze_activation=act,
                    name=f"layer{i}_{j}",
                )(x)
        x = nn.Conv(self.last, (1, 1), name="last")(x)
        x = activate(act, x, "act2")
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.classes, name="classifier")(x)


# Expansion, features, side of the filter, stride of the first block.
_STAGES = (
    (1, 16, 3, 1),
    (6, 24, 3, 2),
    (6, 40, 5, 2),
    (6, 80, 3, 2),
    (6, 112, 5, 1),
    (6, 192, 5, 2),
    (6, 320, 3, 1),
)


def _stages(*sizes: int) -> tuple[tuple[int, int, int, int, int], ...]:
    """The stages with so many blocks each."""
    return tuple(
        (expansion, features, size, kernel, stride)
        for (expansion, features, kernel, stride), size in zip(_STAGES, sizes, strict=True)
    )


EfficientNetB0 = partial(EfficientNet, stages=_stages(1, 2, 2, 3, 3, 4, 1))
EfficientNetLite1 = partial(
    EfficientNet,
    stages=_stages(1, 3, 3, 4, 4, 5, 1),
    activation=nn.relu6,
    excite=False,
    padding="SAME",
)
