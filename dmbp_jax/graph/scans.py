"""Loops over layers: a scan on the path from x is written out, its body once for each iteration.

Every activation then has a mask and a choice for each iteration, as in the same network written
with a Python loop.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from dmbp_jax.errors import ControlFlowError
from dmbp_jax.graph.jaxprs import (
    common_scope,
    count_operations,
    evaluate,
    scan_operands,
    user_code,
)
from dmbp_jax.graph.operations import place

# XLA's time to compile grows faster than the program: this many take minutes on a CPU, and the
# deepest networks people train have fewer.
MOST_OPERATIONS = 5_000


def write_out(equation: Any, scope: str) -> Any:
    """A scan as the jaxpr of a Python loop, with all scopes around its equations."""
    body, length = equation.params["jaxpr"], equation.params["length"]
    operations = length * max(1, count_operations(body))
    if operations > MOST_OPERATIONS:
        raise ControlFlowError(
            f"Expected loops of at most {MOST_OPERATIONS} operations between x and the logits, "
            f"got 'scan' {place(scope)} with {operations} in {length} iterations: "
            "every iteration has its own masks and is compiled by itself."
        )
    constant, carried = scan_operands(equation)
    order = range(length)[:: -1 if equation.params["reverse"] else 1]
    # The number of an iteration goes to the scope of the body, where it has one.
    around = f"{scope}/" if common_scope(body) else scope or "scan"

    @jax.jit  # traced once; calls are looked into
    def _iteration(*values: jax.Array) -> list[jax.Array]:
        return evaluate(body, values)

    def python_loop(*operands: jax.Array) -> list[jax.Array]:
        constants, stacked = operands[:constant], operands[constant + carried :]
        carry: Sequence[jax.Array] = operands[constant : constant + carried]
        outputs: list[Sequence[jax.Array]] = [()] * length
        for i in order:
            with jax.named_scope(f"{scope}/scan"):
                mine = [lax.index_in_dim(one, i, keepdims=False) for one in stacked]
            with jax.named_scope(f"{around}[{i}]"):
                results = _iteration(*constants, *carry, *mine)
            carry, outputs[i] = results[:carried], results[carried:]
        if not length:
            returned = [variable.aval for variable in equation.outvars[carried:]]
            return [*carry, *(jnp.zeros(aval.shape, aval.dtype) for aval in returned)]
        with jax.named_scope(f"{scope}/scan"):
            return [*carry, *map(jnp.stack, zip(*outputs, strict=True))]

    like = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in equation.invars]
    with user_code(equation, ""):
        return jax.make_jaxpr(python_loop)(*like)
