"""Vision Transformer B/16 (Dosovitskiy et al. 2021) for inference.

Attention weights and the statistics of LayerNorm depend on x: attribution needs
`nonaffine="freeze"`, which takes them at x.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dmbp_jax.errors import InputError
from dmbp_jax.models.layers import exact_gelu, layer_norm


class SelfAttention(nn.Module):
    """Every token asks all tokens.

    out = dense(softmax(q kᵀ / √d) v)        for each head, with q, k, v = dense(x)
    """

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, tokens, C) -> (N, tokens, C)."""
        images, tokens, features = x.shape
        size = features // self.heads
        qkv = nn.Dense(3 * features, name="qkv")(x).reshape(images, tokens, 3, self.heads, size)
        q, k, v = (qkv[:, :, part] for part in range(3))
        scores = jnp.einsum("nqhd,nkhd->nhqk", q, k) / size**0.5
        with jax.named_scope("softmax"):
            weights = nn.softmax(scores, axis=-1)
        y = jnp.einsum("nhqk,nkhd->nqhd", weights, v)
        return nn.Dense(features, name="out")(y.reshape(images, tokens, features))


class Block(nn.Module):
    """Attention between tokens, then two dense layers for each; both added to what comes in."""

    heads: int
    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, tokens, C) -> (N, tokens, C)."""
        x = x + SelfAttention(self.heads, name="attention")(layer_norm("norm1")(x))
        y = nn.Dense(self.hidden, name="dense1")(layer_norm("norm2")(x))
        y = nn.Dense(x.shape[-1], name="dense2")(exact_gelu(y, "gelu"))
        return x + y


class ClassToken(nn.Module):
    """A learned token in front of the others."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, tokens, C) -> (N, 1 + tokens, C)."""
        token = self.param("token", nn.initializers.zeros, (1, 1, x.shape[-1]))
        return jnp.concatenate([jnp.tile(token, (len(x), 1, 1)), x], axis=1)


class Position(nn.Module):
    """A learned vector for each token, added to it."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, tokens, C) -> (N, tokens, C)."""
        return x + self.param("embedding", nn.initializers.normal(0.02), (1, *x.shape[1:]))


class VisionTransformer(nn.Module):
    """Patches as tokens, blocks of attention, and a dense layer on the class token.

    Attributes:
      image_size: side of the pictures; positions are learned, so no other size goes.
      patch: side of a patch.
      depth: number of blocks.
      heads: of the attention.
      features: of a token.
      hidden: features between the two dense layers of a block.
      classes: number of logits.

    Raises:
      InputError: pictures of another size.

    Example:
      >>> net = ViTB16(image_size=32, depth=1, heads=2, features=8, hidden=16, classes=10)
      >>> variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
      >>> jax.eval_shape(net.apply, variables, jnp.zeros((2, 32, 32, 3))).shape
      (2, 10)

    Reference: https://arxiv.org/abs/2010.11929; LayerNorm in front, as in torchvision.
    """

    image_size: int = 224
    patch: int = 16
    depth: int = 12
    heads: int = 12
    features: int = 768
    hidden: int = 3072
    classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Preprocessed images (N, image_size, image_size, 3) -> logits (N, classes)."""
        side = self.image_size
        if x.shape[1:3] != (side, side):
            raise InputError(f"x: Expected {side}×{side} images, got {x.shape[1]}×{x.shape[2]}.")
        patch = (self.patch, self.patch)
        x = nn.Conv(self.features, patch, patch, padding=0, name="patches")(x)
        x = x.reshape(x.shape[0], -1, self.features)
        x = Position(name="position")(ClassToken(name="class")(x))
        for i in range(self.depth):
            x = Block(self.heads, self.hidden, name=f"layer{i}")(x)
        x = layer_norm("norm")(x)
        return nn.Dense(self.classes, name="head")(x[:, 0])


ViTB16 = VisionTransformer  # the size that its defaults have
