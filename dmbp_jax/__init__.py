"""Disentangled Masked Backpropagation in JAX: signed attribution maps for ReLU networks.

Public names are listed here by hand and imported on first use, so that `import dmbp_jax` and
`dmbp --help` do not wait for JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dmbp_jax import convert, data, errors, evaluate, methods, metrics, models, pictures
    from dmbp_jax.core.attribute import attribute
    from dmbp_jax.core.attribution import Attribution
    from dmbp_jax.core.config import DMBP
    from dmbp_jax.core.decomposition import Decomposition, decompose, init_masks
    from dmbp_jax.core.sites import Site, sites
    from dmbp_jax.network import Network, list_networks, load

_HOME = {
    "attribute": "dmbp_jax.core.attribute",
    "Attribution": "dmbp_jax.core.attribution",
    "DMBP": "dmbp_jax.core.config",
    "Decomposition": "dmbp_jax.core.decomposition",
    "decompose": "dmbp_jax.core.decomposition",
    "init_masks": "dmbp_jax.core.decomposition",
    "Site": "dmbp_jax.core.sites",
    "sites": "dmbp_jax.core.sites",
    "Network": "dmbp_jax.network",
    "load": "dmbp_jax.network",
    "list_networks": "dmbp_jax.network",
}
_SUBPACKAGES = ("convert", "data", "errors", "evaluate", "methods", "metrics", "models", "pictures")

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
    "evaluate",
    "init_masks",
    "list_networks",
    "load",
    "methods",
    "metrics",
    "models",
    "pictures",
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
