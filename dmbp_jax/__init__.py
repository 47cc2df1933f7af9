"""Disentangled Masked Backpropagation in JAX: signed attribution maps for ReLU networks.

Public names are listed here by hand and imported on first use, so that `import dmbp_jax` and
`dmbp --help` do not wait for JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dmbp_jax import (
        convert,
        data,
        errors,
        experiments,
        methods,
        metrics,
        models,
        pictures,
        runs,
    )
    from dmbp_jax.dmbp.attribute import attribute
    from dmbp_jax.dmbp.attribution import Attribution
    from dmbp_jax.dmbp.config import DMBP
    from dmbp_jax.dmbp.decomposition import Decomposition, decompose, init_masks
    from dmbp_jax.graph.graph import Site, sites
    from dmbp_jax.networks.network import Network, list_networks, load

_HOME = {
    "attribute": "dmbp_jax.dmbp.attribute",
    "Attribution": "dmbp_jax.dmbp.attribution",
    "DMBP": "dmbp_jax.dmbp.config",
    "Decomposition": "dmbp_jax.dmbp.decomposition",
    "decompose": "dmbp_jax.dmbp.decomposition",
    "init_masks": "dmbp_jax.dmbp.decomposition",
    "Site": "dmbp_jax.graph.graph",
    "sites": "dmbp_jax.graph.graph",
    "Network": "dmbp_jax.networks.network",
    "load": "dmbp_jax.networks.network",
    "list_networks": "dmbp_jax.networks.network",
}
_SUBPACKAGES = (
    "convert",
    "data",
    "errors",
    "experiments",
    "methods",
    "metrics",
    "models",
    "pictures",
    "runs",
)

__all__ = [
    "DMBP",
    "Attribution",
    "Decomposition",
    "Network",
    "Site",
    "attribute",
    "convert",
    "data",
    "decompose",
    "errors",
    "experiments",
    "init_masks",
    "list_networks",
    "load",
    "methods",
    "metrics",
    "models",
    "pictures",
    "runs",
    "sites",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in _SUBPACKAGES:
        return import_module(f"dmbp_jax.{name}")
    raise AttributeError(f"module 'dmbp_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
