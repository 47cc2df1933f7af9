"""The eleven methods the paper compares DMBP with, and DMBP itself, under one convention.

Every one is `f(params, x, label, *, apply_fn=None, key=None, chunk_size=None, **options)`, a file
of its own here and a row of `dmbp_jax.catalogue`.
"""

from collections.abc import Callable
from typing import Any

from dmbp_jax.catalogue import CATALOGUE

METHODS: dict[str, Callable[..., Any]] = {row.name: row.function for row in CATALOGUE}

# `from dmbp_jax.methods import gradient` is the function, not the file of the same name.
globals().update(METHODS)


def __getattr__(name: str) -> Any:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(["METHODS", *METHODS])
