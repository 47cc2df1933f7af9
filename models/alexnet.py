"""AlexNet (Krizhevsky 2014, "one weird trick") for inference, as torchvision has it.

Dropout does nothing in inference and is left out.
"""

import flax.linen as nn
import jax

from dmbp_jax.models.layers import adaptive_average_pool, max_pool, relu


class AlexNet(nn.Module):
    """Five convolutions with three max-pools between them, and three dense layers.

    The dense layers take 6×6 positions; other sizes are averaged to 6×6 as torchvision does, so
    any input of at least 63×63 goes. Positions are flattened in HWC order; conversion permutes
    fc6 to match.

    Attributes:
      classes: number of logits.
      hidden: features of fc6 and fc7.

    Example:
      >>> import jax.numpy as jnp
      >>> net = AlexNet(classes=10, hidden=16)
      >>> variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
      >>> jax.eval_shape(net.apply, variables, jnp.zeros((2, 64, 64, 3))).shape
      (2, 10)

    Reference: https://arxiv.org/abs/1404.5997.
    """

    classes: int = 1000
    hidden: int = 4096

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Preprocessed images (N, H, W, 3) -> logits (N, classes)."""
        x = relu(nn.Conv(64, (11, 11), 4, padding=2, name="conv1")(x), "relu1")
        x = max_pool(x, 3, 2)
        x = relu(nn.Conv(192, (5, 5), padding=2, name="conv2")(x), "relu2")
        x = max_pool(x, 3, 2)
        x = relu(nn.Conv(384, (3, 3), padding=1, name="conv3")(x), "relu3")
        x = relu(nn.Conv(256, (3, 3), padding=1, name="conv4")(x), "relu4")
        x = relu(nn.Conv(256, (3, 3), padding=1, name="conv5")(x), "relu5")
        x = max_pool(x, 3, 2)
        x = adaptive_average_pool(x, 6)
        x = x.reshape(x.shape[0], -1)
        x = relu(nn.Dense(self.hidden, name="fc6")(x), "relu6")
        x = relu(nn.Dense(self.hidden, name="fc7")(x), "relu7")
        return nn.Dense(self.classes, name="fc8")(x)
