"""The paper's tables from Python: `evaluate`, its settings, and what it returns."""

from dmbp_jax.experiments.results import Record as Record
from dmbp_jax.experiments.rows import TABLES as TABLES
from dmbp_jax.experiments.rows import MethodRow as MethodRow
from dmbp_jax.experiments.rows import StoredRow as StoredRow
from dmbp_jax.experiments.rows import list_stored as list_stored
from dmbp_jax.experiments.rows import open_maps as open_maps
from dmbp_jax.experiments.run import evaluate as evaluate
from dmbp_jax.experiments.settings import Settings as Settings
from dmbp_jax.experiments.tables import Cell as Cell
from dmbp_jax.experiments.tables import Evaluation as Evaluation
from dmbp_jax.experiments.tables import ResultTable as ResultTable
from dmbp_jax.experiments.tables import Row as Row
