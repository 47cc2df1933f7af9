"""ConvNeXt Tiny (Liu et al. 2022) for inference.

LayerNorm has statistics of x: attribution needs `nonaffine="freeze"`, which takes them at x.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from dmbp_jax.models.layers import exact_gelu, layer_norm


class LayerScale(nn.Module):
    """A learned factor for each channel."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C) -> (N, H, W, C)."""
        scale = self.param("scale", nn.initializers.constant(1e-6), (x.shape[-1],))
        return x * scale[None, None, None]


class Block(nn.Module):
    """Filter every channel alone over 7×7 positions, then mix the channels of each position.

    out = x + scale · dense2(gelu(dense1(norm(filter(x)))))
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C) -> (N, H, W, C)."""
        features = x.shape[-1]
        y = nn.Conv(features, (7, 7), padding=3, feature_group_count=features, name="filter")(x)
        y = layer_norm("norm")(y)
        y = exact_gelu(nn.Dense(4 * features, name="dense1")(y), "gelu")
        y = nn.Dense(features, name="dense2")(y)
        return x + LayerScale(name="scale")(y)


class ConvNeXt(nn.Module):
    """4×4 patches, stages of blocks with LayerNorm and a 2×2 convolution between, average, dense.

    Stochastic depth does nothing in inference and is left out.

    Attributes:
      stage_sizes: blocks of each stage.
      widths: features of each stage.
      classes: number of logits.

    Example:
      >>> net = ConvNeXtTiny(stage_sizes=(1, 1), widths=(8, 16), classes=10)
      >>> variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
      >>> jax.eval_shape(net.apply, variables, jnp.zeros((2, 64, 64, 3))).shape
      (2, 10)

    Reference: https://arxiv.org/abs/2201.03545.
    """

    stage_sizes: tuple[int, ...]
    widths: tuple[int, ...] = (96, 192, 384, 768)
    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Preprocessed images (N, H, W, 3) -> logits (N, classes)."""
        for i, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True), 1):
            if i == 1:
                x = nn.Conv(width, (4, 4), 4, padding=0, name="stem")(x)
                x = layer_norm("stem_norm")(x)
            else:
                x = layer_norm(f"norm{i}")(x)
                x = nn.Conv(width, (2, 2), 2, padding=0, name=f"downsample{i}")(x)
            for j in range(size):
                x = Block(name=f"layer{i}_{j}")(x)
        x = jnp.mean(x, axis=(1, 2))
        x = layer_norm("norm")(x)
        return nn.Dense(self.classes, name="classifier")(x)


ConvNeXtTiny = partial(ConvNeXt, stage_sizes=(3, 3, 9, 3))
