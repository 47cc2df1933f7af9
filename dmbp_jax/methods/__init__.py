"""The eleven methods the paper compares DMBP with, and DMBP itself, under one convention.

Every one is `f(params, x, label, *, apply_fn=None, key=None, chunk_size=None, **options)` and a row
of `dmbp_jax.catalogue`. `params`, `x`, `label`, `apply_fn` and `chunk_size` are as in
`dmbp_jax.attribute`; `key` is read by the methods that draw random numbers.
"""

from collections.abc import Callable
from typing import Any

from dmbp_jax.catalogue import CATALOGUE
from dmbp_jax.methods.bias_gradients import fullgrad as fullgrad
from dmbp_jax.methods.gradients import gradient as gradient
from dmbp_jax.methods.gradients import smoothgrad as smoothgrad
from dmbp_jax.methods.guided import gradcam as gradcam
from dmbp_jax.methods.guided import guided_backprop as guided_backprop
from dmbp_jax.methods.guided import guided_gradcam as guided_gradcam
from dmbp_jax.methods.learned_weights import lpr as lpr
from dmbp_jax.methods.ours import dmbp as dmbp
from dmbp_jax.methods.paths import blur_ig as blur_ig
from dmbp_jax.methods.paths import integrated_gradients as integrated_gradients
from dmbp_jax.methods.random_masks import rise as rise
from dmbp_jax.methods.rescale import deeplift as deeplift

METHODS: dict[str, Callable[..., Any]] = {row.name: row.function for row in CATALOGUE}
