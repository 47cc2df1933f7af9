"""Whether a function may read arrays that are none of its arguments: they may change between calls.

Constants of a trace show nearly all of them; an array of one number, of NumPy or of JAX, is written
into the trace like a Python number, and is only found by looking where the function could read it.
"""

import gc
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from types import CodeType, FunctionType, ModuleType
from typing import Any

import jax
import numpy as np

_ENOUGH = 10_000  # objects, beyond which the answer is yes
_PLAIN = (str, bytes, int, float, complex, bool, type(None), CodeType)
# Packages whose own arrays do not change.
_KNOWN = {*sys.stdlib_module_names, "jax", "jaxlib", "numpy", "flax", "equinox"}
_KNOWN |= {"optax", "dmbp_jax"}
_JITTED = type(jax.jit(lambda: None))
_ANYTHING = {"globals", "eval", "exec", "import_module", "__import__"}


def may_read_arrays(*read: Any) -> bool:
    """Whether an array is found in functions and what they capture, or too much to look at.

    Looked at are closures, default arguments, globals and attributes of modules by name, partial
    arguments, attributes, containers and classes. A jitted function reads its arrays once, as JAX
    does.
    """
    waiting, seen = list(read), set()
    while waiting:
        found = waiting.pop()
        if isinstance(found, (jax.Array, np.ndarray, np.generic, ContextVar)):
            return True
        if isinstance(found, _PLAIN) or id(found) in seen:
            continue
        seen.add(id(found))
        if len(seen) > _ENOUGH or (isinstance(found, FunctionType) and reads_anything(found)):
            return True
        waiting.extend(_read_by(found))
    return False


def _read_by(found: Any) -> Iterator[Any]:
    if isinstance(found, FunctionType):
        yield from captured(found)
        if is_known(found.__module__):
            return
        yield from found.__defaults__ or ()
        yield from (found.__kwdefaults__ or {}).values()
        yield from vars(found).values()
        yield from (value for _, value in named(found))
    elif isinstance(found, type):
        if not is_known(found.__module__):
            yield from (*vars(found).values(), *found.__bases__)
    elif not isinstance(found, (ModuleType, _JITTED)):
        yield from (*gc.get_referents(found), type(found))


def is_known(module: str | None) -> bool:
    """Whether what a package holds does not change."""
    return (module or "").split(".")[0] in _KNOWN


def reads_anything(function: FunctionType) -> bool:
    """Whether a function may read what it does not name."""
    known = is_known(function.__module__)
    return not known and not names_read(function.__code__).isdisjoint(_ANYTHING)


def named(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The globals and attributes of modules that a function names, and what they are."""
    if is_known(function.__module__):
        return
    names = names_read(function.__code__)
    modules = [one for one in captured(function) if isinstance(one, ModuleType)]
    modules += [sys.modules[name] for name in sorted(names & sys.modules.keys())]  # imported in it
    scopes = [function.__globals__]
    scopes += [vars(one) for one in modules if not is_known(one.__name__)]
    for scope in scopes:  # which grows
        for name in sorted(names & scope.keys()):
            value = scope[name]
            if not isinstance(value, ModuleType):
                yield name, value
            elif not is_known(value.__name__) and all(vars(value) is not one for one in scopes):
                scopes.append(vars(value))


def captured(function: FunctionType) -> list[Any]:
    """What a function captured from the functions around it; None for what is filled later."""
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:
            found.append(None)
    return found


def names_read(code: CodeType) -> set[str]:
    """The globals and attributes that a function names, and those inside it."""
    inner = (one for one in code.co_consts if isinstance(one, CodeType))
    return set(code.co_names).union(*map(names_read, inner))
