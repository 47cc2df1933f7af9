"""How programs are compiled, and for how long they stay: the newest of each network, as it does.

On a CPU convolutions and products are XLA's own, not YNNPACK's: those of jaxlib 0.10 take up to
twice as long, and are set up anew when a program runs for the first time (docs/speed.md).
"""

import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import jax

from dmbp_jax.graph.model import is_traced
from dmbp_jax.graph.pieces import families
from dmbp_jax.graph.tracing import TracedNetwork

KEPT = 40  # programs of one network in memory; a new setting in every call must not fill it
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
    leaves, tree = jax.tree.flatten(arguments)
    platform = None if is_traced(leaves) else jax.default_backend()

    def of_leaves(*leaves: jax.Array) -> Any:
        return function(*jax.tree.unflatten(tree, leaves), **static)

    def make() -> Callable[..., Any]:
        return jax.jit(of_leaves) if platform is None else compiled(of_leaves, platform)

    key = (function, tree, tuple(sorted(static.items())), platform)
    return find_program(arguments, key, make)(*leaves)


def find_program(arguments: Any, key: Any, make: Callable[[], Any]) -> Any:
    """What was made before for a key, with the first network among arguments, or is made now.

    It depends on the pieces that are registered, too.
    """
    kept, key = _kept_with(arguments), (key, families())
    with _lock:
        if key in kept:
            kept[key] = kept.pop(key)
            return kept[key]
    made = make()
    with _lock:
        kept[key] = made
        while len(kept) > KEPT:
            del kept[next(iter(kept))]
    return made


def _kept_with(arguments: Any) -> dict[Any, Any]:
    leaves = jax.tree.leaves(arguments, is_leaf=lambda one: isinstance(one, TracedNetwork))
    networks = (one for one in leaves if isinstance(one, TracedNetwork))
    network = next(networks, None)
    return _without_network if network is None else network.trace.compiled


_without_network: dict[Any, Any] = {}
_lock = threading.Lock()


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
