"""A piece without its intercept: what the pixels alone carry through it (Eq. 11 without Eq. 14)."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from dmbp_jax.graph.pieces.protocol import Choice, Piece


@dataclass(frozen=True, eq=False)
class LinearPart:
    """Slope(choice) ⊙ z of a piece, with the choices of the whole piece."""

    piece: Piece
    has_intercept: ClassVar[bool] = False

    @property
    def kind(self) -> str:
        """That of the piece."""
        return self.piece.kind

    @property
    def masked(self) -> bool:
        """That of the piece."""
        return self.piece.masked

    def __call__(self, *z: jax.Array) -> jax.Array:
        """The value less that at 0."""
        return self.piece(*z) - self.piece(*map(jnp.zeros_like, z))

    def choose(self, *z: jax.Array) -> Choice:
        """That of the piece."""
        return self.piece.choose(*z)

    def apply(self, choice: Choice, *z: jax.Array) -> jax.Array:
        """The value for a fixed choice less its intercept."""
        return self.piece.apply(choice, *z) - self.intercept(choice, *z)

    def intercept(self, choice: Choice, *z: jax.Array) -> jax.Array:
        """What the piece returns for a fixed choice at 0; z gives shapes and dtypes."""
        return self.piece.apply(choice, *map(jnp.zeros_like, z))
