"""Jaxprs of every supported JAX version: the only file that knows how they differ.

`jax.make_jaxpr`, `jax.extend.core` and `primitive.bind` are used. Up to JAX 0.11 calls hold a
`ClosedJaxpr`, from 0.12 a `Jaxpr` with its constants; a scan counts its operands in numbers, from
0.12 in trees. Parameters of while and cond are never read. Line numbers and name scopes of the
user's code are kept by JAX's own `source_info_util`.
"""

import math
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.extend import core as jex
from jax.interpreters import partial_eval

try:
    from jax._src import source_info_util
    from jax._src.config import traceback_filtering
except ImportError:  # profiles and tracebacks then lack the user's code, values are the same
    source_info_util, traceback_filtering = None, nullcontext

# Run for what they do and not for a value: prints, callbacks of the user, checks of `checkify`.
_SIDE_EFFECTS = {"debug_callback", "debug_print", "io_callback", "check"}
# Where JAX and Flax refuse shapes that do not fit those of parameters.
_SHAPE_RULES = {
    *("_dot_general_shape_rule", "_conv_general_dilated_shape_rule", "contract_path"),
    *("_broadcast_shapes_uncached", "_try_broadcast_shapes", "broadcasting_shape_rule", "param"),
}
_SCOPES_OF_JAX = r"(?:p?jit\(.*\)|checkpoint|rematted_computation)"


class Body(NamedTuple):
    """The equations of a jaxpr whose constants are inputs, as far as its results read them."""

    invars: Sequence[Any]
    eqns: Sequence[Any]
    outvars: Sequence[Any]
    constvars: Sequence[Any] = ()


def inside(jaxpr: Any) -> Any:
    """The `Jaxpr` of a `ClosedJaxpr`, or itself."""
    return getattr(jaxpr, "jaxpr", jaxpr)


def constants_of(jaxpr: Any) -> Sequence[Any]:
    """Constants of a `ClosedJaxpr` (JAX up to 0.11) or a `Jaxpr` (from 0.12)."""
    return getattr(jaxpr, "consts", ())


def is_jaxpr(value: Any) -> bool:
    """Whether a parameter of an equation is one, closed or not."""
    return hasattr(inside(value), "eqns")


def shapes_are_refused(trace: Callable[[], Any]) -> bool:
    """Whether a trace ends where JAX or Flax compare the shape of a value with that of parameters.

    Decided by the function that raises, which JAX takes out of the traceback of a first trace.
    """
    try:
        with traceback_filtering("off"):
            trace()
    except Exception as error:
        frame = list(traceback.walk_tb(error.__traceback__))[-1][0]
        package = frame.f_globals.get("__name__", "").split(".")[0]
        return frame.f_code.co_name in _SHAPE_RULES and package in ("jax", "flax", "opt_einsum")
    return False


def without_dead_code(jaxpr: Any) -> tuple[Body, tuple[Any, ...]]:
    """What the results of a jaxpr read, within calls and loops too, and the constants among it.

    Constants are inputs before the last one. Prints and callbacks whose values nobody reads count
    as dead.
    """
    silent = _without_side_effects(inside(jaxpr))
    live, _ = partial_eval.dce_jaxpr(silent, [True] * len(silent.outvars), True)
    _keep_literals(live)
    read = {id(atom) for equation in live.eqns for atom in equation.invars}
    read |= {id(atom) for atom in live.outvars}
    pairs = zip(live.constvars, constants_of(jaxpr), strict=True)
    kept = [(variable, value) for variable, value in pairs if id(variable) in read]
    *arguments, last = live.invars
    inputs = [*arguments, *(variable for variable, _ in kept), last]
    return Body(inputs, live.eqns, live.outvars), tuple(value for _, value in kept)


def _keep_literals(jaxpr: Any) -> None:
    """A number of NumPy that somebody captured may be written in place later: keep it as it is."""
    for equation in jaxpr.eqns:
        for atom in equation.invars:
            if isinstance(atom, jex.Literal) and isinstance(atom.val, np.ndarray):
                atom.val = atom.val.copy()
        for inner in inner_jaxprs(equation):
            _keep_literals(inner)


def _without_side_effects(jaxpr: Any) -> Any:
    """The same jaxpr, in which prints and callbacks are there for their values alone."""
    if not jaxpr.effects:
        return jaxpr
    equations = [_without_effects(equation) for equation in jaxpr.eqns]
    left = frozenset().union(*(equation.effects for equation in equations))
    return jaxpr.replace(eqns=equations, effects=jaxpr.effects & left)


def _without_effects(equation: Any) -> Any:
    if equation.primitive.name in _SIDE_EFFECTS:
        return equation.replace(effects=jex.no_effects)

    def replaced(value: Any) -> Any:
        if isinstance(value, (tuple, list)) and any(map(is_jaxpr, value)):
            return type(value)(map(replaced, value))
        if not is_jaxpr(value):
            return value
        silent = _without_side_effects(inside(value))
        return silent if inside(value) is value else value.replace(jaxpr=silent)

    params = {name: replaced(value) for name, value in equation.params.items()}
    inner = list(jex.jaxprs_in_params(params))
    if not inner:
        return equation
    left = frozenset().union(*(one.effects for one in inner))
    return equation.replace(params=params, effects=equation.effects & left)


def called_jaxpr(equation: Any) -> Any:
    """The jaxpr of a call."""
    return equation.params["call_jaxpr" if "call_jaxpr" in equation.params else "jaxpr"]


def scan_operands(equation: Any) -> tuple[int, int]:
    """How many operands of a scan are constants of its body, and how many come next, its carry.

    The others are elements, of which each iteration gets one.
    """
    if "ft_in" in equation.params:  # from JAX 0.12
        constants, carry, *_ = equation.params["ft_in"].unpack()
        return len(list(constants)), len(list(carry))
    return equation.params["num_consts"], equation.params["num_carry"]


def altered(
    equation: Any, params: Mapping[str, Any], reads: Sequence[Any], makes: Sequence[Any]
) -> Any:
    """An equation with other parameters, of operands and results with axes in these orders."""
    return equation.replace(
        params=dict(params),
        invars=list(map(_turned, equation.invars, reads)),
        outvars=list(map(_turned, equation.outvars, makes)),
    )


def transposition(near: Any, variable: Any, have: Sequence[int], want: Sequence[int]) -> Any:
    """An equation, at the place of another, that brings a value to another order of axes."""
    return near.replace(
        primitive=lax.transpose_p,
        params={"permutation": tuple(have.index(axis) for axis in want)},
        invars=[_turned(variable, have)],
        outvars=[_turned(variable, want)],
        effects=jex.no_effects,
    )


def _turned(variable: Any, order: Sequence[int]) -> Any:
    if list(order) == sorted(order):
        return variable
    aval = variable.aval
    return jex.Var(type(aval)(tuple(aval.shape[axis] for axis in order), aval.dtype))


def inner_jaxprs(equation: Any) -> Sequence[Any]:
    """The jaxprs of an equation: one of a call or a loop, several of a choice of branches."""
    return list(jex.jaxprs_in_params(equation.params))


def executions(jaxpr: Any, times: int = 1) -> Iterator[tuple[Any, int]]:
    """Every equation of a jaxpr that is no call, and how often it runs.

    Those inside calls and loops are among them, of a scan once for each iteration; a scan itself
    comes too, as what stacks what its iterations return.
    """
    for equation in jaxpr.eqns:
        inner, is_scan = inner_jaxprs(equation), equation.primitive.name == "scan"
        if is_scan or not inner:
            yield equation, times
        for one in inner:
            yield from executions(one, times * equation.params["length"] if is_scan else times)


def count_operations(jaxpr: Any) -> int:
    """Operations that a jaxpr runs, with those inside its calls and loops."""
    return sum(times for equation, times in executions(jaxpr) if equation.primitive.name != "scan")


def called_name(equation: Any) -> str:
    """The name of a called function; of a primitive, its own."""
    return str(equation.params.get("name", equation.primitive.name))


def bind(equation: Any, values: Sequence[Any]) -> list[Any]:
    """The results of one equation, evaluated or traced anew."""
    parameters = equation.primitive.get_bind_params(equation.params)
    result = equation.primitive.bind(*values, **parameters)
    return list(result) if equation.primitive.multiple_results else [result]


def user_code(equation: Any, scope: str) -> AbstractContextManager[Any]:
    """Attribute what is traced inside to the user's line and scope, in tracebacks and profiles."""
    if source_info_util is None:
        return jax.named_scope(scope) if scope else nullcontext()
    stack = source_info_util.current_name_stack()
    return source_info_util.user_context(
        equation.source_info.traceback, name_stack=stack.extend(scope) if scope else stack
    )


def evaluate(
    jaxpr: Any,
    arguments: Sequence[Any],
    bind: Callable[[Any, Sequence[Any]], list[Any]] = bind,
) -> list[Any]:
    """The results of a whole jaxpr, without looking into its calls."""
    values: dict[Any, Any] = dict(zip(inside(jaxpr).constvars, constants_of(jaxpr), strict=True))
    jaxpr = inside(jaxpr)
    values.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, jex.Literal) else values[atom]

    for equation in jaxpr.eqns:
        with user_code(equation, str(equation.source_info.name_stack)):
            results = bind(equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def value_bytes(jaxpr: Any) -> int:
    """Bytes of all values that a jaxpr computes, those inside its calls and loops included."""
    total = 0
    for equation, times in executions(jaxpr):
        is_scan = equation.primitive.name == "scan"
        made = equation.outvars[scan_operands(equation)[1] if is_scan else 0 :]
        total += times * sum(_bytes(variable.aval) for variable in made)
    return total


def join_scopes(outer: str, inner: str) -> str:
    """Concatenate name scopes, dropping what only JAX's own transformations wrote.

    The number of an iteration alone, `[3]`, is appended to the next scope inside it.
    """
    parts = []
    numbers = ""
    for part in (outer + "/" + inner).split("/"):
        while match := re.fullmatch(r"(?:vmap|jvp|transpose|remat|checkpoint)\((.*)\)", part):
            part = match[1]
        if re.fullmatch(r"(?:\[\d+\])+", part):
            numbers += part
        elif part and not re.fullmatch(_SCOPES_OF_JAX, part):
            parts.append(part + numbers)
            numbers = ""
    return "/".join([*parts, numbers] if numbers else parts)


def common_scope(jaxpr: Any) -> str:
    """The first name scope of all equations, or ""; a call without a scope has those inside it."""
    found = set()
    for equation in jaxpr.eqns:
        own = join_scopes("", str(equation.source_info.name_stack)).split("/")[0]
        inner = inner_jaxprs(equation)
        if own or not inner:
            found.add(own)
        else:
            found.update(map(common_scope, inner))
    return found.pop() if len(found) == 1 else ""


def _bytes(aval: Any) -> int:
    shape, dtype = getattr(aval, "shape", None), getattr(aval, "dtype", None)
    if shape is None or not isinstance(dtype, np.dtype):
        return 0
    return math.prod(shape) * dtype.itemsize
