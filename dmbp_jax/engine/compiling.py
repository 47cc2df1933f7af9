"""How programs are compiled: on a CPU, convolutions and products by XLA itself, not by YNNPACK.

jaxlib 0.10 hands them to YNNPACK there, whose convolutions take up to twice as long as XLA's, and
which is set up anew for each of them when a program runs for the first time (docs/speed.md).
"""

import os
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import jax

from dmbp_jax.graph.tracing import TracedNetwork

_OPTION = "xla_cpu_experimental_ynn_fusion_type"  # what goes to YNNPACK: nothing


@cache
def compiled(function: Callable[..., Any], **options: Any) -> "Compiled":
    """`jax.jit(function, **options)`, the same one for equal arguments.

    Not for use in a trace: JAX takes XLA's options from the outermost function only.

    Args:
      function: of a module, it is kept.
      options: of `jax.jit`, hashable.
    """
    return Compiled(function, options)


class Compiled:
    """A function compiled for each network by itself: its programs go when the network goes."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]):
        self._function, self._options = function, options

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._of(arguments)(*arguments, **keywords)

    def lower(self, *arguments: Any, **keywords: Any) -> Any:
        """As `jax.jit(…).lower`."""
        return self._of(arguments).lower(*arguments, **keywords)

    def _of(self, arguments: Any) -> Any:
        platform = jax.default_backend()
        key = self, platform
        programs = _programs_of(arguments)
        if key not in programs:

            @wraps(self._function)  # JAX keeps what it knows of a function while that lives
            def function(*arguments: Any, **keywords: Any) -> Any:
                return self._function(*arguments, **keywords)

            options = compiler_options(platform)
            programs[key] = jax.jit(function, compiler_options=options, **self._options)
        return programs[key]


def _programs_of(arguments: Any) -> dict[Any, Any]:
    """Where the programs of the first network among arguments are kept."""
    leaves = jax.tree.leaves(arguments, is_leaf=lambda one: isinstance(one, TracedNetwork))
    networks = (one for one in leaves if isinstance(one, TracedNetwork))
    network = next(networks, None)
    return _without_network if network is None else network.trace.compiled


_without_network: dict[Any, Any] = {}


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
