"""Disentangled Masked Backpropagation in JAX: signed attribution maps for ReLU networks.

Public names are listed here by hand and imported on first use, so that `import dmbp_jax` and
`dmbp --help` do not wait for JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dmbp_jax.version import __version__ as __version__

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
    from dmbp_jax.dmbp.decompose import Decomposition, decompose, init_masks
    from dmbp_jax.graph.listing import sites
    from dmbp_jax.graph.pieces import register_piece
    from dmbp_jax.graph.program import Site
    from dmbp_jax.networks.load import load
    from dmbp_jax.networks.network import Network
    from dmbp_jax.networks.registry import list_networks

_HOME = {
    "attribute": "dmbp_jax.dmbp.attribute",
    "Attribution": "dmbp_jax.dmbp.attribution",
    "DMBP": "dmbp_jax.dmbp.config",
    "Decomposition": "dmbp_jax.dmbp.decompose",
    "decompose": "dmbp_jax.dmbp.decompose",
    "init_masks": "dmbp_jax.dmbp.decompose",
    "Site": "dmbp_jax.graph.program",
    "sites": "dmbp_jax.graph.listing",
    "register_piece": "dmbp_jax.graph.pieces",
    "Network": "dmbp_jax.networks.network",
    "load": "dmbp_jax.networks.load",
    "list_networks": "dmbp_jax.networks.registry",
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
    "register_piece",
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
