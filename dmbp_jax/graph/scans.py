"""Loops over layers: a scan on the path from x is written out, its body once for each iteration.

Every activation then has a mask and a choice for each iteration, as in the same network written
with a Python loop.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dmbp_jax.errors import ControlFlowError
from dmbp_jax.graph.jaxprs import (
    common_scope,
    constants_of,
    count_operations,
    inside,
    scan_loop,
    user_code,
)
from dmbp_jax.graph.operations import place
from dmbp_jax.graph.steps import Constant, Operand

# XLA's time to compile grows faster than the program: this many take minutes on a CPU, and the
# deepest networks people train have fewer.
MOST_OPERATIONS = 5_000

# Reads a jaxpr into the program: `(jaxpr, arguments, constants, scope) -> results`.
Inline = Callable[[Any, Sequence[Operand], Sequence[Operand], str], list[Operand]]


def write_out(
    equation: Any, operands: Sequence[Operand], scope: str, inline: Inline
) -> list[Operand]:
    """The results of a scan: its iterations one after the other, then what they return stacked."""
    loop = scan_loop(equation)
    operations = loop.length * max(1, count_operations(loop.body))
    if operations > MOST_OPERATIONS:
        raise ControlFlowError(
            f"Expected loops of at most {MOST_OPERATIONS} operations between x and the logits, "
            f"got 'scan' {place(scope)} with {operations} in {loop.length} iterations: "
            "every iteration has its own masks and is compiled by itself."
        )
    first = loop.constants + loop.carry
    constants, carry = operands[: loop.constants], operands[loop.constants : first]

    def insert(
        function: Callable[..., Any], arguments: Sequence[Operand], variables: Sequence[Any]
    ) -> list[Operand]:
        """Read a function of values like `variables` into the program."""
        like = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in variables]
        with user_code(equation, ""):
            made = jax.make_jaxpr(function)(*like)
        values = [Constant(value) for value in constants_of(made)]
        return inline(inside(made), arguments, values, f"{scope}/scan")

    stacked = equation.invars[first:]
    elements = insert(partial(_take_apart, loop.length), operands[first:], stacked)
    outputs: list[Sequence[Operand]] = [()] * loop.length
    # The number of an iteration goes to the scope of the body, where it has one.
    around = f"{scope}/" if common_scope(loop.body) else scope or "scan"
    for i in loop.order:
        mine = elements[i * len(stacked) : (i + 1) * len(stacked)]
        results = inline(
            loop.body,
            [*constants, *carry, *mine],
            [Constant(value) for value in loop.body_constants],
            f"{around}[{i}]",
        )
        carry, outputs[i] = results[: loop.carry], results[loop.carry :]
    returned = loop.body.outvars[loop.carry :]
    if loop.length and returned:
        flat = [value for iteration in outputs for value in iteration]
        return [*carry, *insert(partial(_stack, loop.length), flat, [*returned] * loop.length)]
    empty = [Constant(np.zeros((0, *v.aval.shape), v.aval.dtype)) for v in returned]
    return [*carry, *empty]


def _take_apart(length: int, *stacked: jax.Array) -> list[jax.Array]:
    """What each iteration reads, iteration after iteration."""
    return [lax.index_in_dim(a, i, keepdims=False) for i in range(length) for a in stacked]


def _stack(length: int, *outputs: jax.Array) -> list[jax.Array]:
    """What the iterations return, iteration after iteration, stacked over them."""
    count = len(outputs) // length
    return [jnp.stack(outputs[which::count]) for which in range(count)]
