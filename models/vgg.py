"""VGG 11 to 19 (Simonyan and Zisserman 2014) for inference, BatchNorm folded where there was one.

Layers carry the paper's names: conv1_1 … conv5_4, relu1_1 … relu7, fc6, fc7, fc8.
"""

from functools import partial

import flax.linen as nn
import jax

from dmbp_jax.models.layers import adaptive_average_pool, max_pool, relu


class VGG(nn.Module):
    """3×3 convolutions in five stages, each ended by a max-pool, and three dense layers.

    The dense layers take 7×7 positions; other sizes are averaged down (or spread out) to 7×7 as
    torchvision does, so any input of at least 32×32 goes. Dropout does nothing in inference and
    is left out. Positions are flattened in HWC order; conversion permutes fc6 to match.

    Attributes:
      stage_sizes: convolutions of each stage.
      classes: number of logits.
      widths: features of each stage.
      hidden: features of fc6 and fc7.
      ceil_mode: a max-pool window that hangs over the edge counts, as in Caffe.

    Example:
      >>> import jax.numpy as jnp
      >>> net = VGG11(classes=10, widths=(4, 8, 8, 8, 8), hidden=16)
      >>> variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
      >>> jax.eval_shape(net.apply, variables, jnp.zeros((2, 64, 64, 3))).shape
      (2, 10)

    Reference: https://arxiv.org/abs/1409.1556; configurations A, B, D, E.
    """

    stage_sizes: tuple[int, ...]
    classes: int = 1000
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    hidden: int = 4096
    ceil_mode: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Preprocessed images (N, H, W, 3) -> logits (N, classes)."""
        for i, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True), 1):
            for j in range(1, size + 1):
                x = nn.Conv(width, (3, 3), padding=1, name=f"conv{i}_{j}")(x)
                x = relu(x, f"relu{i}_{j}")
            x = max_pool(x, 2, 2, ceil_mode=self.ceil_mode)
        x = adaptive_average_pool(x, 7)
        x = x.reshape(x.shape[0], -1)
        x = relu(nn.Dense(self.hidden, name="fc6")(x), "relu6")
        x = relu(nn.Dense(self.hidden, name="fc7")(x), "relu7")
        return nn.Dense(self.classes, name="fc8")(x)


VGG11 = partial(VGG, stage_sizes=(1, 1, 2, 2, 2))
VGG13 = partial(VGG, stage_sizes=(2, 2, 2, 2, 2))
VGG16 = partial(VGG, stage_sizes=(2, 2, 3, 3, 3))
VGG19 = partial(VGG, stage_sizes=(2, 2, 4, 4, 4))
CaffeVGG16 = partial(VGG, stage_sizes=(2, 2, 3, 3, 3), ceil_mode=True)
