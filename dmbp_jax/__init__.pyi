# The public names, and where each comes from: read by type checkers, and when one is used first.
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
from dmbp_jax.graph.call import sites as sites
from dmbp_jax.graph.pieces import register_piece as register_piece
from dmbp_jax.graph.program import Site as Site
from dmbp_jax.networks.load import load as load
from dmbp_jax.networks.network import Network as Network
from dmbp_jax.networks.registry import list_networks as list_networks

__version__: str
