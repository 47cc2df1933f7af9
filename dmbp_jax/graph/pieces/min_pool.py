"""Min-pooling with a frozen winner: a max-pool of the negative, min z = −max(−z)."""

from dataclasses import dataclass, replace
from typing import ClassVar

import jax

from dmbp_jax.graph.pieces.max_pool import GlobalPool, WindowPool
from dmbp_jax.graph.pieces.protocol import Equation

_MAXIMUM_OF = {"reduce_window_min": "reduce_window_max", "reduce_min": "reduce_max"}


@dataclass(frozen=True)
class MinPool:
    """`lax.reduce_window` with min, and `jnp.min` over whole axes."""

    pool: WindowPool | GlobalPool
    kind: str = "min_pool"
    masked: ClassVar[bool] = False
    has_intercept: ClassVar[bool] = False

    @staticmethod
    def match(equation: Equation) -> "MinPool | None":
        """The operations whose maximum is a max-pool."""
        if equation.name not in _MAXIMUM_OF:
            return None
        maximum = replace(equation, name=_MAXIMUM_OF[equation.name])
        pool = WindowPool.match(maximum) or GlobalPool.match(maximum)
        return None if pool is None else MinPool(pool)

    def __call__(self, z: jax.Array) -> jax.Array:
        """The ordinary min-pool."""
        return -self.pool(-z)

    def choose(self, z: jax.Array) -> jax.Array:
        """The winners, as those of the max-pool; ties go to the first."""
        return self.pool.choose(-z)

    def apply(self, choice: jax.Array, z: jax.Array) -> jax.Array:
        """The value at the recorded winner. Linear in `z`."""
        return self.pool.apply(choice, z)
