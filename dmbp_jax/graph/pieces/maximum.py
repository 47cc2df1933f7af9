"""The larger or the smaller of two values that both depend on x (maxout): linear once it is known.

The winner of every element is fixed at x, as that of a max-pool's window.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from dmbp_jax.graph.pieces.protocol import Equation


@dataclass(frozen=True)
class Maximum:
    """max(a, b) = H ⊙ a + (1 − H) ⊙ b with H = 1[a ≥ b]; for the minimum, 1[a ≤ b]."""

    kind: str  # "maximum" or "minimum"
    masked: ClassVar[bool] = True
    has_intercept: ClassVar[bool] = False

    @staticmethod
    def match(equation: Equation) -> "Maximum | None":
        """`lax.max` and `lax.min` of two values that depend on x."""
        if equation.is_call or equation.name not in ("max", "min") or not all(equation.depends):
            return None
        return Maximum("maximum" if equation.name == "max" else "minimum")

    def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """The ordinary maximum or minimum."""
        return jnp.maximum(a, b) if self.kind == "maximum" else jnp.minimum(a, b)

    def choose(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """Where `a` wins, boolean; a tie goes to `a`."""
        return a >= b if self.kind == "maximum" else a <= b

    def apply(self, choice: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
        """The value of the recorded winner. Linear in both."""
        return jnp.where(choice, a, b)
