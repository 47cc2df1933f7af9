"""What is read off the logits: a probability by softmax or sigmoid, and the network's first choice.

Methods that perturb images and all metrics ask the same questions of a network.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from dmbp_jax.checks import check_choice
from dmbp_jax.engine.chunks import in_chunks
from dmbp_jax.graph.model import ApplyFn, Model

PROBABILITIES = {"softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid}
LOG_PROBABILITIES = {"softmax": jax.nn.log_softmax, "sigmoid": jax.nn.log_sigmoid}


def find_activation(
    activation: str | None,
    params: Any,
    apply_fn: ApplyFn | None,
    choices: tuple[str, ...] = tuple(PROBABILITIES),
) -> str:
    """The given activation, else the network's own (`params.activation`), else softmax.

    Raises:
      InputTypeError, InputError: none of `choices`.
    """
    if activation is None:
        own = getattr(params, "activation", None) if apply_fn is None else None
        return own if isinstance(own, str) and own in choices else "softmax"
    return check_choice(activation, "activation", choices)


def first_choice(model: Model, x: jax.Array, chunk_size: int) -> jax.Array:
    """The network's top-1 label of every image, (N,) int32."""
    return in_chunks(partial(_top_labels, model), (x,), x.shape[0], chunk_size)


@jax.jit
def _top_labels(model: Model, x: jax.Array) -> jax.Array:
    return model(x).argmax(-1).astype(jnp.int32)
