"""Which way each operation of a piecewise-linear function goes at x, as the gate of a ReLU.

A bit or a byte for each element in place of a slope and an intercept: every pass of the loop reads
it. With the decisions made the function is affine (paper Eq. 3).
"""

from typing import Any

import jax
import jax.numpy as jnp

from dmbp_jax.graph.steps import Step, plainly

_COMPARISONS = ("gt", "ge", "lt", "le", "eq", "ne", "is_finite")


def decide(node: Step, values: list[Any]) -> jax.Array | None:
    """What x decides at an operation with these operands; None where it decides nothing.

    A maximum or minimum with a constant is the constant where both are equal, as a ReLU's gate is
    closed at 0.
    """
    name = node.name
    if name in _COMPARISONS:
        return plainly(node, values)[0]
    if name in ("sign", "abs"):
        return jnp.sign(values[0]).astype(jnp.int8)
    if name == "clamp":
        low, z, high = values
        return (z > low).astype(jnp.int8) + (z >= high).astype(jnp.int8)
    if name not in ("max", "min"):
        return None
    a, b = values if node.depends[0] else values[::-1]
    if all(node.depends):
        return a >= b if name == "max" else a <= b
    return a > b if name == "max" else a < b


def follow(node: Step, values: list[Any], decision: jax.Array | None) -> jax.Array:
    """The value of an operation that goes the way it was decided: affine in what depends on x."""
    name = node.name
    if decision is None:
        return plainly(node, values)[0]
    if name in _COMPARISONS:
        return decision
    if name in ("sign", "abs"):
        sign = decision.astype(values[0].dtype)
        return sign if name == "sign" else sign * values[0]
    if name == "clamp":
        low, z, high = values
        return jnp.where(decision == 1, z, jnp.where(decision == 0, low, high))
    a, b = values if node.depends[0] else values[::-1]
    return jnp.where(decision, a, b)
