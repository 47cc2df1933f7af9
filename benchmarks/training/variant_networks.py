"""Networks of the generated pictures that differ in what is not affine: activations, attention.

Each is the built-in network with another activation, or a small ViT; `train_builtin.py` trains
them, `activations.py` measures their maps.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax

from dmbp_jax.models.builtin import BuiltinNet

ACTIVATIONS = ("relu", "leaky_relu", "gelu", "silu", "tanh")  # names in `flax.linen`
EXACT = ("relu", "leaky_relu")  # their slope is no choice
VARIANTS = (*ACTIVATIONS, "vit")


class Block(nn.Module):
    """Attention between tokens, then two dense layers for each; both added to what comes in."""

    heads: int
    activation: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, tokens, features) -> (N, tokens, features)."""
        x = x + nn.MultiHeadDotProductAttention(self.heads, name="attention")(
            nn.LayerNorm(name="norm1")(x)
        )
        y = self.activation(nn.Dense(2 * x.shape[-1], name="wide")(nn.LayerNorm(name="norm2")(x)))
        return x + nn.Dense(x.shape[-1], name="narrow")(y)


class SmallViT(nn.Module):
    """Vision transformer for 96×96 pictures: 12 × 12 tokens, blocks of attention, mean, dense.

    logits = dense(mean over tokens of norm(last block))

    A token is what three convolutions of stride 2 make of its surroundings, instead of one large
    convolution (Xiao et al. 2021, *Early convolutions help transformers see better*).
    """

    classes: int = 10
    stem: tuple[int, ...] = (24, 32)
    features: int = 64
    depth: int = 3
    heads: int = 4
    activation: Callable[[jax.Array], jax.Array] = nn.gelu

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Preprocessed pictures (N, 96, 96, 3) -> logits (N, classes); `train` changes nothing."""
        for i, features in enumerate(self.stem):
            x = nn.Conv(features, (3, 3), 2, padding=1, name=f"conv{i}")(x)
            x = self.activation(nn.LayerNorm(name=f"norm{i}")(x))
        x = nn.Conv(self.features, (3, 3), 2, padding=1, name="patches")(x)
        x = x.reshape(len(x), -1, self.features)
        x = x + self.param("position", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        for i in range(self.depth):
            x = Block(self.heads, self.activation, name=f"layer{i}")(x)
        x = nn.LayerNorm(name="norm")(x).mean(1)
        return nn.Dense(self.classes, name="dense")(x)


class Variant(NamedTuple):
    """A network before it is trained, and what `attribute` is asked for it."""

    module: nn.Module
    nonaffine: str


def make_variant(name: str) -> Variant:
    """The variant of this name, of `VARIANTS`."""
    if name == "vit":
        return Variant(SmallViT(), "freeze")
    return Variant(BuiltinNet(activation=getattr(nn, name)), "refuse")
