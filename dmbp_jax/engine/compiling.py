"""How programs are compiled: on a CPU, convolutions and products by XLA itself, not by YNNPACK.

jaxlib 0.10 hands them to YNNPACK there, whose convolutions take up to twice as long as XLA's, and
which is set up anew for each of them when a program runs for the first time (docs/speed.md).
"""

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import jax

_OPTION = "xla_cpu_experimental_ynn_fusion_type"  # what goes to YNNPACK: nothing


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`jax.jit(function, **options)`, the same one for equal arguments.

    Not for use in a trace: JAX takes XLA's options from the outermost function only.

    Args:
      function: of a module, it is kept.
      options: of `jax.jit`, hashable.
    """
    return _compiled(function, tuple(sorted(options.items())), jax.default_backend())


@cache
def _compiled(
    function: Callable[..., Any], options: tuple[tuple[str, Any], ...], platform: str
) -> Callable[..., Any]:
    return jax.jit(function, compiler_options=compiler_options(platform), **dict(options))


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
