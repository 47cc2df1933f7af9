"""A factor that is itself a nonlinear function of x, taken as a constant at x.

The paper freezes the gates of ReLUs; the weights of an attention layer are gates too (ours).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import jax

from dmbp_jax.graph.jaxprs import bind


class Evaluation(NamedTuple):
    """One equation of a factor; an operand names a value, or is a literal with `.value`."""

    equation: Any
    operands: tuple[Any, ...]
    results: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class FrozenFactor:
    """g(z), any function of any number of values, whose choice is its value at x.

    A pass with recorded choices evaluates nothing of g.

    Attributes:
      name: of the last operation that is not affine, such as "rsqrt" or "softmax".
      nodes: the equations, in order.
      sources: names of the values z in them.
      value: name of g(z).
      constants: values by name, what `nodes` reads beside z.
    """

    name: str
    nodes: tuple[Evaluation, ...]
    sources: tuple[int, ...]
    value: int
    constants: Mapping[int, Any] = field(default_factory=dict)
    kind: str = "frozen"
    masked: ClassVar[bool] = False
    has_intercept: ClassVar[bool] = False

    def bind(self, constants: Mapping[int, Any]) -> "FrozenFactor":
        """The factor with its parameters."""
        return replace(self, constants=constants)

    def __call__(self, *z: jax.Array) -> jax.Array:
        """g(z), with its ordinary gradient."""
        values: dict[int, Any] = dict(zip(self.sources, z, strict=True))

        def read(operand: Any) -> Any:
            if not isinstance(operand, int):
                return operand.value
            return values[operand] if operand in values else self.constants[operand]

        for node in self.nodes:
            results = bind(node.equation, [read(operand) for operand in node.operands])
            values.update(zip(node.results, results, strict=True))
        return values[self.value]

    def choose(self, *z: jax.Array) -> jax.Array:
        """g(z)."""
        return self(*z)

    def apply(self, choice: jax.Array, *z: jax.Array) -> jax.Array:
        """The recorded value, whatever z is."""
        return choice
