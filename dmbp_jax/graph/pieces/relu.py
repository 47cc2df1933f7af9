"""The ReLU (paper Eq. 2, 3): a gate times its input once the gate is fixed."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from dmbp_jax.graph.pieces.protocol import Equation


@dataclass(frozen=True)
class Relu:
    """max(z, 0) = H ⊙ z with the gate H = 1[z > 0], 0 at exactly 0."""

    kind: str = "relu"
    masked: ClassVar[bool] = True
    has_intercept: ClassVar[bool] = False

    @staticmethod
    def match(equation: Equation) -> "Relu | None":
        """The maximum of one value and zero, however it is written."""
        if equation.name == "max" and not equation.is_call and sum(equation.depends) == 1:
            other = 0 if equation.depends[1] else 1
            if equation.is_zero[other]:
                return Relu()
        return None

    def __call__(self, z: jax.Array) -> jax.Array:
        """The ordinary ReLU."""
        return jax.nn.relu(z)

    def choose(self, z: jax.Array) -> jax.Array:
        """The gates, boolean, shape of z."""
        return z > 0

    def apply(self, choice: jax.Array, z: jax.Array) -> jax.Array:
        """Z where the gate is open, else 0."""
        return jnp.where(choice, z, jnp.zeros((), z.dtype))
