"""The eleven methods the paper compares DMBP with, and DMBP itself, under one convention.

Every one is `f(params, x, label, *, apply_fn=None, key=None, chunk_size=None, **options)`, a file
of its own here and a row of `dmbp_jax.catalogue`.
"""

from collections.abc import Callable
from typing import Any

from dmbp_jax.catalogue import CATALOGUE
from dmbp_jax.methods.blur_ig import blur_ig as blur_ig
from dmbp_jax.methods.deeplift import deeplift as deeplift
from dmbp_jax.methods.dmbp import dmbp as dmbp
from dmbp_jax.methods.fullgrad import fullgrad as fullgrad
from dmbp_jax.methods.gradcam import gradcam as gradcam
from dmbp_jax.methods.gradient import gradient as gradient
from dmbp_jax.methods.guided_backprop import guided_backprop as guided_backprop
from dmbp_jax.methods.guided_gradcam import guided_gradcam as guided_gradcam
from dmbp_jax.methods.integrated_gradients import integrated_gradients as integrated_gradients
from dmbp_jax.methods.lpr import lpr as lpr
from dmbp_jax.methods.rise import rise as rise
from dmbp_jax.methods.smoothgrad import smoothgrad as smoothgrad

METHODS: dict[str, Callable[..., Any]] = {row.name: row.function for row in CATALOGUE}
