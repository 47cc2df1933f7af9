"""What a piecewise-linear function of one value is, however it is written: its values at probes.

In NumPy, and only where all constants are known: `where(z > 0, z, 0)` and `(z + |z|) / 2` are then
the ReLU of the paper (Eq. 2), and `nan_to_num(z)` is no function at all. Probes are everywhere, and
at each corner and between corners: `where(z == -9999, 0, z)` is a function.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.graph.operations import KEEPS_ZERO
from dmbp_jax.graph.steps import Constant, Step, interpret

_POWERS = 2.0 ** np.arange(-40, 100)
_BETWEEN = np.random.default_rng(0).normal(scale=4, size=200)
_PROBES = np.unique(np.concatenate([-_POWERS, [0.0], _POWERS, _BETWEEN.astype(np.float32)]))
_ROUNDS = 8  # in which corners are found: one inside another function is a root of that one
_COMPARED = {"gt", "ge", "lt", "le", "eq", "ne", "max", "min"}  # they turn where both are equal

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


class Probed(NamedTuple):
    """A function at probes, in float64."""

    at: np.ndarray
    values: np.ndarray

    @property
    def is_identity(self) -> bool:
        """Whether f(z) = z."""
        return self._equals(self.at)

    @property
    def is_relu(self) -> bool:
        """Whether f(z) = max(z, 0)."""
        return self._equals(np.maximum(self.at, 0))

    @property
    def is_ray(self) -> bool:
        """Whether f(z) is a multiple of max(z, 0), or of max(−z, 0)."""
        right, left = self.values[self.at == 1], self.values[self.at == -1]
        ray = right * np.maximum(self.at, 0) + left * np.maximum(-self.at, 0)
        return bool(right * left == 0) and np.allclose(self.values, ray, rtol=1e-12, atol=0)

    def _equals(self, wanted: np.ndarray) -> bool:
        short = np.isin(self.at, _PROBES)  # numbers of few bits: what is done to them is exact
        return np.array_equal(self.values[short], wanted[short]) and np.allclose(
            self.values, wanted, rtol=1e-12, atol=0
        )


def probe(steps: Sequence[Step], source: int) -> Probed | None:
    """The function at probes; None where a constant is no known number, or it is smooth.

    Nor is it told where two values would be equal between two floats.
    """
    at = _PROBES
    for _ in range(_ROUNDS):
        decided: list[tuple[str, np.ndarray]] = []
        rule = partial(_in_numpy, decided)
        values = interpret(steps, defaultdict(lambda: None, {source: at}), rule)
        found = values[steps[-1].results[0]]
        if found is None:
            return None
        probed = Probed(at, np.broadcast_to(found, at.shape))
        corners = np.unique(np.concatenate([at[:0], *(_roots(at, each) for _, each in decided)]))
        # Between two corners f is a line, which two of its points tell.
        between = [corners[:-1] + part * np.diff(corners) for part in (0.25, 0.625)]
        at = np.unique(np.concatenate([at, corners, *between]))
        if len(at) == len(probed.at):
            break
    is_missed = any(name in ("eq", "ne") and len(_turns(each)) for name, each in decided)
    return None if is_missed else probed


def _turns(difference: np.ndarray) -> np.ndarray:
    """After which probes the sign changes without a 0."""
    signs = np.sign(difference)
    return np.flatnonzero(signs[:-1] * signs[1:] < 0)


def _roots(at: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """Where it is 0 beside something else, or would be 0 as a line between two probes."""
    is_zero = np.pad(difference == 0, 1, mode="edge")
    edges = is_zero[1:-1] & ~(is_zero[:-2] & is_zero[2:])
    turns = _turns(difference)
    low, high = difference[turns], difference[turns + 1]
    with np.errstate(all="ignore"):
        part = low / (low - high)
    part = np.where(np.isfinite(part), part, 0.5)
    return np.append(at[edges], at[turns] + part * (at[turns + 1] - at[turns]))


def _in_numpy(
    decided: list[tuple[str, np.ndarray]], step: Step, operands: Sequence[Any]
) -> list[Any]:
    """What JAX computes, with floats in float64; integers and booleans keep their type.

    Adds the names of comparisons with the differences whose signs decide them.
    """
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
        decided += [
            (step.name, each)
            for each in _differences(step.name, [value.astype(np.float64) for value in values])
            if each.ndim
        ]
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


def _differences(name: str, values: Sequence[np.ndarray]) -> list[np.ndarray]:
    if name in _COMPARED:
        return [values[0] - values[1]]
    if name in ("abs", "sign"):
        return [values[0]]
    return [values[1] - values[0], values[1] - values[2]] if name == "clamp" else []
