"""Whether a function may read arrays that are none of its arguments: they may change between calls.

Constants of a trace show nearly all of them; a NumPy scalar that a function captured is written
into the trace like a Python number, and is only found by looking where the function could read it.
"""

import gc
import inspect
from collections.abc import Iterator
from contextlib import suppress
from types import CodeType, FunctionType, ModuleType
from typing import Any

import jax
import numpy as np

_ENOUGH = 10_000  # objects, beyond which the answer is yes
_PLAIN = (str, bytes, int, float, complex, bool, type(None), type, ModuleType, CodeType)
_WITHOUT_ARRAYS = ("jax", "jaxlib", "numpy", "flax", "builtins")  # functions of these modules


def may_read_arrays(*functions: Any) -> bool:
    """Whether an array is found in what functions capture, or too much to look at.

    Looked at are closures, default arguments, globals by name, partial arguments, what a method is
    bound to, attributes and containers. A jitted function reads its arrays once, as JAX does.
    """
    waiting, seen = list(functions), set()
    while waiting:
        found = waiting.pop()
        if isinstance(found, (jax.Array, np.ndarray, np.generic)):
            return True
        if isinstance(found, _PLAIN) or id(found) in seen:
            continue
        seen.add(id(found))
        if len(seen) > _ENOUGH:
            return True
        waiting.extend(_read_by(found))
    return False


def _read_by(found: Any) -> Iterator[Any]:
    if isinstance(found, FunctionType):
        if (found.__module__ or "").split(".")[0] in _WITHOUT_ARRAYS and not found.__closure__:
            return
        for cell in found.__closure__ or ():
            with suppress(ValueError):  # it is filled later
                yield cell.cell_contents
        yield from found.__defaults__ or ()
        yield from (found.__kwdefaults__ or {}).values()
        yield from vars(found).values()
        for name in _names(found.__code__):
            if name in found.__globals__:
                yield found.__globals__[name]
    elif not hasattr(found, "__wrapped__"):
        yield from gc.get_referents(found)
        yield inspect.getattr_static(type(found), "__call__", None)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
