"""Disentangled Masked Backpropagation in JAX: signed attribution maps for ReLU networks.

Public names are those of `__init__.pyi`, imported on first use, so that `import dmbp_jax` and
`dmbp --help` do not wait for JAX.
"""

import ast
from importlib import import_module
from pkgutil import get_data
from typing import Any

from dmbp_jax.version import __version__ as __version__

_HOME = {
    alias.name: str(line.module)
    for line in ast.parse(get_data(__name__, "__init__.pyi") or b"").body
    if isinstance(line, ast.ImportFrom)
    for alias in line.names
}
__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'dmbp_jax' has no attribute {name!r}")
    if home == __name__:
        return import_module(f"{home}.{name}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
