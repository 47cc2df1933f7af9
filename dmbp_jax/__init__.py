"""Disentangled Masked Backpropagation in JAX: signed attribution maps for ReLU networks.

Public names are listed here by hand and imported on first use, so that `import dmbp_jax` and
`dmbp --help` do not wait for JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dmbp_jax.version import __version__ as __version__

if TYPE_CHECKING:
    from dmbp_jax import convert as convert
    from dmbp_jax import data as data
    from dmbp_jax import errors as errors
    from dmbp_jax import experiments as experiments
    from dmbp_jax import methods as methods
    from dmbp_jax import metrics as metrics
    from dmbp_jax import models as models
    from dmbp_jax import pictures as pictures
    from dmbp_jax import runs as runs
    from dmbp_jax.dmbp.attribute import attribute as attribute
    from dmbp_jax.dmbp.attribution import Attribution as Attribution
    from dmbp_jax.dmbp.config import DMBP as DMBP
    from dmbp_jax.dmbp.decompose import Decomposition as Decomposition
    from dmbp_jax.dmbp.decompose import decompose as decompose
    from dmbp_jax.dmbp.decompose import init_masks as init_masks
    from dmbp_jax.dmbp.objective import Objective as Objective
    from dmbp_jax.graph.listing import sites as sites
    from dmbp_jax.graph.pieces import register_piece as register_piece
    from dmbp_jax.graph.program import Site as Site
    from dmbp_jax.networks.load import load as load
    from dmbp_jax.networks.network import Network as Network
    from dmbp_jax.networks.registry import list_networks as list_networks

_HOME = {
    "attribute": "dmbp_jax.dmbp.attribute",
    "Attribution": "dmbp_jax.dmbp.attribution",
    "DMBP": "dmbp_jax.dmbp.config",
    "Decomposition": "dmbp_jax.dmbp.decompose",
    "decompose": "dmbp_jax.dmbp.decompose",
    "init_masks": "dmbp_jax.dmbp.decompose",
    "Objective": "dmbp_jax.dmbp.objective",
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

__all__ = [*_HOME, *_SUBPACKAGES]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in _SUBPACKAGES:
        return import_module(f"dmbp_jax.{name}")
    raise AttributeError(f"module 'dmbp_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
