"""What a value is, as JSON: equal for equal values in every process, different for others."""

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from hashlib import sha256
from typing import Any

import jax
import numpy as np

from dmbp_jax.errors import InputTypeError


def describe(value: Any) -> Any:
    """A JSON value that tells `value` from every other.

    Arrays become dtype, shape and SHA-256; dataclasses their fields; functions their name, code
    and what they enclose, so that an optax optimiser is told by its settings, not its address.

    Raises:
      InputTypeError: a value whose content cannot be told.

    Example:
      >>> describe({"rate": 0.1, "sizes": (1, 2)})
      {'rate': 0.1, 'sizes': [1, 2]}
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return _array(value)
    if isinstance(value, Mapping):
        return {str(key): describe(value[key]) for key in sorted(value, key=str)}
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: describe(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, (tuple, list)):
        return [describe(one) for one in value]
    if isinstance(value, partial):
        return [describe(value.func), describe(value.args), describe(value.keywords)]
    if isinstance(value, types.FunctionType):
        enclosed = [describe(cell.cell_contents) for cell in value.__closure__ or ()]
        return {"function": _name(value), "code": _code(value), "encloses": enclosed}
    if isinstance(value, (type, types.BuiltinFunctionType)):
        return _name(value)
    raise InputTypeError(f"Expected a value that can be written down, got {value!r}.")


def hash_of(description: Any) -> str:
    """SHA-256 of a description, short enough to read: 16 hexadecimal digits."""
    return sha256(repr(description).encode()).hexdigest()[:16]


def hash_of_tree(tree: Any) -> str:
    """The same of every array of a pytree, with its place."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return hash_of([(jax.tree_util.keystr(path), describe(leaf)) for path, leaf in leaves])


def _array(value: Any) -> str:
    array = np.ascontiguousarray(value)
    return f"{array.dtype}{list(array.shape)} {sha256(array.tobytes()).hexdigest()[:16]}"


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _code(function: types.FunctionType) -> str:
    code = function.__code__
    constants = [one for one in code.co_consts if not isinstance(one, types.CodeType)]
    return hash_of([code.co_code.hex(), code.co_names, constants])
