"""What a function is by content: its code and what it reads, so that one made anew is the same.

Python compares closures by identity: the equation of a method with its settings, or the two of an
`optax.GradientTransformation`.
"""

from collections.abc import Callable
from contextvars import ContextVar
from functools import cached_property, partial
from hashlib import sha256
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

import jax
import numpy as np

from dmbp_jax.graph.captures import captured, is_known, named, reads_anything


class ByContent:
    """A function that equals every other with its content: a static field of an explainer."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    @cached_property
    def content(self) -> Any:
        """As `content`."""
        return content(self.function)

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByContent) and self.content == other.content

    def __hash__(self) -> int:
        return hash(self.content)


def content(value: Any, seen: dict[int, tuple[int, Any]] | None = None) -> Any:
    """A hashable value; equal ones are of functions, or tuples of them, that do the same.

    Numbers, texts and arrays of NumPy are compared by type and value; functions by their code,
    defaults, captured values and the globals that they name; containers and objects of Python by
    what they hold now; and anything else, arrays of JAX among them, by identity.

    Args:
      value: a function, a tuple of functions, or something that one reads.
      seen: what was met before, by identity: its number, and itself, so that it stays.
    """
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return type(value), repr(value)  # 0.0 is -0.0, and NaN is not NaN
    seen = {} if seen is None else seen
    if id(value) in seen:
        return "seen", seen[id(value)][0]
    seen[id(value)] = len(seen), value
    if len(seen) > _MOST:
        return object()  # equal to nothing
    inside = partial(content, seen=seen)
    if isinstance(value, jax.Array):
        return _Same(value)
    if isinstance(value, FunctionType):
        if reads_anything(value):
            return object()
        parts = value.__defaults__, value.__kwdefaults__, captured(value), list(named(value))
        return value.__code__, id(value.__globals__), inside(parts)
    if isinstance(value, MethodType):
        return MethodType, inside((value.__func__, value.__self__))
    if isinstance(value, partial):
        return partial, inside((value.func, value.args, value.keywords))
    if isinstance(value, np.ndarray) and value.dtype != object:
        return type(value), value.shape, value.dtype.str, sha256(value.tobytes()).digest()
    if isinstance(value, np.generic):
        return type(value), value.tobytes()
    if isinstance(value, ContextVar):
        return _Same(value), inside(value.get(None))
    if isinstance(value, (tuple, list, set, frozenset)):
        return type(value), tuple(map(inside, value))
    if isinstance(value, dict):
        return type(value), tuple((inside(key), inside(one)) for key, one in value.items())
    if isinstance(value, type):
        return _Same(value), None if is_known(value.__module__) else inside(dict(vars(value)))
    if all(one in _PLAIN or one.__flags__ & _IN_PYTHON for one in type(value).__mro__):
        return inside(type(value)), inside(object.__getstate__(value))
    return _Same(value)


_PLAIN = (object, SimpleNamespace)  # which hold nothing but attributes
_MOST = 10_000  # objects that are looked at
_IN_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE: what C defines may hold more than its attributes


class _Same:
    """Equal to the same object only, which it keeps alive."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)
