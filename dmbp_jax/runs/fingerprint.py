"""What a value is, by content, as JSON: equal descriptions mean that results can be continued.

Functions count by their code, since a preprocessing or a method of a user's own cannot be traced;
a network is told by its traced program (`graph.identity`). No description holds an address, so it
is the same in every process.
"""

import dataclasses
import dis
import enum
import json
import math
import re
import types
from collections.abc import Callable, Mapping, Set
from functools import partial
from hashlib import sha256
from pathlib import PurePath
from typing import Any

import jax
import numpy as np

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_WRITTEN = (bool, int, float, complex, str, bytes, enum.Enum, PurePath, np.dtype)
_ARRAYS = (jax.Array, np.ndarray, np.generic)
_FOLLOWED = (*_WRITTEN, *_ARRAYS, tuple, list, dict, Set, partial, types.MethodType)


def describe(value: Any) -> Any:
    """A value as JSON, by content.

    Numbers and strings are themselves; an array is its dtype, shape and the SHA-256 of its bytes;
    containers, dataclasses, named tuples and `functools.partial` are described field by field. A
    function is its module, its qualified name, its defaults and closure, and the SHA-256 of its
    bytecode with the globals it reads, as far as these are data or functions of the same module.
    That describes an optax optimiser too, which is a tuple of closures.

    Args:
      value: anything. The code of functions in other modules is not followed, so a caller adds
        the versions of the packages that matter.

    Returns:
      A value that `json.dumps` takes and that `json.loads` gives back unchanged.

    Example:
      >>> describe({"masks": 500, "rule": "trapezoid"})
      {'masks': 500, 'rule': 'trapezoid'}
      >>> long = np.zeros(2000)
      >>> describe(long) == describe(long.copy())
      True
      >>> repr(long) == repr(long + (np.arange(2000) == 1000))  # NumPy prints the ends alone
      True
      >>> describe(long) == describe(long + (np.arange(2000) == 1000))
      False
    """
    return _describe(value, ())


def fingerprint(value: Any) -> str:
    """SHA-256 of `describe(value)`, 64 hexadecimal digits.

    Example:
      >>> fingerprint([1, 2]) == fingerprint([1, 2]), fingerprint([1, 2]) == fingerprint([2, 1])
      (True, False)
    """
    return sha256(_text(describe(value)).encode()).hexdigest()


def _describe(value: Any, above: tuple[int, ...]) -> Any:
    """`above` holds the ids of the values that contain this one: they are not entered again."""
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, _ARRAYS):
        return _array(value, above)
    if isinstance(value, _WRITTEN):
        return _typed(value, repr(value))
    if id(value) in above:
        return {"recursion": type(value).__qualname__}
    inside = partial(_describe, above=(*above, id(value)))
    if isinstance(value, Mapping):
        if all(type(key) is str for key in value):
            return {key: inside(value[key]) for key in sorted(value)}
        pairs = ([inside(key), inside(item)] for key, item in value.items())
        return {"mapping": sorted(pairs, key=_text)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return _typed(value, [[name, inside(getattr(value, name))] for name in value._fields])
    if isinstance(value, (list, tuple)):
        return [inside(item) for item in value]
    if isinstance(value, Set):
        return {"set": sorted((inside(item) for item in value), key=_text)}
    return _object(value, inside)


def _object(value: Any, inside: Callable[[Any], Any]) -> Any:
    """Classes, modules, functions, and instances of classes that are not containers."""
    if isinstance(value, types.ModuleType):
        return {"module": value.__name__}
    if isinstance(value, types.FunctionType):
        return _function(value, inside)
    if isinstance(value, types.MethodType):
        return _typed(value, inside([value.__func__, value.__self__]))
    if isinstance(value, partial):
        return _typed(value, inside([value.func, value.args, value.keywords]))
    if isinstance(value, types.CodeType):
        return _code(value, inside)
    if hasattr(value, "__wrapped__"):  # jax.jit, jax.custom_vjp, functools.wraps, lru_cache
        return _typed(value, inside(value.__wrapped__))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f.name for f in dataclasses.fields(value) if hasattr(value, f.name)]
        return _typed(value, {name: inside(getattr(value, name)) for name in fields})
    if callable(value) and hasattr(value, "__qualname__"):  # classes and built-in functions
        return {"name": _name(value)}
    if type(value).__repr__ is not object.__repr__ and not hasattr(value, "__dict__"):
        return _typed(value, _ADDRESS.sub("", repr(value)))  # tree structures
    state = {k: v for k, v in getattr(value, "__dict__", {}).items() if "__" not in k}
    call = type(value).__call__ if callable(value) else None
    own = call if isinstance(call, types.FunctionType) else None
    return _typed(value, {"state": inside(state), "call": inside(own)})


def _array(value: Any, above: tuple[int, ...]) -> Any:
    if isinstance(value, jax.core.Tracer):
        return {"traced": str(value.aval)}
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return {"random key": _array(jax.random.key_data(value), above)}
    array = np.asarray(value)
    if array.dtype.hasobject:
        return {"array": "object", "items": _describe(array.tolist(), (*above, id(value)))}
    data = sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return {"array": f"{array.dtype}{list(array.shape)}", "sha256": data}


def _function(value: types.FunctionType, inside: Callable[[Any], Any]) -> Any:
    cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
    parts = {
        "code": inside(value.__code__),
        "defaults": inside([value.__defaults__, value.__kwdefaults__]),
        "closure": {name: inside(_content(cell)) for name, cell in cells},
        "globals": {
            name: inside(value.__globals__[name])
            for name in sorted(_globals_read(value.__code__))
            if _is_followed(value.__globals__.get(name), value.__module__)
        },
    }
    # The closure may be large, so what stands in a message or a file is the digest of all.
    return {"function": _name(value), "sha256": sha256(_text(parts).encode()).hexdigest()}


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _code(code: types.CodeType, inside: Callable[[Any], Any]) -> Any:
    """What the code does, without file name and line numbers."""
    names = [*code.co_names, *code.co_varnames, *code.co_freevars]
    arguments = [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount]
    return inside([code.co_code, code.co_consts, names, arguments, code.co_flags])


def _globals_read(code: types.CodeType) -> set[str]:
    names = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    inner = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return names.union(*map(_globals_read, inner))


def _is_followed(value: Any, module: str) -> bool:
    """Whether a global of a function is part of what it computes: data, or a neighbour's code."""
    if isinstance(value, types.FunctionType):
        return value.__module__ == module
    is_instance = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return is_instance or isinstance(value, _FOLLOWED)


def _typed(value: Any, content: Any) -> dict[str, Any]:
    return {"type": _name(type(value)), "value": content}


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{value.__qualname__}"


def _text(described: Any) -> str:
    return json.dumps(described, sort_keys=True)
