"""What a traced network is, by content: equal identities compute the same with equal arrays.

Programs that are kept on disk are found by it. What cannot be described has no identity.
"""

import dataclasses
import enum
import re
from collections.abc import Mapping, Set
from hashlib import sha256
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex
from jax.extend.core import primitives

from dmbp_jax.graph.jaxprs import body
from dmbp_jax.graph.operations import CALLS

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{4}")
_OF_JAX = {one for one in vars(primitives).values() if isinstance(one, jex.Primitive)}
_RULES = ("jvp", "fwd", "bwd", "out_trees")  # parameters of custom derivatives start so


def identity(jaxpr: Any) -> str | None:
    """SHA-256 of the equations of a jaxpr, their parameters and constants; None if unknown.

    Derivative rules of calls do not count: the graph looks into calls and does not ask for them.
    Name scopes do, because sites are named after them.
    """
    try:
        text = _describe_jaxpr(jaxpr)
    except Exception:  # whatever cannot be described is not kept; the call goes on as ever
        return None
    return sha256(text.encode()).hexdigest()


class _UnknownError(Exception):
    """A value that has no description by content."""


def _describe_jaxpr(jaxpr: Any) -> str:
    inner, constants = body(jaxpr)
    names: dict[Any, int] = {}

    def new(variable: Any) -> str:
        names[variable] = len(names)
        return f"{names[variable]}:{_aval(variable)}"

    def read(atom: Any) -> str:
        if isinstance(atom, jex.Literal):
            return f"{_describe(atom.val)}:{_aval(atom)}"
        return str(names[atom])

    lines = [_describe(list(constants))]
    lines += [new(variable) for variable in (*inner.constvars, *inner.invars)]
    for equation in inner.eqns:
        name = equation.primitive.name
        if equation.primitive not in _OF_JAX:
            raise _UnknownError(name)  # what it computes is somebody's code, and not its name
        parameters = {
            key: value
            for key, value in equation.params.items()
            if not (name in CALLS and key.startswith(_RULES))
        }
        operands = " ".join(map(read, equation.invars))
        results = " ".join(map(new, equation.outvars))
        scope = str(equation.source_info.name_stack)
        lines.append(f"{results} = {name}[{_describe(parameters)}] ({operands}) {scope!r}")
    lines.append(" ".join(map(read, inner.outvars)))
    return "\n".join(lines)


def _aval(atom: Any) -> str:
    return f"{atom.aval}{'~' if getattr(atom.aval, 'weak_type', False) else ''}"


def _is_jaxpr(value: Any) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")


def _describe(value: Any) -> str:
    """A parameter of an equation by content."""
    if _is_jaxpr(value):
        return f"{{{_describe_jaxpr(value)}}}"
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        if jnp.issubdtype(value.dtype, jax.dtypes.extended):
            raise _UnknownError(value.dtype)
        array = np.asarray(value)
        return f"{array.dtype}{array.shape} {sha256(array.tobytes()).hexdigest()}"
    if isinstance(value, (type, np.dtype)):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_describe(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, Set):
        return f"{{{sorted(map(_describe, value))}}}"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__}({', '.join(map(_describe, value))})"
    if dataclasses.is_dataclass(value):
        fields = [getattr(value, field.name) for field in dataclasses.fields(value)]
        return f"{type(value).__name__}({', '.join(map(_describe, fields))})"
    text = repr(value)
    if _ADDRESS.search(text) or not type(value).__module__.startswith("jax"):
        raise _UnknownError(text)
    return text
