"""The paper's tables from Python: `evaluate`, its settings, and what it returns."""

from dmbp_jax.evaluate.contenders import NAMES as NAMES
from dmbp_jax.evaluate.contenders import TABLES as TABLES
from dmbp_jax.evaluate.contenders import Contender as Contender
from dmbp_jax.evaluate.evaluation import Evaluation as Evaluation
from dmbp_jax.evaluate.evaluation import evaluate as evaluate
from dmbp_jax.evaluate.journal import Record as Record
from dmbp_jax.evaluate.settings import Settings as Settings
from dmbp_jax.evaluate.tables import Cell as Cell
from dmbp_jax.evaluate.tables import ResultTable as ResultTable
from dmbp_jax.evaluate.tables import Row as Row
