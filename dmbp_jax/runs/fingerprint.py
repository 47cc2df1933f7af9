"""What a value is, by content, as JSON: equal descriptions mean that results can be continued.

Functions count by their code, since a preprocessing or a method of a user's own cannot be traced;
a network is told by its traced program (`graph.identity`). No description holds an address, so it
is the same in every process.
"""

import dataclasses
import json
import math
import re
import types
from collections.abc import Mapping, Set
from functools import partial
from hashlib import sha256
from typing import Any

import jax
import numpy as np

from dmbp_jax.graph.captures import captured, names_read

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_ARRAYS = (jax.Array, np.ndarray)
_DATA = (bool, int, float, complex, str, bytes, *_ARRAYS, np.generic, tuple, list, dict, Set)


def describe(value: Any) -> Any:
    """A value as JSON, by content, that `json.loads` gives back unchanged.

    An array is its dtype, shape and the SHA-256 of its bytes. A function is its code, defaults and
    closure, with the globals it reads that are data or functions of the same module; an optax
    optimiser is a tuple of such. Functions of other modules are not followed, so a caller adds the
    versions of the packages that matter.

    Example:
      >>> describe({"masks": 500, "rule": "trapezoid"})
      {'masks': 500, 'rule': 'trapezoid'}
    """
    return _describe(value, ())


def fingerprint(value: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of `describe(value)`: short enough to read."""
    return _digest(describe(value))[:16]


def _describe(value: Any, above: tuple[int, ...]) -> Any:
    """`above` holds the ids of the values that contain this one: they are not entered again."""
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, _ARRAYS):
        return _array(value)
    if isinstance(value, types.ModuleType):
        return {"module": value.__name__}
    if id(value) in above:
        return {"recursion": type(value).__qualname__}

    def inside(part: Any) -> Any:
        return _describe(part, (*above, id(value)))

    def typed(content: Any) -> Any:
        return {"type": _name(type(value)), "value": content}

    if isinstance(value, Mapping):
        if all(type(key) is str for key in value):
            return {key: inside(value[key]) for key in sorted(value)}
        pairs = ([inside(key), inside(item)] for key, item in value.items())
        return {"mapping": sorted(pairs, key=_text)}
    if isinstance(value, Set):
        return {"set": sorted(map(inside, value), key=_text)}
    if names := _fields(value):
        return typed({name: inside(getattr(value, name)) for name in names})
    if isinstance(value, (list, tuple)):
        return [inside(item) for item in value]
    if isinstance(value, types.FunctionType):  # a closure may be large: the digest of all parts
        return {"function": _name(value), "sha256": _digest(inside(_parts(value)))}
    if isinstance(value, types.MethodType):
        return typed(inside([value.__func__, value.__self__]))
    if isinstance(value, partial):
        return typed(inside([value.func, value.args, value.keywords]))
    if isinstance(value, types.CodeType):  # without file name and line numbers
        names = [*value.co_names, *value.co_varnames, *value.co_freevars]
        arguments = [value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount]
        return inside([value.co_code, value.co_consts, names, arguments, value.co_flags])
    if hasattr(value, "__wrapped__"):  # jax.jit, jax.custom_vjp, functools.wraps, lru_cache
        return typed(inside(value.__wrapped__))
    if callable(value) and hasattr(value, "__qualname__"):  # classes and built-in functions
        return {"name": _name(value)}
    if type(value).__repr__ is not object.__repr__ and not hasattr(value, "__dict__"):
        return typed(_ADDRESS.sub("", repr(value)))  # tree structures, paths, dtypes
    state = {k: v for k, v in getattr(value, "__dict__", {}).items() if "__" not in k}
    call = type(value).__call__ if callable(value) else None
    own = call if isinstance(call, types.FunctionType) else None
    return typed({"state": inside(state), "call": inside(own)})


def _fields(value: Any) -> tuple[str, ...]:
    """The names of the fields of a dataclass or a named tuple; else none."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return tuple(f.name for f in dataclasses.fields(value) if hasattr(value, f.name))
    return getattr(value, "_fields", ()) if isinstance(value, tuple) else ()


def _array(value: jax.Array | np.ndarray) -> Any:
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return {"random key": _array(jax.random.key_data(value))}
    array = np.asarray(value)
    data = sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return {"array": f"{array.dtype}{list(array.shape)}", "sha256": data}


def _parts(function: types.FunctionType) -> dict[str, Any]:
    """What a function computes with: its code, defaults and closure, and the globals it reads."""
    known = function.__globals__
    names = sorted(names_read(function.__code__) & set(known))
    return {
        "code": function.__code__,
        "defaults": [function.__defaults__, function.__kwdefaults__],
        "closure": captured(function),
        "globals": {n: known[n] for n in names if _is_followed(known[n], function.__module__)},
    }


def _is_followed(value: Any, module: str) -> bool:
    """Whether a global of a function is part of what it computes: data, or a neighbour's code."""
    if isinstance(value, types.FunctionType):
        return value.__module__ == module
    return isinstance(value, (*_DATA, partial, types.MethodType)) or bool(_fields(value))


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{value.__qualname__}"


def _text(described: Any) -> str:
    return json.dumps(described, sort_keys=True)


def _digest(described: Any) -> str:
    return sha256(_text(described).encode()).hexdigest()
