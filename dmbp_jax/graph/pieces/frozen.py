"""A factor that is itself a nonlinear function of x, taken as a constant at x.

The paper freezes the gates of ReLUs; the weights of an attention layer are gates too (ours).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import jax

from dmbp_jax.graph.linearisation import Linearisation
from dmbp_jax.graph.steps import Step, interpret


@dataclass(frozen=True, eq=False)
class FrozenFactor:
    """g(z), any function of any number of values, whose choice is its value at x.

    A pass with recorded choices evaluates nothing of g.
    """

    name: str  # of the last operation that is not affine, such as "rsqrt" or "softmax"
    nodes: tuple[Step, ...]  # its steps, in order
    sources: tuple[int, ...]  # names of the values z in them
    value: int  # name of g(z)
    # values by name, what `nodes` reads beside z
    constants: Mapping[int, Any] = field(default_factory=dict)
    kind: str = "frozen"
    masked: ClassVar[bool] = False
    has_intercept: ClassVar[bool] = False

    def bind(self, constants: Mapping[int, Any], _: Linearisation) -> "FrozenFactor":
        """The factor with its parameters."""
        return replace(self, constants=constants)

    def __call__(self, *z: jax.Array) -> jax.Array:
        """g(z), with its ordinary gradient."""
        given = zip(self.sources, z, strict=True)
        return interpret(self.nodes, {**self.constants, **dict(given)})[self.value]

    def choose(self, *z: jax.Array) -> jax.Array:
        """g(z)."""
        return self(*z)

    def apply(self, choice: jax.Array, *z: jax.Array) -> jax.Array:
        """The recorded value, whatever z is."""
        return choice
