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
    scan_loop,
    user_code,
)
from dmbp_jax.graph.operations import place

# XLA's time to compile grows faster than the program: this many take minutes on a CPU, and the
# deepest networks people train have fewer.
MOST_OPERATIONS = 5_000


def write_out(equation: Any, scope: str) -> Any:
    """A scan as the jaxpr of a Python loop, with all scopes around its equations."""
    loop = scan_loop(equation)
    operations = loop.length * max(1, count_operations(loop.body))
    if operations > MOST_OPERATIONS:
        raise ControlFlowError(
            f"Expected loops of at most {MOST_OPERATIONS} operations between x and the logits, "
            f"got 'scan' {place(scope)} with {operations} in {loop.length} iterations: "
            "every iteration has its own masks and is compiled by itself."
        )
    first = loop.constants + loop.carry
    # The number of an iteration goes to the scope of the body, where it has one.
    around = f"{scope}/" if common_scope(loop.body) else scope or "scan"

    @jax.jit  # traced once; calls are looked into
    def _iteration(*values: jax.Array) -> list[jax.Array]:
        return evaluate(loop.body, values)

    def python_loop(*operands: jax.Array) -> list[jax.Array]:
        constants, stacked = operands[: loop.constants], operands[first:]
        carry: Sequence[jax.Array] = operands[loop.constants : first]
        outputs: list[Sequence[jax.Array]] = [()] * loop.length
        for i in loop.order:
            with jax.named_scope(f"{scope}/scan"):
                mine = [lax.index_in_dim(one, i, keepdims=False) for one in stacked]
            with jax.named_scope(f"{around}[{i}]"):
                results = _iteration(*constants, *carry, *mine)
            carry, outputs[i] = results[: loop.carry], results[loop.carry :]
        if not loop.length:
            returned = [variable.aval for variable in equation.outvars[loop.carry :]]
            return [*carry, *(jnp.zeros(aval.shape, aval.dtype) for aval in returned)]
        with jax.named_scope(f"{scope}/scan"):
            return [*carry, *map(jnp.stack, zip(*outputs, strict=True))]

    like = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in equation.invars]
    with user_code(equation, ""):
        return jax.make_jaxpr(python_loop)(*like)
