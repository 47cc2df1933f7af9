"""A piece without its intercept: what the pixels alone carry through it (Eq. 11 without Eq. 14)."""

from typing import ClassVar

import jax
import jax.numpy as jnp

from dmbp_jax.graph.pieces.protocol import Choice, Piece


class LinearPart:
    """Slope(choice) ⊙ z of a piece, with the choices of the whole piece."""

    has_intercept: ClassVar[bool] = False

    def __init__(self, piece: Piece):
        self.piece, self.kind = piece, piece.kind
        self.masked, self.choose = piece.masked, piece.choose

    def __call__(self, *z: jax.Array) -> jax.Array:
        """The value less that at 0."""
        return self.piece(*z) - self.piece(*map(jnp.zeros_like, z))

    def apply(self, choice: Choice, *z: jax.Array) -> jax.Array:
        """The value for a fixed choice less its intercept."""
        return self.piece.apply(choice, *z) - self.piece.apply(choice, *map(jnp.zeros_like, z))
