"""The eleven methods the paper compares DMBP with, and DMBP itself, under one convention.

Every one is `f(params, x, label, *, apply_fn=None, key=None, chunk_size=None, **options)`.
"""

from collections.abc import Callable
from typing import Any

from dmbp_jax.methods.blur_ig import blur_ig
from dmbp_jax.methods.deeplift import deeplift
from dmbp_jax.methods.dmbp import dmbp
from dmbp_jax.methods.fullgrad import fullgrad
from dmbp_jax.methods.gradcam import gradcam
from dmbp_jax.methods.gradient import gradient
from dmbp_jax.methods.guided_backprop import guided_backprop
from dmbp_jax.methods.guided_gradcam import guided_gradcam
from dmbp_jax.methods.integrated_gradients import integrated_gradients
from dmbp_jax.methods.lpr import lpr
from dmbp_jax.methods.rise import rise
from dmbp_jax.methods.smoothgrad import smoothgrad

METHODS: dict[str, Callable[..., Any]] = {
    "gradient": gradient,
    "integrated_gradients": integrated_gradients,
    "smoothgrad": smoothgrad,
    "blur_ig": blur_ig,
    "deeplift": deeplift,
    "guided_backprop": guided_backprop,
    "guided_gradcam": guided_gradcam,
    "gradcam": gradcam,
    "fullgrad": fullgrad,
    "rise": rise,
    "lpr": lpr,
    "dmbp": dmbp,
}

__all__ = [
    "METHODS",
    "blur_ig",
    "deeplift",
    "dmbp",
    "fullgrad",
    "gradcam",
    "gradient",
    "guided_backprop",
    "guided_gradcam",
    "integrated_gradients",
    "lpr",
    "rise",
    "smoothgrad",
]
