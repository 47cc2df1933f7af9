"""How programs are compiled and for how long they stay: as long as they are among the newest.

On a CPU convolutions and products are XLA's own, not YNNPACK's: those of jaxlib 0.10 take up to
twice as long, and are set up anew when a program runs for the first time (docs/speed.md).
"""

import os
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import jax

from dmbp_jax.graph.model import is_traced

KEPT = 40  # programs of one kind in memory; a new network in every call must not fill it
_OPTION = "xla_cpu_experimental_ynn_fusion_type"  # what goes to YNNPACK: nothing


def run(function: Callable[..., Any], *arguments: Any, **static: Any) -> Any:
    """`function(*arguments, **static)` as a compiled program; inside a trace it is part of that.

    `jax.jit(function)` would keep what it compiled, and with it the networks that it was compiled
    for, as long as the function lives.

    Args:
      function: of a module, so that equal calls compile once.
      arguments: pytrees of arrays.
      static: hashable.
    """
    if is_traced(arguments):
        return function(*arguments, **static)
    leaves, tree = jax.tree.flatten(arguments)
    items = tuple(sorted(static.items()))
    return _program(function, tree, items, jax.default_backend())(*leaves)


@lru_cache(KEPT)
def _program(
    function: Callable[..., Any], tree: Any, static: tuple[tuple[str, Any], ...], platform: str
) -> Callable[..., Any]:
    def of_leaves(*leaves: jax.Array) -> Any:
        return function(*jax.tree.unflatten(tree, leaves), **dict(static))

    return compiled(of_leaves, platform)


def compiled(
    function: Callable[..., Any], platform: str | None = None, **options: Any
) -> Callable[..., Any]:
    """`jax.jit(function, **options)` with XLA's options for a platform; None is JAX's default one.

    Not for use in a trace: JAX takes XLA's options from the outermost function only.
    """
    chosen = compiler_options(platform or jax.default_backend())
    return jax.jit(function, compiler_options=chosen, **options)


@cache
def compiler_options(platform: str) -> dict[str, str] | None:
    """XLA's options for programs on a platform; None where nothing differs from its defaults.

    A setting of the user's in XLA_FLAGS is left alone.
    """
    if platform != "cpu" or _OPTION in os.environ.get("XLA_FLAGS", ""):
        return None
    options = {_OPTION: ""}
    try:  # An option that is experimental may be absent from the XLA of another jaxlib.
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return options
