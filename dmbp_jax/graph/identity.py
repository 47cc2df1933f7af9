"""What a traced network is, by content: equal ones compute the same with equal arrays.

A new function with the program of an earlier one is the same network, and so is one of another
process if all of it has a description (programs that are kept on disk are found by it).
"""

import dataclasses
import enum
import re
from collections.abc import Hashable, Mapping, Set
from hashlib import sha256
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex
from jax.extend.core import primitives

from dmbp_jax.graph.jaxprs import (
    bind,
    called_jaxpr,
    constants_of,
    inside,
    is_jaxpr,
    without_dead_code,
)
from dmbp_jax.graph.operations import CALLS

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{4}")
_RELU_OF_JAX = re.compile(r"relu6? at .*[/\\]jax[/\\]_src[/\\]nn[/\\]functions\.py:\d+")
_OF_JAX = {one for one in vars(primitives).values() if isinstance(one, jex.Primitive)}
_RULES = ("jvp", "fwd", "bwd", "out_trees")  # parameters of custom derivatives start so


class Identity(NamedTuple):
    """Equal in one process where both are; in another, too, where there are no `others`."""

    digest: str  # SHA-256 of the equations, their parameters and constants
    # what has no description by content, such as somebody's own primitive; compared by its own
    # equality
    others: tuple[Any, ...]


def identity(jaxpr: Any) -> Identity:
    """What a jaxpr computes, and its derivative; name scopes too, as sites are named after them."""
    describer = _Describer()
    text = describer.jaxpr(jaxpr)
    return Identity(sha256(text.encode()).hexdigest(), tuple(describer.others))


class _Describer:
    """Writes jaxprs as text, and keeps what cannot be written."""

    def __init__(self) -> None:
        self.others: list[Any] = []
        self._is_in_rule = False

    def jaxpr(self, jaxpr: Any) -> str:
        inner, constants = inside(jaxpr), constants_of(jaxpr)
        names: dict[Any, int] = {}

        def new(variable: Any) -> str:
            names[variable] = len(names)
            return f"{names[variable]}:{_aval(variable)}"

        def read(atom: Any) -> str:
            if isinstance(atom, jex.Literal):
                return f"{self.value(atom.val)}:{_aval(atom)}"
            return str(names[atom])

        lines = [self.value(list(constants))]
        lines += [new(variable) for variable in (*inner.constvars, *inner.invars)]
        for equation in inner.eqns:
            name = equation.primitive.name
            if equation.primitive not in _OF_JAX:  # it computes somebody's code, and not its name
                name += self._other(equation.primitive)
            parameters = {
                key: value
                for key, value in equation.params.items()
                if not (name in CALLS and key.startswith(_RULES))
            }
            if name in CALLS and name.startswith("custom_") and not self._is_in_rule:
                name += self._derivative(equation)
            operands = " ".join(map(read, equation.invars))
            results = " ".join(map(new, equation.outvars))
            scope = str(equation.source_info.name_stack)
            lines.append(f"{results} = {name}[{self.value(parameters)}] ({operands}) {scope!r}")
        lines.append(" ".join(map(read, inner.outvars)))
        return "\n".join(lines)

    def value(self, value: Any) -> str:
        """A parameter of an equation by content."""
        if is_jaxpr(value):
            return f"{{{self.jaxpr(value)}}}"
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
            return f"{type(value).__name__} {value!r}"
        if isinstance(value, enum.Enum):
            return f"{type(value).__name__}.{value.name}"
        if isinstance(value, (np.ndarray, np.generic, jax.Array)):
            if isinstance(value, jax.core.Tracer) or _is_extended(value.dtype):
                return self._other(value)
            array = np.asarray(value)
            return f"{array.dtype}{array.shape} {sha256(array.tobytes()).hexdigest()}"
        if isinstance(value, (type, np.dtype)):
            return f"{type(value).__name__} {value!r}"
        if isinstance(value, Mapping):
            items = sorted(value.items(), key=lambda item: str(item[0]))
            return "{" + ", ".join(f"{key!r}: {self.value(one)}" for key, one in items) + "}"
        if isinstance(value, Set):
            return f"{{{sorted(map(self.value, value))}}}"
        if isinstance(value, (tuple, list)):
            return f"{type(value).__name__}({', '.join(map(self.value, value))})"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = [getattr(value, field.name) for field in dataclasses.fields(value)]
            return f"{type(value).__name__}({', '.join(map(self.value, fields))})"
        text = repr(value)
        if _ADDRESS.search(text) or not type(value).__module__.startswith("jax"):
            return self._other(value)
        return text

    def _derivative(self, equation: Any) -> str:
        """What the rule of a custom derivative computes; of JAX's ReLU it is known."""
        inner = inside(called_jaxpr(equation))
        source = str(getattr(inner.debug_info, "func_src_info", ""))
        is_nested = any(one.primitive.name.startswith("custom_") for one in inner.eqns)
        if _RELU_OF_JAX.fullmatch(source) and not is_nested:
            return ""
        operands = [variable.aval for variable in equation.invars]
        moves = [jnp.issubdtype(aval.dtype, jnp.floating) for aval in operands]

        def pulled_back(values: Any, cotangents: Any) -> Any:
            def function(*floating: Any) -> Any:
                moved = iter(floating)
                pairs = zip(moves, values, strict=True)
                return bind(equation, [next(moved) if moving else one for moving, one in pairs])

            floating = [one for moving, one in zip(moves, values, strict=True) if moving]
            return jax.vjp(function, *floating)[1](cotangents)

        def like(avals: Any) -> list[Any]:
            return [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]

        results = [variable.aval for variable in equation.outvars]
        self._is_in_rule = True  # which may call the function again
        try:
            closed = jax.make_jaxpr(pulled_back)(like(operands), like(results))
            rule, constants = without_dead_code(closed)
            return f" {{{self.jaxpr(rule)} {self.value(constants)}}}"
        except Exception:  # whatever it needs that is not there any more: equal to itself alone
            return self._other(object())
        finally:
            self._is_in_rule = False

    def _other(self, value: Any) -> str:
        is_comparable = isinstance(value, Hashable) and not isinstance(value, jax.core.Tracer)
        self.others.append(value if is_comparable else object())
        return f"<{len(self.others)}>"


def _aval(atom: Any) -> str:
    return f"{atom.aval}{'~' if getattr(atom.aval, 'weak_type', False) else ''}"


def _is_extended(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jax.dtypes.extended)
