"""What a piecewise-linear function of one value is, however it is written: its values at probes.

In NumPy, and only where all constants are known: `where(z > 0, z, 0)` and `(z + |z|) / 2` are then
the ReLU of the paper (Eq. 2), and `nan_to_num(z)` is no function at all.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.graph.operations import KEEPS_ZERO
from dmbp_jax.graph.steps import Constant, Step, interpret

_POWERS = 2.0 ** np.arange(-40, 100)
_BETWEEN = np.random.default_rng(0).normal(scale=4, size=200)
PROBES = np.concatenate([-_POWERS[::-1], [0.0], _POWERS, _BETWEEN.astype(np.float32)])

_FUNCTIONS: dict[str, Any] = {
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,  # of floats: one of integers truncates
    "neg": np.negative,
    "max": np.maximum,
    "min": np.minimum,
    "abs": np.abs,
    "sign": np.sign,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lt": np.less,
    "le": np.less_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "not": np.bitwise_not,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "is_finite": np.isfinite,
    "clamp": lambda low, z, high: np.minimum(np.maximum(z, low), high),
    "select_n": lambda which, *cases: np.choose(which.astype(int), cases, mode="clip"),
}
_MOST = 32  # operands; `np.choose` takes no more cases


def values_at_probes(steps: Sequence[Step], source: int) -> np.ndarray | None:
    """f(PROBES) in float64; None where a constant is no known number, or an operation is smooth."""
    values = interpret(steps, defaultdict(lambda: None, {source: PROBES}), _in_numpy)
    found = values[steps[-1].results[0]]
    return None if found is None else np.broadcast_to(found, PROBES.shape)


def _in_numpy(step: Step, operands: Sequence[Any]) -> list[Any]:
    """What JAX computes, with floats in float64; integers and booleans keep their type."""
    types = [_type(variable) for variable in step.equation.invars]
    values: list[Any] = [
        _number(value, dtype) if isinstance(operand, Constant) else value
        for value, operand, dtype in zip(operands, step.operands, types, strict=True)
    ]
    made, unknown = _type(step.equation.outvars[0]), [None] * len(step.results)
    if made is None or len(unknown) > 1:
        return unknown
    if any(v is None or v.dtype != dtype for v, dtype in zip(values, types, strict=True)):
        return unknown  # of a source that is no float too
    is_of_floats = any(value.dtype.kind == "f" for value in values)
    if step.name in KEEPS_ZERO:
        rounds = is_of_floats and made.kind != "f"
        return [None if rounds else values[0].astype(made)]
    function = _FUNCTIONS.get(step.name)
    if function is None or len(values) > _MOST or (step.name == "div" and not is_of_floats):
        return unknown
    with np.errstate(all="ignore"):
        found = np.asarray(function(*values))
    return [found if found.dtype == made else None]


def _type(variable: Any) -> np.dtype | None:
    """The type of a value here; None of what is neither a real number nor a boolean."""
    dtype = getattr(variable.aval, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jnp.floating):
        return np.dtype(np.float64)
    return dtype if isinstance(dtype, np.dtype) and dtype.kind in "biu" else None


def _number(value: Any, dtype: np.dtype | None) -> np.ndarray | None:
    if dtype is None or isinstance(value, jax.core.Tracer) or np.ndim(value):
        return None
    return np.asarray(value).astype(dtype)


def is_identity(values: np.ndarray | None) -> bool:
    """Whether f(z) = z."""
    return values is not None and np.array_equal(values, PROBES)


def is_relu(values: np.ndarray | None) -> bool:
    """Whether f(z) = max(z, 0)."""
    return values is not None and np.array_equal(values, np.maximum(PROBES, 0))


def is_ray(values: np.ndarray | None) -> bool:
    """Whether f(z) is a multiple of max(z, 0), or of max(−z, 0)."""
    if values is None:
        return False
    right, left = values[PROBES == 1], values[PROBES == -1]
    ray = right * np.maximum(PROBES, 0) + left * np.maximum(-PROBES, 0)
    return right * left == 0 and np.allclose(values, ray, rtol=1e-12, atol=0)
