"""Large runs: resumable, exactly once, on one machine, a job array or Ray; and reading them.

What explains pictures is imported on first use: reading a store does not wait for JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dmbp_jax.runs.foreign import store_maps as store_maps
from dmbp_jax.runs.manifest import open_manifest as open_manifest
from dmbp_jax.runs.plan import Plan as Plan
from dmbp_jax.runs.plan import plan as plan
from dmbp_jax.runs.reader import Run as Run
from dmbp_jax.runs.reader import open as open
from dmbp_jax.runs.records import Part as Part
from dmbp_jax.runs.records import commit as commit
from dmbp_jax.runs.records import reopen as reopen
from dmbp_jax.runs.report import write_report as write_report
from dmbp_jax.runs.store import Store as Store

if TYPE_CHECKING:
    from dmbp_jax.runs.local import run_local as run_local
    from dmbp_jax.runs.ray import run_ray as run_ray
    from dmbp_jax.runs.worker import Worker as Worker

_HOME = {
    "Worker": "dmbp_jax.runs.worker",
    "run_local": "dmbp_jax.runs.local",
    "run_ray": "dmbp_jax.runs.ray",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
