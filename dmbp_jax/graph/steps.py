"""A step of a flat program, one equation of the network, and the interpreter of all such steps.

What differs between a forward pass, a bias, a function of one value or what is known of a value is
the rule by which a step makes its results of its operands.
"""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.graph.jaxprs import bind, user_code

if TYPE_CHECKING:
    from dmbp_jax.graph.pieces.protocol import Piece


@dataclass(frozen=True, eq=False)
class Constant:
    """An operand whose value is known: a literal of the jaxpr. Hashed by identity."""

    value: Any


Operand = int | Constant  # an int names a value of the program


@dataclass(frozen=True, eq=False)
class Step:
    """One inlined equation."""

    # "constant" (does not depend on x), "affine" or "piece"; while the program is made also
    # "nonaffine", which becomes a part of a piece or an error
    kind: str
    equation: Any  # as JAX traced it
    operands: tuple[Operand, ...]  # what it reads
    results: tuple[int, ...]  # names of the values it makes
    scope: str  # name scopes around it
    depends: tuple[bool, ...]  # which operands depend on x
    piece: "Piece | None" = None  # of kind "piece"
    index: int = -1  # of kind "piece": its position among them

    @property
    def name(self) -> str:
        """Name of the primitive."""
        return self.equation.primitive.name

    @property
    def params(self) -> dict[str, Any]:
        """Parameters of the primitive."""
        return self.equation.params

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first result."""
        return getattr(self.equation.outvars[0].aval, "shape", ())

    @property
    def dtype(self) -> Any:
        """Dtype of the first result."""
        return getattr(self.equation.outvars[0].aval, "dtype", None)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the operands."""
        return [getattr(variable.aval, "shape", ()) for variable in self.equation.invars]

    @property
    def dependent(self) -> list[Any]:
        """The operands that depend on x."""
        return [one for one, depends in zip(self.operands, self.depends, strict=True) if depends]


Rule = Callable[[Step, list[Any]], Sequence[Any]]  # `(step, values of its operands) -> results`


def interpret(
    steps: Iterable[Step],
    values: dict[int, Any],
    rule: Rule = lambda step, operands: bind(step.equation, operands),
) -> dict[int, Any]:
    """Add what steps make to values by name, one step after the other; returns the values.

    Without a rule steps are evaluated as JAX does.
    """
    for step in steps:
        with user_code(step.equation, step.scope):
            results = rule(step, [read(values, operand) for operand in step.operands])
        values.update(zip(step.results, results, strict=True))
    return values


def read(values: dict[int, Any], operand: Operand) -> Any:
    """The value of an operand."""
    return operand.value if isinstance(operand, Constant) else values[operand]


def needed_for(
    wanted: Iterable[Operand], steps: Sequence[Step], known: Container[Operand] = ()
) -> list[Step]:
    """The steps that make these values, and all that they read, in order, beside known ones."""
    needed, found = {one for one in wanted if one not in known}, []
    for step in reversed(steps):
        if not needed.isdisjoint(step.results):
            found.append(step)
            needed.update(operand for operand in step.operands if operand not in known)
    return found[::-1]


def after_pieces(steps: Sequence[Step]) -> set[int]:
    """Names of all values that a piece made, or that were made of one of them."""
    after: set[int] = set()
    for step in steps:
        if step.piece is not None or not after.isdisjoint(step.operands):
            after.update(step.results)
    return after


def count_reads(steps: Iterable[Step]) -> Counter[Operand]:
    """How often each value is read."""
    return Counter(operand for step in steps for operand in step.operands)


def is_zero(value: Any) -> bool:
    """Whether a value that can be looked at is zero everywhere: a ReLU is a maximum with it."""
    if isinstance(value, jax.core.Tracer) or not hasattr(value, "dtype"):
        return isinstance(value, (int, float)) and value == 0
    return bool(jnp.issubdtype(value.dtype, jnp.number)) and not np.any(np.asarray(value))
